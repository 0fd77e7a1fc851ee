"""The result columns of a network, in the catalog's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING

from galbatch.config import DensityGrid
from galbatch.core.columns import (
    CASE,
    DISAGREEMENT,
    EMBEDDING,
    GRID_STATISTICS,
    IDENTITY,
    MC_ERROR,
    MODEL_FLAGS,
    OOD_DISTANCE,
    PARTS_STATISTICS,
    PASSES,
    Column,
    ColumnKey,
    ResultColumn,
    Statistic,
    quantity_column,
)
from galbatch.core.ucds import quantity_ucd
from galbatch.models.inference.dereddening import CaseInfo, dereddened_columns
from galbatch.models.metadata import BundleMetadata, ParameterInfo
from galbatch.models.posterior import Quantity, quantities_of

if TYPE_CHECKING:
    from galbatch.models.bundle import Embedding, EnsembleInfo  # planning reads INFER_VERSION alone

__all__ = [
    "INFER_VERSION",
    "correlated_pairs",
    "differing_columns",
    "draw_columns",
    "network_columns",
    "prior_column",
    "result_columns",
]

INFER_VERSION = 13
"""The version of the code that computes results; it is increased whenever numbers in the catalog change."""

EXTINCTION = "not corrected for Galactic extinction"

SCALARS = (Statistic.MEAN, Statistic.STD, Statistic.MODE, Statistic.EPISTEMIC_STD)
"""The statistics of each quantity, whose columns follow those of its quantiles."""


COUNTS = (Statistic.PEAKS, *PARTS_STATISTICS.values())
"""The statistics of a density that are numbers of something, without a unit."""

MAY_BE_MISSING = (OOD_DISTANCE, DISAGREEMENT)
"""Columns that not all cases of a model need to have."""

MOST_CORRELATED = 8
"""Parameters up to which there are columns of their correlations: 28 of them; a network of 34 would have 561."""


def network_columns(
    ensemble: EnsembleInfo,
    *,
    name: str,
    quantiles: Sequence[float],
    cases: Sequence[CaseInfo] = (),
    a_b: Mapping[str, float] = MappingProxyType({}),
) -> list[ResultColumn]:
    """Return the result columns of a model, as `result_columns`, from its network or that of its first case."""
    found = result_columns(
        ensemble.metadata,
        name=name,
        quantiles=quantiles,
        has_posterior=ensemble.has_posterior,
        embedding=ensemble.embedding,
        densities=ensemble.densities,
        cases=cases,
    )
    # Before identity and flags, which end a model's columns.
    dered = dereddened_columns(cases, name=name, quantiles=quantiles, a_b=a_b) if cases else []
    return [*found[:-2], *dered, *found[-2:]]


def result_columns(
    metadata: BundleMetadata,
    *,
    name: str,
    quantiles: Sequence[float],
    has_posterior: bool = True,
    embedding: Embedding | None = None,
    densities: Sequence[DensityGrid] = (),
    cases: Sequence[CaseInfo] = (),
) -> list[ResultColumn]:
    """Return the result columns of one model: those of each quantity, of the whole model, of features, and last the flags.

    Parameters
    ----------
    metadata : metadata of the bundle, or of that of the first case
    name : name of the model in the run, which is the prefix of the columns
    quantiles : levels of the quantiles, in (0, 1), rising
    has_posterior : whether the network gives a posterior, not single values alone
    embedding : the column of the last features; None: there is none
    densities : grids on which densities of parameters are columns
    cases : the model's network or networks, which descriptions name the observed bands of; empty: bands as in the metadata
    """
    columns: list[ResultColumn] = []
    ucds = {}
    observed = _observed(cases or (CaseInfo("", metadata, metadata.input.all_bands),))
    for quantity in quantities_of(metadata.parameters):
        # A quantity that is observed in several bands is of none of them.
        ucds[quantity.name] = _ucd(quantity, metadata, in_one_band=len({one.bands for one in cases}) <= 1)
        columns += _quantity_columns(
            quantity, name, quantiles, ucd=ucds[quantity.name], observed=observed, length=metadata.head.length
        )
        for grid in densities:
            if grid.parameter == quantity.name:
                columns += _grid_columns(quantity, name, grid, ucd=ucds[quantity.name])
    for first, second in correlated_pairs(metadata.parameters) if has_posterior else ():
        pair = (ucds[first], ucds[second])
        columns.append(ColumnKey(Statistic.CORRELATION, first, second).column(name, ucds=pair))
    columns += [PASSES.column(name), MC_ERROR.column(name)]
    limits = {one.metadata.domain.distance_limit for one in cases} or {metadata.domain.distance_limit}
    if limits != {None}:
        limit = limits.pop() if len(limits) == 1 else None
        columns.append(
            OOD_DISTANCE.column(name, limit="that of its case" if limit is None else f"{limit:.4g}")
        )
    if any(one.metadata.disagreement is not None for one in cases) or metadata.disagreement is not None:
        columns.append(DISAGREEMENT.column(name))
    for statistic in (Statistic.FEATURE, Statistic.ACTIVATION, Statistic.FREQUENCY):
        keys = (ColumnKey(statistic, rank=rank) for rank in range(metadata.n_top_features))
        columns += [key.column(name, n_features=metadata.n_top_features) for key in keys]
    if embedding is not None:
        plain = EMBEDDING.column(name, dtype=embedding.dtype)
        columns.append(replace(plain, dtype=embedding.dtype, length=embedding.length))
    # The flags come last: readers of a catalog find by them where the columns of a model end.
    if any(one.case for one in cases):
        columns.append(CASE.column(name, cases=", ".join(one.case for one in cases)))
    return [*columns, IDENTITY.column(name), MODEL_FLAGS.column(name)]


def correlated_pairs(parameters: Sequence[ParameterInfo]) -> Iterator[tuple[str, str]]:
    """Yield the names of each pair of parameters whose correlation is in the catalog; none of more than `MOST_CORRELATED`."""
    if len(parameters) <= MOST_CORRELATED:
        yield from combinations([parameter.name for parameter in parameters], 2)


def _quantity_columns(
    quantity: Quantity, name: str, levels: Sequence[float], *, ucd: str, observed: str, length: int
) -> Iterator[ResultColumn]:
    """Yield the columns of one quantity: quantiles, other statistics, and the label of a parameter that has labels; of a vector itself.

    `length` is that of a vector; 0: it is a number.
    """
    what = f"{_described(quantity)}{observed}"
    if length:
        vector = ColumnKey(Statistic.VECTOR, quantity.name)
        plain = vector.column(name, unit=quantity.unit, ucds=(ucd,), what=what, length=length)
        yield replace(plain, length=length)
        return
    keys = [ColumnKey(Statistic.QUANTILE, quantity.name, level=level) for level in levels]
    keys += [ColumnKey(statistic, quantity.name) for statistic in SCALARS]
    yield from (key.column(name, unit=quantity.unit, ucds=(ucd,), what=what) for key in keys)
    if quantity.parameter.labels and not quantity.is_magnitude:
        labels = ", ".join(label.text for label in quantity.parameter.labels)
        yield ColumnKey(Statistic.LABEL, quantity.name).column(name, ucds=(ucd,), what=what, labels=labels)


def _grid_columns(quantity: Quantity, name: str, grid: DensityGrid, *, ucd: str) -> Iterator[ResultColumn]:
    """Yield the columns of the density of a quantity on a grid: the density, ends of shortest intervals, number of peaks."""
    words = {"n_bins": grid.bins, "low": grid.low, "high": grid.high, "what": _described(quantity)}
    for statistic in GRID_STATISTICS:
        key = ColumnKey(statistic, quantity.name)
        if statistic is Statistic.DENSITY:
            plain = key.column(name, unit=_inverse(quantity.unit), ucds=(ucd,), **words)
            yield replace(plain, length=grid.bins, grid=(grid.low, grid.high))
        else:
            yield key.column(name, unit="" if statistic in COUNTS else quantity.unit, ucds=(ucd,), **words)


def _inverse(unit: str) -> str:
    """Return the unit of a density per `unit` in the VOUnits syntax."""
    return f"{unit}**-1" if unit else ""


def draw_columns(metadata: BundleMetadata, *, name: str) -> dict[str, Column]:
    """Return the columns of a table of joint draws, by the name of the quantity; missing draws are NaN.

    Parameters
    ----------
    metadata : metadata of the bundle
    name : name of the network in the run, which is the prefix of the columns
    """
    return {
        quantity.name: Column(
            quantity_column(name, quantity.name),
            "float64",
            quantity.unit,
            f"draw from the joint posterior of {name}: {_described(quantity)}",
            _ucd(quantity, metadata),
        )
        for quantity in quantities_of(metadata.parameters)
    }


def prior_column(name: str) -> Column:
    """Return the column of the prior's density in a table of joint draws of the network `name`."""
    return Column(
        quantity_column(name, "log_prior"),
        "float64",
        "",
        f"natural logarithm of the density of the training labels of {name} at the draw, of its parameters together, without magnitudes, "
        "per product of their units; null where the bundle does not state it",
        "stat.likelihood",
    )


