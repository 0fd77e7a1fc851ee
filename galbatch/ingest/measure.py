"""What the pixels say of a block: coverage, sky noise, pixel flags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.config import FlagsConfig
from galbatch.types import Grid, MaskBit, PixelFlag

__all__ = ["Measured", "measure"]

# The sky is sampled in a frame this share of the cutout wide, from at most about so many pixels: the
# scatter of 1000 pixels is good to 4 percent, and sorting all of them would cost more than cutting.
FRAME_SHARE = 0.125
MAX_SKY_PIXELS = 1000
MIN_SKY_PIXELS = 32

SIGMA_OF_MAD = 1.482602218505602  # of a Gaussian

BAD_BITS = int(MaskBit.BAD | MaskBit.INTRP | MaskBit.CR)


@dataclass(frozen=True, slots=True)
class Measured:
    """Attributes as in `CutoutBlock`: (object, band) float32 and (object,) int32."""

    coverage: npt.NDArray[np.float32]
    sky_sigma_njy: npt.NDArray[np.float32]
    flags: npt.NDArray[np.int32]


def measure(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint16],
    *,
    variance: npt.NDArray[np.float32],
    grid: Grid,
    flags: FlagsConfig,
) -> Measured:
    """Coverage, robust sky scatter and the flags that pixels decide.

    Parameters
    ----------
    image, variance : (object, band, y, x), nJy and nJy^2, NaN where there is none
    mask : (object, band, y, x) in MaskBit bits

    Notes
    -----
    Signal to noise is the flux within the center radius over the root of the summed variance; where the
    variance is unknown, over the sky scatter times the root of the number of pixels. The noise of coadds
    is correlated: the true ratio is lower (by about 1.1 for HSC). No sky is subtracted.
    OUTSIDE_FOOTPRINT: the central pixel is NaN in every band. LOW_SNR: no band reaches the threshold, and
    one at least could be measured.
    """
    finite = np.isfinite(image)
    coverage = (np.count_nonzero(finite, axis=(2, 3)) / grid.size_px**2).astype(np.float32)
    sky_sigma = _sky_sigma(image, mask, size_px=grid.size_px)
    center = _center(grid, flags.center_radius_arcsec)
    bits = np.bitwise_or.reduce(mask[:, :, center], axis=2)  # (object, band)
    bits = np.bitwise_or.reduce(bits, axis=1)  # (object,)
    central = finite[:, :, grid.center_px, grid.center_px]
    snr = _snr(image[:, :, center], variance[:, :, center], sky_sigma=sky_sigma)
    conditions = {
        PixelFlag.OUTSIDE_FOOTPRINT: ~central.any(axis=1),
        PixelFlag.PARTIAL_COVERAGE: ((coverage > 0) & (coverage < 1)).any(axis=1),
        PixelFlag.MISSING_BAND: (coverage == 0).any(axis=1),
        PixelFlag.BAD_CENTER: (bits & BAD_BITS) != 0,
        PixelFlag.SATURATED: (bits & MaskBit.SAT) != 0,
        PixelFlag.BRIGHT_OBJECT: (bits & MaskBit.BRIGHT_OBJECT) != 0,
        PixelFlag.LOW_SNR: np.isfinite(snr).any(axis=1) & ~(snr >= flags.low_snr).any(axis=1),
    }
    found = np.zeros(len(image), np.int32)
    for flag, holds in conditions.items():
        found |= np.where(holds, np.int32(flag), np.int32(0))
    return Measured(coverage, sky_sigma, found)


def _center(grid: Grid, radius_arcsec: float) -> npt.NDArray[np.bool_]:
    """(y, x): pixels within the radius of the central pixel, which is always one of them."""
    offset = (np.arange(grid.size_px) - grid.center_px) * grid.pixel_scale_arcsec
    return np.asarray(offset[:, None] ** 2 + offset[None, :] ** 2 <= radius_arcsec**2)


def _sky_sigma(
    image: npt.NDArray[np.float32], mask: npt.NDArray[np.uint16], *, size_px: int
) -> npt.NDArray[np.float32]:
    """(object, band): 1.4826 MAD of undetected pixels of the frame; NaN with fewer than 32 of them."""
    width = max(1, int(size_px * FRAME_SHARE))
    frame = np.ones((size_px, size_px), bool)
    frame[width : size_px - width, width : size_px - width] = False
    index = np.flatnonzero(frame)
    index = index[:: max(1, len(index) // MAX_SKY_PIXELS)]
    flat = (*image.shape[:2], size_px**2)
    detected = mask.reshape(flat)[:, :, index] & (MaskBit.DETECTED | MaskBit.NEGATIVE)
    values = image.reshape(flat)[:, :, index]  # (object, band, pixel), a copy
    values[detected != 0] = np.nan
    middle = _nanmedian(values)
    scatter = _nanmedian(np.abs(values - middle[..., None])) * np.float32(SIGMA_OF_MAD)
    enough = np.isfinite(values).sum(axis=2) >= MIN_SKY_PIXELS
    return np.where(enough, scatter, np.float32(np.nan)).astype(np.float32)


def _nanmedian(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Median along the last axis, NaN where all are NaN; numpy's own loops over rows in Python."""
    ordered = np.sort(values, axis=-1)  # NaN last
    count = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, values.shape[-1] - 1), axis=-1)
    return np.asarray((0.5 * (low + high))[..., 0])


def _snr(
    image: npt.NDArray[np.float32], variance: npt.NDArray[np.float32], *, sky_sigma: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """(object, band) from (object, band, pixel); NaN where flux or noise are unknown."""
    measured = np.isfinite(image)
    flux = np.where(measured, image, 0.0).sum(axis=2, dtype=np.float64)
    count = measured.sum(axis=2)
    unknown = ~np.isfinite(variance) | ~(variance > 0)
    summed = np.where(measured & ~unknown, variance, 0.0).sum(axis=2, dtype=np.float64)
    from_sky = count * sky_sigma.astype(np.float64) ** 2
    noise = np.sqrt(np.where((measured & unknown).any(axis=2), from_sky, summed))
    valid = (count > 0) & (noise > 0)
    return np.where(valid, flux / np.where(valid, noise, 1.0), np.nan)
