"""Flags of the catalog: bit, name, text and class of each. Docs, report, VOTable and field metadata are made from them.

A new flag takes the next free bit. A bit is never reused: catalogs store the number, so its meaning must not change.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = [
    "FLAGS_KEY",
    "LIST_FLAGS",
    "RENAMED_FLAGS",
    "CatalogFlag",
    "FlagClass",
    "MaskBit",
    "ModelFlag",
    "PixelFlag",
    "SkySource",
    "count_flags",
    "flag_attributes",
    "flags_as_json",
    "quality_bits",
]

FLAGS_KEY = "flags"
"""Entry of the field metadata of a column of flags: its bits as JSON, see `flags_as_json`."""


RENAMED_FLAGS = {"NONFINITE_INPUT": "MISSING_PIXELS"}
"""Names that flags had before, with those that they have now: errors on an old name say the new one."""


class FlagClass(enum.StrEnum):
    """The class of a flag: a quality flag warns about a value, an information flag tells how it was made."""

    QUALITY = "quality"
    INFORMATION = "information"


QUALITY, INFORMATION = FlagClass.QUALITY, FlagClass.INFORMATION


class CatalogFlag(enum.IntFlag):
    """Bits of a flags column.

    Attributes
    ----------
    text : str
        One sentence for users of the catalog. Only single bits have a text and a class: combinations lack both.
    flag_class : FlagClass
        Quality or information.
    """

    _value_: int
    text: str
    flag_class: FlagClass

    def __new__(cls, value: int, text: str = "", flag_class: FlagClass = QUALITY) -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        member.flag_class = flag_class
        return member

    @property
    def bit(self) -> int:
        """Number of the flag's bit, 0 for the lowest."""
        return self.value.bit_length() - 1

    @property
    def help(self) -> str:
        """Name and text in one line, for help texts."""
        return f"{self.name}: {self.text}"


class PixelFlag(CatalogFlag):
    """Bits of the column ``flags``, which describe an object's pixels and its entry in the object list, not a model."""

    OUTSIDE_FOOTPRINT = 1 << 0, "No tile covers the cutout's center in any band; there are no values."
    PARTIAL_COVERAGE = 1 << 1, "Part of the cutout has no data in a band: a tile's edge or a hole."
    MISSING_BAND = 1 << 2, "A band has no pixel at all in the cutout."
    BAD_CENTER = 1 << 3, "Bad, interpolated or cosmic-ray pixels near the center."
    SATURATED = 1 << 4, "Saturated pixels near the center."
    BRIGHT_OBJECT = 1 << 5, "The survey's bright-object mask covers the center."
    MOSAICKED = 1 << 6, "Completed from more than one tile. Harmless within a tract.", INFORMATION
    RESAMPLED = 1 << 7, "Reprojected from another pixel grid: noise is correlated.", INFORMATION
    NEIGHBOR = 1 << 8, "Another listed object is close by; light may be shared.", INFORMATION
    DUPLICATE_POSITION = 1 << 9, "Another entry of the object list stands at the same place."
    LOW_SNR = 1 << 10, "The central flux is below the threshold in every band, or its noise is 0 or unknown."
    BLENDED = (
        1 << 11,
        "Much of the light within the object's aperture is that of other sources, listed or not.",
    )
    SATURATED_CORE = 1 << 12, "The core is flat, as if cut off, and no mask says that it is saturated."
    SKY_OFFSET = 1 << 13, "The sky about the object is not 0, by enough to move its flux and size."
    POINT_LIKE = 1 << 14, "The object is as small as the PSF: a star, or a galaxy whose shape cannot be seen."
    PSF_UNLIKE = (
        1 << 15,
        "Stars of the tile are wider or narrower than the stated PSF: sizes and shapes are off.",
    )


LIST_FLAGS = PixelFlag.NEIGHBOR | PixelFlag.DUPLICATE_POSITION
"""The flags that follow from the object list alone: other objects of the list can change them, pixels cannot."""


class ModelFlag(CatalogFlag):
    """Bits of the columns ``<model>_flags``, which describe the values that one model gives for an object."""

    NOT_SELECTED = 1 << 0, "The run's selection left the object out; there are no values.", INFORMATION
    MISSING_PIXELS = (
        1 << 1,
        "Missing pixels were set to 0 nJy; at the center, in most of a band, or an auxiliary input: no values.",
    )
    MODEL_FAILED = 1 << 2, "The network returned non-finite numbers; there are no values."
    NOT_CONVERGED = 1 << 3, "More passes could still move a quantile by more than the tolerance."
    EXTRAPOLATED = 1 << 4, "A median lies outside the range seen in training."
    OUT_OF_DOMAIN = 1 << 5, "The input is unlike those the network was trained on."
    CROP_AT_LIMIT = 1 << 6, "The network's crop is at its limit: the galaxy may not fit."
    NO_POSTERIOR = 1 << 7, "A point network without dropout: a value, but no width."
    NO_MAGNITUDE = (
        1 << 8,
        "A flux may be zero or negative, so its magnitude has no values; the flux itself has.",
        INFORMATION,
    )
    DOMAIN_UNKNOWN = 1 << 9, "The sky noise is unknown: the input may be unlike those of the training."
    NO_MOMENTS = (
        1 << 10,
        "A mean or standard deviation is too large for a number and missing; the quantiles are right.",
    )
    INCONSISTENT = 1 << 11, "The estimates and the photometry of the same pixels disagree."


class SkySource(enum.IntEnum):
    """Where the sky noise of a cutout comes from, in the store and the catalog."""

    UNKNOWN = 0
    FRAME = 1
    TILE = 2
    VARIANCE = 3


class MaskBit(enum.IntFlag):
    """Bits of the masks in a cutout store (uint16). Every survey's own mask planes are translated into them."""

    BAD = 1 << 0
    SAT = 1 << 1
    INTRP = 1 << 2
    CR = 1 << 3
    EDGE = 1 << 4
    DETECTED = 1 << 5
    SUSPECT = 1 << 6
    NO_DATA = 1 << 7
    BRIGHT_OBJECT = 1 << 8
    CLIPPED = 1 << 9
    NEGATIVE = 1 << 10


def quality_bits(flags: type[CatalogFlag]) -> int:
    """Return the bits of all flags of class quality together."""
    return sum(flag.value for flag in flags if flag.flag_class is FlagClass.QUALITY)


def count_flags(values: npt.NDArray[np.integer[Any]], flags: Iterable[int]) -> list[int]:
    """Return how many of the values (object,) have each of the flags, in the order of the flags."""
    return [int(np.count_nonzero(values & int(flag))) for flag in flags]


def flags_as_json(flags: type[CatalogFlag]) -> str:
    """Return the bits of a column of flags as JSON: a list of objects with bit, value, name, class and text."""
    rows = [
        {"bit": f.bit, "value": f.value, "name": f.name, "class": f.flag_class.value, "text": f.text}
        for f in flags
    ]
    return json.dumps(rows)


def flag_attributes(flags: type[enum.IntFlag]) -> dict[str, list[int] | str]:
    """Return the attributes ``flag_masks`` and ``flag_meanings`` by which the CF conventions state what bits mean."""
    return {
        "flag_masks": [flag.value for flag in flags],
        "flag_meanings": " ".join(str(flag.name) for flag in flags),
    }
