"""The [flags] section: thresholds of the pixel flags."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.core.flags import PixelFlag

__all__ = ["FlagsConfig"]

CENTER_FLAGS = ", ".join(
    str(flag.name)
    for flag in (PixelFlag.BAD_CENTER, PixelFlag.SATURATED, PixelFlag.BRIGHT_OBJECT, PixelFlag.LOW_SNR)
)


class FlagsConfig(Section):
    """The [flags] section: thresholds of the pixel flags."""

    center_radius_arcsec: float = Field(
        1.0, gt=0, description=f"{CENTER_FLAGS} look this far from the center"
    )
    neighbor_radius_arcsec: float = Field(
        3.0, ge=0, description=f"{PixelFlag.NEIGHBOR.help} Closer than this counts."
    )
    duplicate_radius_arcsec: float = Field(
        0.2, ge=0, description=f"{PixelFlag.DUPLICATE_POSITION.help} Closer than this counts."
    )
    bad_planes: tuple[Literal["BAD", "INTRP", "CR", "EDGE", "SUSPECT", "CLIPPED"], ...] = Field(
        ("BAD", "INTRP", "CR"),
        description=f"{PixelFlag.BAD_CENTER.help} These mask planes count; in coadds INTRP and CR are often set where one of many visits "
        "was interpolated",
    )
    low_snr: float = Field(
        5.0,
        ge=0,
        description=f"{PixelFlag.LOW_SNR.help} The threshold, of signal to noise in the center radius.",
    )
