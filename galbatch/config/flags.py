"""The [flags] section: thresholds of the pixel flags."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from galbatch.config.strict import Section

__all__ = ["FlagsConfig"]


class FlagsConfig(Section):
    """The [flags] section: thresholds of the pixel flags."""

    center_radius_arcsec: float = Field(
        1.0, gt=0, description="BAD_CENTER, SATURATED, BRIGHT_OBJECT look this far from the center"
    )
    neighbor_radius_arcsec: float = Field(
        3.0, ge=0, description="NEIGHBOR: another listed object is closer than this"
    )
    duplicate_radius_arcsec: float = Field(
        0.2, ge=0, description="DUPLICATE_POSITION: another listed object is closer than this"
    )
    bad_planes: tuple[Literal["BAD", "INTRP", "CR", "EDGE", "SUSPECT", "CLIPPED"], ...] = Field(
        ("BAD", "INTRP", "CR"),
        description="BAD_CENTER: mask planes that count; in coadds INTRP and CR are often set where one of many visits "
        "was interpolated",
    )
    low_snr: float = Field(
        5.0, ge=0, description="LOW_SNR: signal to noise in the center radius below this in every band"
    )
