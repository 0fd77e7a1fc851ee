"""Distributions of one standardized parameter, one for each object and pass: what posteriors are mixtures of.

Four kinds: normal distributions and their mixtures, histograms, single values, and several of these pooled. All say
the same things of themselves, so that one code makes quantiles, moments and modes of all (posterior.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

__all__ = ["BinnedMarginal", "Floats", "Marginal", "NormalMarginal", "PointMarginal", "PooledMarginal"]

Floats = npt.NDArray[np.float64]
Rows = slice | npt.NDArray[np.intp]
Function = Callable[[Floats], Floats]

HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)
HERMITE_NODES, HERMITE_WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
HERMITE_WEIGHTS = HERMITE_WEIGHTS / HERMITE_WEIGHTS.sum()
LEGENDRE_NODES, LEGENDRE_WEIGHTS = np.polynomial.legendre.leggauss(8)
LEGENDRE_WEIGHTS = LEGENDRE_WEIGHTS / LEGENDRE_WEIGHTS.sum()
GRID_POINTS = 129  # of the mode's first search
GRID_HALF_WIDTH = 4.5  # standard deviations beyond the outermost components
PEAKS = 32  # components whose own peaks are tried as well: narrow ones lie between the points


class Marginal(Protocol):
    """Distributions of one standardized parameter for each object and pass; all passes weigh the same.

    Attributes
    ----------
    n_members : networks the passes are of: the first ``passes / n_members`` are of the first, and so on
    is_smooth : whether the densities have no jumps
    mean, std : (object, pass) float64
    """

    @property
    def n_members(self) -> int:
        """See above."""

    @property
    def is_smooth(self) -> bool:
        """See above."""

    @property
    def mean(self) -> Floats:
        """See above."""

    @property
    def std(self) -> Floats:
        """See above."""

    def cdf(self, x: Floats) -> Floats:
        """(object, pass, point) of x (object, point)."""

    def log_density(self, x: Floats) -> Floats:
        """(object, pass, point) of x (object, point); -inf where there is none."""

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """(object, level) between which the mixture over the passes has its quantiles at levels (level,)."""

    def moments(self, function: Function) -> tuple[Floats, Floats]:
        """Mean and variance, (object, pass), of a function of the parameter, by quadrature."""

    def mode_grid(self, low: float, high: float) -> Floats:
        """(object, point), rising, in [low, high]: where to look for the mixture's mode."""

    def numbers_per_pass(self, n_points: int) -> int:
        """Elements of the largest temporary array for each object and pass, where `n_points` are asked for."""

    def rows(self, index: Rows) -> Marginal:
        """Some of the objects."""


