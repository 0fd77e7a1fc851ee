"""Fourier transforms of Sersic profiles (from tables) and Moffat PSFs (in closed form), all of unit flux."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import galsim
import numpy as np
import numpy.typing as npt
from scipy import interpolate

__all__ = ["MOFFAT_BETA", "Psf", "moffat_intensity", "moffat_transform", "sersic_table", "sersic_transform"]

Floats = npt.NDArray[np.float64]

MOFFAT_BETA = 3.5  # Between the wings of Kolmogorov turbulence and a Gaussian; PSFs of HSC are close to it.

# Tables have 4096 points evenly spaced in ln(k re); linear interpolation between them is accurate to 3e-6.
TABLE_POINTS = 4096
LOG_START, LOG_END = math.log(1e-4), math.log(1e5)
LOG_STEP = (LOG_END - LOG_START) / (TABLE_POINTS - 1)
GALSIM_POINTS = 640

N_STEP = 0.1
"""Step in n between tables. Cubic interpolation in n agrees with GalSim to 3e-4 at any wave number (tested)."""


@dataclass(frozen=True, slots=True)
class Psf:
    """A Moffat PSF with beta = MOFFAT_BETA, its full width at half maximum in arcsec, and a shear (g1, g2)."""

    fwhm_arcsec: float
    g1: float = 0.0
    g2: float = 0.0


@functools.lru_cache(maxsize=64)  # Enough for n from 0.5 to 6.2 in steps of 0.1, 32 kB each.
def _node(step: int) -> Floats:
    """Return GalSim's transform (TABLE_POINTS,) of a circular Sersic profile with n = 0.1 `step` and half-light radius 1."""
    profile = galsim.Sersic(step * N_STEP, half_light_radius=1.0)
    # kValue takes one wave number at a time: it is called for 640, and a cubic spline gives the other points.
    log_k = np.linspace(LOG_START, LOG_END, GALSIM_POINTS)
    values = [profile.kValue(k, 0.0).real for k in np.exp(log_k).tolist()]
    fine = interpolate.CubicSpline(log_k, values)
    return fine(np.linspace(LOG_START, LOG_END, TABLE_POINTS))


def sersic_table(n: float) -> Floats:
    """Return the transform (TABLE_POINTS,) of a circular Sersic profile of unit flux, over ln(k re), for n from 0.6 to 6."""
    at = n / N_STEP
    first = math.floor(at) - 1
    t = at - first
    weights = (  # Weights of the Lagrange polynomial on the nodes 0, 1, 2, 3.
        -(t - 1) * (t - 2) * (t - 3) / 6,
        t * (t - 2) * (t - 3) / 2,
        -t * (t - 1) * (t - 3) / 2,
        t * (t - 1) * (t - 2) / 6,
    )
    a, b, c, d = (_node(first + k) for k in range(4))
    return weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d


def sersic_transform(tables: Floats, k2: Floats) -> Floats:
    """Return the transforms of Sersic profiles at squared elliptical wave numbers.

    Parameters
    ----------
    tables
        (row, TABLE_POINTS) float64, from `sersic_table`.
    k2
        (row, point) float64, (k re)^2, where re is the half-light radius along the major axis.

    Returns
    -------
    (row, point) float64, 1 at k = 0
    """
    # Most of the time of drawing is spent here, so arrays are reused and numbers of table entries are int32.
    at = np.log(np.maximum(k2, 1e-8))
    at *= 0.5 / LOG_STEP
    at -= LOG_START / LOG_STEP
    np.clip(at, 0.0, TABLE_POINTS - 1.001, out=at)
    index = at.astype(np.int32)
    at -= index
    # The tables are read as one flat array, in which each row begins TABLE_POINTS after the last.
    index += (np.arange(len(tables), dtype=np.int32) * TABLE_POINTS)[:, None]
    flat = tables.ravel()
    low = flat.take(index)
    index += 1
    high = flat.take(index)
    high -= low
    high *= at
    high += low
    return high


def moffat_scale(fwhm_arcsec: npt.ArrayLike) -> Floats:
    """Return the scale radius of a Moffat profile in arcsec, from its FWHM."""
    return np.asarray(fwhm_arcsec, np.float64) / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))


def moffat_transform(psf: Psf, kx: Floats, ky: Floats) -> Floats:
    """Return the transform of a sheared Moffat PSF of unit flux at wave numbers in 1/arcsec; kx and ky broadcast.

    For beta = 3.5 the Bessel function K_{5/2} of the general case is elementary: e^-x (1 + x + x^2 / 3).
    """
    g1, g2 = psf.g1, psf.g2
    # A shear acts on wave numbers as on positions; the root keeps the area.
    norm = float(moffat_scale(psf.fwhm_arcsec)) / math.sqrt(1 - g1 * g1 - g2 * g2)
    x = np.hypot(norm * ((1 + g1) * kx + g2 * ky), norm * (g2 * kx + (1 - g1) * ky))
    return np.exp(-x) * (1 + x * (1 + x / 3))


def moffat_intensity(radius_arcsec: Floats, fwhm_arcsec: npt.ArrayLike) -> Floats:
    """Return the surface brightness of a circular Moffat profile of unit flux, per square arcsec."""
    scale = moffat_scale(fwhm_arcsec)
    peak = (MOFFAT_BETA - 1) / (np.pi * scale**2)
    return peak * (1 + (radius_arcsec / scale) ** 2) ** -MOFFAT_BETA
