"""Densities on a grid of bins: probability integral transforms, scores, shortest intervals and peaks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

__all__ = [
    "GridDensities",
    "cde_loss",
    "density_peaks",
    "highest_density_parts",
    "histogram_crps",
    "shortest_intervals",
]

Floats = npt.NDArray[np.float64]

MIN_PROMINENCE = 0.1
"""The prominence of a peak that counts, in units of the density's highest value.

Below a tenth, peaks are mostly ripples that the softmax of a binned network leaves between neighboring bins.
"""


def cde_loss(square_integral: Floats, at_truth: Floats, weights: Floats | None = None) -> float:
    """Return the loss of conditional densities, up to its constant: mean of the integral of p^2, minus twice the mean of p at the truth.

    The constant, the mean integral of the true density's square, is not known and the same for all estimates of the same
    objects: differences between estimates mean something, the value itself does not (Izbicki & Lee 2017, EJS 11, 2800,
    equation 7; Schmidt et al. 2020, MNRAS 499, 1587).

    Parameters
    ----------
    square_integral : (object,) float64, integral of the squared density over the redshift
    at_truth : (object,) float64, density at the true redshift
    weights : (object,) float64, 0 or above; None: equal weights
    """
    return float(np.average(square_integral - 2.0 * at_truth, weights=weights))


@dataclass(frozen=True, eq=False)
class GridDensities:
    """Densities that are constant within the bins of a grid, which all objects share.

    Attributes
    ----------
    edges : (bin + 1,) float64, rising
    mass : (object, bin) float64, probability within each bin; the sum is below 1 where some lies outside the grid, and a row
        of NaN is an object without a density
    """

    edges: Floats
    mass: Floats

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def width(self) -> Floats:
        """The widths of the bins, (bin,)."""
        return np.diff(self.edges)

    @property
    def density(self) -> Floats:
        """The mean density within each bin, (object, bin)."""
        return self.mass / self.width

    @cached_property
    def cumulative(self) -> Floats:
        """The probability between the grid's lower end and each edge, (object, edge)."""
        return np.concatenate([np.zeros((len(self), 1)), np.cumsum(self.mass, axis=1)], axis=1)

    def at(self, z: Floats) -> Floats:
        """Return the density at one redshift of each object, (object,); 0 outside the grid."""
        # The grid's upper end belongs to the last bin.
        place = np.clip(np.searchsorted(self.edges, z, side="right") - 1, 0, len(self.width) - 1)
        inside = (z >= self.edges[0]) & (z <= self.edges[-1])
        return np.where(inside, np.take_along_axis(self.density, place[:, None], axis=1)[:, 0], 0.0)

    def transform(self, z: Floats) -> Floats:
        """Return the probability integral transform, the probability below one redshift of each object, (object,).

        Probability outside the grid counts as above it.
        """
        place = np.clip(np.searchsorted(self.edges, z, side="right") - 1, 0, len(self.width) - 1)
        share = np.clip((z - self.edges[place]) / self.width[place], 0.0, 1.0)
        rows = np.arange(len(self))
        return self.cumulative[rows, place] + share * self.mass[rows, place]

    def square_integral(self) -> Floats:
        """Return the integral of the squared density, (object,)."""
        return np.asarray((np.square(self.mass) / self.width).sum(axis=1))

    def crps(self, z: Floats) -> Floats:
        """Return the continuous ranked probability score of each object, (object,), in the unit of the redshift."""
        return histogram_crps(self.edges, self.cumulative, z)


def histogram_crps(edges: Floats, cumulative: Floats, truth: Floats) -> Floats:
    """Return the continuous ranked probability score of histograms: the integral of (F(x) - [x >= truth])^2 over the grid.

    Within a bin the CDF is linear, so the integral of its square over a width w between values a and b is
    w (a^2 + a b + b^2) / 3 (Gneiting & Raftery 2007, JASA 102, 359, equation 20). A truth outside the grid counts as at its nearest
    end, plus its distance from there.

    Parameters
    ----------
    edges : (bin + 1,) float64, rising
    cumulative : (object, bin + 1) float64, CDF at the edges
    truth : (object,) float64
    """
    inside = np.clip(truth, edges[0], edges[-1])[:, None]
    split = np.clip(inside, edges[:-1], edges[1:])  # (object, bin), where a bin's part below the truth ends
    low, high = cumulative[:, :-1], cumulative[:, 1:]
    middle = low + (high - low) * (split - edges[:-1]) / np.diff(edges)
    below = (split - edges[:-1]) * (low**2 + low * middle + middle**2)
    rest, end = 1.0 - middle, 1.0 - high
    above = (edges[1:] - split) * (rest**2 + rest * end + end**2)
    return np.asarray((below + above).sum(axis=1) / 3.0 + np.abs(truth - inside[:, 0]))


