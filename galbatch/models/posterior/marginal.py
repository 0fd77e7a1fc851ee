"""The Marginal protocol: the distributions of one parameter, whatever the head.

Every kind of distribution (normal mixtures, histograms, single values, several of these pooled) says the same things of
itself, so that one code makes quantiles, moments and modes of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["GRID_POINTS", "Floats", "Function", "Marginal", "Rows"]

Floats = npt.NDArray[np.float64]
Rows = slice | npt.NDArray[np.intp]
Function = Callable[[Floats], Floats]

GRID_POINTS = 129  # of a mode's first search


class Marginal(Protocol):
    """Distributions of one standardized parameter for each object and pass; all passes weigh the same."""

    @property
    def n_members(self) -> int:
        """The number of networks: the first ``passes / n_members`` passes are of the first, and so on."""

    @property
    def is_smooth(self) -> bool:
        """Whether the densities have no jumps."""

    @property
    def min_sigma(self) -> Floats:
        """The standard deviation of the narrowest component, (object,): the shortest length over which the density changes much; 0 with jumps."""

    @property
    def max_sigma(self) -> Floats:
        """The standard deviation of the widest component, (object,)."""

    @property
    def mean(self) -> Floats:
        """The mean of each distribution, (object, pass)."""

    @property
    def std(self) -> Floats:
        """The standard deviation of each distribution, (object, pass)."""

    def cdf(self, x: Floats) -> Floats:
        """Return the CDF of each pass, (object, pass, point), at x (object, point)."""

    def density(self, x: Floats) -> Floats:
        """Return the density of the mixture over the passes, (object, point), at x (object, point)."""

    def cdf_pdf_slope(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Return CDF, density and the density's derivative of the mixture over the passes, at x: all (object, point)."""

    def quantiles(self, levels: Floats) -> Floats:
        """Return the quantiles (object, level) of the mixture over the passes at levels (level,) in (0, 1).

        `solve_quantiles` finds those of any distribution with a continuous CDF.
        """

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        """Return bounds (object, level) between which the mixture over the passes has its quantiles at levels (level,)."""

    def moments(self, function: Function, n_points: int) -> tuple[Floats, Floats]:
        """Return mean and variance, (object, pass), of a function of the parameter; normals with `n_points` values of it each.

        Values of the function may be infinite; the caller expects the floating-point warnings of that, and flags the object.
        """

    def component_range(self) -> tuple[Floats, Floats]:
        """Return the centers (object,) of the lowest and of the highest component."""

    def mode_grid(self, ends: Floats) -> Floats:
        """Return points (object, point), rising, in ends (object, 2): where to look for the mixture's mode."""

    def numbers_per_pass(self, n_points: int) -> int:
        """Return the elements of the largest temporary array for each object and pass, where `n_points` are asked for."""

    def rows(self, index: Rows) -> Marginal:
        """Return the distributions of some of the objects."""
