"""The Marginal protocol: the distributions of one parameter, for any head.

Every kind of distribution (mixtures of normals, histograms, single values, several of these pooled) has the same methods, so
that quantiles, moments and modes of all are computed by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["GRID_POINTS", "NO_LIMITS", "Floats", "Function", "Marginal", "Rows"]

Floats = npt.NDArray[np.float64]
NO_LIMITS = (-math.inf, math.inf)

Rows = slice | npt.NDArray[np.intp]
Function = Callable[[Floats], Floats]

# The number of points at which the mode is first searched for; it is then refined between them.
GRID_POINTS = 129


class Marginal(Protocol):
    """Distributions of one standardized parameter for each object and pass. All passes have equal weight."""

    @property
    def n_members(self) -> int:
        """The number of networks; the first ``n_passes / n_members`` passes belong to the first network, and so on."""

    @property
    def is_smooth(self) -> bool:
        """Whether the densities have no jumps."""

    @property
    def min_sigma(self) -> Floats:
        """The standard deviation of the narrowest component, (object,): the scale on which the density varies; 0 if it jumps."""

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

    def moments(
        self, function: Function, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> tuple[Floats, Floats]:
        """Return mean and variance, (object, pass), of a function of the parameter.

        `limits` are standardized values beyond which the function is constant, where it has a kink. Normal distributions use
        quadrature with `n_points` values of the function, between the limits if there are any. Its values may be infinite: the caller
        must expect NumPy's floating-point warnings, and flag the object.
        """

    def component_range(self) -> tuple[Floats, Floats]:
        """Return the centers (object,) of the lowest and of the highest component."""

    def mode_grid(self, ends: Floats) -> Floats:
        """Return rising points (object, point) between `ends` (object, 2) at which to search for the mixture's mode."""

    def numbers_per_pass(self, n_points: int) -> int:
        """Return the number of elements of the largest temporary array, per object and pass, for `n_points` points."""

    def rows(self, index: Rows) -> Marginal:
        """Return the distributions of the objects with these indices."""
