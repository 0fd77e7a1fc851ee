"""Flags of the pixels that follow from the photometry: what biases a network without its knowing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import FlagsConfig
from galbatch.core.columns import PHOT_AXIS_RATIO, PHOT_RADIUS, photometry_band_columns
from galbatch.core.flags import PixelFlag

__all__ = ["photometry_flags"]

SKY_SIGMAS = 3.0
"""A local sky within this many of its errors of 0 is no offset, whatever it would do."""

POINT_MIN_SNR = 20.0
"""Below this signal-to-noise ratio in a band the size of a source is not compared with the PSF's."""

Values = Mapping[str, npt.NDArray[Any]]


def photometry_flags(
    values: Values,
    bands: Sequence[str],
    *,
    flags: npt.NDArray[np.int32],
    thresholds: FlagsConfig,
    pixel_scale_arcsec: float,
) -> npt.NDArray[np.int32]:
    """Return the bits BLENDED, SATURATED_CORE, SKY_OFFSET and POINT_LIKE, (object,) int32.

    Parameters
    ----------
    values : photometry columns (object,) by name
    bands : bands of the cutouts
    flags : (object,) int32, `PixelFlag` bits that are known: a core that the mask marks as saturated is SATURATED, and no more
    thresholds : FlagsConfig
    pixel_scale_arcsec : pixel scale of the cutouts

    Notes
    -----
    Each condition holds where it does in any band. A comparison with NaN is false: what is unknown raises nothing.
    """
    area_px = np.pi * np.square(values[PHOT_RADIUS.name] / pixel_scale_arcsec) * values[PHOT_AXIS_RATIO.name]
    result = np.zeros(len(area_px), np.int32)
    is_saturated = (flags & PixelFlag.SATURATED) != 0
    with np.errstate(invalid="ignore", divide="ignore"):
        for band in bands:
            found = {what: values[column.name] for what, column in photometry_band_columns(band).items()}
            sky, flux = np.abs(found["sky"]), found["flux"]
            offset = (sky > SKY_SIGMAS * found["sky_err"]) & (
                sky * area_px > thresholds.sky_offset_share * np.abs(flux)
            )
            is_bright = flux > POINT_MIN_SNR * found["flux_err"]
            conditions = {
                PixelFlag.BLENDED: (found["others_share"] > thresholds.blended_share)
                | (found["asymmetric_share"] > thresholds.asymmetric_share),
                PixelFlag.SATURATED_CORE: (found["flat_share"] > thresholds.flat_core_share) & ~is_saturated,
                PixelFlag.SKY_OFFSET: offset,
                PixelFlag.POINT_LIKE: is_bright & (found["core_ratio"] < thresholds.point_like_ratio),
            }
            for flag, holds in conditions.items():
                result |= np.where(holds, np.int32(flag), np.int32(0))
    return result
