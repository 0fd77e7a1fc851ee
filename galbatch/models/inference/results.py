"""The columns a network fills: names, types, units, descriptions."""

from __future__ import annotations

from collections.abc import Iterator

from galbatch.config import PosteriorConfig
from galbatch.core.columns import Column
from galbatch.models.metadata import BundleMetadata
from galbatch.models.posterior import Quantity, quantities_of

__all__ = ["INFER_VERSION", "quantile_suffix", "result_columns"]

INFER_VERSION = 4
"""Raised when the numbers in the catalog change."""

NO_VALUE = "NaN: no value, the flags say why"
EXTINCTION = "not corrected for Galactic extinction"
ROUND_OFF_DIGITS = 10


def quantile_suffix(level: float) -> str:
    """The digits after "0.", three at least: 0.5 is q500, 0.15865 is q15865, 0.02275 is q02275."""
    digits = f"{level:.{ROUND_OFF_DIGITS}f}".split(".")[1].rstrip("0")
    return f"q{digits.ljust(3, '0')}"


def result_columns(metadata: BundleMetadata, *, name: str, posterior: PosteriorConfig) -> list[Column]:
    """Columns of one network, in the catalog's order.

    Parameters
    ----------
    metadata : of the bundle
    name : of the network in the run, the columns' prefix
    posterior : its quantiles are columns
    """
    columns: list[Column] = []
    for quantity in quantities_of(metadata.parameters):
        columns += _quantity_columns(quantity, name, posterior)
    columns += _correlation_columns(metadata, name)
    columns += [
        Column(
            f"{name}_passes",
            "int32",
            "",
            "Monte Carlo dropout passes of each network of the model; 0: none, the flags say why",
        ),
        Column(
            f"{name}_mc_error",
            "float32",
            "",
            f"largest Monte Carlo error of a quantile, in posterior standard deviations; {NO_VALUE}",
        ),
    ]
    columns += _domain_columns(metadata, name) + list(_feature_columns(metadata, name))
    bits = "bits: see galbatch.types.ModelFlag"
    return [
        *columns,
        Column(f"{name}_flags", "int32", "", f"what {name} says of its own values; {bits}", "meta.code"),
    ]


def _quantity_columns(quantity: Quantity, name: str, posterior: PosteriorConfig) -> list[Column]:
    prefix, what = f"{name}_{quantity.name}", _description(quantity)
    unit = "mag" if quantity.is_magnitude else quantity.parameter.unit
    described = [
        *(
            (
                quantile_suffix(level),
                f"posterior quantile {level:g} of {what}",
                "stat.median" if level == 0.5 else "",
            )
            for level in posterior.quantiles
        ),
        ("mean", f"posterior mean of {what}", "stat.mean"),
        ("std", f"posterior standard deviation of {what}", "stat.stdev"),
        ("mode", f"most probable value of {what}", ""),
        ("epistemic_std", f"standard deviation over passes of a pass's mean of {what}", ""),
    ]
    columns = [
        Column(f"{prefix}_{suffix}", "float32", unit, f"{text}; {NO_VALUE}", ucd)
        for suffix, text, ucd in described
    ]
    if quantity.parameter.labels and not quantity.is_magnitude:
        words = ", ".join(label.text for label in quantity.parameter.labels)
        columns.append(
            Column(f"{prefix}_label", "string", "", f"word for the median of {what}: {words}; null: none")
        )
    return columns


def _description(quantity: Quantity) -> str:
    text = quantity.parameter.description or quantity.parameter.name
    if quantity.is_magnitude:
        return f"AB magnitude of {text}, {EXTINCTION}"
    if quantity.parameter.unit in ("nJy", "mag"):
        return f"{text}, {EXTINCTION}"
    return text


def _correlation_columns(metadata: BundleMetadata, name: str) -> list[Column]:
    return [
        Column(
            f"{name}_corr_{first.name}_{second.name}",
            "float32",
            "",
            f"posterior correlation of the transformed {first.name} and {second.name}; {NO_VALUE}",
            "stat.correlation",
        )
        for i, first in enumerate(metadata.parameters)
        for second in metadata.parameters[i + 1 :]
    ]


def _domain_columns(metadata: BundleMetadata, name: str) -> list[Column]:
    limit = metadata.domain.distance_limit
    if limit is None:
        return []
    text = (
        "Mahalanobis distance of the network's last features from those of its training set, over the bundle's limit "
        f"({limit:.4g}): above 1 the object is OUT_OF_DOMAIN; {NO_VALUE}"
    )
    return [Column(f"{name}_ood_distance", "float32", "", text)]


def _feature_columns(metadata: BundleMetadata, name: str) -> Iterator[Column]:
    for rank in range(metadata.n_top_features):
        text = (
            f"number of the feature of rank {rank} in the pass without dropout; -1: none fired, or no value"
        )
        yield Column(f"{name}_feature_{rank}", "int16", "", text)
    for rank in range(metadata.n_top_features):
        text = f"activation of the feature of rank {rank} in the pass without dropout; NaN: none fired, or no value"
        yield Column(f"{name}_activation_{rank}", "float32", "", text)
    for rank in range(metadata.n_top_features):
        text = (
            f"share of the passes in which the feature of rank {rank} was among the {metadata.n_top_features} that "
            "fired; NaN: none fired, no value, or a bundle that does not tell"
        )
        yield Column(f"{name}_frequency_{rank}", "float32", "", text)
