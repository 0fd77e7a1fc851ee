"""The Sersic profile in closed form: surface brightness and enclosed flux.

Sersic (1963), in the notation of Graham & Driver (2005), eqs. 1 to 6.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["elliptical_radius", "flux_outside", "intensity"]

Floats = npt.NDArray[np.float64]


def scale_b(n: npt.ArrayLike) -> Floats:
    """Return b of exp(-b (r/re)^(1/n)), for which re is the half-light radius; the shape is that of `n`."""
    return np.asarray(special.gammaincinv(2.0 * np.asarray(n), 0.5))


def elliptical_radius(x: Floats, y: Floats, *, axis_ratio: npt.ArrayLike, angle_deg: npt.ArrayLike) -> Floats:
    """Return the semi-major axis of the ellipse through (x, y), in the unit of x. The angle is from +x toward +y."""
    angle = np.deg2rad(angle_deg)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    return np.hypot(along, across / np.asarray(axis_ratio))


def intensity(radius: Floats, n: npt.ArrayLike, re: npt.ArrayLike, *, axis_ratio: npt.ArrayLike) -> Floats:
    """Return the surface brightness of a profile of unit flux at an elliptical radius, per unit area.

    `radius` and `re` (half-light radius along the major axis) have the same unit. Arguments broadcast.
    """
    n, re = np.asarray(n, dtype=np.float64), np.asarray(re, dtype=np.float64)
    b = scale_b(n)
    # In logarithms, because b^2n and the gamma function are large for high n.
    log_center = 2 * n * np.log(b) - special.gammaln(2 * n) - np.log(2 * np.pi * n * re**2 * axis_ratio)
    return np.exp(log_center - b * (radius / re) ** (1 / n))


def flux_outside(radius: Floats, n: npt.ArrayLike, re: npt.ArrayLike) -> Floats:
    """Return the fraction of the flux outside the ellipse with semi-major axis `radius`. Arguments broadcast."""
    n = np.asarray(n, dtype=np.float64)
    return np.asarray(special.gammaincc(2 * n, scale_b(n) * (radius / np.asarray(re)) ** (1 / n)))
