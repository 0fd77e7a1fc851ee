"""Flags of the catalog, each one row: bit, name, text, class. The docs, the report, the VOTable and the metadata are made from it.

A new flag is a new row, with the next free bit: a bit that was used once keeps its meaning, since catalogs hold numbers.
"""

from __future__ import annotations

import enum
import json
from typing import Self

__all__ = ["CatalogFlag", "FlagClass", "MaskBit", "ModelFlag", "PixelFlag", "flags_as_json"]


class FlagClass(enum.StrEnum):
    """The two classes: a quality flag says not to trust a value, an information flag says how the value came about."""

    QUALITY = "quality"
    INFORMATION = "information"


QUALITY, INFORMATION = FlagClass.QUALITY, FlagClass.INFORMATION


class CatalogFlag(enum.IntFlag):
    """Bits of a flags column.

    Attributes
    ----------
    text : flag text, a sentence that a user of the catalog can act on; single bits have one, combinations do not
    flag_class : quality or information
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
        """Number of the bit, 0 for the lowest."""
        return self.value.bit_length() - 1

    @property
    def help(self) -> str:
        """Name and text, as help texts state them."""
        return f"{self.name}: {self.text}"


class PixelFlag(CatalogFlag):
    """Bits of the column ``flags``: what the pixels and the object list say, whatever the model."""

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
    LOW_SNR = 1 << 10, "The central flux is below the threshold in every band: too faint to say much."


class ModelFlag(CatalogFlag):
    """Bits of the columns ``<model>_flags``: what the model says of its own values."""

    NOT_SELECTED = 1 << 0, "The run's selection left the object out; there are no values.", INFORMATION
    NONFINITE_INPUT = (
        1 << 1,
        "Missing pixels were set to 0 nJy; at the center, in a whole band, or in an auxiliary input: no values.",
    )
    MODEL_FAILED = 1 << 2, "The network returned non-finite numbers; there are no values."
    NOT_CONVERGED = 1 << 3, "More passes could still move a quantile by more than the tolerance."
    EXTRAPOLATED = 1 << 4, "A median lies outside the range seen in training."
    OUT_OF_DOMAIN = 1 << 5, "The input is unlike those the network was trained on."
    CROP_AT_LIMIT = 1 << 6, "The network's crop is at its limit: the galaxy may not fit."
    NO_POSTERIOR = 1 << 7, "A point network without dropout: a value, but no width."


class MaskBit(enum.IntFlag):
    """galbatch's own mask bits (uint16), the same whatever the survey numbers its planes."""

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


def flags_as_json(flags: type[CatalogFlag]) -> str:
    """Return the rows of a flags column's bits as JSON: a list of bit, value, name, class and text."""
    rows = [
        {"bit": f.bit, "value": f.value, "name": f.name, "class": f.flag_class.value, "text": f.text}
        for f in flags
    ]
    return json.dumps(rows)
