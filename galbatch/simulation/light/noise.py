"""Noise of the sky and of photons, either independent between pixels or correlated as in coadds."""

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
"""Sky noise per pixel of 0.168 arcsec, about that of HSC Wide (5 sigma limits of 26.5, 26.1, 25.9 mag for point sources)."""

ELECTRONS_PER_NJY = 66.0  # Roughly ten 4-minute exposures, with 3.8 electrons for 27 mag.

NEIGHBOR_WEIGHT = 0.1
"""Correlated noise is white noise convolved with the kernel (0.1, 1, 0.1) on each axis, scaled to the same sigma per pixel."""

CORRELATION = tuple(
    value / (1 + 2 * NEIGHBOR_WEIGHT**2) for value in (2 * NEIGHBOR_WEIGHT, NEIGHBOR_WEIGHT**2)
)
"""Correlation coefficients of pixels one (0.196) and two (0.010) apart along an axis; 0 for larger distances. The noise of a
sum over many pixels is 1.41 times that of independent pixels."""

STATED_SIGMA = 1 / 1.08
"""Ratio of the sigma in the variance plane of a coadd with correlated noise to the true sigma of its pixels. Together with
undetected faint galaxies it makes the robust sigma of the background 1.12 times the value in the plane, as measured on
coadds of HSC PDR3 (tested)."""


def sky_sigma_njy(band: str, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> float:
    """Return the sky noise per pixel, nJy. It scales with the pixel's side, so that the noise of a given area is the same."""
    return SKY_SIGMA_NJY[band] * pixel_scale_arcsec / PIXEL_SCALE_ARCSEC


def add_noise(
    light_njy: Floats,
    band: str,
    rng: np.random.Generator,
    *,
    correlate: bool = False,
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
) -> tuple[Floats, Floats]:
    """Return an image with sky and photon noise (nJy), and its true variance (nJy^2).

    Both have the shape of `light_njy`: any for independent noise, (y, x) for correlated noise.
    """
    variance = noise_variance(light_njy, band, pixel_scale_arcsec)
    if correlate:
        # One pixel more on each side, which the kernel of three pixels uses up.
        white = correlated(rng.standard_normal([length + 2 for length in light_njy.shape]))
    else:
        white = rng.standard_normal(light_njy.shape)
    return light_njy + white * np.sqrt(variance), variance


def noise_variance(light_njy: Floats, band: str, pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC) -> Floats:
    """Return the variance of each pixel, nJy^2, from sky and photon noise."""
    sky = sky_sigma_njy(band, pixel_scale_arcsec) ** 2
    return sky + np.maximum(light_njy, 0.0) / ELECTRONS_PER_NJY


def correlated(white: Floats) -> Floats:
    """Return correlated noise (y - 2, x - 2) of unit sigma, from independent noise (y, x) of unit sigma."""
    along_y = white[1:-1] + NEIGHBOR_WEIGHT * (white[:-2] + white[2:])
    both = along_y[:, 1:-1] + NEIGHBOR_WEIGHT * (along_y[:, :-2] + along_y[:, 2:])
    return both / (1 + 2 * NEIGHBOR_WEIGHT**2)
