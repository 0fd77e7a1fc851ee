"""The fields of a bundle's metadata that say what its network takes: images on one grid or several, and numbers per object."""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

from pydantic import Field

from galbatch.core.types import Grid, njy_per_unit

__all__ = ["STRICT", "AuxiliaryInput", "ImageInfo", "InputInfo", "n_numbers"]

# Pydantic reads it as each class's `__pydantic_config__`: an unknown key is an error, so that a misspelled one is not ignored.
STRICT: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class AuxiliaryInput:
    """A number, or a vector of numbers, per object that a network takes with the image or without one, such as E(B-V) or an embedding.

    Attributes
    ----------
    name : name of the input, and of the object list's column unless ``[[models]] auxiliary_inputs`` names another
    unit : unit in VOUnits; "" for a number without unit
    description : text for human readers
    length : number of numbers of a vector, whose column holds lists of that length; None: a column of numbers
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    unit: str = ""
    description: str = ""
    length: Annotated[int, Field(ge=1)] | None = None

    @property
    def n_numbers(self) -> int:
        """The number of numbers that the network is fed for each object."""
        return 1 if self.length is None else self.length

    @property
    def label(self) -> str:
        """The name, of a vector with its length, for human readers: ``latents (16 numbers)``."""
        return self.name if self.length is None else f"{self.name} ({self.length} numbers)"


def n_numbers(inputs: Iterable[AuxiliaryInput]) -> int:
    """Return the number of numbers that inputs have together: the columns of the network's auxiliary input."""
    return sum(one.n_numbers for one in inputs)


@dataclass(frozen=True)
class ImageInfo:
    """The images of one grid: (object, band, y, x) float32; attributes as those of `InputInfo`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    bands: tuple[str, ...]
    size_px: int
    pixel_scale_arcsec: float
    unit: str
    zero_point_mag: float
    background: str = ""
    release: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (band, y, x) of the images."""
        return len(self.bands), self.size_px, self.size_px

    @property
    def grid(self) -> Grid:
        """The size and pixel scale of the cutouts."""
        return Grid(self.size_px, self.pixel_scale_arcsec)

    @property
    def njy_per_unit(self) -> float:
        """The flux in nJy of one unit of the pixels."""
        return njy_per_unit(self.zero_point_mag)


@dataclass(frozen=True)
class InputInfo:
    """The input of a network: images (object, band, y, x) float32, with or without numbers per object, or such numbers alone.

    Attributes
    ----------
    bands : names of the bands, in the order of the axis; empty, with a size and scale of 0, for a network that takes no pixels
    size_px, pixel_scale_arcsec : side of the cutouts in pixels, and their pixel scale
    unit : name of the pixel values' unit
    zero_point_mag : AB zero point of the unit: 27.0 for HSC's ADU, 31.4 for nJy; None for a network that takes no pixels
    background : how the sky was subtracted; the words before a colon are compared with the survey's
    release : data release of the training images; "" if they belong to none
    dereddened : whether the fluxes of the training images were corrected for Galactic extinction; None: not stated
    auxiliary_inputs : numbers and vectors per object that the script's `prefix` takes after the images, or alone, (object,
        number) float32, one after the other
    more_grids : further images on grids of their own, such as those of other surveys; the script's `prefix` then takes a list
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    bands: tuple[str, ...] = ()
    size_px: int = 0
    pixel_scale_arcsec: float = 0.0
    unit: str = ""
    zero_point_mag: float | None = None
    background: str = ""
    release: str = ""
    dereddened: bool | None = None
    auxiliary_inputs: tuple[AuxiliaryInput, ...] = ()
    more_grids: tuple[ImageInfo, ...] = ()

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """The images of each grid, the first one's first."""
        own = (getattr(self, field.name) for field in fields(ImageInfo))
        return (ImageInfo(*own), *self.more_grids) if self.bands else ()

    @property
    def all_bands(self) -> tuple[str, ...]:
        """The bands of all grids, in their order."""
        return tuple(band for one in self.images for band in one.bands)

    @property
    def n_auxiliary(self) -> int:
        """The number of numbers per object that the network takes besides images."""
        return n_numbers(self.auxiliary_inputs)

    @property
    def takes_pixels(self) -> bool:
        """Whether the network takes images, not numbers alone."""
        return bool(self.bands)

    @property
    def grid(self) -> Grid | None:
        """The size and pixel scale of the cutouts that the network takes; None if it takes no pixels."""
        return Grid(self.size_px, self.pixel_scale_arcsec) if self.takes_pixels else None

    @property
    def njy_per_unit(self) -> float:
        """The flux in nJy of one unit of the pixels; 1 for a network that takes none."""
        return 1.0 if self.zero_point_mag is None else njy_per_unit(self.zero_point_mag)

    @property
    def text(self) -> str:
        """The input in words, for human readers: ``images in g, r and z_best``."""
        numbers = ", ".join(one.label for one in self.auxiliary_inputs)
        images = f"images in {', '.join(self.all_bands)}" if self.takes_pixels else ""
        return " and ".join(part for part in (images, numbers) if part)

    def problems(self) -> list[str]:
        """Return messages on values that contradict each other; empty if there are none."""
        problems = []
        if not self.bands and not self.size_px and not self.pixel_scale_arcsec:
            if not self.auxiliary_inputs:
                problems.append(
                    "input must have bands with a size and a pixel scale, auxiliary_inputs, or both"
                )
        elif self.size_px < 1 or self.pixel_scale_arcsec <= 0 or not self.bands:
            problems.append("input must have a size, a pixel scale above 0 and bands")
        elif not self.unit or self.zero_point_mag is None:
            problems.append("input must state unit and zero_point_mag of the pixels")
        names = [one.name for one in self.auxiliary_inputs]
        if len(set(names)) != len(names):
            problems.append(f"input: auxiliary_inputs must differ in name, found {names}")
        if any(
            grid.size_px < 1 or grid.pixel_scale_arcsec <= 0 or not grid.bands for grid in self.more_grids
        ):
            problems.append("input: more_grids must each have a size, a pixel scale above 0 and bands")
        if self.more_grids and not self.bands:
            problems.append("input: more_grids go on from a first grid, whose bands are missing")
        return problems