def shortest_intervals(edges: Floats, mass: Floats, level: float) -> Floats:
    """Return the shortest interval of each histogram that holds a probability: of one peak, the interval of highest density.

    Of several peaks it may hold the valleys between them; the region of highest density is then several intervals. One end of
    the shortest interval of a histogram is an edge of a bin, so all candidates are tried.

    Parameters
    ----------
    edges : (bin + 1,) float64, rising
    mass : (object, bin) float64, probability within each bin; what is missing to 1 lies outside the grid
    level : float in (0, 1)

    Returns
    -------
    (object, 2) float64: lower and upper end; NaN where less than `level` lies on the grid
    """
    found = np.full((len(mass), 2), np.nan)
    for row, cumulative in enumerate(np.cumsum(np.pad(mass, ((0, 0), (1, 0))), axis=1)):
        # Also false for a row of NaN. The sum of a softmax misses 1 by rounding.
        if not cumulative[-1] >= level:
            continue
        from_edge, to_edge = cumulative + level <= cumulative[-1], cumulative >= level
        upper = _inverse(cumulative, edges, cumulative[from_edge] + level, from_left=True)
        lower = _inverse(cumulative, edges, cumulative[to_edge] - level, from_left=False)
        lows = np.concatenate([edges[from_edge], lower])
        highs = np.concatenate([upper, edges[to_edge]])
        best = np.argmin(highs - lows)
        found[row] = lows[best], highs[best]
    return found


def highest_density_parts(edges: Floats, mass: Floats, level: float) -> npt.NDArray[np.int64]:
    """Return of how many intervals the region of highest density with a probability consists, (object,) int64.

    The region is the fewest bins, those of the highest density first, that hold the probability; bins that touch are one interval. With
    one interval the shortest interval is that region.

    Parameters
    ----------
    edges : (bin + 1,) float64, rising
    mass : (object, bin) float64, probability within each bin; what is missing to 1 lies outside the grid
    level : float in (0, 1)

    Returns
    -------
    number of intervals; -1 where less than `level` lies on the grid
    """
    order = np.argsort(-(mass / np.diff(edges)), axis=1, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(mass, order, axis=1), axis=1)
    # A bin belongs to the region if those of higher density do not hold the probability yet.
    is_first = np.concatenate([np.ones((len(mass), 1), bool), cumulative[:, :-1] < level], axis=1)
    inside = np.zeros(mass.shape, bool)
    np.put_along_axis(inside, order, is_first, axis=1)
    begins = inside & ~np.pad(inside, ((0, 0), (1, 0)))[:, :-1]
    return np.where(cumulative[:, -1] >= level, begins.sum(axis=1), -1)


def _inverse(cumulative: Floats, edges: Floats, wanted: Floats, *, from_left: bool) -> Floats:
    """Return where a CDF that is linear between edges reaches values; of a flat part the left or the right end."""
    # Beyond an empty bin an interval would be longer than it need be: the lower end is the last point with the value, the
    # upper end the first.
    if from_left:
        high = np.clip(np.searchsorted(cumulative, wanted, side="left"), 1, len(edges) - 1)
    else:
        high = np.clip(np.searchsorted(cumulative, wanted, side="right"), 1, len(edges) - 1)
    step = cumulative[high] - cumulative[high - 1]
    share = np.divide(wanted - cumulative[high - 1], step, out=np.zeros_like(wanted), where=step > 0)
    return edges[high - 1] + np.clip(share, 0.0, 1.0) * (edges[high] - edges[high - 1])


def density_peaks(density: Floats) -> npt.NDArray[np.int64]:
    """Return the number of peaks of each density, (object,) int64: local maxima with a prominence of a tenth of the highest.

    The prominence of a peak is its height above the higher of the two lowest points between it and higher densities on either
    side, or the end of the grid, beyond which the density is 0.

    Parameters
    ----------
    density : (object, bin) float64; a row of NaN has no peak
    """
    found = np.zeros(len(density), dtype=np.int64)
    for row, values in enumerate(np.pad(density, ((0, 0), (1, 1)))):
        highest = values.max()
        if highest > 0:
            found[row] = len(find_peaks(values, prominence=MIN_PROMINENCE * highest)[0])
    return found
