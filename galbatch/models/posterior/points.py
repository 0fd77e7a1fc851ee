"""Single values: passes that give one value per parameter, so that they are draws from the posterior.

They are the outputs of point heads, and the draws that represent any other head's posterior with method `samples`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from galbatch.models.posterior.marginal import NO_LIMITS, Floats, Function, Rows
from galbatch.models.posterior.passes import for_passes, inflation_map, total_covariance

__all__ = ["PointMarginal", "PointPasses"]


@dataclass(frozen=True)
class PointMarginal:
    """The single values of one parameter: one for each object and pass.

    Attributes
    ----------
    values : (object, pass) float64
    n_members : number of networks, as in `Marginal`
    """

    values: Floats
    n_members: int = 1

    is_smooth = False

    @property
    def mean(self) -> Floats:
        return self.values

    @property
    def std(self) -> Floats:
        return np.zeros_like(self.values)

    def cdf(self, x: Floats) -> Floats:
        # The CDF of a value is a step there: (object, pass, point).
        return (x[:, None] >= self.values[..., None]).astype(np.float64)

    @property
    def min_sigma(self) -> Floats:
        return np.zeros(len(self.values))

    def density(self, x: Floats) -> Floats:
        # The density is infinite at the values, and 0 between them.
        return np.where((x[:, None] == self.values[..., None]).any(axis=1), np.inf, 0.0)

    def cdf_pdf_slope(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        return self.cdf(x).mean(axis=1), self.density(x), np.zeros_like(x)

    def quantiles(self, levels: Floats) -> Floats:
        # Quantiles of a sample, interpolated linearly between the values.
        return np.quantile(self.values, levels, axis=1).T

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        shape = (len(self.values), len(levels))
        low, high = self.values.min(axis=1, keepdims=True), self.values.max(axis=1, keepdims=True)
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)

    def moments(
        self, function: Function, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> tuple[Floats, Floats]:
        return function(self.values), np.zeros_like(self.values)

    @property
    def max_sigma(self) -> Floats:
        return np.zeros(len(self.values))

    def component_range(self) -> tuple[Floats, Floats]:
        return self.values.min(axis=1), self.values.max(axis=1)

    def mode_grid(self, ends: Floats) -> Floats:
        # No other points have a density.
        return np.sort(np.clip(self.values, ends[:, :1], ends[:, 1:]), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        return n_points

    def rows(self, index: Rows) -> PointMarginal:
        return PointMarginal(self.values[index], self.n_members)


@dataclass(frozen=True)
class PointPasses:
    """One value for each object, pass and parameter, so that the passes are draws from the posterior.

    Attributes
    ----------
    mean : (object, pass, parameter) float64, the values
    n_members : number of networks, as in `Passes`
    """

    mean: Floats
    n_members: int = 1

    is_point = True

    def marginal(self, index: int) -> PointMarginal:
        return PointMarginal(self.mean[..., index], self.n_members)

    def within(self) -> Floats:
        # A single value has no variance.
        n_objects, _, n = self.mean.shape
        return np.zeros((n_objects, n, n))

    def covariance(self) -> Floats:
        return total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        # A draw from a single value is the value itself, so the keys are not used.
        return self.mean

    def affine(self, scale: Floats, shift: Floats) -> PointPasses:
        return replace(self, mean=self.mean * scale + for_passes(shift))

    def inflated(self, factors: npt.ArrayLike) -> PointPasses:
        return self.affine(*inflation_map(self, factors))
