"""The [cutouts] section: the cutout store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section
from galbatch.core.types import Resampling

__all__ = ["CutoutsConfig"]


class CutoutsConfig(Section):
    """The [cutouts] section: the cutout store."""

    store: str = Field("cutouts.zarr", description="path of the Zarr store")
    base: str | None = Field(
        None,
        description="an older cutout store, of which cutouts are taken where they would be the same; it is not changed",
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
