"""Quantiles of mixtures over passes, solved from their CDFs, and how sure they are.

They are solved in the standardized space and mapped by the parameter's transform afterwards; so they carry no noise of draws.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from galbatch.models.posterior.marginal import Floats, Marginal, Rows

__all__ = [
    "chunks_of",
    "mixture_cdf",
    "parts_of",
    "posterior_std",
    "quantile_error",
    "relative_error",
    "solve_quantiles",
]

ELEMENTS_AT_ONCE = 2**17  # float64 in a temporary array: 1 MB, which stays in the processor's cache
MAX_ITERATIONS = 200
X_TOLERANCE = 1e-10  # of a quantile, in posterior standard deviations
CDF_TOLERANCE = (
    1e-9  # asked for as well: in a very narrow component the CDF is still far off that near the quantile
)
LAST_STEP = (
    3e-4  # in widths of the narrowest component: errors of Halley's steps are of third order, then 3e-11
)
MAX_ERROR = 1000.0  # posterior standard deviations: as good as not converged at all


def parts_of(
    marginal: Marginal, n_points: int, some: npt.NDArray[np.intp] | None = None
) -> Iterator[tuple[Rows, Marginal]]:
    """Yield rows and their marginals, few enough for arrays of (object, pass, component, `n_points`).

    `some` : (row,) which rows, rising; None: all, at least once
    """
    n_objects, n_passes = marginal.mean.shape
    if some is None or len(some) == n_objects:
        some = np.arange(n_objects)
    elif not len(some):
        return
    chunks = list(chunks_of(len(some), n_passes * marginal.numbers_per_pass(n_points)))
    if len(chunks) == 1 and len(some) == n_objects:
        yield slice(None), marginal  # with what it has worked out already
        return
    yield from ((some[chunk], marginal.rows(some[chunk])) for chunk in chunks)


def chunks_of(n_rows: int, elements_per_row: int) -> Iterator[slice]:
    """Yield slices of rows whose temporary arrays stay below ELEMENTS_AT_ONCE; one empty slice for no rows."""
    size = max(1, ELEMENTS_AT_ONCE // elements_per_row)
    yield from (slice(start, start + size) for start in range(0, max(1, n_rows), size))


def solve_quantiles(marginal: Marginal, levels: npt.ArrayLike) -> Floats:
    """Solve F(x) = level for the mixtures' CDFs, by Halley's steps inside a shrinking bracket.

    Where the CDF is flat, any point of the flat part solves it.

    Parameters
    ----------
    marginal : distributions of (object, pass)
    levels : (level,) in (0, 1)

    Returns
    -------
    (object, level) float64, to about 1e-10 of a standard deviation
    """
    levels = np.asarray(levels, dtype=np.float64)
    parts = [_solved(part, levels) for _, part in parts_of(marginal, len(levels))]
    return np.concatenate(parts)


def _solved(marginal: Marginal, levels: Floats) -> Floats:
    """Return quantiles (object, level); objects leave the search once all their levels are found."""
    low, high = marginal.bracket(levels)
    std, min_sigma = posterior_std(marginal)[:, None], marginal.min_sigma[:, None]
    x = np.clip(marginal.mean.mean(axis=1)[:, None] + std * ndtri(levels), low, high)
    found = x.copy()
    left, last = np.arange(len(x)), np.full(x.shape, np.inf)
    for _ in range(MAX_ITERATIONS):
        excess, step = _halley(marginal, x, levels)
        low, high = np.where(excess < 0, x, low), np.where(excess >= 0, x, high)
        size = np.abs(step)
        # Next to a narrow component the steps may jump to and fro, as long as the one before: then bisect.
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
    """Return F - level at x, and Halley's step to its root, (object, level): Newton's, corrected for the slope of the density."""
    cdf, density, slope = marginal.cdf_pdf_slope(x)
    excess = cdf - levels
    # Between far apart narrow passes the density underflows: the steps are then not finite, and the caller bisects.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        newton = -excess / density
        bend = 1.0 + 0.5 * newton * slope / density
        return excess, newton / np.where(bend > 0.5, bend, 1.0)


def posterior_std(marginal: Marginal) -> Floats:
    """Return the standard deviation of the mixture, (object,)."""
    return np.sqrt(np.square(marginal.std).mean(axis=1) + marginal.mean.var(axis=1))


def quantile_error(marginal: Marginal, quantiles: Floats) -> tuple[Floats, Floats]:
    """Monte Carlo error of quantiles by the delta method: the standard error of F over the density.

    Returns
    -------
    (object, level) in posterior standard deviations, and the density (object, level) in their inverse
    """
    n_passes = marginal.mean.shape[1] // marginal.n_members
    parts = [_share_scatter(part, quantiles[rows]) for rows, part in parts_of(marginal, quantiles.shape[1])]
    scatter, density = (np.concatenate(part) for part in zip(*parts, strict=True))
    density *= posterior_std(marginal)[:, None]
    if n_passes == 1:
        return np.zeros_like(density), density
    return relative_error(np.sqrt(scatter / (n_passes - 1)), density), density


def _share_scatter(marginal: Marginal, x: Floats) -> tuple[Floats, Floats]:
    """Return the variance over the passes of their CDFs, over the number of networks, and the density; (object, point)."""
    # The members are all there is of them: only the passes within each are draws.
    members = np.split(marginal.cdf(x), marginal.n_members, axis=1)
    variance = sum(of_member.var(axis=1) for of_member in members) / marginal.n_members**2
    return np.asarray(variance), marginal.density(x)


def relative_error(error: Floats, density: Floats) -> Floats:
    """Return the ratio of error and density, of any shape; MAX_ERROR where the density vanishes between far-apart passes."""
    with np.errstate(over="ignore"):
        ratio = np.divide(error, density, out=np.where(error > 0, MAX_ERROR, 0.0), where=density > 0)
    return np.minimum(ratio, MAX_ERROR)


def mixture_cdf(marginal: Marginal, x: Floats) -> Floats:
    """Return the CDF, (object,), of the mixture over the passes at standardized values x (object,)."""
    return marginal.cdf(x[:, None])[..., 0].mean(axis=1)
