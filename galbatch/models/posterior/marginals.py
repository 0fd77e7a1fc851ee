"""Distributions of one standardized parameter, one for each object and pass: what posteriors are mixtures of.

Four kinds: normal distributions and their mixtures, histograms, single values, and several of these pooled. All say
the same things of themselves, so that one code makes quantiles, moments and modes of all (posterior.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

__all__ = [
    "FAR",
    "BinnedMarginal",
    "Floats",
    "Function",
    "Marginal",
    "NormalMarginal",
    "PointMarginal",
    "PooledMarginal",
]

Floats = npt.NDArray[np.float64]
Rows = slice | npt.NDArray[np.intp]
Function = Callable[[Floats], Floats]

ROOT_2PI = np.sqrt(2.0 * np.pi)
LEGENDRE_NODES, LEGENDRE_WEIGHTS = np.polynomial.legendre.leggauss(8)
LEGENDRE_WEIGHTS = LEGENDRE_WEIGHTS / LEGENDRE_WEIGHTS.sum()
GRID_POINTS = 129  # of the mode's first search
FAR = 4.5  # standard deviations of a component, beyond which it does not matter
PEAKS = 32  # components whose own peaks are tried as well: narrow ones lie between the points


class Marginal(Protocol):
    """Distributions of one standardized parameter for each object and pass; all passes weigh the same.

    Attributes
    ----------
    n_members : networks the passes are of: the first ``passes / n_members`` are of the first, and so on
    is_smooth : whether the densities have no jumps
    mean, std : (object, pass) float64
    finest, widest : (object,) float64, standard deviation of the narrowest and of the widest component; finest is the
        shortest length over which the density changes much, 0 if it has jumps
    """

    @property
    def n_members(self) -> int:
        """See above."""

    @property
    def is_smooth(self) -> bool:
        """See above."""

    @property
    def finest(self) -> Floats:
        """See above."""

    @property
    def widest(self) -> Floats:
        """See above."""

    @property
    def mean(self) -> Floats:
        """See above."""

    @property
    def std(self) -> Floats:
        """See above."""

    def cdf(self, x: Floats) -> Floats:
        """(object, pass, point) of x (object, point)."""

    def density(self, x: Floats) -> Floats:
        """Of the mixture over the passes: (object, point) of x (object, point)."""

    def around(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """CDF, density and the density's derivative of the mixture over the passes, at x: all (object, point)."""

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """(object, level) between which the mixture over the passes has its quantiles at levels (level,)."""

    def moments(self, function: Function, n_points: int) -> tuple[Floats, Floats]:
        """Mean and variance, (object, pass), of a function of the parameter; normals with `n_points` values of it each."""

    def centers(self) -> tuple[Floats, Floats]:
        """(object,) of the first and of the last component."""

    def mode_grid(self, ends: Floats) -> Floats:
        """(object, point), rising, in ends (object, 2): where to look for the mixture's mode."""

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

    @cached_property
    def _ends(self) -> tuple[Floats, Floats]:
        return self.center.min(axis=(1, 2)), self.center.max(axis=(1, 2))

    @cached_property
    def finest(self) -> Floats:
        """See `Marginal`: the narrowest component."""
        return np.asarray(self.width.min(axis=(1, 2)))

    @cached_property
    def widest(self) -> Floats:
        """See `Marginal`."""
        return np.asarray(self.width.max(axis=(1, 2)))

    def cdf(self, x: Floats) -> Floats:
        """See `Marginal`."""
        # Passes and components last, so that sums over them run along memory.
        below = _normal_cdf((x[:, :, None, None] - self.center[:, None]) / self.width[:, None])
        below = below[..., 0] if self.weight is None else (below * self.weight[:, None]).sum(axis=-1)
        return np.asarray(np.swapaxes(below, 1, 2))

    @cached_property
    def _components(self) -> tuple[Floats, Floats, Floats]:
        """Centers, inverse widths and shares, (object, pass x component), of the mixture over the passes."""
        n_objects, n_passes, _ = self.center.shape
        share = np.ones_like(self.center) if self.weight is None else self.weight
        parts = (self.center, 1.0 / self.width, share / n_passes)
        center, inverse, share = (part.reshape(n_objects, -1) for part in parts)
        return center, inverse, share

    def _scores(self, x: Floats) -> Floats:
        """Standard scores (object, point, pass x component)."""
        center, inverse, _ = self._components
        z = x[:, :, None] - center[:, None]
        z *= inverse[:, None]
        return z

    def density(self, x: Floats) -> Floats:
        """See `Marginal`."""
        _, inverse, share = self._components
        z = self._scores(x)
        normal = _unit_normal(z, out=z)  # in place: fresh memory costs as much as the computing
        return np.asarray(_weighted(normal, share * inverse) / ROOT_2PI)

    def around(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """See `Marginal`."""
        _, inverse, share = self._components
        z = self._scores(x)
        normal = _unit_normal(z, out=np.empty_like(z))
        density = _weighted(normal, share * inverse) / ROOT_2PI
        normal *= z
        slope = _weighted(normal, share * np.square(inverse)) / -ROOT_2PI
        return _weighted(_normal_cdf(z), share), np.asarray(density), np.asarray(slope)

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """See `Marginal`: no component's own quantile lies outside."""
        (first, last), score = self.centers(), ndtri(levels)
        beyond = np.stack([self.finest[:, None] * score, self.widest[:, None] * score])
        return first[:, None] + beyond.min(axis=0), last[:, None] + beyond.max(axis=0)

    def moments(self, function: Function, n_points: int) -> tuple[Floats, Floats]:
        """See `Marginal`: Gauss-Hermite for each component."""
        nodes, weights = _hermite(n_points)
        # Nodes first, so that each is a long stretch of memory.
        values = function(self.center + nodes[:, None, None, None] * self.width)
        with np.errstate(over="ignore", invalid="ignore"):
            means = np.tensordot(weights, values, 1)
            values = values - means
            variances = np.tensordot(weights, np.square(values, out=values), 1)
            mean = self._averaged(means)
            return mean, self._averaged(variances + np.square(means - mean[..., None]))

    def centers(self) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        return self._ends

    def mode_grid(self, ends: Floats) -> Floats:
        """See `Marginal`: evenly, and the centers of the components with the highest peaks."""
        n_objects = len(self.center)
        even = np.linspace(ends[:, 0], ends[:, 1], GRID_POINTS, axis=1)
        peak = (1.0 if self.weight is None else self.weight) / self.width
        highest = np.argsort(-peak.reshape(n_objects, -1), axis=1, kind="stable")[:, :PEAKS]
        peaks = np.take_along_axis(self.center.reshape(n_objects, -1), highest, axis=1)
        return np.sort(np.concatenate([even, np.clip(peaks, ends[:, :1], ends[:, 1:])], axis=1), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        """See `Marginal`."""
        return int(self.center.shape[2]) * n_points

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

    def _averaged(self, means: Floats, variances: Floats) -> tuple[Floats, Floats]:
        """Mean and variance (object, pass) of what has these in each bin, (object, bin)."""
        mean = np.asarray((self.probability @ means[..., None])[..., 0])
        off = means[:, None] - mean[..., None]
        off *= off
        off += variances[:, None]
        return mean, np.asarray(np.einsum("opb,opb->op", self.probability, off))

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        return self._averaged(self._middle, np.square(self._width) / 12)

    @property
    def mean(self) -> Floats:
        """See `Marginal`."""
        return self._moments[0]

    @cached_property
    def std(self) -> Floats:
        """See `Marginal`."""
        return np.asarray(np.sqrt(self._moments[1]))

    @property
    def finest(self) -> Floats:
        """See `Marginal`."""
        return np.zeros(len(self.edges))

    @cached_property
    def pooled(self) -> BinnedMarginal:
        """The mixture over the passes, as one pass: a histogram too."""
        return BinnedMarginal(self.edges, self.probability.mean(axis=1, keepdims=True))

    def cdf(self, x: Floats) -> Floats:
        """See `Marginal`."""
        share = (x[:, None] - self.edges[:, :-1, None]) / self._width[..., None]  # (object, bin, point)
        return np.asarray(self.probability @ np.clip(share, 0.0, 1.0))

    def density(self, x: Floats) -> Floats:
        """See `Marginal`."""
        inside = [np.searchsorted(edges, at, side="right") for edges, at in zip(self.edges, x, strict=True)]
        bins = np.asarray(inside, dtype=np.intp).reshape(x.shape) - 1
        height = self.probability.mean(axis=1) / self._width
        found = np.take_along_axis(height, np.clip(bins, 0, height.shape[1] - 1), axis=1)
        return np.where((x < self.edges[:, :1]) | (x > self.edges[:, -1:]), 0.0, found)

    def around(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """See `Marginal`: the density does not change inside a bin."""
        return self.pooled.cdf(x)[:, 0], self.density(x), np.zeros_like(x)

    def quantiles(self, levels: Floats) -> Floats:
        """(object, level) of the mixture over the passes."""
        shape = (len(self.edges), len(levels), self.probability.shape[2])
        of_each_level = BinnedMarginal(self.edges, np.broadcast_to(self.pooled.probability, shape))
        return of_each_level.quantile_of_each_pass(np.broadcast_to(levels, shape[:2]))

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

    def moments(self, function: Function, n_points: int) -> tuple[Floats, Floats]:
        """See `Marginal`: Gauss-Legendre for each bin."""
        half = 0.5 * self._width[..., None]
        values = function(self._middle[..., None] + half * LEGENDRE_NODES)
        with np.errstate(over="ignore", invalid="ignore"):
            means = values @ LEGENDRE_WEIGHTS  # (object, bin)
            variances = np.square(values - means[..., None]) @ LEGENDRE_WEIGHTS
            return self._averaged(means, variances)

    @property
    def widest(self) -> Floats:
        """See `Marginal`: of a bin."""
        return np.asarray(self._width.max(axis=1))

    def centers(self) -> tuple[Floats, Floats]:
        """See `Marginal`: of the bins."""
        return self._middle[:, 0], self._middle[:, -1]

    def mode_grid(self, ends: Floats) -> Floats:
        """See `Marginal`: the bins' middles."""
        return np.clip(self._middle, ends[:, :1], ends[:, 1:])

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

    @property
    def finest(self) -> Floats:
        """See `Marginal`."""
        return np.zeros(len(self.values))

    def density(self, x: Floats) -> Floats:
        """See `Marginal`: infinite at the values."""
        return np.where((x[:, None] == self.values[..., None]).any(axis=1), np.inf, 0.0)

    def around(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """See `Marginal`."""
        return self.cdf(x).mean(axis=1), self.density(x), np.zeros_like(x)

    def quantiles(self, levels: Floats) -> Floats:
        """(object, level) of the values, as of a sample."""
        return np.asarray(np.quantile(self.values, levels, axis=1).T)

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        shape = (len(self.values), len(levels))
        low, high = self.values.min(axis=1, keepdims=True), self.values.max(axis=1, keepdims=True)
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)

    def moments(self, function: Function, n_points: int) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        return function(self.values), np.zeros_like(self.values)

    @property
    def widest(self) -> Floats:
        """See `Marginal`."""
        return np.zeros(len(self.values))

    def centers(self) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        return self.values.min(axis=1), self.values.max(axis=1)

    def mode_grid(self, ends: Floats) -> Floats:
        """See `Marginal`: the values themselves."""
        return np.sort(np.clip(self.values, ends[:, :1], ends[:, 1:]), axis=1)

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

    @cached_property
    def finest(self) -> Floats:
        """See `Marginal`."""
        return np.asarray(np.min([part.finest for part in self.parts], axis=0))

    @property
    def _shares(self) -> list[float]:
        """Of each network's passes."""
        return [part.n_members / self.n_members for part in self.parts]

    def density(self, x: Floats) -> Floats:
        """See `Marginal`."""
        return np.asarray(sum(s * part.density(x) for s, part in zip(self._shares, self.parts, strict=True)))

    def around(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """See `Marginal`."""
        weighted = [
            [share * number for number in part.around(x)]
            for share, part in zip(self._shares, self.parts, strict=True)
        ]
        cdf, density, slope = (np.asarray(sum(numbers)) for numbers in zip(*weighted, strict=True))
        return cdf, density, slope

    @cached_property
    def widest(self) -> Floats:
        """See `Marginal`."""
        return np.asarray(np.max([part.widest for part in self.parts], axis=0))

    def centers(self) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        firsts, lasts = zip(*(part.centers() for part in self.parts), strict=True)
        return np.min(firsts, axis=0), np.max(lasts, axis=0)

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        lows, highs = zip(*(part.bracket(levels) for part in self.parts), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0)

    def moments(self, function: Function, n_points: int) -> tuple[Floats, Floats]:
        """See `Marginal`."""
        means, variances = zip(*(part.moments(function, n_points) for part in self.parts), strict=True)
        return _joined(means), _joined(variances)

    def mode_grid(self, ends: Floats) -> Floats:
        """See `Marginal`."""
        return np.sort(_joined([part.mode_grid(ends) for part in self.parts]), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        """See `Marginal`."""
        return max(part.numbers_per_pass(n_points) for part in self.parts)

    def rows(self, index: Rows) -> PooledMarginal:
        """See `Marginal`."""
        return PooledMarginal(tuple(part.rows(index) for part in self.parts))


@cache
def _hermite(n_points: int) -> tuple[Floats, Floats]:
    """Nodes and weights of the standard normal distribution's quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_points)
    return nodes, weights / weights.sum()


def _joined(parts: Sequence[Floats]) -> Floats:
    """Along the passes, the second axis."""
    return np.concatenate(parts, axis=1)


def _normal_cdf(z: Floats) -> Floats:
    """Of standard scores of any shape, to 2e-16: torch's is vectorized, scipy's takes 2 to 4 times as long."""
    import torch  # here: whoever only asks for names of columns does without torch, a second and 200 MB

    return np.asarray(torch.special.ndtr(torch.from_numpy(z)).numpy())


def _unit_normal(z: Floats, *, out: Floats) -> Floats:
    """exp(-z^2 / 2), into `out`."""
    np.square(z, out=out)
    out *= -0.5
    return np.exp(out, out=out)


def _weighted(values: Floats, weights: Floats) -> Floats:
    """(object, point) sums over the components of (object, point, component), with weights (object, component)."""
    return np.asarray((values @ weights[..., None])[..., 0])
