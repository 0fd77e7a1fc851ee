"""Normal distributions and their mixtures: the marginals of Gaussian and mixture heads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import scipy

from galbatch.models.posterior.marginal import GRID_POINTS, NO_LIMITS, Floats, Function, Marginal, Rows
from galbatch.models.posterior.quantiles import solve_quantiles

__all__ = ["NormalMarginal", "hermite_nodes", "legendre_nodes", "normal_bracket"]

ROOT_2PI = np.sqrt(2.0 * np.pi)
REACH = 8.0  # Standard deviations within which a component is integrated where a limit cuts it: 1e-15 lies beyond.
PEAKS = 32  # The highest components' own centers are tried as modes, too: narrow peaks lie between the points of the grid.


@dataclass(frozen=True)
class NormalMarginal:
    """Normal distributions, or mixtures of them, for each object and pass.

    Attributes
    ----------
    center, width : (object, pass, component) float64: mean and standard deviation of each component
    weight : (object, pass, component) float64, summing to 1 over the components; None for a single component
    n_members : number of networks, as in `Marginal`
    """

    center: Floats
    width: Floats
    weight: Floats | None = None
    n_members: int = 1

    is_smooth = True

    @cached_property
    def mean(self) -> Floats:
        return self._averaged(self.center)

    @cached_property
    def std(self) -> Floats:
        variance = np.square(self.width) + np.square(self.center - self.mean[..., None])
        return np.sqrt(self._averaged(variance))

    def _averaged(self, values: Floats) -> Floats:
        """Return the mean over the components, the last axis of (object, pass, component)."""
        if self.weight is None:
            return values[..., 0]
        return (self.weight * values).sum(axis=-1)

    @cached_property
    def _ends(self) -> tuple[Floats, Floats]:
        return self.center.min(axis=(1, 2)), self.center.max(axis=(1, 2))

    @cached_property
    def min_sigma(self) -> Floats:
        # The narrowest component.
        return self.width.min(axis=(1, 2))

    @cached_property
    def max_sigma(self) -> Floats:
        return self.width.max(axis=(1, 2))

    def cdf(self, x: Floats) -> Floats:
        # Passes and components last, so that sums over them run along memory.
        below = _normal_cdf((x[:, :, None, None] - self.center[:, None]) / self.width[:, None])
        below = below[..., 0] if self.weight is None else (below * self.weight[:, None]).sum(axis=-1)
        return np.swapaxes(below, 1, 2)

    @cached_property
    def _components(self) -> tuple[Floats, Floats, Floats]:
        """The centers, inverse widths and weights, (object, pass x component) each, of the mixture over the passes."""
        n_objects, n_passes, _ = self.center.shape
        share = np.ones_like(self.center) if self.weight is None else self.weight
        parts = (self.center, 1.0 / self.width, share / n_passes)
        center, inverse, share = (part.reshape(n_objects, -1) for part in parts)
        return center, inverse, share

    def _scores(self, x: Floats) -> Floats:
        """Return standard scores (object, point, pass x component)."""
        center, inverse, _ = self._components
        z = x[:, :, None] - center[:, None]
        z *= inverse[:, None]
        return z

    def density(self, x: Floats) -> Floats:
        _, inverse, share = self._components
        z = self._scores(x)
        normal = _unit_normal(z, out=z)  # in place: fresh memory costs as much as the computing
        return _weighted(normal, share * inverse) / ROOT_2PI

    def cdf_pdf_slope(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        _, inverse, share = self._components
        z = self._scores(x)
        normal = _unit_normal(z, out=np.empty_like(z))
        density = _weighted(normal, share * inverse) / ROOT_2PI
        normal *= z
        slope = _weighted(normal, share * np.square(inverse)) / -ROOT_2PI
        return _weighted(_normal_cdf(z), share), density, slope

    def quantiles(self, levels: Floats) -> Floats:
        return solve_quantiles(self, levels)

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        return normal_bracket(self, levels)

    def moments(
        self, function: Function, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> tuple[Floats, Floats]:
        if limits != NO_LIMITS:
            return self._moments_within(function, n_points, limits)
        # Gauss-Hermite for each component.
        nodes, weights = hermite_nodes(n_points)
        # Nodes first, so that each is contiguous in memory.
        values = function(self.center + nodes[:, None, None, None] * self.width)
        means = np.tensordot(weights, values, 1)
        values = values - means
        variances = np.tensordot(weights, np.square(values, out=values), 1)
        mean = self._averaged(means)
        return mean, self._averaged(variances + np.square(means - mean[..., None]))

    def _moments_within(
        self, function: Function, n_points: int, limits: tuple[float, float]
    ) -> tuple[Floats, Floats]:
        """Return mean and variance of a function that is constant beyond `limits`: quadrature between them, and an atom at each."""
        low, high = limits
        below = _normal_cdf((low - self.center) / self.width)  # (object, pass, component)
        above = _normal_cdf((self.center - high) / self.width)
        # Gauss-Legendre over what of a component lies between the limits, as far out as it has any part in a moment.
        start = np.clip(self.center - REACH * self.width, low, high)
        stop = np.clip(self.center + REACH * self.width, low, high)
        nodes, weights = legendre_nodes(n_points)
        half = 0.5 * (stop - start)
        x = 0.5 * (start + stop) + half * nodes[:, None, None, None]  # nodes first, as above
        share = _unit_normal((x - self.center) / self.width, out=np.empty_like(x))
        share *= weights[:, None, None, None]
        # What of a component lies within is known from its CDF: the quadrature distributes it, to the last digit.
        total = share.sum(axis=0)
        within = np.maximum(1.0 - below - above, 0.0)
        share *= np.divide(within, total, out=np.zeros_like(total), where=total > 0)
        values = [function(x), *(function(np.full((1, 1, 1, 1), end)) for end in limits)]
        shares = [share, below[None], above[None]]

        def averaged(powers: list[Floats]) -> Floats:
            return np.sum([_summed(*pair) for pair in zip(shares, powers, strict=True)], axis=0)

        means = averaged(values)
        variances = averaged([np.square(value - means) for value in values])
        mean = self._averaged(means)
        return mean, self._averaged(variances + np.square(means - mean[..., None]))

    def component_range(self) -> tuple[Floats, Floats]:
        return self._ends

    def mode_grid(self, ends: Floats) -> Floats:
        # Evenly, and the centers of the components with the highest peaks.
        n_objects = len(self.center)
        even = np.linspace(ends[:, 0], ends[:, 1], GRID_POINTS, axis=1)
        peak = (1.0 if self.weight is None else self.weight) / self.width
        highest = np.argsort(-peak.reshape(n_objects, -1), axis=1, kind="stable")[:, :PEAKS]
        peaks = np.take_along_axis(self.center.reshape(n_objects, -1), highest, axis=1)
        return np.sort(np.concatenate([even, np.clip(peaks, ends[:, :1], ends[:, 1:])], axis=1), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        return int(self.center.shape[2]) * n_points

    def rows(self, index: Rows) -> NormalMarginal:
        weight = None if self.weight is None else self.weight[index]
        return NormalMarginal(self.center[index], self.width[index], weight, self.n_members)


def normal_bracket(marginal: Marginal, levels: Floats) -> tuple[Floats, Floats]:
    """Return bounds (object, level) of the quantiles of mixtures of normal distributions: no component's own quantile lies outside."""
    (first, last), score = marginal.component_range(), scipy.special.ndtri(levels)
    beyond = np.stack([marginal.min_sigma[:, None] * score, marginal.max_sigma[:, None] * score])
    return first[:, None] + beyond.min(axis=0), last[:, None] + beyond.max(axis=0)


