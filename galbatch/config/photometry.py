"""The [photometry] section: what is measured in the cutouts beside the networks."""

from __future__ import annotations

from pydantic import Field

from galbatch.config.strict import Section

__all__ = ["STACK", "PhotometryConfig"]

STACK = "stack"
"""The value of `detect_in` for the mean of all bands."""


class PhotometryConfig(Section):
    """The [photometry] section: what is measured in the cutouts beside the networks."""

    enabled: bool = Field(
        True,
        description="measure fluxes, sizes, neighbors and the sky in the cutouts: the columns phot_*, and the flags that follow from them",
    )
    detect_in: str = Field(
        STACK,
        description="band in which sources are found and apertures laid out; stack: the mean of the cutout's bands, weighted by their "
        "noise; a cutout without the band: stack",
    )
    # SExtractor's own default: five connected pixels of 1.5 sigma are a source of about four sigma.
    threshold_sigma: float = Field(
        1.5,
        ge=0.5,
        le=100,
        description="a source is five or more connected pixels above this many standard deviations of the sky",
    )