@dataclass(frozen=True)
class NormalMarginal:
    """Normal distributions, or mixtures of some.

    Attributes
    ----------
    center, width : (object, pass, component) float64: mean and standard deviation of each
    weight : (object, pass, component) float64, summing to 1; None for a single component
    n_members : see `Marginal`
    """

    center: Floats
    width: Floats
    weight: Floats | None = None
    n_members: int = 1

    is_smooth = True

    @cached_property
    def mean(self) -> Floats:
        """See `Marginal`."""
        return self._averaged(self.center)

    @cached_property
    def std(self) -> Floats:
        """See `Marginal`."""
        spread = np.square(self.width) + np.square(self.center - self.mean[..., None])
        return np.asarray(np.sqrt(self._averaged(spread)))

    def _averaged(self, values: Floats) -> Floats:
        """Over the components, the last axis of (object, pass, component)."""
        if self.weight is None:
            return np.asarray(values[..., 0])
        return np.asarray((self.weight * values).sum(axis=-1))

    def _scores(self, x: Floats) -> Floats:
        """(object, point, pass, component): passes last but one, so that sums over them run along memory."""
        return np.asarray((x[:, :, None, None] - self.center[:, None]) / self.width[:, None])

    def cdf(self, x: Floats) -> Floats:
        """See `Marginal`."""
        below = ndtr(self._scores(x))
        below = below[..., 0] if self.weight is None else (below * self.weight[:, None]).sum(axis=-1)
        return np.asarray(np.swapaxes(below, 1, 2))

    def log_density(self, x: Floats) -> Floats:
        """See `Marginal`."""
        z = self._scores(x)
        found = -0.5 * z * z - (np.log(self.width) + HALF_LOG_2PI)[:, None]
        if self.weight is None:
            return np.swapaxes(found[..., 0], 1, 2)
        with np.errstate(divide="ignore"):
            found += np.log(self.weight)[:, None]
        highest = found.max(axis=-1)  # with logaddexp.reduce a summary takes 1.7 times as long
        found = highest + np.log(np.exp(found - highest[..., None]).sum(axis=-1))
        return np.asarray(np.swapaxes(found, 1, 2))

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """See `Marginal`: no component's own quantile lies outside."""
        own = self.center[..., None] + self.width[..., None] * ndtri(levels)
        return own.min(axis=(1, 2)), own.max(axis=(1, 2))

    def moments(self, function: Function) -> tuple[Floats, Floats]:
        """See `Marginal`: Gauss-Hermite for each component."""
        values = function(self.center[..., None] + self.width[..., None] * HERMITE_NODES)
        with np.errstate(over="ignore", invalid="ignore"):
            means = values @ HERMITE_WEIGHTS
            variances = np.square(values - means[..., None]) @ HERMITE_WEIGHTS
            mean = self._averaged(means)
            return mean, self._averaged(variances + np.square(means - mean[..., None]))

    def mode_grid(self, low: float, high: float) -> Floats:
        """See `Marginal`: evenly over all components, and the centers of those with the highest peaks."""
        n_objects = len(self.center)
        first = (self.center - GRID_HALF_WIDTH * self.width).min(axis=(1, 2))
        last = (self.center + GRID_HALF_WIDTH * self.width).max(axis=(1, 2))
        even = np.linspace(np.clip(first, low, high), np.clip(last, low, high), GRID_POINTS, axis=1)
        peak = (1.0 if self.weight is None else self.weight) / self.width
        highest = np.argsort(-peak.reshape(n_objects, -1), axis=1, kind="stable")[:, :PEAKS]
        peaks = np.take_along_axis(self.center.reshape(n_objects, -1), highest, axis=1)
        return np.sort(np.concatenate([even, np.clip(peaks, low, high)], axis=1), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        """See `Marginal`."""
        return int(self.center.shape[2]) * max(n_points, len(HERMITE_NODES))

    def rows(self, index: Rows) -> NormalMarginal:
        """See `Marginal`."""
        weight = None if self.weight is None else self.weight[index]
        return NormalMarginal(self.center[index], self.width[index], weight, self.n_members)


@dataclass(frozen=True)
class BinnedMarginal:
    """Histograms: the density is even inside a bin, in the standardized space.

    Attributes
    ----------
    edges : (object, edge) float64, rising
    probability : (object, pass, bin) float64, summing to 1
    n_members : see `Marginal`
    """

    edges: Floats
    probability: Floats
    n_members: int = 1

    is_smooth = False

    @property
    def _middle(self) -> Floats:
        return np.asarray(0.5 * (self.edges[:, 1:] + self.edges[:, :-1]))

    @property
    def _width(self) -> Floats:
        return np.asarray(np.diff(self.edges, axis=1))

    @cached_property
    def _below(self) -> Floats:
        """(object, pass, bin) probability of the bins below each."""
        total = np.cumsum(self.probability, axis=2)
        return np.asarray(total - self.probability)

    @cached_property
    def mean(self) -> Floats:
        """See `Marginal`."""
        return np.asarray((self.probability * self._middle[:, None]).sum(axis=2))

    @cached_property
    def std(self) -> Floats:
        """See `Marginal`."""
        square = (
            np.square(self._middle[:, None] - self.mean[..., None]) + np.square(self._width)[:, None] / 12
        )
        return np.asarray(np.sqrt((self.probability * square).sum(axis=2)))

    def _bins(self, x: Floats) -> npt.NDArray[np.intp]:
        """(object, 1, point) the bin each point lies in; the outermost for points outside."""
        found = [
            np.searchsorted(edges, points, side="right") for edges, points in zip(self.edges, x, strict=True)
        ]
        index = np.asarray(found, dtype=np.intp).reshape(x.shape) - 1
        return np.clip(index, 0, self.edges.shape[1] - 2)[:, None]

    def cdf(self, x: Floats) -> Floats:
        """See `Marginal`."""
        bins = self._bins(x)
        start = np.take_along_axis(self.edges[:, None], bins, axis=2)
        share = (x[:, None] - start) / np.take_along_axis(self._width[:, None], bins, axis=2)
        below = np.take_along_axis(self._below, bins, axis=2)
        inside = np.take_along_axis(self.probability, bins, axis=2)
        found = below + np.clip(share, 0.0, 1.0) * inside
        return np.asarray(np.where((x > self.edges[:, -1:])[:, None], 1.0, found))

    def log_density(self, x: Floats) -> Floats:
        """See `Marginal`."""
        bins = self._bins(x)
        width = np.take_along_axis(self._width[:, None], bins, axis=2)
        outside = (x < self.edges[:, :1]) | (x > self.edges[:, -1:])
        density = np.take_along_axis(self.probability, bins, axis=2) / width
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.where(outside[:, None], 0.0, density)))

    def quantile_of_each_pass(self, levels: Floats) -> Floats:
        """(object, pass) where each pass's own CDF is its level (object, pass)."""
        last = self.probability.shape[2] - 1
        bins = np.minimum((self._below + self.probability < levels[..., None]).sum(axis=2), last)[..., None]
        inside = np.take_along_axis(self.probability, bins, axis=2)[..., 0]
        above = levels - np.take_along_axis(self._below, bins, axis=2)[..., 0]
        share = np.divide(above, inside, out=np.ones_like(above), where=inside > 0)
        start, width = (
            np.take_along_axis(part[:, None], bins, axis=2)[..., 0] for part in (self.edges, self._width)
        )
        return np.asarray(start + np.clip(share, 0.0, 1.0) * width)

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """See `Marginal`: the outermost edges."""
        shape = (len(self.edges), len(levels))
        return np.broadcast_to(self.edges[:, :1], shape), np.broadcast_to(self.edges[:, -1:], shape)

    def moments(self, function: Function) -> tuple[Floats, Floats]:
        """See `Marginal`: Gauss-Legendre for each bin."""
        half = 0.5 * self._width[..., None]
        values = function(self._middle[..., None] + half * LEGENDRE_NODES)
        with np.errstate(over="ignore", invalid="ignore"):
            means = values @ LEGENDRE_WEIGHTS  # (object, bin)
            variances = np.square(values - means[..., None]) @ LEGENDRE_WEIGHTS
            mean = (self.probability * means[:, None]).sum(axis=2)
            spread = variances[:, None] + np.square(means[:, None] - mean[..., None])
            return mean, (self.probability * spread).sum(axis=2)

    def mode_grid(self, low: float, high: float) -> Floats:
        """See `Marginal`: the bins' middles."""
        return np.clip(self._middle, low, high)

    def numbers_per_pass(self, n_points: int) -> int:
        """See `Marginal`."""
        return max(n_points, int(self.probability.shape[2]))

    def rows(self, index: Rows) -> BinnedMarginal:
        """See `Marginal`."""
        return BinnedMarginal(self.edges[index], self.probability[index], self.n_members)


