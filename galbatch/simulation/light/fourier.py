"""Fourier images of profiles of unit flux, by tables and in closed form: what drawing spends its time in."""

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

MOFFAT_BETA = 3.5  # between Kolmogorov's wings and a Gaussian core; HSC's PSFs are near it

# A table is linear between 4096 points evenly spaced in the logarithm of k re: within 3e-6 of a finer one.
TABLE_POINTS = 4096
LOG_START, LOG_END = math.log(1e-4), math.log(1e5)
LOG_STEP = (LOG_END - LOG_START) / (TABLE_POINTS - 1)
GALSIM_POINTS = 640

N_STEP = 0.1
"""Tables are made at these steps of n and cubic in between: within 3e-4 of GalSim at any wave number (tested)."""


@dataclass(frozen=True, slots=True)
class Psf:
    """A Moffat PSF with the full width at half maximum in arcsec and a shear (g1, g2)."""

    fwhm_arcsec: float
    g1: float = 0.0
    g2: float = 0.0


@functools.lru_cache(maxsize=64)  # 0.5 to 6.2 in steps of 0.1, 32 kB each
def _node(step: int) -> Floats:
    """GalSim's transform of the circular profile with n = 0.1 `step` and half-light radius 1."""
    profile = galsim.Sersic(step * N_STEP, half_light_radius=1.0)
    log_k = np.linspace(LOG_START, LOG_END, GALSIM_POINTS)
    values = [profile.kValue(k, 0.0).real for k in np.exp(log_k).tolist()]
    fine = interpolate.CubicSpline(log_k, values)
    return fine(np.linspace(LOG_START, LOG_END, TABLE_POINTS))


def sersic_table(n: float) -> Floats:
    """(TABLE_POINTS,) transform of a circular Sersic profile of unit flux, over ln(k re); n from 0.6 to 6."""
    at = n / N_STEP
    first = math.floor(at) - 1
    t = at - first
    weights = (  # Lagrange's, on the nodes 0, 1, 2, 3
        -(t - 1) * (t - 2) * (t - 3) / 6,
        t * (t - 2) * (t - 3) / 2,
        -t * (t - 1) * (t - 3) / 2,
        t * (t - 1) * (t - 2) / 6,
    )
    a, b, c, d = (_node(first + k) for k in range(4))
    return weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d


def sersic_transform(tables: Floats, k2: Floats) -> Floats:
    """Transform at squared elliptical wave numbers.

    Parameters
    ----------
    tables
        (row, TABLE_POINTS) of `sersic_table`.
    k2
        (row, point), (k re)^2, with re the half-light radius along the major axis.

    Returns
    -------
    (row, point) float64, 1 at k = 0
    """
    at = np.log(np.maximum(k2, 1e-8))
    at *= 0.5 / LOG_STEP
    at -= LOG_START / LOG_STEP
    np.clip(at, 0.0, TABLE_POINTS - 1.001, out=at)
    index = at.astype(np.int32)
    at -= index
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
    """Scale radius in arcsec."""
    return np.asarray(fwhm_arcsec, np.float64) / (2 * math.sqrt(2 ** (1 / MOFFAT_BETA) - 1))


def moffat_transform(psf: Psf, kx: Floats, ky: Floats) -> Floats:
    """Transform of the sheared PSF of unit flux at wave numbers per arcsec (kx and ky broadcast).

    For beta = 3.5 the Bessel function K_{5/2} of the general case is elementary: e^-x (1 + x + x^2 / 3).
    """
    g1, g2 = psf.g1, psf.g2
    norm = float(moffat_scale(psf.fwhm_arcsec)) / math.sqrt(1 - g1 * g1 - g2 * g2)
    x = np.hypot(norm * ((1 + g1) * kx + g2 * ky), norm * (g2 * kx + (1 - g1) * ky))
    return np.exp(-x) * (1 + x * (1 + x / 3))


def moffat_intensity(radius_arcsec: Floats, fwhm_arcsec: npt.ArrayLike) -> Floats:
    """A round Moffat profile of unit flux, per square arcsec."""
    scale = moffat_scale(fwhm_arcsec)
    peak = (MOFFAT_BETA - 1) / (np.pi * scale**2)
    return peak * (1 + (radius_arcsec / scale) ** 2) ** -MOFFAT_BETA
