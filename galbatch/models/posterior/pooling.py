"""Pooled posteriors: the passes of several networks as one posterior, for any heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from galbatch.models.posterior.marginal import NO_LIMITS, Floats, Function, Marginal, Rows
from galbatch.models.posterior.passes import Passes, inflation_map, total_covariance
from galbatch.models.posterior.points import PointPasses
from galbatch.models.posterior.quantiles import solve_quantiles

__all__ = ["PooledMarginal", "PooledPasses", "pooled"]


@dataclass(frozen=True)
class PooledMarginal:
    """The distributions of one parameter in the passes of several networks, joined along the passes.

    Attributes
    ----------
    parts : one marginal per bundle; all members of all bundles have the same number of passes
    """

    parts: tuple[Marginal, ...]

    @property
    def n_members(self) -> int:
        return sum(part.n_members for part in self.parts)

    @property
    def is_smooth(self) -> bool:
        return all(part.is_smooth for part in self.parts)

    @cached_property
    def mean(self) -> Floats:
        return _joined([part.mean for part in self.parts])

    @cached_property
    def std(self) -> Floats:
        return _joined([part.std for part in self.parts])

    def cdf(self, x: Floats) -> Floats:
        return _joined([part.cdf(x) for part in self.parts])

    @cached_property
    def min_sigma(self) -> Floats:
        return np.min([part.min_sigma for part in self.parts], axis=0)

    @property
    def _shares(self) -> list[float]:
        """The share of all passes that belongs to each part."""
        return [part.n_members / self.n_members for part in self.parts]

    def density(self, x: Floats) -> Floats:
        return np.asarray(sum(s * part.density(x) for s, part in zip(self._shares, self.parts, strict=True)))

    def cdf_pdf_slope(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        weighted = [
            [share * number for number in part.cdf_pdf_slope(x)]
            for share, part in zip(self._shares, self.parts, strict=True)
        ]
        cdf, density, slope = (np.asarray(sum(numbers)) for numbers in zip(*weighted, strict=True))
        return cdf, density, slope

    @cached_property
    def max_sigma(self) -> Floats:
        return np.max([part.max_sigma for part in self.parts], axis=0)

    def quantiles(self, levels: Floats) -> Floats:
        return solve_quantiles(self, levels)

    def component_range(self) -> tuple[Floats, Floats]:
        firsts, lasts = zip(*(part.component_range() for part in self.parts), strict=True)
        return np.min(firsts, axis=0), np.max(lasts, axis=0)

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        lows, highs = zip(*(part.bracket(levels) for part in self.parts), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0)

    def moments(
        self, function: Function, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> tuple[Floats, Floats]:
        means, variances = zip(
            *(part.moments(function, n_points, limits) for part in self.parts), strict=True
        )
        return _joined(means), _joined(variances)

    def mode_grid(self, ends: Floats) -> Floats:
        return np.sort(_joined([part.mode_grid(ends) for part in self.parts]), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        return max(part.numbers_per_pass(n_points) for part in self.parts)

    def rows(self, index: Rows) -> PooledMarginal:
        return PooledMarginal(tuple(part.rows(index) for part in self.parts))


def _joined(parts: Sequence[Floats]) -> Floats:
    """Join arrays along the passes, the second axis."""
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class PooledPasses:
    """The passes of several networks in one standardized space, joined along the passes.

    Attributes
    ----------
    parts : passes of each bundle; all members of all bundles have the same number of passes
    """

    parts: tuple[Passes, ...]

    is_point = False

    @property
    def n_members(self) -> int:
        return sum(part.n_members for part in self.parts)

    @property
    def mean(self) -> Floats:
        return np.concatenate([part.mean for part in self.parts], axis=1)

    def marginal(self, index: int) -> PooledMarginal:
        return PooledMarginal(tuple(part.marginal(index) for part in self.parts))

    def within(self) -> Floats:
        shares = np.array([part.n_members for part in self.parts]) / self.n_members
        return np.asarray(sum(s * part.within() for s, part in zip(shares, self.parts, strict=True)))

    def covariance(self) -> Floats:
        return total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        bounds = np.cumsum([0, *(part.mean.shape[1] for part in self.parts)])
        pieces = [keys[:, start:stop] for start, stop in pairwise(bounds)]
        drawn = [part.draws(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        return np.concatenate(drawn, axis=1)

    def affine(self, scale: Floats, shift: Floats) -> PooledPasses:
        return PooledPasses(tuple(part.affine(scale, shift) for part in self.parts))

    def inflated(self, factors: npt.ArrayLike) -> PooledPasses:
        return self.affine(*inflation_map(self, factors))


def pooled(parts: Sequence[Passes]) -> Passes:
    """Return the pooled posterior of several bundles, in which each member of each bundle has equal weight.

    Parameters
    ----------
    parts : passes of each bundle, in one standardized space, with equally many passes per member; either all of them are
        single values, or none
    """
    if len(parts) == 1:
        return parts[0]
    # Single values stay single values: they have the quantiles of a sample, not those of a mixture.
    if all(part.is_point for part in parts):
        mean = np.concatenate([part.mean for part in parts], axis=1)
        return PointPasses(mean, sum(part.n_members for part in parts))
    return PooledPasses(tuple(parts))
