"""Quantities measured in the pixels of a block: coverage, sky noise, pixel flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from galbatch.config import FlagsConfig
from galbatch.core.flags import MaskBit, PixelFlag, SkySource
from galbatch.core.sky_noise import in_frame, robust_scatter, thinned
from galbatch.core.types import Grid

__all__ = ["KnownNoise", "Measured", "measure"]

Number = TypeVar("Number", bound=np.generic)

PLANES_AT_ONCE = 8
"""Planes summed and picked from together: eight of 239 x 239 px are 1.8 MB, which a core's cache holds."""

DETECTED_BITS = int(MaskBit.DETECTED | MaskBit.NEGATIVE)


@dataclass(frozen=True, slots=True)
class Measured:
    """Quantities measured in the pixels, as in `CutoutBlock`: (object, band) float32 and int8, and flags (object,) int32."""

    coverage: npt.NDArray[np.float32]
    sky_sigma_njy: npt.NDArray[np.float32]
    sky_source: npt.NDArray[np.int8]
    flags: npt.NDArray[np.int32]


@dataclass(frozen=True)
class KnownNoise:
    """The noise of a block, as far as it is known from other sources than its pixels.

    Attributes
    ----------
    correlation : (object, band), as in `CutoutBlock`; NaN, and None for all, count as 1
    wider_sky : takes which cutouts have too few pixels of sky, (object, band) bool, and returns their scatter in nJy and
        `SkySource`, (cutout,) each; None: they stay unknown
    """

    correlation: npt.NDArray[np.float32] | None = None
    wider_sky: (
        Callable[[npt.NDArray[np.bool_]], tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]] | None
    ) = None


def measure(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint16],
    *,
    variance: npt.NDArray[np.float32],
    grid: Grid,
    flags: FlagsConfig,
    noise: KnownNoise = KnownNoise(),
) -> Measured:
    """Measure coverage, robust sky scatter and the flags that pixels decide.

    Parameters
    ----------
    image, variance : (object, band, y, x), nJy and nJy^2, NaN where there is none
    mask : (object, band, y, x) in MaskBit bits

    Notes
    -----
    Signal to noise is the flux within the center radius over the root of the summed variance; where the
    variance is unknown, over the sky scatter times the root of the number of pixels. Either noise is
    multiplied by the correlation. The noise of coadds is correlated before any resampling: the true
    ratio is lower still (by about 1.1 for HSC). No sky is subtracted.
    OUTSIDE_FOOTPRINT: the central pixel is NaN in every band. LOW_SNR: no band is known to reach the threshold,
    also where the noise is 0 or unknown, and one at least has pixels within the center radius.
    """
    frame = thinned(in_frame(grid.size_px))
    coverage, sky = _coverage_and_pixels(image, frame)
    # Not by take, which copies the whole of an array that is one value in all places.
    detected = mask.reshape(*mask.shape[:2], grid.size_px**2)[:, :, frame] & DETECTED_BITS
    # Pixels with detected light are left out: the scatter is that of the sky alone.
    sky[(detected != 0) | ~np.isfinite(sky)] = np.nan
    sky_sigma = robust_scatter(sky)
    source = np.where(np.isfinite(sky_sigma), np.int8(SkySource.FRAME), np.int8(SkySource.UNKNOWN))
    unknown = ~np.isfinite(sky_sigma) & (coverage > 0)
    if noise.wider_sky is not None and unknown.any():
        sky_sigma[unknown], source[unknown] = noise.wider_sky(unknown)
    center = _Center.of(grid, flags.center_radius_arcsec)
    bits = np.bitwise_or.reduce(center.pixels(mask), axis=(1, 2))  # (object,)
    central = np.isfinite(image[:, :, grid.center_px, grid.center_px])
    central_pixels = center.pixels(image)
    snr = _snr(central_pixels, center.pixels(variance), sky_sigma=sky_sigma)
    if noise.correlation is not None:
        snr /= np.where(np.isfinite(noise.correlation), noise.correlation, np.float32(1))
    bad_bits = int(reduce(or_, (MaskBit[name] for name in flags.bad_planes), MaskBit(0)))
    conditions = {
        PixelFlag.OUTSIDE_FOOTPRINT: ~central.any(axis=1),
        PixelFlag.PARTIAL_COVERAGE: ((coverage > 0) & (coverage < 1)).any(axis=1),
        PixelFlag.MISSING_BAND: (coverage == 0).any(axis=1),
        PixelFlag.BAD_CENTER: (bits & bad_bits) != 0,
        PixelFlag.SATURATED: (bits & MaskBit.SAT) != 0,
        PixelFlag.BRIGHT_OBJECT: (bits & MaskBit.BRIGHT_OBJECT) != 0,
        # A comparison with NaN is false: noise that is 0 or unknown reaches no threshold.
        PixelFlag.LOW_SNR: np.isfinite(central_pixels).any(axis=(1, 2)) & ~(snr >= flags.low_snr).any(axis=1),
    }
    found = np.zeros(len(image), np.int32)
    for flag, holds in conditions.items():
        found |= np.where(holds, np.int32(flag), np.int32(0))
    return Measured(coverage, sky_sigma, source, found)


