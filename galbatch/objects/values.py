"""Columns of a list as numbers: positions in degrees, and what is said where a column holds something else."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy import units

from galbatch.config import ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects.tables import unit_of

__all__ = ["numbers_of", "positions_of"]

SEXAGESIMAL = re.compile(r"\s*[+-]?\d{1,3}\s*[: hd\N{DEGREE SIGN}]\s*\d{1,2}\s*[: m\']")
"""The beginning of hours or degrees with minutes, as in 10:00:28.6, 10h00m28.6s and +02 12 21."""

OTHER_NAMES = (
    (r".*(hours?|hourangle|hms|[_ ([](hrs?))[)\]]?", "hours"),
    (r".*[_ ([](rad|radians?)[)\]]?", "radians"),
    (r".*[_ ([](arcsec|arcmin|arcseconds|mas)[)\]]?", "another angle"),
    (r".*(b_?|_)1950.*", "the equinox B1950"),
    (r"_?(glon|glat|l|b|gal_?(lon|lat|l|b)|elon|elat|ecl_?(lon|lat))(_?deg)?", "another frame"),
)
"""Patterns of names, in lower case, of columns that are no right ascension or declination (ICRS, degrees), with what they say."""

DEGREES = (
    "deg",
    "degs",
    "degree",
    "degrees",
    "decimal degrees",
    "degrees east",
    "degrees north",
    "\N{DEGREE SIGN}",
)
"""Spellings of degrees, in lower case, beside those that astropy knows."""


def positions_of(path: str, table: pa.Table, objects: ObjectsConfig) -> dict[str, npt.NDArray[np.float64]]:
    """Return ra_deg and dec_deg of a list's rows, (row,) float64, as found, NaN for null; raise as `examine` does."""
    positions = {}
    for key, name in (("ra_deg", objects.ra), ("dec_deg", objects.dec)):
        unit = unit_of(table.schema.field(name))
        if unit and not _is_degrees(unit):
            raise ObjectListError(f"{path}: column {name} is in {unit}, expected degrees; convert it")
        for pattern, said in OTHER_NAMES:
            if not unit and re.fullmatch(pattern, name.lower()):
                raise ObjectListError(
                    f"{path}: column {name}: its name says {said}, expected ICRS in degrees; convert it, or rename it if it is"
                )
        expected = "degrees as numbers; convert it to decimal degrees"
        positions[key] = numbers_of(path, table.column(name), name=name, expected=expected)
    return positions


def numbers_of(path: str, column: pa.ChunkedArray, *, name: str, expected: str) -> npt.NDArray[np.float64]:
    """Return a column as float64, shape (object,), NaN for null."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_string(column.type) and (
        example := next(filter(SEXAGESIMAL.match, column.drop_null().to_pylist()[:100]), None)
    ):
        expected += f"; {example!r} is sexagesimal"
    elif pa.types.is_string(column.type) and (
        example := next(
            (text for text in column.drop_null().to_pylist()[:10_000] if not _is_number(text)), None
        )
    ):
        expected += f"; {example!r} is no number"
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise ObjectListError(f"{path}: column {name} holds {column.type}, expected {expected}")
    # Not safe: integers above 2^53 are rounded, far outside of what a position or a width can be.
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def _is_number(text: str) -> bool:
    # Python takes digits of all scripts and underscores for numbers; files of tables have neither.
    return re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text, re.ASCII) is not None


def _is_degrees(unit: str) -> bool:
    """Return whether a unit is the degree; what astropy cannot parse is not."""
    if unit.lower().strip(" .").replace("_", " ") in DEGREES:
        return True
    try:
        return bool(units.Unit(unit) == units.deg)
    except ValueError:
        return False
