"""Noise of the sky and of the light's photons, independent from pixel to pixel or correlated as in coadds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from galbatch.simulation.light.camera import PIXEL_SCALE_ARCSEC

__all__ = [
    "CORRELATION",
    "SKY_SIGMA_NJY",
    "STATED_SIGMA",
    "add_noise",
    "correlated",
    "noise_variance",
    "sky_sigma_njy",
]

Floats = npt.NDArray[np.float64]

SKY_SIGMA_NJY = {"g": 2.0, "r": 2.6, "i": 3.6}
"""Sky noise per 0.168 arcsec pixel: about HSC Wide's (5 sigma point sources of 26.5, 26.1, 25.9 mag)."""

ELECTRONS_PER_NJY = 66.0  # ten 4-minute exposures with a zero point of 27 mag of 3.8 electrons, roughly

NEIGHBOR_WEIGHT = 0.1
"""Correlated noise is white noise under the kernel (0.1, 1, 0.1) on each axis, scaled to keep each pixel's sigma."""

CORRELATION = tuple(
    value / (1 + 2 * NEIGHBOR_WEIGHT**2) for value in (2 * NEIGHBOR_WEIGHT, NEIGHBOR_WEIGHT**2)
)
"""Correlation coefficient of pixels one (0.196) and two (0.010) apart along an axis; none beyond. The noise of sums
over many pixels is 1.41 times that of independent pixels."""

STATED_SIGMA = 1 / 1.08
"""Sigma that the variance plane of a coadd with correlated noise states, over the true sigma of its pixels. With the
galaxies too faint to be detected, the robust background sigma is then 1.12 times what the plane implies, as was measured
on HSC's PDR3 coadds (tested)."""


def sky_sigma_njy(band: str, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> float:
    """Sky noise per pixel, nJy: the noise of a given area is the same whatever its pixels."""
    return SKY_SIGMA_NJY[band] * pixel_scale_arcsec / PIXEL_SCALE_ARCSEC


def add_noise(
    light_njy: Floats,
    band: str,
    rng: np.random.Generator,
    *,
    correlate: bool = False,
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
) -> tuple[Floats, Floats]:
    """Image (nJy) and true variance (nJy^2), any shape ((y, x) where correlated): sky and photon noise."""
    variance = noise_variance(light_njy, band, pixel_scale_arcsec)
    if correlate:
        white = correlated(rng.standard_normal([length + 2 for length in light_njy.shape]))
    else:
        white = rng.standard_normal(light_njy.shape)
    return light_njy + white * np.sqrt(variance), variance


def noise_variance(light_njy: Floats, band: str, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> Floats:
    """Variance of each pixel, nJy^2, of sky and photons."""
    sky = sky_sigma_njy(band, pixel_scale_arcsec) ** 2
    return sky + np.maximum(light_njy, 0.0) / ELECTRONS_PER_NJY


def correlated(white: Floats) -> Floats:
    """(y - 2, x - 2) correlated noise of unit sigma, from independent noise (y, x) of unit sigma."""
    along_y = white[1:-1] + NEIGHBOR_WEIGHT * (white[:-2] + white[2:])
    both = along_y[:, 1:-1] + NEIGHBOR_WEIGHT * (along_y[:, :-2] + along_y[:, 2:])
    return both / (1 + 2 * NEIGHBOR_WEIGHT**2)
