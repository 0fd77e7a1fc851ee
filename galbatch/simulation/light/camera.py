"""The simulated camera: its bands, pixels and PSFs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from galbatch.simulation.light.fourier import Psf

__all__ = ["BANDS", "PIXEL_SCALE_ARCSEC", "PSF_FWHM_ARCSEC", "draw_psfs"]

BANDS = ("g", "r", "i")
"""Bands for which the populations have colors."""

PIXEL_SCALE_ARCSEC = 0.168
"""HSC's pixel scale."""


PSF_FWHM_ARCSEC = {"g": 0.85, "r": 0.79, "i": 0.66}
PSF_SCATTER = 0.08  # Relative scatter of the FWHM, common to all bands. With the limits below g has 0.70 to 1.05 arcsec.
PSF_LIMITS = (0.83, 1.23)
PSF_SHEAR = 0.02


def draw_psfs(bands: Sequence[str], rng: np.random.Generator) -> list[Psf]:
    """Draw a PSF for each band. The seeing is common to all bands, and each has its own small shear.

    A band gets the same PSF for any choice of the other bands.
    """
    seeing = float(np.clip(rng.normal(1.0, PSF_SCATTER), *PSF_LIMITS))
    shears = rng.normal(0.0, PSF_SHEAR, (len(BANDS), 2))
    return [Psf(PSF_FWHM_ARCSEC[band] * seeing, *shears[BANDS.index(band)].tolist()) for band in bands]
