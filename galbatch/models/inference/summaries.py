"""From the outputs of passes to the result columns of the objects they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.models.bundle.ensemble import Ensemble
from galbatch.models.inference.results import quantile_suffix
from galbatch.models.inference.sampling import RawPasses
from galbatch.models.metadata import BundleMetadata, ParameterInfo
from galbatch.models.networks.keys import member_keys
from galbatch.models.posterior import (
    Passes,
    Summary,
    correlation_of,
    quantities_of,
    summarize_draws,
    summarize_mixture,
)

__all__ = ["FEATURE_COLUMNS", "all_finite", "columns_of", "posterior_of", "slices_of"]

FEATURE_COLUMNS = ("feature_", "activation_", "frequency_")  # of SFNet; -1 or NaN where none fired
NUMBERS_AT_ONCE = (
    2**22
)  # outputs summarized together, 32 MB in float64: 1,000 passes of 900 bins are 0.9 million an object

Values = dict[str, npt.NDArray[Any]]
Keys = npt.NDArray[np.int64]


def columns_of(
    ensemble: Ensemble,
    raws: Sequence[RawPasses],
    keys: Sequence[Keys],
    *,
    method: str,
    quantiles: Sequence[float],
) -> Values:
    """Columns (object,), without the model's name; some objects at a time.

    Parameters
    ----------
    raws : of each bundle, with as many passes
    keys : of each bundle (object, pass)
    method : mixture or samples, as in ``[posterior]``
    quantiles : in (0, 1), rising
    """
    parts = [
        _columns_of_some(
            ensemble,
            [raw.rows(some) for raw in raws],
            [part[some] for part in keys],
            method=method,
            quantiles=quantiles,
        )
        for some in slices_of([raw.outputs for raw in raws])
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def slices_of(outputs: Sequence[npt.NDArray[np.float32]]) -> Iterator[slice]:
    """Objects whose outputs, of each bundle (object, pass, output), are worked on together."""
    n_objects = len(outputs[0])
    size = max(1, NUMBERS_AT_ONCE // sum(part[0].size for part in outputs))
    yield from (slice(start, start + size) for start in range(0, n_objects, size))


def posterior_of(
    ensemble: Ensemble,
    outputs: Sequence[npt.NDArray[np.float32]],
    keys: Sequence[Keys],
    *,
    method: str,
) -> tuple[Passes, npt.NDArray[np.float64] | None]:
    """The pooled passes, and the draws if these stand for the posterior: method samples, and point heads.

    Outputs that are not finite count as zeros: their objects have failed, and are left out afterwards.
    """
    numbers = [np.nan_to_num(part.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0) for part in outputs]
    passes = ensemble.passes(numbers)
    if method == "mixture" and not ensemble.is_point:
        return passes, None
    of_bundles = zip(ensemble.bundles, keys, strict=True)
    members = [member_keys(of_bundle, bundle.metadata.members) for bundle, of_bundle in of_bundles]
    return passes, passes.draws(np.concatenate(members, axis=1))


def _columns_of_some(
    ensemble: Ensemble,
    raws: list[RawPasses],
    keys: list[Keys],
    *,
    method: str,
    quantiles: Sequence[float],
) -> Values:
    passes, draws = posterior_of(ensemble, [raw.outputs for raw in raws], keys, method=method)
    metadata, levels = ensemble.metadata, np.asarray(quantiles)
    found: Values = {}
    errors = []
    for quantity in quantities_of(metadata.parameters):
        if draws is not None:
            summary = summarize_draws(draws, quantity, levels, passes=passes)
        else:
            summary = summarize_mixture(passes, quantity, levels)
        found |= _named(summary, quantity.name, quantiles)
        errors.append(summary.mc_error)
        if not quantity.is_magnitude and quantity.parameter.labels:
            found[f"{quantity.name}_label"] = _labels(
                summary.quantiles[:, levels == 0.5][:, 0], quantity.parameter
            )
    found["mc_error"] = np.max(errors, axis=0)
    found |= _correlations(metadata, passes)
    found |= _top_features(metadata, raws[0])
    return found if ensemble.has_posterior else _without_widths(found, metadata)


def _top_features(metadata: BundleMetadata, raw: RawPasses) -> Values:
    columns = zip(FEATURE_COLUMNS, (raw.top_index, raw.top_activation, raw.top_frequency), strict=True)
    return {
        f"{prefix}{rank}": column[:, rank]
        for prefix, column in columns
        if column is not None
        for rank in range(metadata.n_top_features)
    }


def _named(summary: Summary, name: str, levels: Sequence[float]) -> Values:
    quantiles = {
        f"{name}_{quantile_suffix(level)}": summary.quantiles[:, i] for i, level in enumerate(levels)
    }
    scalars = {f"{name}_{key}": getattr(summary, key) for key in ("mean", "std", "mode", "epistemic_std")}
    return {**quantiles, **scalars}


def _labels(median: npt.NDArray[np.float64], parameter: ParameterInfo) -> npt.NDArray[np.object_]:
    """(object,) text of the first label that fits the median; None: no label fits."""
    labels = np.full(len(median), None, dtype=object)
    for label in reversed(parameter.labels):
        low = -np.inf if label.at_least is None else label.at_least
        high = np.inf if label.at_most is None else label.at_most
        labels[(median >= low) & (median <= high)] = label.text
    return labels


def _correlations(metadata: BundleMetadata, passes: Passes) -> Values:
    correlation = correlation_of(passes.covariance())
    names = [parameter.name for parameter in metadata.parameters]
    return {
        f"corr_{names[i]}_{names[j]}": correlation[:, i, j]
        for i in range(len(names))
        for j in range(i + 1, len(names))
    }


def _without_widths(found: Values, metadata: BundleMetadata) -> Values:
    """Only the value itself: as median, mean and mode. Widths of one point would be inventions."""
    kept = tuple(
        f"{q.name}_{part}" for q in quantities_of(metadata.parameters) for part in ("q500", "mean", "mode")
    )
    return {
        key: column
        for key, column in found.items()
        if key in kept or key.startswith(FEATURE_COLUMNS) or key.endswith("_label")
    }


def all_finite(found: Values) -> npt.NDArray[np.bool_]:
    """(object,) whose numbers in the catalog are all finite, in float32."""
    good = np.ones(len(next(iter(found.values()))), bool)
    with np.errstate(over="ignore"):
        for key, column in found.items():
            if column.dtype.kind == "f" and not key.startswith(FEATURE_COLUMNS):
                good &= np.isfinite(column.astype(np.float32))
    return good
