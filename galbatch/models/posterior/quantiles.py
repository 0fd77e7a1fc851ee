"""Quantiles of mixtures over passes, solved from the mixtures' CDFs, and their Monte Carlo errors.

They are solved in the standardized space and mapped by the parameter's transform afterwards. Unlike quantiles of draws they have
no sampling noise beyond that of the passes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy

from galbatch.models.posterior.devices import ELEMENTS_AT_ONCE, statistics_of
from galbatch.models.posterior.marginal import Floats, Marginal, Rows

__all__ = [
    "chunks_of",
    "member_cdf_errors",
    "member_errors",
    "mixture_cdf",
    "parts_of",
    "posterior_std",
    "quantile_error",
    "relative_error",
    "solve_quantiles",
]

MAX_ITERATIONS = 200
X_TOLERANCE = 1e-10  # The tolerance of a quantile, in posterior standard deviations.
# Required as well, as inside a very narrow component the CDF may be far from the level that near to the quantile.
CDF_TOLERANCE = 1e-9
# In widths of the narrowest component. The error after a step of Halley's method is of third order in the step: 3e-11 here.
LAST_STEP = 3e-4
MAX_ERROR = 1000.0  # In posterior standard deviations: no tolerance is as large, so the object counts as not converged.


def parts_of(
    marginal: Marginal, n_points: int, some: npt.NDArray[np.intp] | None = None
) -> Iterator[tuple[Rows, Marginal]]:
    """Yield rows and their marginals, in parts small enough for arrays (object, pass, component, point) in the cache.

    Parameters
    ----------
    marginal : distributions of all objects
    n_points : number of points at which they are evaluated
    some : (row,) rising indices of the objects to yield; None: all of them, and one empty part if there are none
    """
    statistics = statistics_of(marginal)
    n_objects, n_passes = statistics.shape
    if some is None or len(some) == n_objects:
        some = np.arange(n_objects)
    elif not len(some):
        return
    elements = n_passes * marginal.numbers_per_pass(n_points)
    chunks = list(chunks_of(len(some), elements, at_once=statistics.elements_at_once))
    if len(chunks) == 1 and len(some) == n_objects:
        yield slice(None), marginal  # The object itself, with the arrays that it has cached.
        return
    yield from ((some[chunk], marginal.rows(some[chunk])) for chunk in chunks)


def chunks_of(n_rows: int, elements_per_row: int, *, at_once: int = ELEMENTS_AT_ONCE) -> Iterator[slice]:
    """Yield slices of rows whose temporary arrays have at most `at_once` elements; one empty slice if there are no rows."""
    size = max(1, at_once // elements_per_row)
    yield from (slice(start, start + size) for start in range(0, max(1, n_rows), size))


def solve_quantiles(marginal: Marginal, levels: npt.ArrayLike) -> Floats:
    """Return the quantiles of the mixtures over the passes, where F(x) = level, by Halley's method inside a shrinking bracket.

    Where the CDF is flat at the level, any point of the flat part may be returned.

    Parameters
    ----------
    marginal : distributions of each object and pass
    levels : (level,) in (0, 1)

    Returns
    -------
    (object, level) float64, accurate to about 1e-10 of a standard deviation
    """
    levels = np.asarray(levels, dtype=np.float64)
    parts = [_solved(part, levels) for _, part in parts_of(marginal, len(levels))]
    return np.concatenate(parts)


def _solved(marginal: Marginal, levels: Floats) -> Floats:
    """Return quantiles (object, level). An object leaves the iteration as soon as all its levels have converged."""
    low, high = marginal.bracket(levels)
    std, min_sigma = posterior_std(marginal)[:, None], marginal.min_sigma[:, None]
    start = statistics_of(marginal).average()[:, None] + std * scipy.special.ndtri(levels)
    x = np.clip(start, low, high)
    found = x.copy()
    left, last = np.arange(len(x)), np.full(x.shape, np.inf)
    for _ in range(MAX_ITERATIONS):
        excess, step = _halley(marginal, x, levels)
        low, high = np.where(excess < 0, x, low), np.where(excess >= 0, x, high)
        size = np.abs(step)
        # Next to a narrow component the steps may alternate in sign without becoming shorter: then the bracket is bisected.
        inside = (x + step >= low) & (x + step <= high)
        settled = (size <= X_TOLERANCE * std) & (np.abs(excess) <= CDF_TOLERANCE)
        last = np.where((inside & (size <= 0.5 * np.abs(last))) | settled, step, 0.5 * (low + high) - x)
        x = x + last
        found[left] = x
        near = (last == step) & (size <= LAST_STEP * min_sigma)
        going = ~(near | (np.abs(last) <= X_TOLERANCE * std)).all(axis=1)
        if not going.any():
            break
        if not going.all():
            x, low, high, last, std, min_sigma, left = (
                part[going] for part in (x, low, high, last, std, min_sigma, left)
            )
            marginal = marginal.rows(np.flatnonzero(going))
    return found


def _halley(marginal: Marginal, x: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """Return F - level at x, and the step of Halley's method to its root (Newton's, corrected for the slope of the density)."""
    cdf, density, slope = marginal.cdf_pdf_slope(x)
    excess = cdf - levels
    # Between narrow passes that are far apart the density underflows: the steps are not finite, and the caller bisects.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        newton = -excess / density
        correction = 1.0 + 0.5 * newton * slope / density
        return excess, newton / np.where(correction > 0.5, correction, 1.0)


def posterior_std(marginal: Marginal) -> Floats:
    """Return the standard deviation of the mixture over the passes, (object,) float64."""
    return statistics_of(marginal).total_std()


def quantile_error(marginal: Marginal, quantiles: Floats) -> tuple[Floats, Floats]:
    """Return the Monte Carlo errors of quantiles by the delta method: the standard error of F divided by the density.

    Parameters
    ----------
    marginal : distributions of each object and pass
    quantiles : (object, level) float64, standardized

    Returns
    -------
    error : (object, level) float64, in posterior standard deviations
    density : (object, level) float64, in units of one over the posterior standard deviation
    """
    errors, density = member_errors(marginal, quantiles)
    return np.minimum(np.sqrt(np.square(errors).sum(axis=2)), MAX_ERROR), density


def member_errors(marginal: Marginal, quantiles: Floats) -> tuple[Floats, Floats]:
    """Return the part of each network in the Monte Carlo errors of quantiles; added in quadrature they are `quantile_error`.

    Parameters
    ----------
    marginal : distributions of each object and pass
    quantiles : (object, level) float64, standardized

    Returns
    -------
    error : (object, level, member) float64, in posterior standard deviations
    density : (object, level) float64, in units of one over the posterior standard deviation
    """
    n_passes = statistics_of(marginal).shape[1] // marginal.n_members
    parts = [_share_scatter(part, quantiles[rows]) for rows, part in parts_of(marginal, quantiles.shape[1])]
    scatter, density = (np.concatenate(part) for part in zip(*parts, strict=True))
    density *= posterior_std(marginal)[:, None]
    if n_passes == 1:
        return np.zeros_like(scatter), density
    return relative_error(np.sqrt(scatter / (n_passes - 1)), density[..., None]), density


def member_cdf_errors(marginal: Marginal, levels: Floats) -> Floats:
    """Return how far each pass's CDF is from the levels at the mixture's quantiles, over the density there.

    The mean over passes and members is 0; over some passes alone it is the error of their quantiles, of opposite sign.

    Parameters
    ----------
    marginal : distributions of each object and pass
    levels : (level,) in (0, 1)

    Returns
    -------
    (object, level, member, pass) float64, in posterior standard deviations
    """
    quantiles = marginal.quantiles(levels)
    density = marginal.density(quantiles) * posterior_std(marginal)[:, None]
    parts = [part.cdf(quantiles[rows]) for rows, part in parts_of(marginal, len(levels))]
    cdf = np.moveaxis(np.concatenate(parts), 1, 2)  # (object, level, member x pass)
    scale = np.divide(1.0, density, out=np.full_like(density, MAX_ERROR), where=density > 0)
    found = (cdf - levels[:, None]) * scale[..., None]
    return found.reshape(*found.shape[:2], marginal.n_members, -1)


def _share_scatter(marginal: Marginal, x: Floats) -> tuple[Floats, Floats]:
    """Return what each network adds to the variance of the mixture's CDF, (object, point, member), and the density (object, point)."""
    return statistics_of(marginal).cdf_scatter(x), marginal.density(x)


def relative_error(error: Floats, density: Floats) -> Floats:
    """Return error / density, for arrays of shapes that fit; MAX_ERROR where the density vanishes between passes far apart."""
    with np.errstate(over="ignore"):
        ratio = np.divide(error, density, out=np.where(error > 0, MAX_ERROR, 0.0), where=density > 0)
    return np.minimum(ratio, MAX_ERROR)


def mixture_cdf(marginal: Marginal, x: Floats) -> Floats:
    """Return the CDF, (object,), of the mixture over the passes at standardized values x (object,)."""
    return statistics_of(marginal).mean_cdf(x[:, None])[:, 0]