@dataclass(frozen=True, slots=True)
class _Center:
    """The pixels of a cutout within a radius of its central one.

    `window` bounds them; `disc` (y, x) says which of its pixels are meant.
    """

    window: tuple[slice, slice]
    disc: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, grid: Grid, radius_arcsec: float) -> _Center:
        """Return the pixels within `radius_arcsec` on a grid; the central pixel is always one of them."""
        # A millionth more: a pixel whose center lies on the circle belongs to it, whatever the rounding.
        radius_px = radius_arcsec / grid.pixel_scale_arcsec + 1e-6
        reach = min(int(radius_px), grid.center_px)
        start, stop = grid.center_px - reach, min(grid.center_px + reach + 1, grid.size_px)
        offset = np.arange(start, stop) - grid.center_px
        disc = offset[:, None] ** 2 + offset[None, :] ** 2 <= radius_px**2
        return cls((slice(start, stop), slice(start, stop)), disc)

    def pixels(self, plane: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Return a copy (object, band, pixel) of these pixels of `plane` (object, band, y, x)."""
        return plane[:, :, *self.window][:, :, self.disc]


def _coverage_and_pixels(
    image: npt.NDArray[np.float32], index: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the share of finite pixels (object, band), and a copy of the pixels at `index` (object, band, pixel).

    A sum is finite only if all it sums is: it takes 3 us for 239 x 239 px, counting 17 us, and most cutouts
    are covered entirely. Eight planes at a time fit the cache, so that what was summed is picked from there:
    half the time of two passes.
    """
    flat = image.reshape(-1, image.shape[2] * image.shape[3])  # (plane, pixel)
    coverage = np.ones(len(flat), np.float32)
    values = np.empty((len(flat), len(index)), np.float32)
    for start in range(0, len(flat), PLANES_AT_ONCE):
        part = flat[start : start + PLANES_AT_ONCE]
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.einsum("ij->i", part)
        for row in np.flatnonzero(~np.isfinite(sums)):
            coverage[start + row] = np.count_nonzero(np.isfinite(part[row])) / flat.shape[1]
        part.take(index, axis=1, out=values[start : start + PLANES_AT_ONCE], mode="clip")
    return coverage.reshape(image.shape[:2]), values.reshape(*image.shape[:2], len(index))


def _snr(
    image: npt.NDArray[np.float32], variance: npt.NDArray[np.float32], *, sky_sigma: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the signal-to-noise ratio (object, band) of pixels (object, band, pixel); NaN where flux or noise are unknown."""
    measured = np.isfinite(image)
    flux = np.where(measured, image, 0.0).sum(axis=2, dtype=np.float64)
    count = measured.sum(axis=2)
    # A variance of 0 is no knowledge of the noise: it would make the ratio infinite.
    unknown = ~np.isfinite(variance) | ~(variance > 0)
    summed = np.where(measured & ~unknown, variance, 0.0).sum(axis=2, dtype=np.float64)
    from_sky = count * sky_sigma.astype(np.float64) ** 2
    noise = np.sqrt(np.where((measured & unknown).any(axis=2), from_sky, summed))
    valid = (count > 0) & (noise > 0)
    return np.where(valid, flux / np.where(valid, noise, 1.0), np.nan)
