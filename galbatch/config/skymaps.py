"""The [extinction] and [[masks]] sections: maps of the sky that give columns of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from galbatch.config.strict import Section
from galbatch.config.values import one_or_several

__all__ = ["ExtinctionConfig", "MaskConfig"]


class ExtinctionConfig(Section):
    """The [extinction] section: a map of E(B-V), and what it takes from each band."""

    map: Annotated[tuple[str, ...], one_or_several(str)] = Field(
        min_length=1,
        description="map of E(B-V) in mag: a HEALPix map (FITS), or one or several FITS images with a WCS, such as the two of "
        "Schlegel, Finkbeiner and Davis; of several the one whose reference point is nearest counts",
    )
    column: str = Field("", description="column of a HEALPix map; empty: the first")
    interpolation: Literal["bilinear", "nearest"] = Field(
        "bilinear",
        description="between the four nearest pixels of the map, or the pixel that the object lies in",
    )
    a_b: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(
        min_length=1,
        description="extinction in mag per unit E(B-V) of the map, by band, such as {g = 3.64, r = 2.70}; with it magnitudes in these "
        "bands have columns `_dered_mag` beside `_mag`",
    )

    def resolve_paths(self, absolute: Callable[[str], str]) -> ExtinctionConfig:
        """Return a copy whose paths are made absolute by the function `absolute`."""
        return self.model_copy(update={"map": tuple(map(absolute, self.map))})


class MaskConfig(Section):
    """One [[masks]] section: a part of the sky that a column of the catalog is true in."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", max_length=64, description="name of the column, true inside"
    )
    path: str = Field(
        description="regions of ds9 (.reg, in sky coordinates), a MOC (FITS), or a HealSparse map (inside where it has a value other than 0)"
    )
    good: Literal["inside", "outside"] | None = Field(
        None,
        description="where objects and random points must lie to be used: the default cut and galbatch area leave out the others; empty: the mask is a column alone",
    )