@cache
def legendre_nodes(n_points: int) -> tuple[Floats, Floats]:
    """Return nodes in (-1, 1) and weights of the quadrature of a smooth function between two limits."""
    nodes, weights = np.polynomial.legendre.leggauss(n_points)
    return nodes, weights


@cache
def hermite_nodes(n_points: int) -> tuple[Floats, Floats]:
    """Return nodes and weights of the quadrature for a standard normal distribution; the weights sum to 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_points)
    return nodes, weights / weights.sum()


def _normal_cdf(z: Floats) -> Floats:
    """Return the normal CDF of standard scores of any shape, to 2e-16."""
    # Torch's function is vectorized; scipy's takes 2 to 4 times as long. It is imported here, as names of columns, which need
    # this module, should not cost the second and the 200 MB of torch.
    import torch

    return torch.special.ndtr(torch.from_numpy(z)).numpy()


def _unit_normal(z: Floats, *, out: Floats) -> Floats:
    """Write exp(-z^2 / 2) into `out`, and return it."""
    np.square(z, out=out)
    out *= -0.5
    return np.exp(out, out=out)


def _summed(mass: Floats, values: Floats) -> Floats:
    """Return the sums of mass x value over the points, the first axis; a point without probability counts nothing, also if its value is infinite."""
    found = np.einsum("n...,n...->...", mass, values)
    if np.isfinite(found).all():
        return found
    return np.where(mass > 0, mass * values, 0.0).sum(axis=0)


def _weighted(values: Floats, weights: Floats) -> Floats:
    """Return the sums (object, point) over the components of (object, point, component), with weights (object, component)."""
    return (values @ weights[..., None])[..., 0]
