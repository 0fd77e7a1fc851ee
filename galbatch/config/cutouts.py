"""The [cutouts] section: the cutout store."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section
from galbatch.config.values import Width
from galbatch.core.types import Grid, Resampling

__all__ = ["CutoutsConfig", "GridConfig"]

# A side of 10,000 px is 0.4 GB a band: larger numbers are mistakes.
Side = Annotated[int, Field(ge=1, le=10_000)]


class GridConfig(Section):
    """One [[cutouts.grids]] section: cutouts that are made of every object, whether or not a network takes them."""

    size_px: Side = Field(description="side of the cutouts, in pixels")
    pixel_scale_arcsec: Width = Field(description="pixel scale of the cutouts")
    bands: tuple[str, ...] = Field(
        (), description="bands of the cutouts, in order; empty: all bands of the run"
    )

    @property
    def grid(self) -> Grid:
        """Size and pixel scale as a grid."""
        return Grid(self.size_px, self.pixel_scale_arcsec)


class CutoutsConfig(Section):
    """The [cutouts] section: the cutout store."""

    store: str = Field("cutouts.zarr", description="path of the Zarr store")
    base: str | None = Field(
        None,
        description="an older cutout store, of which cutouts are taken where they would be the same; it is not changed",
    )
    # A store can be made before there is a network: these say what is cut of every object.
    size_px: Side | None = Field(
        None,
        description="side, in pixels, of cutouts that are made of every object, also without a network; empty: only networks say "
        "what is cut",
    )
    pixel_scale_arcsec: Width | None = Field(None, description="pixel scale of these cutouts")
    bands: tuple[str, ...] = Field(
        (), description="bands of these cutouts, in order; empty: all bands of the run"
    )
    grids: tuple[GridConfig, ...] = Field(
        (), description="cutouts of several sizes or pixel scales, one [[cutouts.grids]] each"
    )
    # The image alone is the default: mask (2 bytes a pixel) and variance (4) would more than double the store.
    planes: tuple[Literal["image", "mask", "variance"], ...] = Field(
        ("image",),
        description="planes to store; the flags use mask and variance whether or not they are stored",
    )
    resampling: Resampling = Field(
        "low_pass",
        description="how pixels of another grid come onto the cutout's: low_pass (galbatch's own kernel), or reproject's adaptive "
        "(DeForest 2004) or exact (overlaps of pixels on the sphere), whose variance and mask are approximate",
    )
    keep: bool = Field(
        True,
        description="false: delete the cutouts of a partition as soon as its part of the catalog is written (--stage all only)",
    )

    @model_validator(mode="after")
    def _image_is_stored(self) -> CutoutsConfig:
        if "image" not in self.planes:
            raise ValueError("planes must name image: the networks read it")
        return self

    @model_validator(mode="after")
    def _grids_are_whole(self) -> CutoutsConfig:
        if (self.size_px is None) != (self.pixel_scale_arcsec is None):
            raise ValueError("size_px and pixel_scale_arcsec go together, such as 64 and 0.168")
        if self.bands and self.size_px is None:
            raise ValueError("bands are those of size_px and pixel_scale_arcsec; state these, too")
        grids = [stated.grid for stated in self.stated_grids]
        if twice := [grid.label for grid in dict.fromkeys(grids) if grids.count(grid) > 1]:
            raise ValueError(f"grids: {', '.join(twice)} is stated twice; state all its bands at once")
        for stated in self.stated_grids:
            if len(set(stated.bands)) < len(stated.bands):
                raise ValueError(f"bands of {stated.grid.label} name one twice: {', '.join(stated.bands)}")
        return self

    @property
    def stated_grids(self) -> tuple[GridConfig, ...]:
        """The grids that are cut of every object: that of `size_px`, if it is given, then those of `grids`."""
        if self.size_px is None or self.pixel_scale_arcsec is None:
            return self.grids
        own = GridConfig(size_px=self.size_px, pixel_scale_arcsec=self.pixel_scale_arcsec, bands=self.bands)
        return (own, *self.grids)
