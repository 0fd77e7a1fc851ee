"""From the outputs of passes to result columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from galbatch.config import DensityGrid
from galbatch.core.columns import (
    GRID_STATISTICS,
    HPD_STATISTICS,
    MC_ERROR,
    NO_TEXT,
    PARTS_STATISTICS,
    ColumnKey,
    Scope,
    Statistic,
)
from galbatch.core.photoz import GridDensities, density_peaks, highest_density_parts, shortest_intervals
from galbatch.models.bundle import Ensemble, EnsembleInfo
from galbatch.models.heads.device import passes_on_device, reads_tensors
from galbatch.models.inference.results import correlated_pairs
from galbatch.models.inference.sampling import RawPasses
from galbatch.models.inference.stopping import QuantileEstimate, estimate_quantiles
from galbatch.models.metadata import ParameterInfo
from galbatch.models.networks import member_keys
from galbatch.models.posterior import (
    Passes,
    PointPasses,
    Quantity,
    SolvedQuantiles,
    correlation_of,
    gridded_mass,
    quantities_of,
    summarize_draws,
    summarize_mixture,
)
from galbatch.models.posterior.devices.arrays import PassArray

__all__ = [
    "all_finite",
    "columns_of",
    "magnitudes_that_may_miss",
    "posterior_of",
    "quantity_values",
    "slices_of",
    "summarizes_on_device",
    "without_overflow",
]

# Outputs that are summarized at a time, 4 MB in float64: more objects at once are no faster. A binned head with 900 bins has 0.9 million of
# them per object in 1,000 passes.
NUMBERS_AT_ONCE = 2**19

Values = dict[ColumnKey, npt.NDArray[Any]]
Keys = npt.NDArray[np.int64]


def columns_of(
    ensemble: Ensemble,
    raws: Sequence[RawPasses],
    keys: Sequence[Keys],
    *,
    method: str,
    quantiles: Sequence[float],
    estimate: QuantileEstimate | None = None,
) -> Values:
    """Return the result columns (object,) that can be computed from passes alone.

    These are all but the number of passes, the flags, and the distance from the domain. A network without a posterior gives a
    value only, as median, mean and mode: a single point has no widths.

    Parameters
    ----------
    ensemble : network
    raws : what each bundle computed, with the same number of passes
    keys : one array (object, pass) int64 per bundle
    method : mixture or samples, as in ``[posterior]``
    quantiles : levels in (0, 1), rising
    estimate : estimate of these quantiles from all these passes, whose errors the catalog states; None: it is made here
    """
    parts = [
        _columns_of_some(
            ensemble,
            [raw.rows(some) for raw in raws],
            [part[some] for part in keys],
            method=method,
            quantiles=quantiles,
            estimate=None if estimate is None else estimate.rows(some),
        )
        for some in slices_of([raw.outputs for raw in raws])
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def slices_of(outputs: Sequence[PassArray]) -> Iterator[slice]:
    """Yield slices of objects that are summarized at a time, for one array (object, pass, output) per bundle."""
    n_objects = len(outputs[0])
    size = max(1, NUMBERS_AT_ONCE // sum(math.prod(part.shape[1:]) for part in outputs))
    yield from (slice(start, start + size) for start in range(0, n_objects, size))


def posterior_of(
    ensemble: Ensemble,
    outputs: Sequence[PassArray],
    keys: Sequence[Keys],
    *,
    method: str,
) -> tuple[Passes, npt.NDArray[np.float64] | None]:
    """Return the pooled passes, and draws (object, pass, parameter) if these represent the posterior, else None.

    They do with method samples, and for point heads. Outputs that are tensors, as `summarizes_on_device` allows, stay on their device.
    """
    # Zeros for outputs that are not finite, so that one failed object does not stop the others; it gets no values afterwards.
    tensors = [
        torch.nan_to_num(part, nan=0.0, posinf=0.0, neginf=0.0)
        for part in outputs
        if isinstance(part, Tensor)
    ]
    if tensors:
        return passes_on_device(ensemble.output_infos, tensors), None
    arrays = [part for part in outputs if not isinstance(part, Tensor)]
    numbers = [np.nan_to_num(part.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0) for part in arrays]
    passes = ensemble.passes(numbers)
    if method == "mixture" and not ensemble.is_point:
        return passes, None
    pairs = zip(ensemble.bundles, keys, strict=True)
    # (object, member x pass), in the order of the pooled passes.
    members = [member_keys(part, bundle.metadata.n_shares) for bundle, part in pairs]
    return passes, passes.draws(np.concatenate(members, axis=1))


def summarizes_on_device(ensemble: EnsembleInfo, *, device: str, method: str) -> bool:
    """Return whether the outputs of passes stay on the device, where their quantiles, errors and moments are computed.

    On a CPU they are arrays. Draws are made on the host, and heads other than Gaussians are read there.
    """
    return device != "cpu" and method == "mixture" and reads_tensors(ensemble.output_infos)


def _columns_of_some(
    ensemble: Ensemble,
    raws: list[RawPasses],
    keys: list[Keys],
    *,
    method: str,
    quantiles: Sequence[float],
    estimate: QuantileEstimate | None,
) -> Values:
    """Return the columns of a few objects; parameters as for `columns_of`."""
    passes, draws = posterior_of(ensemble, [raw.outputs for raw in raws], keys, method=method)
    metadata = ensemble.metadata
    if ensemble.is_vector:
        (parameter,) = metadata.parameters
        vector = {ColumnKey(Statistic.VECTOR, parameter.name): passes.mean.mean(axis=1)}
        return vector | _feature_values(raws[0], metadata.n_top_features)
    quantities = quantities_of(metadata.parameters)
    if estimate is None:
        estimate = estimate_quantiles(passes, quantities, quantiles, draws=draws, allows_jumps=False)
    found: Values = {MC_ERROR: estimate.mc_error}
    for number, quantity in enumerate(quantities):
        found |= quantity_values(
            passes, draws, quantity=quantity, levels=quantiles, solved=estimate.solved(number)
        )
    posterior = passes if draws is None else PointPasses(draws, passes.n_members)
    for grid in ensemble.densities:
        found |= _grid_values(posterior, grid, metadata.parameters)
    found |= _correlation_values(passes, metadata.parameters)
    found |= _feature_values(raws[0], metadata.n_top_features)
    if ensemble.has_posterior:
        return found
    # Without a posterior only the value itself is left, under three names, and the features.
    point = (Statistic.MEAN, Statistic.MODE, Statistic.LABEL)
    return {
        key: column
        for key, column in found.items()
        if key.statistic.scope is Scope.RANK or key.level == 0.5 or key.statistic in point
    }


def _correlation_values(passes: Passes, parameters: Sequence[ParameterInfo]) -> Values:
    """Return the columns of the correlations that the catalog has."""
    number = {parameter.name: i for i, parameter in enumerate(parameters)}
    # Of many parameters the covariance is large, and no column has it.
    if not (pairs := list(correlated_pairs(parameters))):
        return {}
    correlation = correlation_of(passes.covariance())  # (object, parameter, parameter)
    return {
        ColumnKey(Statistic.CORRELATION, first, second): correlation[:, number[first], number[second]]
        for first, second in pairs
    }


def quantity_values(
    passes: Passes,
    draws: npt.NDArray[np.float64] | None,
    *,
    quantity: Quantity,
    levels: Sequence[float],
    solved: SolvedQuantiles | None = None,
) -> Values:
    """Return one quantity's columns (object,), its label among them.

    The posterior is that of `posterior_of`: draws, or without them the mixture of the passes.
    """
    summary = (
        summarize_mixture(passes, quantity, levels, solved=solved)
        if draws is None
        else summarize_draws(draws, quantity, levels, passes=passes, solved=solved)
    )
    found: Values = {
        ColumnKey(Statistic.QUANTILE, quantity.name, level=level): summary.quantiles[:, i]
        for i, level in enumerate(levels)
    } | {
        ColumnKey(Statistic.MEAN, quantity.name): summary.mean,
        ColumnKey(Statistic.STD, quantity.name): summary.std,
        ColumnKey(Statistic.MODE, quantity.name): summary.mode,
        ColumnKey(Statistic.EPISTEMIC_STD, quantity.name): summary.epistemic_std,
    }
    if not quantity.is_magnitude and quantity.parameter.labels:
        median = summary.quantiles[:, list(levels).index(0.5)]
        labels = np.full(len(median), NO_TEXT, dtype=object)  # where no label fits
        # From the last to the first, so that the first label that fits overwrites the others.
        for label in reversed(quantity.parameter.labels):
            low = -np.inf if label.at_least is None else label.at_least
            high = np.inf if label.at_most is None else label.at_most
            labels[(median >= low) & (median <= high)] = label.text
        found[ColumnKey(Statistic.LABEL, quantity.name)] = labels
    return found


def _grid_values(posterior: Passes, grid: DensityGrid, parameters: Sequence[ParameterInfo]) -> Values:
    """Return the columns of the density of a parameter on a grid, (object,) each, the density (object, bin)."""
    (quantity,) = [one for one in quantities_of(parameters) if one.name == grid.parameter]
    edges = np.linspace(grid.low, grid.high, grid.bins + 1)
    densities = GridDensities(edges, gridded_mass(posterior.marginal(quantity.index), quantity, edges))
    found: Values = {
        ColumnKey(Statistic.DENSITY, quantity.name): densities.density,
        ColumnKey(Statistic.PEAKS, quantity.name): density_peaks(densities.density),
    }
    for level, statistics in HPD_STATISTICS.items():
        ends = shortest_intervals(edges, densities.mass, level)
        found |= {ColumnKey(one, quantity.name): ends[:, i] for i, one in enumerate(statistics)}
    for level, statistic in PARTS_STATISTICS.items():
        parts = highest_density_parts(edges, densities.mass, level)
        found[ColumnKey(statistic, quantity.name)] = parts
    return found


def _feature_values(raw: RawPasses, n_features: int) -> Values:
    """Return the columns of the features that fired in an SFNet; no columns for other networks."""
    columns = {
        Statistic.FEATURE: raw.top_index,
        Statistic.ACTIVATION: raw.top_activation,
        Statistic.FREQUENCY: raw.top_frequency,
    }
    return {
        ColumnKey(statistic, rank=rank): column[:, rank]
        for statistic, column in columns.items()
        if column is not None
        for rank in range(n_features)
    }


def magnitudes_that_may_miss(parameters: Sequence[ParameterInfo]) -> set[str]:
    """Return the names of the magnitudes whose flux can be 0, where they have no values."""
    return {one.name for one in quantities_of(parameters) if one.zero_output is not None}


MOMENTS = (Statistic.MEAN, Statistic.STD, Statistic.EPISTEMIC_STD)


def without_overflow(found: Values) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Return the columns with NaN for moments that the catalog's float32 does not hold, and which objects have any, (object,) bool.

    A wide posterior of ln or log10 may have an infinite mean, and quantiles that are right. Where a median is not finite either,
    nothing is taken away: the object has failed, as `all_finite` says.
    """
    overflows, kept = np.zeros(len(next(iter(found.values()))), bool), dict(found)
    for key, column in found.items():
        if key.statistic in MOMENTS:
            median = found[ColumnKey(Statistic.QUANTILE, key.quantity, level=0.5)]
            with np.errstate(over="ignore"):
                infinite = ~np.isfinite(column.astype(np.float32)) & np.isfinite(median.astype(np.float32))
            # A magnitude whose flux can be 0 has no value by intention, and no median.
            kept[key] = np.where(infinite, np.nan, column)
            overflows |= infinite
    return kept, overflows


def all_finite(found: Values, *, may_miss: Set[str] = frozenset()) -> npt.NDArray[np.bool_]:
    """Return which objects have only finite numbers in the catalog's float32, (object,) bool; features and moments may be NaN.

    Parameters
    ----------
    found : result columns (object,), of a vector (object, number)
    may_miss : names of quantities that may be NaN, too
    """
    # A number beyond 3.4e38 is finite in float64, and infinite in the catalog.
    good = np.ones(len(next(iter(found.values()))), bool)
    with np.errstate(over="ignore"):
        for key, column in found.items():
            # The ends of an interval are missing where less than its probability lies on the grid.
            if (
                column.dtype.kind == "f"
                and key.statistic.scope is not Scope.RANK
                and key.statistic not in GRID_STATISTICS
            ):
                # A vector is of one piece.
                is_good = np.isfinite(column.astype(np.float32)).reshape(len(good), -1).all(axis=1)
                may_be_nan = key.quantity in may_miss or key.statistic in MOMENTS
                good &= is_good | np.isnan(column) if may_be_nan else is_good
    return good
