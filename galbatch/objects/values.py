"""Columns of a list as numbers: positions in degrees, and what is said where a column holds something else."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units

from galbatch.config import ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects.tables import angle_of, unit_of

__all__ = ["degrees_of", "limits_in_degrees", "numbers_of", "positions_of", "vectors_of"]

SEXAGESIMAL = re.compile(r"\s*[+-]?\d{1,3}\s*[: hd\N{DEGREE SIGN}]\s*\d{1,2}\s*[: m\']")
"""The beginning of hours or degrees with minutes, as in 10:00:28.6, 10h00m28.6s and +02 12 21."""

OTHER_FRAMES = (
    (r".*(b_?|_)1950.*", "the equinox B1950"),
    (r"_?(glon|glat|l|b|gal_?(lon|lat|l|b)|elon|elat|ecl_?(lon|lat))(_?deg)?", "another frame"),
)
"""Patterns of names, in lower case, of columns that are no right ascension or declination (ICRS), with what they say."""

UNIT_NAMES = (
    (r".*(hours?|hourangle|hms|[_ ([](hrs?))[)\]]?", "hours"),
    (r".*deg(s|rees?)?[)\]]?", "degrees"),
    (r".*[_ ([](\w+)[)\]]?", ""),
)
"""Patterns of names, in lower case, that end in a unit, with what they say; "": the unit that the group holds, if it is an angle."""

UNITS = {"hours": units.hourangle, "degrees": units.deg}


def positions_of(path: str, table: pa.Table, objects: ObjectsConfig) -> dict[str, npt.NDArray[np.float64]]:
    """Return ra_deg and dec_deg of a list's rows, (row,) float64, not wrapped, NaN for null; raise as `examine` does.

    Columns in another angle than degrees, as the file states for them, are converted.
    """
    return {
        "ra_deg": degrees_of(path, table, objects.ra),
        "dec_deg": degrees_of(path, table, objects.dec),
    }


def degrees_of(path: str, table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return a column of a table that is a right ascension or declination, (row,) float64, in degrees, NaN for null.

    Raises
    ------
    ObjectListError
        The column holds no numbers; its unit is no angle; its name says another frame than ICRS, another unit than the
        one that is stated for it, or another one than degrees where none is stated.
    """
    unit = _angle_of_column(path, table.schema.field(name))
    expected = f"{'degrees' if unit == units.deg else unit} as numbers; convert it to decimal degrees"
    numbers = numbers_of(path, table.column(name), name=name, expected=expected)
    # Degrees stay as they are, to the last bit.
    return numbers if unit == units.deg else np.asarray(unit.to(units.deg, numbers), np.float64)


def limits_in_degrees(
    path: str, schema: pa.Schema, name: str, limits: tuple[Any, Any] | None
) -> tuple[Any, Any] | None:
    """Return the least and greatest value of a position column in degrees; what is not known (None) or no number as it is."""
    if limits is None or not all(isinstance(value, float | int) for value in limits):
        return limits
    unit = _angle_of_column(path, schema.field(name))
    low, high = limits if unit == units.deg else unit.to(units.deg, limits)
    return low, high


def _angle_of_column(path: str, field: pa.Field) -> units.UnitBase:
    """Return the unit of a position column, from its metadata and its name; raises as `degrees_of` does."""
    column = f"{path}: column {field.name}"
    for pattern, frame in OTHER_FRAMES:
        if re.fullmatch(pattern, field.name.lower()):
            raise ObjectListError(
                f"{column}: its name says {frame}, expected ICRS in degrees; convert it, or rename it if it is"
            )
    stated, (says, named) = unit_of(field), _unit_in_name(field.name)
    if not stated:
        if named not in (None, units.deg):
            raise ObjectListError(
                f"{column}: its name says {says}, and the file states no unit, expected ICRS in degrees; state the unit in the "
                f"file ({named}), so that it is converted, or rename the column if it is in degrees"
            )
        return units.deg
    unit = angle_of(stated)
    if unit is None:
        raise ObjectListError(
            f"{column} is in {stated}, expected an angle that astropy knows: deg, rad, hourangle, arcsec, arcmin, mas or another; "
            f"{_remedy(stated)}"
        )
    if named is not None and not np.isclose(unit.to(named), 1.0, rtol=1e-6):
        raise ObjectListError(
            f"{column}: its name says {says}, its unit is {stated}; correct the one that is wrong"
        )
    return unit


def _unit_in_name(name: str) -> tuple[str, units.UnitBase | None]:
    """Return what a column's name says about its unit, and that unit; None if it says nothing."""
    for pattern, says in UNIT_NAMES:
        if found := re.fullmatch(pattern, name.lower()):
            unit = UNITS[says] if says else angle_of(found[1])
            if unit is not None:
                return says or found[1], unit
    return "", None


def _remedy(stated: str) -> str:
    """Return what to do about a unit that is no angle."""
    try:
        is_time = units.Unit(stated, parse_strict="silent").is_equivalent(units.hour)
    except (ValueError, TypeError):
        is_time = False
    if is_time or stated.lower() in ("hours", "hrs", "hms", "h:m:s"):
        return "these are times: state hourangle for a right ascension in hours as numbers, or convert it to degrees"
    return "state one of these in the file, or convert the column to degrees"


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


def vectors_of(path: str, column: pa.ChunkedArray, *, name: str, length: int) -> npt.NDArray[np.float32]:
    """Return a column of lists as float32, shape (object, number); NaN for null, in all numbers where a list is null.

    Raises
    ------
    ObjectListError
        The column holds no lists of numbers, or a list of another length.
    """
    expected = f"lists of {length} numbers, as a network's auxiliary input"
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise ObjectListError(f"{path}: column {name} holds {kind}, expected {expected}")
    lists = column.combine_chunks()
    there = np.asarray(pc.is_valid(lists))
    n_found = np.asarray(pc.list_value_length(lists).fill_null(length))
    if len(wrong := np.flatnonzero(n_found != length)):
        raise ObjectListError(
            f"{path}: column {name}: the list in row {wrong[0]} has {n_found[wrong[0]]} numbers, expected {expected}; write a missing "
            "one as null, or as that many nulls"
        )
    found = np.full((len(lists), length), np.nan, np.float32)
    # Beyond float32 they are infinite: no number either.
    numbers = lists.filter(pa.array(there)).flatten().cast(pa.float32(), safe=False)
    found[there] = numbers.to_numpy(zero_copy_only=False).reshape(-1, length)
    return found


def _is_number(text: str) -> bool:
    # Python takes digits of all scripts and underscores for numbers; files of tables have neither.
    return re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text, re.ASCII) is not None
