"""The [flags] section: thresholds of the flags."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.config.values import Separation, Width
from galbatch.core.flags import ModelFlag, PixelFlag

__all__ = ["FlagsConfig"]

# The flags are named here by their members, so that a renamed flag changes the help text, too.
CENTER_FLAGS = ", ".join(
    str(flag.name)
    for flag in (PixelFlag.BAD_CENTER, PixelFlag.SATURATED, PixelFlag.BRIGHT_OBJECT, PixelFlag.LOW_SNR)
)


class FlagsConfig(Section):
    """The [flags] section: thresholds of the flags."""

    of_list: ClassVar[frozenset[str]] = frozenset({"neighbor_radius_arcsec", "duplicate_radius_arcsec"})
    of_models: ClassVar[frozenset[str]] = frozenset({"max_missing_share"})
    of_photometry: ClassVar[frozenset[str]] = frozenset(
        {
            "blended_share",
            "flat_core_share",
            "sky_offset_share",
            "sky_level_share",
            "point_like_ratio",
            "inconsistent_rate",
            "asymmetric_share",
            "psf_unlike_share",
        }
    )
    """Keys that change no flag of the cutouts: those of the object list, of networks, and of the photometry."""

    center_radius_arcsec: Width = Field(
        1.0, description=f"radius around the center (arcsec) in which {CENTER_FLAGS} look at the pixels"
    )
    neighbor_radius_arcsec: Separation = Field(
        3.0, description=f"{PixelFlag.NEIGHBOR.help} Separations below this count (arcsec)."
    )
    # About one pixel of HSC (0.168 arcsec): an image of the ground shows two entries that close as one source.
    duplicate_radius_arcsec: Separation = Field(
        0.2, description=f"{PixelFlag.DUPLICATE_POSITION.help} Separations below this count (arcsec)."
    )
    # Only planes that mean a defect: DETECTED, for example, would flag almost every object.
    bad_planes: tuple[Literal["BAD", "INTRP", "CR", "EDGE", "SUSPECT", "CLIPPED"], ...] = Field(
        ("BAD", "INTRP", "CR"),
        description=f"{PixelFlag.BAD_CENTER.help} Mask planes that count; in coadds INTRP and CR are often set where only one of many "
        "visits was interpolated",
    )
    # With half of a band gone, what the network sees is the edge of the survey.
    max_missing_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description=f"{ModelFlag.MISSING_PIXELS.help} Largest share of a band's pixels that may be missing; above it: no values.",
    )
    low_snr: float = Field(
        5.0,
        ge=0,
        # The shot noise of 10^12 electrons, more than any pixel of a coadd holds.
        le=10**6,
        description=f"{PixelFlag.LOW_SNR.help} Smallest signal-to-noise ratio within center_radius_arcsec.",
    )
    blended_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description=f"{PixelFlag.BLENDED.help} Largest share of the aperture's light in any band (phot_others_share).",
    )
    # Single simulated galaxies have at most 0.1, arms of spirals add as much; a merged neighbor with a third of the light makes 0.2.
    asymmetric_share: float = Field(
        0.13,
        ge=0,
        le=1,
        description=f"{PixelFlag.BLENDED.help} Largest share of the light in any band that the opposite side lacks (phot_asymmetric_share).",
    )
    # Galaxies and stars have 0.02 to 0.2, as far as the pixels sample their cores.
    flat_core_share: float = Field(
        0.3,
        ge=0,
        le=1,
        description=f"{PixelFlag.SATURATED_CORE.help} Largest share of the core's pixels that are as bright as the brightest one "
        "(phot_flat_share).",
    )
    # demo:gampen_survey's fluxes move by two standard deviations where the sky adds a twentieth to them.
    sky_offset_share: float = Field(
        0.08,
        ge=0,
        le=10,
        description=f"{PixelFlag.SKY_OFFSET.help} Largest share of the flux that the sky (phot_sky_njy) adds to or takes from the aperture.",
    )
    # Of the bright galaxies of demo:gampen, whose fluxes are known to 2 percent, those that a sky offset moves by two standard deviations have 0.01 and more.
    sky_level_share: float = Field(
        0.01,
        ge=0,
        le=10,
        description=f"{PixelFlag.SKY_OFFSET.help} Largest share of the flux that the tile's sky (sky_level_njy) adds to or takes from the cutout, "
        "where within the aperture it is more than two of the flux's errors.",
    )
    point_like_ratio: float = Field(
        0.595,
        ge=0,
        le=2,
        description=f"{PixelFlag.POINT_LIKE.help} Smallest ratio phot_core_ratio, of the size of the core to the PSF's width, in a band with "
        "signal-to-noise above 20.",
    )
    # Stated widths differ by up to 0.08, as they hold the pixel's own or not; one that varies over a tile unstated, by 0.1.
    psf_unlike_share: float = Field(
        0.15,
        ge=0,
        le=10,
        description=f"{PixelFlag.PSF_UNLIKE.help} Largest share by which their width (psf_fwhm_stars_arcsec) differs from the stated one "
        "in any band.",
    )
    # Bundles have limits for these rates, from two thousand objects.
    inconsistent_rate: float = Field(
        0.01,
        ge=0.002,
        le=0.5,
        description=f"{ModelFlag.INCONSISTENT.help} Share of objects like those of the bundle's calibration that get the flag.",
    )
