"""The result columns of a network, in the catalog's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from galbatch.config import DensityGrid
from galbatch.core.columns import (
    EMBEDDING,
    GRID_STATISTICS,
    IDENTITY,
    MC_ERROR,
    MODEL_FLAGS,
    OOD_DISTANCE,
    PASSES,
    Column,
    ColumnKey,
    ResultColumn,
    Statistic,
    quantity_column,
)
from galbatch.core.ucds import quantity_ucd
from galbatch.models.bundle import Embedding, Ensemble
from galbatch.models.metadata import BundleMetadata, ParameterInfo
from galbatch.models.posterior import Quantity, quantities_of

__all__ = ["INFER_VERSION", "correlated_pairs", "draw_columns", "network_columns", "result_columns"]

INFER_VERSION = 9
"""The version of the code that computes results; it is increased whenever numbers in the catalog change."""

EXTINCTION = "not corrected for Galactic extinction"

SCALARS = (Statistic.MEAN, Statistic.STD, Statistic.MODE, Statistic.EPISTEMIC_STD)
"""The statistics of each quantity, whose columns follow those of its quantiles."""


MOST_CORRELATED = 8
"""Parameters up to which there are columns of their correlations: 28 of them; a network of 34 would have 561."""


def network_columns(ensemble: Ensemble, *, name: str, quantiles: Sequence[float]) -> list[ResultColumn]:
    """Return the result columns of a network, as `result_columns`."""
    return result_columns(
        ensemble.metadata,
        name=name,
        quantiles=quantiles,
        has_posterior=ensemble.has_posterior,
        embedding=ensemble.embedding,
        densities=ensemble.densities,
    )


def result_columns(
    metadata: BundleMetadata,
    *,
    name: str,
    quantiles: Sequence[float],
    has_posterior: bool = True,
    embedding: Embedding | None = None,
    densities: Sequence[DensityGrid] = (),
) -> list[ResultColumn]:
    """Return the result columns of one network: those of each quantity, of the whole model, of features, and last the flags.

    Parameters
    ----------
    metadata : metadata of the bundle
    name : name of the network in the run, which is the prefix of the columns
    quantiles : levels of the quantiles, in (0, 1), rising
    has_posterior : whether the network gives a posterior, not single values alone
    embedding : the column of the last features; None: there is none
    densities : grids on which densities of parameters are columns
    """
    columns: list[ResultColumn] = []
    ucds = {}
    for quantity in quantities_of(metadata.parameters):
        ucds[quantity.name] = _ucd(quantity, metadata)
        columns += _quantity_columns(quantity, name, quantiles, ucd=ucds[quantity.name])
        for grid in densities:
            if grid.parameter == quantity.name:
                columns += _grid_columns(quantity, name, grid, ucd=ucds[quantity.name])
    for first, second in correlated_pairs(metadata.parameters) if has_posterior else ():
        pair = (ucds[first], ucds[second])
        columns.append(ColumnKey(Statistic.CORRELATION, first, second).column(name, ucds=pair))
    columns += [PASSES.column(name), MC_ERROR.column(name)]
    if (limit := metadata.domain.distance_limit) is not None:
        columns.append(OOD_DISTANCE.column(name, limit=limit))
    for statistic in (Statistic.FEATURE, Statistic.ACTIVATION, Statistic.FREQUENCY):
        keys = (ColumnKey(statistic, rank=rank) for rank in range(metadata.n_top_features))
        columns += [key.column(name, n_features=metadata.n_top_features) for key in keys]
    if embedding is not None:
        plain = EMBEDDING.column(name, dtype=embedding.dtype)
        columns.append(replace(plain, dtype=embedding.dtype, length=embedding.length))
    # The flags come last: readers of a catalog find by them where the columns of a model end.
    return [*columns, IDENTITY.column(name), MODEL_FLAGS.column(name)]


def correlated_pairs(parameters: Sequence[ParameterInfo]) -> Iterator[tuple[str, str]]:
    """Yield the names of each pair of parameters whose correlation is in the catalog; none of more than `MOST_CORRELATED`."""
    if len(parameters) <= MOST_CORRELATED:
        yield from combinations([parameter.name for parameter in parameters], 2)


def _quantity_columns(
    quantity: Quantity, name: str, levels: Sequence[float], *, ucd: str
) -> Iterator[ResultColumn]:
    """Yield the columns of one quantity: quantiles, other statistics, and the label of a parameter that has labels."""
    what = _described(quantity)
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
            yield key.column(
                name, unit="" if statistic is Statistic.PEAKS else quantity.unit, ucds=(ucd,), **words
            )


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


def _ucd(quantity: Quantity, metadata: BundleMetadata) -> str:
    """Return the UCD that the bundle states of a quantity, or that which follows from name, unit and bands."""
    stated = "" if quantity.is_magnitude else quantity.parameter.ucd
    return stated or quantity_ucd(quantity.name, quantity.unit, metadata.input.bands)


def _described(quantity: Quantity) -> str:
    what = quantity.parameter.description or quantity.parameter.name
    if quantity.is_magnitude:
        return f"AB magnitude of {what}, {EXTINCTION}"
    return f"{what}, {EXTINCTION}" if quantity.unit in ("nJy", "mag") else what
