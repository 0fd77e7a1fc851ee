"""Metadata in the footer of a Parquet file by which other readers know units, descriptions and UCDs of its columns.

Parquet has no unit of its own. astropy's format ``parquet.votable``, and other readers that keep to VOParquet, read a VOTable
without rows; astropy's plain ``Table.read`` reads the YAML header that astropy writes into Parquet files, and the width of text.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io.votable.tree import CooSys, Field, Resource, TableElement, VOTableFile
from astropy.table import Column, Table
from astropy.table.meta import get_yaml_from_table
from astropy.units import Unit

from galbatch.core.columns import DEC, RA
from galbatch.core.flags import FLAGS_KEY

__all__ = ["described", "reader_metadata"]

VOPARQUET_VERSION = "1.0"

WIDTH_STEP = 16
"""Stated widths of text are multiples of this number of characters, so that most leaves of a run state the same ones."""

DESCRIPTION = re.compile(rb"(?<=<DESCRIPTION>).*?(?=</DESCRIPTION>)", re.DOTALL)

# VOTable has no int8 and no unsigned integers but bytes: those take the next wider type that holds all their values.
VOTABLE_TYPES: Mapping[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.uint8(): "unsignedByte",
    pa.int8(): "short",
    pa.int16(): "short",
    pa.uint16(): "int",
    pa.int32(): "int",
    pa.uint32(): "long",
    pa.int64(): "long",
    # The nearest that VOTable has: ids beyond 2^63 do not fit, but readers take the values from Parquet.
    pa.uint64(): "long",
    # VOTable has no half precision.
    pa.float16(): "float",
    pa.float32(): "float",
    pa.float64(): "double",
}


def reader_metadata(table: pa.Table) -> dict[bytes, bytes]:
    """Return the key-value metadata of a Parquet file for astropy and tools of the Virtual Observatory.

    Parameters
    ----------
    table : pyarrow.Table
        The rows of the file; its field metadata hold unit, description, UCD and bits of flags.
    """
    # The caches are keyed by the serialized schema, because pyarrow treats schemas as equal that differ only in metadata.
    serialized = table.schema.serialize().to_pybytes()
    widths = _widths(table)
    with_nulls = tuple(
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if pa.types.is_boolean(column.type) and column.null_count
    )
    return {
        b"IVOA.VOTable-Parquet.version": VOPARQUET_VERSION.encode(),
        b"IVOA.VOTable-Parquet.content": _votable(serialized, widths, with_nulls),
        b"table_meta_yaml": _astropy_header(serialized),
        **{f"table::len::{name}".encode(): str(width).encode() for name, width in widths},
    }


def _widths(table: pa.Table) -> tuple[tuple[str, int], ...]:
    """Return a width for each column of text or bytes: a multiple of `WIDTH_STEP` that holds the longest value."""
    widths = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            measure = pc.utf8_length if pa.types.is_string(column.type) else pc.binary_length
            longest = pc.max(measure(column)).as_py() or 1
            widths.append((name, -(-longest // WIDTH_STEP) * WIDTH_STEP))
    return tuple(widths)


# Both are cached: all leaves of a run share them, and making them takes half the time of writing a small leaf.
@lru_cache(maxsize=4)
def _astropy_header(serialized: bytes) -> bytes:
    """Return the YAML header that astropy writes into the footer of Parquet files, of a serialized schema."""
    table = Table()
    for field in pa.ipc.read_schema(pa.py_buffer(serialized)):
        stated = described(field)
        # Readers take unit, description and meta from here, and the type from Parquet.
        column = Column(np.zeros(0, np.int8), name=field.name, description=stated.get("description"))
        column.unit = Unit(stated.get("unit", ""), parse_strict="silent") if stated.get("unit") else None
        column.meta = {"ucd": stated["ucd"]} if "ucd" in stated else {}
        table.add_column(column)
    return "\n".join(get_yaml_from_table(table)).encode()


@lru_cache(maxsize=4)
def _votable(serialized: bytes, widths: tuple[tuple[str, int], ...], with_nulls: tuple[str, ...]) -> bytes:
    """Return the VOTable of a serialized schema as XML."""
    votable, resource = VOTableFile(), Resource()
    resource.coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    votable.resources.append(resource)
    table = TableElement(votable, name="galbatch")
    resource.tables.append(table)
    for field in pa.ipc.read_schema(pa.py_buffer(serialized)):
        kind = _votable_type(field, dict(widths), with_nulls)
        if kind is None:
            continue
        stated = described(field)
        attributes = {key: stated[key] for key in ("unit", "ucd") if key in stated} | kind
        if field.name in (RA.name, DEC.name):
            attributes["ref"] = "icrs"
        element = Field(votable, name=field.name, **attributes)
        element.description = stated.get("description")
        table.fields.append(element)
    buffer = io.BytesIO()
    votable.to_xml(buffer)
    # astropy breaks long descriptions into lines, and would warn that they differ from those of its own header.
    return DESCRIPTION.sub(lambda found: b" ".join(found.group().split()), buffer.getvalue())


def _votable_type(
    field: pa.Field, widths: Mapping[str, int], with_nulls: Collection[str]
) -> dict[str, str] | None:
    """Return the attributes datatype and arraysize of a column, None if the VOTable leaves the column out.

    astropy joins the VOTable's column, which has no rows, with the Parquet column, and both must be numbers, text, booleans
    or Python objects. Text therefore has a width, as astropy makes objects of ``*``; booleans with nulls and lists are
    objects; dates, times and bytes fit nothing that VOTable has.
    """
    kind = field.type
    if pa.types.is_temporal(kind) or pa.types.is_binary(kind):
        return None
    if pa.types.is_fixed_size_list(kind) and kind.value_type in VOTABLE_TYPES:
        return {"datatype": VOTABLE_TYPES[kind.value_type], "arraysize": str(kind.list_size)}
    if kind in VOTABLE_TYPES and field.name not in with_nulls:
        return {"datatype": VOTABLE_TYPES[kind]}
    return {"datatype": "unicodeChar", "arraysize": str(widths.get(field.name, "*"))}


def described(field: pa.Field) -> dict[str, str]:
    """Return unit, description and UCD of a column, without those that are empty; the description of flags names the bits."""
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if bits := json.loads(metadata.pop(FLAGS_KEY, "[]")):
        # Neither VOTable nor astropy has a place for the meaning of bits, so it becomes part of the description.
        texts = " ".join(f"{row['value']} {row['name']}: {row['text']}" for row in bits)
        metadata["description"] = f"{metadata.get('description', '')}; bits: {texts}"
    return {key: " ".join(value.split()) for key, value in metadata.items() if value}
