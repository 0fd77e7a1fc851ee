"""The Sersic profile in closed form: what sizes and far wings need, without an image.

Sersic (1963); the forms used here are those of Graham & Driver (2005), eqs. 1 to 6.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["elliptical_radius", "flux_outside", "intensity"]

Floats = npt.NDArray[np.float64]


def scale_b(n: npt.ArrayLike) -> Floats:
    """The b of exp(-b (r/re)^(1/n)) that makes re the half-light radius; any shape."""
    return np.asarray(special.gammaincinv(2.0 * np.asarray(n), 0.5))


def elliptical_radius(x: Floats, y: Floats, *, axis_ratio: npt.ArrayLike, angle_deg: npt.ArrayLike) -> Floats:
    """Semi-major axis of the ellipse through (x, y), in the unit of x; angle from +x toward +y."""
    angle = np.deg2rad(angle_deg)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    return np.hypot(along, across / np.asarray(axis_ratio))


def intensity(radius: Floats, n: npt.ArrayLike, re: npt.ArrayLike, *, axis_ratio: npt.ArrayLike) -> Floats:
    """Surface brightness at elliptical `radius` of a profile of unit flux, per unit area.

    `radius` and `re` (half-light radius along the major axis) share one unit; arguments broadcast.
    """
    n, re = np.asarray(n, dtype=np.float64), np.asarray(re, dtype=np.float64)
    b = scale_b(n)
    log_center = 2 * n * np.log(b) - special.gammaln(2 * n) - np.log(2 * np.pi * n * re**2 * axis_ratio)
    return np.exp(log_center - b * (radius / re) ** (1 / n))


def flux_outside(radius: Floats, n: npt.ArrayLike, re: npt.ArrayLike) -> Floats:
    """Share of the light outside the ellipse of semi-major axis `radius`; arguments broadcast."""
    n = np.asarray(n, dtype=np.float64)
    return np.asarray(special.gammaincc(2 * n, scale_b(n) * (radius / np.asarray(re)) ** (1 / n)))
