"""Coverage, the share of objects whose credible intervals contain the truth: integral transforms, intervals, binomial errors.

There are two kinds of intervals. Those of the catalog are equal-tailed, between two quantiles. Those of GaMPEN's released code
extend from the mode; table 2 of the paper (Ghosh et al. 2022, ApJ 935, 138) was made with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

__all__ = [
    "LEVELS",
    "Share",
    "closed_cover",
    "equal_tailed_cover",
    "randomized_transform",
    "released_intervals",
    "share_of",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEVELS = (0.6827, 0.9545, 0.9973)
"""The probabilities of the intervals: those of a Gaussian within 1, 2 and 3 standard deviations."""

RELEASED_POINTS = 1000  # The points of the released code's grid between the smallest and the largest draw.
ROWS_AT_ONCE = 256  # Objects that are computed at a time: their grids and kernels take some 20 MB.


@dataclass(frozen=True)
class Share:
    """A share of objects.

    Attributes
    ----------
    value, error : the share from 0 to 1 and its binomial error; NaN without objects
    n : number of objects
    """

    value: float
    error: float
    n: int


def share_of(hits: npt.NDArray[np.bool_] | Floats) -> Share:
    """Return the share of hits, with its error.

    The error of a share p is sqrt(p (1 - p) / n), where half a hit and half a miss are added to p (Jeffreys), so that it is not
    0 where all objects hit. Hits of several parameters are correlated within an object: the error of their mean is the
    standard deviation over objects / sqrt(n).

    Parameters
    ----------
    hits : (object,) bool, or float64 in 0..1: the mean of an object's hits over its parameters
    """
    n = len(hits)
    if n == 0:
        return Share(float("nan"), float("nan"), 0)
    value = float(np.mean(hits))
    if hits.dtype == np.bool_:
        drawn = (value * n + 0.5) / (n + 1)  # Towards 1/2.
        return Share(value, float(np.sqrt(drawn * (1 - drawn) / n)), n)
    return Share(value, float(np.std(hits) / np.sqrt(n)), n)


def randomized_transform(cdf: Floats, at_low: Bools, at_high: Bools, rng: np.random.Generator) -> Floats:
    """Return the probability integral transform of true values, which is uniform in 0..1 if the posteriors are right.

    A posterior that is clamped to a limit has a point mass there. The transform of a truth at the limit is a random number
    within this mass.

    Parameters
    ----------
    cdf : (object,) CDF of the posteriors before clamping, at the truths clamped to the limits
    at_low, at_high : (object,) bool, whether the truth is at or beyond the lower, the upper limit
    rng : generator, from which one number per object is drawn in any case
    """
    draw = rng.uniform(size=len(cdf))
    transform = np.where(at_low, draw * cdf, cdf)
    return np.where(at_high, 1.0 - draw * (1.0 - transform), transform)


def equal_tailed_cover(transform: Floats, level: float) -> Bools:
    """Return whether equal-tailed intervals of probability `level` contain the truth, from transforms of any shape."""
    return np.abs(transform - 0.5) <= 0.5 * level


def closed_cover(cdf: Floats, at_low: Bools, at_high: Bools, level: float) -> Bools:
    """Return whether the catalog's closed intervals contain the truth, (object,) bool, with both clamped to the limits.

    A truth at a limit is inside as soon as the interval reaches the limit, so right posteriors cover more than `level`.

    Parameters
    ----------
    cdf, at_low, at_high : (object,), as for `randomized_transform`
    level : probability of the interval
    """
    tail = 0.5 * (1.0 - level)
    return ((cdf >= tail) | at_high) & ((cdf <= 1.0 - tail) | at_low)


def released_intervals(draws: Floats, levels: tuple[float, ...] = LEVELS) -> Floats:
    """Return intervals as the released code of GaMPEN defines them.

    A Gaussian kernel density (Scott's bandwidth) of the draws is evaluated at 1,000 points from the smallest to the largest
    draw. From its highest point the interval grows by one grid point on both sides at a time, within the grid. The one is
    taken whose probability is closest to the level, by the kernel density's CDF, set to 0 and 1 at the ends of the grid. So
    the intervals are neither equal-tailed nor of highest density.

    Parameters
    ----------
    draws : (object, draw) float64, in physical units, finite
    levels : (level,) in (0, 1)

    Returns
    -------
    (object, level, 2) float64: lower and upper end; both are the value itself where all draws are equal
    """
    chunks = [
        _released_rows(draws[start : start + ROWS_AT_ONCE], levels)
        for start in range(0, max(1, len(draws)), ROWS_AT_ONCE)
    ]
    return np.concatenate(chunks)


def _released_rows(draws: Floats, levels: tuple[float, ...]) -> Floats:
    """Return the intervals (object, level, 2) of a few objects."""
    low, high = draws.min(axis=1), draws.max(axis=1)
    varies = high > low
    step = np.where(varies, high - low, 1.0) / (RELEASED_POINTS - 1)
    counts = _binned(draws, low, step)  # (object, point)
    bandwidth = np.where(varies, draws.std(axis=1, ddof=1), 1.0) * draws.shape[1] ** -0.2
    density, cdf = _kernel_sums(counts, bandwidth / step)
    cdf /= draws.shape[1]
    # The released code integrates only between the ends of the grid.
    cdf[:, 0], cdf[:, -1] = 0.0, 1.0
    mode = density.argmax(axis=1)[:, None]
    steps = np.arange(1, RELEASED_POINTS)
    lower, upper = np.maximum(mode - steps, 0), np.minimum(mode + steps, RELEASED_POINTS - 1)
    # (object, step): the probability after each step outwards.
    mass = np.take_along_axis(cdf, upper, 1) - np.take_along_axis(cdf, lower, 1)
    ends = np.empty((len(draws), len(levels), 2))
    rows = np.arange(len(draws))
    for i, level in enumerate(levels):
        best = np.abs(mass - level).argmin(axis=1)
        ends[:, i, 0] = low + step * lower[rows, best]
        ends[:, i, 1] = low + step * upper[rows, best]
    # Equal draws have no density; their interval is the value itself.
    ends[~varies] = low[~varies, None, None]
    return ends


def _binned(draws: Floats, low: Floats, step: Floats) -> Floats:
    """Return the draws as counts at grid points, (object, point) float64: each is divided between its two neighbors."""
    place = (draws - low[:, None]) / step[:, None]
    left = np.minimum(place.astype(np.int64), RELEASED_POINTS - 2)
    weight = place - left
    # All objects in one call: point p of object i has the flat index i * RELEASED_POINTS + p.
    row = np.arange(len(draws))[:, None] * RELEASED_POINTS
    flat = np.concatenate([(row + left).ravel(), (row + left + 1).ravel()])
    shares = np.concatenate([(1.0 - weight).ravel(), weight.ravel()])
    counts = np.bincount(flat, shares, minlength=len(draws) * RELEASED_POINTS)
    return np.asarray(counts, dtype=np.float64).reshape(len(draws), RELEASED_POINTS)


def _kernel_sums(counts: Floats, bandwidth: Floats) -> tuple[Floats, Floats]:
    """Return the kernel density of counts (object, point), not normalized, and its CDF: (object, point) each.

    They are computed as convolutions. The bandwidth (object,), in grid steps, is above 5 for any 1,000 draws, whose range is at
    most sqrt(2 n) standard deviations: the division of draws between grid points then has no visible effect.
    """
    offset = np.arange(-(RELEASED_POINTS - 1), RELEASED_POINTS)
    z = offset / bandwidth[:, None]
    # A circular convolution of this length wraps around only into points that are not used.
    length = 2 * RELEASED_POINTS
    spectrum = np.fft.rfft(counts, length, axis=1)
    sums = []
    for kernel in (np.exp(-0.5 * z * z), ndtr(z)):
        full = np.fft.irfft(spectrum * np.fft.rfft(kernel, length, axis=1), length, axis=1)
        sums.append(full[:, RELEASED_POINTS - 1 : 2 * RELEASED_POINTS - 1])
    return sums[0], sums[1]
