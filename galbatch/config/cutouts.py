"""The [cutouts] section: the cutout store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from galbatch.config.strict import Section

__all__ = ["CutoutsConfig"]


class CutoutsConfig(Section):
    """The [cutouts] section: the cutout store."""

    store: str = Field("cutouts.zarr", description="path of the Zarr store")
    planes: tuple[Literal["image", "mask", "variance"], ...] = Field(
        ("image",), description="planes that are stored; mask and variance are used for the flags in any case"
    )
    keep: bool = Field(
        True,
        description="false: a partition's cutouts are deleted once its leaf is committed (stage all only)",
    )

    @model_validator(mode="after")
    def _image_is_stored(self) -> CutoutsConfig:
        if "image" not in self.planes:
            raise ValueError("planes must name image: the networks read it")
        return self