@dataclass(frozen=True)
class PointMarginal:
    """Single values: each pass says one.

    Attributes
    ----------
    values : (object, pass) float64
    n_members : see `Marginal`
    """

    values: Floats
    n_members: int = 1

    is_smooth = False

    @property
    def mean(self) -> Floats:
        """See `Marginal`."""
        return self.values

    @property
    def std(self) -> Floats:
        """See `Marginal`."""
        return np.zeros_like(self.values)

    def cdf(self, x: Floats) -> Floats:
        """See `Marginal`: a step at the value."""
        return np.asarray((x[:, None] >= self.values[..., None]).astype(np.float64))

    def log_density(self, x: Floats) -> Floats:
        """See `Marginal`: infinite at the value."""
        return np.where(x[:, None] == self.values[..., None], np.inf, -np.inf)

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        shape = (len(self.values), len(levels))
        low, high = self.values.min(axis=1, keepdims=True), self.values.max(axis=1, keepdims=True)
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)

    def moments(self, function: Function) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        return function(self.values), np.zeros_like(self.values)

    def mode_grid(self, low: float, high: float) -> Floats:
        """See `Marginal`: the values themselves."""
        return np.sort(np.clip(self.values, low, high), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        """See `Marginal`."""
        return n_points

    def rows(self, index: Rows) -> PointMarginal:
        """See `Marginal`."""
        return PointMarginal(self.values[index], self.n_members)


@dataclass(frozen=True)
class PooledMarginal:
    """The passes of several networks, one after another.

    Attributes
    ----------
    parts : of each network; each of their members has as many passes
    """

    parts: tuple[Marginal, ...]

    @property
    def n_members(self) -> int:
        """See `Marginal`."""
        return sum(part.n_members for part in self.parts)

    @property
    def is_smooth(self) -> bool:
        """See `Marginal`."""
        return all(part.is_smooth for part in self.parts)

    @cached_property
    def mean(self) -> Floats:
        """See `Marginal`."""
        return _joined([part.mean for part in self.parts])

    @cached_property
    def std(self) -> Floats:
        """See `Marginal`."""
        return _joined([part.std for part in self.parts])

    def cdf(self, x: Floats) -> Floats:
        """See `Marginal`."""
        return _joined([part.cdf(x) for part in self.parts])

    def log_density(self, x: Floats) -> Floats:
        """See `Marginal`."""
        return _joined([part.log_density(x) for part in self.parts])

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        lows, highs = zip(*(part.bracket(levels) for part in self.parts), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0)

    def moments(self, function: Function) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        means, variances = zip(*(part.moments(function) for part in self.parts), strict=True)
        return _joined(means), _joined(variances)

    def mode_grid(self, low: float, high: float) -> Floats:
        """See `Marginal`."""
        return np.sort(_joined([part.mode_grid(low, high) for part in self.parts]), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        """See `Marginal`."""
        return max(part.numbers_per_pass(n_points) for part in self.parts)

    def rows(self, index: Rows) -> PooledMarginal:
        """See `Marginal`."""
        return PooledMarginal(tuple(part.rows(index) for part in self.parts))


def _joined(parts: Sequence[Floats]) -> Floats:
    """Along the passes, the second axis."""
    return np.concatenate(parts, axis=1)
