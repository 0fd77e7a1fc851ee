"""Units that a table states for its columns: where formats keep them, and which of them are angles."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache

import pyarrow as pa
from astropy import units
from astropy.io.votable import parse_single_table
from astropy.table.meta import get_header_from_yaml
from astropy.utils.exceptions import AstropyWarning

from galbatch.errors import ObjectListError

__all__ = [
    "UNIT_ATTRIBUTES",
    "angle_of",
    "require_one_unit",
    "text_of_unit",
    "unit_of",
    "units_in_yaml",
    "with_units_of_footer",
]

UNIT_ATTRIBUTES = ("unit", "units", "UNIT", "Units", "Unit", "UNITS")
"""Names of the attribute, or of the field's metadata, in which writers of HDF5 and Parquet state a column's unit."""

SPELLINGS = {
    "decimal degrees": "deg",
    "degrees east": "deg",
    "degrees north": "deg",
    "degs": "deg",
    "hour angle": "hourangle",
}
"""Spellings of angles, in lower case, beside those that astropy knows in one case or another, and their plurals."""

FOOTER_YAML, FOOTER_VOTABLE = b"table_meta_yaml", b"IVOA.VOTable-Parquet.content"
"""Keys of a Parquet file's footer in which astropy and VOParquet keep units."""


def unit_of(field: pa.Field) -> str:
    """Return the unit in a column's metadata; "" if there is none."""
    stated = field.metadata or {}
    return next(
        (stated[key.encode()].decode().strip() for key in UNIT_ATTRIBUTES if key.encode() in stated), ""
    )


def angle_of(text: str) -> units.UnitBase | None:
    """Return the unit of angle that a text means to astropy; None if it means something else, nothing, or two things.

    Where astropy does not know the text as it is, it may be in another case or in the plural (RAD, arcseconds). MRAD is none,
    as it may be Mrad or mrad.
    """
    plain = " ".join(text.replace("_", " ").strip(" .[]()").split())
    lower = SPELLINGS.get(plain.lower(), plain.lower())
    for spelling in (plain, lower, lower.removesuffix("s")):
        unit = _parsed(spelling)
        if unit is not None:
            is_folded = spelling != plain and plain.lower() not in SPELLINGS
            other = (
                _parsed(spelling[:1].upper() + spelling[1:]) if is_folded and plain[:1].isupper() else None
            )
            return unit if unit.is_equivalent(units.deg) and other in (None, unit) else None
    return None


def _parsed(text: str) -> units.UnitBase | None:
    try:
        unit = units.Unit(text)
    except (ValueError, TypeError):
        return None
    # Magnitudes of an angle are units of functions, which convert to nothing.
    return unit if isinstance(unit, units.UnitBase) else None


def text_of_unit(unit: units.UnitBase | None) -> str:
    """Return a unit as VOUnit text where that is the unit's own name, else as astropy writes it; "" for None."""
    if unit is None:
        return ""
    # VOUnit lacks some units of astropy, such as cycle, and writes others as multiples: hourangle as 15deg.
    try:
        text = str(unit.to_string("vounit"))
    except ValueError:
        return str(unit)
    return str(unit) if text[:1].isdigit() else text


def with_units_of_footer(table: pa.Table, footer: Mapping[bytes, bytes] | None) -> pa.Table:
    """Return columns of a Parquet file with the units that its footer states, for columns whose own metadata have none.

    astropy writes units into the footer as YAML, tools of the Virtual Observatory as a VOTable (VOParquet).
    """
    without = [field.name for field in table.schema if not unit_of(field)]
    footer = footer or {}
    found: dict[str, str] = {}
    for key, read in ((FOOTER_VOTABLE, _units_in_votable), (FOOTER_YAML, units_in_yaml)):
        if without and key in footer:
            found |= read(footer[key])
    fields = [
        field.with_metadata({**(field.metadata or {}), b"unit": found[field.name].encode()})
        if field.name in without and field.name in found
        else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, table.schema.metadata)) if found else table


# Cached, as all row groups of a file, and mostly all files of a table, have one header.
@lru_cache(maxsize=16)
def units_in_yaml(header: bytes) -> dict[str, str]:
    """Return the units by column in astropy's YAML header of a table, which ECSV, Parquet and HDF5 files have."""
    columns = get_header_from_yaml(header.decode().splitlines()).get("datatype", [])
    return {column["name"]: str(column["unit"]) for column in columns if column.get("unit")}


@lru_cache(maxsize=16)
def _units_in_votable(content: bytes) -> dict[str, str]:
    with warnings.catch_warnings():
        # Of the VOTable's other statements astropy says what it thinks; only names and units are taken.
        warnings.simplefilter("ignore", AstropyWarning)
        fields = parse_single_table(io.BytesIO(content)).fields
    return {field.name: text_of_unit(field.unit) for field in fields if field.unit is not None}


def require_one_unit(path: str, parts: Sequence[pa.Schema]) -> None:
    """Raise ObjectListError if files of one table state different units for a column; a unit left out means degrees beside other angles."""
    for name in parts[0].names if parts else ():
        stated = dict.fromkeys(unit_of(part.field(name)) for part in parts if name in part.names)
        if len(stated) > 1 and len({_compared(text, stated) for text in stated}) > 1:
            shown = " and ".join(text or "no unit" for text in stated)
            raise ObjectListError(
                f"{path}: column {name} is in {shown} in different files of the table; state one unit, or convert the files to one"
            )


def _compared(text: str, others: Sequence[str] | Mapping[str, object]) -> object:
    """Return what two units have in common that mean the same."""
    if not text:
        are_angles = any(other and angle_of(other) is not None for other in others)
        # A column without a unit may hold any quantity but an angle, whose values would be read in two ways.
        text = "deg" if are_angles else next(filter(None, others))
    unit = angle_of(text) or _parsed(text)
    return text if unit is None else (str(unit.physical_type), f"{unit.decompose().scale:.12g}")