def differing_columns(cases: Sequence[CaseInfo]) -> list[str]:
    """Return names of columns that not all cases of a model have in the same unit, so that they cannot fill one set; empty if they can.

    ``<model>_ood_distance`` and ``<model>_disagreement`` are none of them: they are missing where a case's bundle does not know.
    """
    found = []
    for one in cases:
        columns = result_columns(one.metadata, name="", quantiles=(0.5,))
        found.append({(c.name, c.unit, c.key.rank is None) for c in columns if c.key not in MAY_BE_MISSING})
    differing = {one for own in found[1:] for one in own ^ found[0]}
    # Those of parameters come first: features are many, and follow from the kind of network.
    return list(dict.fromkeys(name for name, _, _ in sorted(differing, key=lambda one: (not one[2], one[0]))))


def _observed(cases: Sequence[CaseInfo]) -> str:
    """Return ", observed in" and the bands, with the case where there are several; "" of networks that take columns alone."""
    texts = [
        f"{'+'.join(one.bands)}{f' (case {one.case})' if one.case else ''}" for one in cases if one.bands
    ]
    if not texts:
        return ""
    bands = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"
    return f", observed in {bands}"


def _ucd(quantity: Quantity, metadata: BundleMetadata, *, in_one_band: bool = True) -> str:
    """Return the UCD that the bundle states of a quantity, or that which follows from name, unit and bands."""
    stated = "" if quantity.is_magnitude else quantity.parameter.ucd
    return stated or quantity_ucd(
        quantity.name, quantity.unit, metadata.input.all_bands if in_one_band else ()
    )


def _described(quantity: Quantity) -> str:
    what = quantity.parameter.description or quantity.parameter.name
    if quantity.is_magnitude:
        return f"AB magnitude of {what}, {EXTINCTION}"
    return f"{what}, {EXTINCTION}" if quantity.unit in ("nJy", "mag") else what
