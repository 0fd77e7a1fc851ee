"""Summaries of a quantity's posterior for the catalog: quantiles, mean, std, mode, epistemic_std.

For any head the posterior is a mixture over passes. With method `samples` it is represented by one draw from each pass, as in
the GaMPEN paper; the passes of a point head are such draws.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from galbatch.models.posterior.devices import statistics_of
from galbatch.models.posterior.draws import draws_quantiles, kernel_mode
from galbatch.models.posterior.marginal import NO_LIMITS, Floats, Marginal
from galbatch.models.posterior.mode import FAR, mixture_mode
from galbatch.models.posterior.passes import Passes
from galbatch.models.posterior.points import PointPasses
from galbatch.models.posterior.positive import MOST_NOT_POSITIVE, positive_part
from galbatch.models.posterior.quantiles import parts_of, quantile_error
from galbatch.models.posterior.quantity import Quantity
from galbatch.models.posterior.transforms import output_limits, steepness

__all__ = ["SolvedQuantiles", "Summary", "summarize_draws", "summarize_mixture"]

# The number of quadrature points by the largest standard deviation of a component after the transform, as a change of ln(value).
# Relative errors of means and standard deviations: 1e-9 up to 0.5, 4e-7 up to 1.25, 1e-6 up to 2, 1e-4 up to 3.
MOMENT_WIDTHS, MOMENT_POINTS = (0.1, 0.25, 0.5, 1.25), (5, 8, 12, 20, 40)

CUT_POINTS = 48
"""Points where a limit cuts the posterior: between the limits, as the function has a kink at each. Means and standard deviations are
right to 1e-6 of the posterior's width for transforms up to a change of 3 in ln(value) over a standard deviation."""


@dataclass(frozen=True)
class Summary:
    """The summary of one quantity's posterior, in the quantity's unit.

    A magnitude has NaN in all but `mc_error` where too much of the flux's posterior is not positive: more than
    `MOST_NOT_POSITIVE`, or than the lowest of the levels.

    Attributes
    ----------
    quantiles : (object, level) float64, rising
    mean, std, mode : (object,) float64
    epistemic_std : (object,) float64, standard deviation of the passes' means
    mc_error : (object,) float64, largest Monte Carlo error of a quantile, in posterior standard deviations
    """

    quantiles: Floats
    mean: Floats
    std: Floats
    mode: Floats
    epistemic_std: Floats
    mc_error: Floats


@dataclass(frozen=True)
class SolvedQuantiles:
    """Quantiles of one quantity that are known already, since an object stopped by them: to solve them again is half of a summary.

    Attributes
    ----------
    output : (object, level) float64, standardized value of the parameter at each of the quantity's levels
    mc_error : (object,) float64, as in `Summary`
    """

    output: Floats
    mc_error: Floats


def summarize_mixture(
    passes: Passes, quantity: Quantity, levels: npt.ArrayLike, *, solved: SolvedQuantiles | None = None
) -> Summary:
    """Return the summary of the mixture over the passes.

    Mean and standard deviation are computed by quadrature in the quantity's unit. `epistemic_std` is the standard deviation of
    the passes' means: std^2 = mean of the passes' variances + epistemic_std^2. The mode is that of the density in the
    quantity's unit, with the Jacobian of the transform; for histograms it is the middle of the bin with the highest density.
    `mc_error` is the error from the finite number of passes of the given networks; that other networks would differ shows in
    epistemic_std alone.

    Parameters
    ----------
    passes : joint distributions of each object and pass
    quantity : quantity to summarize
    levels : (level,) in (0, 1), rising
    solved : the quantiles of these passes at these levels; None: they are solved here
    """
    marginal = passes.marginal(quantity.index)
    if solved is None:
        output = marginal.quantiles(quantity.levels(np.asarray(levels, dtype=np.float64)))
        solved = SolvedQuantiles(output, quantile_error(marginal, output)[0].max(axis=1))
    mean, std, epistemic = _moments(marginal, quantity)
    found = Summary(
        np.maximum.accumulate(quantity.value(solved.output), axis=1),
        mean,
        std,
        mixture_mode(marginal, quantity),
        epistemic,
        solved.mc_error,
    )
    rows = _rows_near_zero(found, quantity)
    if not len(rows):
        return found
    part = positive_part(statistics_of(marginal.rows(rows)).on_host(), quantity)
    changed = {"mean": part.mean, "std": part.std, "epistemic_std": part.epistemic_std}
    return _with_rows(found, rows, changed, part.not_positive <= MOST_NOT_POSITIVE)


