"""Flags of the pixels that follow from the photometry: what biases a network without its knowing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import FlagsConfig
from galbatch.core.columns import PHOT_AXIS_RATIO, PHOT_RADIUS, photometry_band_columns
from galbatch.core.flags import PixelFlag
from galbatch.core.types import CutoutBlock

__all__ = ["photometry_flags"]

SKY_SIGMAS = 3.0
"""A sky, the cutout's or the tile's, within this many of its errors of 0 is no offset, whatever it would do."""

FLUX_SIGMAS = 2.0
"""A level of the tile's sky that moves a flux by fewer of its errors is no offset: the posterior of a faint galaxy is as wide."""

POINT_MIN_SNR = 20.0
"""Below this signal-to-noise ratio in a band the size of a source is not compared with the PSF's."""

Values = Mapping[str, npt.NDArray[Any]]


def photometry_flags(
    values: Values, cutouts: CutoutBlock, *, thresholds: FlagsConfig
) -> npt.NDArray[np.int32]:
    """Return the bits BLENDED, SATURATED_CORE, SKY_OFFSET, POINT_LIKE and PSF_UNLIKE, (object,) int32.

    Parameters
    ----------
    values : photometry columns (object,) by name
    cutouts : CutoutBlock
        The cutouts that were measured; their flags count, as a core that the mask marks as saturated is SATURATED, and no more.
    thresholds : FlagsConfig

    Notes
    -----
    Each condition holds where it does in any band. A comparison with NaN is false: what is unknown raises nothing.
    """
    area_px = (
        np.pi
        * np.square(values[PHOT_RADIUS.name] / cutouts.grid.pixel_scale_arcsec)
        * values[PHOT_AXIS_RATIO.name]
    )
    result = np.zeros(len(area_px), np.int32)
    is_saturated = (cutouts.flags & PixelFlag.SATURATED) != 0
    with np.errstate(invalid="ignore", divide="ignore"):
        for band, psf_off, level in zip(
            cutouts.bands, _psf_differences(cutouts), _sky_levels(cutouts), strict=True
        ):
            found = {what: values[column.name] for what, column in photometry_band_columns(band).items()}
            sky, flux = np.abs(found["sky"]), found["flux"]
            offset = (sky > SKY_SIGMAS * found["sky_err"]) & (
                sky * area_px > thresholds.sky_offset_share * np.abs(flux)
            )
            # A network sees the offset in all pixels of the cutout, not only within the aperture.
            offset |= (level * cutouts.grid.size_px**2 > thresholds.sky_level_share * np.abs(flux)) & (
                level * area_px > FLUX_SIGMAS * found["flux_err"]
            )
            is_bright = flux > POINT_MIN_SNR * found["flux_err"]
            conditions = {
                PixelFlag.BLENDED: (found["others_share"] > thresholds.blended_share)
                | (found["asymmetric_share"] > thresholds.asymmetric_share),
                PixelFlag.SATURATED_CORE: (found["flat_share"] > thresholds.flat_core_share) & ~is_saturated,
                PixelFlag.SKY_OFFSET: offset,
                PixelFlag.POINT_LIKE: is_bright & (found["core_ratio"] < thresholds.point_like_ratio),
                PixelFlag.PSF_UNLIKE: psf_off > thresholds.psf_unlike_share,
            }
            for flag, holds in conditions.items():
                result |= np.where(holds, np.int32(flag), np.int32(0))
    return result


def _psf_differences(cutouts: CutoutBlock) -> npt.NDArray[np.float32]:
    """Return the share by which stars of the tile are wider or narrower than stated, (band, object); NaN if either is unknown."""
    if cutouts.psf_fwhm_stars_arcsec is None:
        return np.full_like(cutouts.psf_fwhm_arcsec.T, np.nan)
    return np.abs(cutouts.psf_fwhm_stars_arcsec / cutouts.psf_fwhm_arcsec - np.float32(1)).T


def _sky_levels(cutouts: CutoutBlock) -> npt.NDArray[np.float32]:
    """Return by how much the sky of the tile is off, (band, object), nJy a pixel; NaN where it is unknown or within its error."""
    level, error = cutouts.sky_level_njy, cutouts.sky_level_err_njy
    if level is None or error is None:
        return np.full_like(cutouts.psf_fwhm_arcsec.T, np.nan)
    return np.where(np.abs(level) > SKY_SIGMAS * error, np.abs(level), np.float32(np.nan)).T
