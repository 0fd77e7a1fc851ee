"""The simulated camera: its bands, pixels and PSFs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from galbatch.simulation.light.fourier import Psf

__all__ = ["BANDS", "PIXEL_SCALE_ARCSEC", "PSF_FWHM_ARCSEC", "draw_psfs"]

BANDS = ("g", "r", "i")
"""Bands the populations have colors for."""

PIXEL_SCALE_ARCSEC = 0.168
"""HSC's pixel scale."""


PSF_FWHM_ARCSEC = {"g": 0.85, "r": 0.79, "i": 0.66}
PSF_SCATTER = 0.08  # of the width, common to the bands; g then stays within 0.70-1.05
PSF_LIMITS = (0.83, 1.23)
PSF_SHEAR = 0.02


def draw_psfs(bands: Sequence[str], rng: np.random.Generator) -> list[Psf]:
    """Draw a PSF for each band: one seeing for all, a small shear of each band's own.

    The same draws are made whatever the bands.
    """
    seeing = float(np.clip(rng.normal(1.0, PSF_SCATTER), *PSF_LIMITS))
    shears = rng.normal(0.0, PSF_SHEAR, (len(BANDS), 2))
    return [Psf(PSF_FWHM_ARCSEC[band] * seeing, *shears[BANDS.index(band)].tolist()) for band in bands]