def _rows_near_zero(found: Summary, quantity: Quantity) -> npt.NDArray[np.intp]:
    """Return the objects whose magnitude has no plain moments since the flux's posterior reaches zero."""
    if quantity.zero_output is None:
        return np.empty(0, np.intp)
    scalars = np.stack([found.mean, found.std, found.mode, found.epistemic_std], axis=1)
    return np.flatnonzero(~np.isfinite(np.concatenate([found.quantiles, scalars], axis=1)).all(axis=1))


def _with_rows(
    found: Summary,
    rows: npt.NDArray[np.intp],
    changed: dict[str, Floats],
    has_magnitude: npt.NDArray[np.bool_],
) -> Summary:
    """Return the summary with other values (row,) of some objects, and with none at all where a flux has no magnitude."""
    has_magnitude = has_magnitude & np.isfinite(found.quantiles[rows]).all(axis=1)
    values = {field.name: getattr(found, field.name).copy() for field in fields(Summary)}
    for name, new in changed.items():
        values[name][rows] = new
    for name in values.keys() - {"mc_error"}:
        values[name][rows[~has_magnitude]] = np.nan
    return replace(found, **values)


def _moments(marginal: Marginal, quantity: Quantity) -> Floats:
    """Return mean, standard deviation, and standard deviation of the passes' means, (3, object), in the quantity's unit."""
    found = np.empty((3, statistics_of(marginal).shape[0]))
    limits = output_limits(quantity.parameter)
    needed = _moment_points(marginal, quantity)
    for n_points in np.unique(needed).tolist():
        ends = limits if n_points == CUT_POINTS else NO_LIMITS
        for rows, part in parts_of(marginal, n_points, np.flatnonzero(needed == n_points)):
            # Wide distributions of ln and log10 reach infinite values: their moments are infinite or NaN, and are flagged.
            with np.errstate(over="ignore", invalid="ignore"):
                found[:, rows] = statistics_of(part).total_moments(quantity, n_points, ends)
    return found


def _moment_points(marginal: Marginal, quantity: Quantity) -> npt.NDArray[np.intp]:
    """Return the number of quadrature points, (object,): few where the transform is nearly linear and no limit clamps values."""
    width = marginal.max_sigma * steepness(quantity.parameter)
    needed = np.array(MOMENT_POINTS)[np.searchsorted(MOMENT_WIDTHS, width)]
    (low, high), (first, last) = output_limits(quantity.parameter), marginal.component_range()
    beyond = FAR * marginal.max_sigma
    is_inside = (first - beyond >= low) & (last + beyond <= high)
    return np.where(is_inside, needed, CUT_POINTS)


def summarize_draws(
    draws: Floats,
    quantity: Quantity,
    levels: npt.ArrayLike,
    *,
    passes: Passes | None = None,
    solved: SolvedQuantiles | None = None,
) -> Summary:
    """Return the summary of draws, one from each pass: method `samples` of the GaMPEN paper, and point heads.

    The mode is that of a Gaussian kernel density estimate (Scott's bandwidth) in the quantity's unit; epistemic_std is
    computed from the passes' own distributions.

    Parameters
    ----------
    draws : (object, pass, parameter) float64, standardized
    quantity : quantity to summarize
    levels : (level,) in (0, 1), rising
    passes : distributions from which the draws were made; None: the draws are the passes, as for a point head
    solved : the quantiles of these draws at these levels; None: they are computed here
    """
    output = draws[..., quantity.index]
    source = PointPasses(draws) if passes is None else passes
    if solved is None:
        wanted = quantity.levels(np.asarray(levels, dtype=np.float64))
        at_levels, error = draws_quantiles(output, wanted, n_members=source.n_members)
        solved = SolvedQuantiles(at_levels, error.max(axis=1))
    values = quantity.value(output)
    found = Summary(
        np.maximum.accumulate(quantity.value(solved.output), axis=1),
        values.mean(axis=1),
        values.std(axis=1),
        kernel_mode(values),
        # Of the passes' own means: draws scatter by the passes' widths as well.
        _moments(source.marginal(quantity.index), quantity)[2],
        solved.mc_error,
    )
    rows = _rows_near_zero(found, quantity)
    if not len(rows):
        return found
    some = values[rows]
    # Draws that are not positive have no magnitude and are left out; rows that have no others get none.
    positive = [row[np.isfinite(row)] for row in some]
    kept = [row if len(row) else np.full(1, np.nan) for row in positive]
    part = positive_part(source.marginal(quantity.index).rows(rows), quantity)
    changed = {
        "mean": np.array([row.mean() for row in kept]),
        "std": np.array([row.std() for row in kept]),
        "mode": np.concatenate([kernel_mode(row[None]) for row in kept]),
        "epistemic_std": part.epistemic_std,
    }
    return _with_rows(found, rows, changed, np.isnan(some).mean(axis=1) <= MOST_NOT_POSITIVE)
