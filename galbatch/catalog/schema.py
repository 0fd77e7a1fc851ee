"""The schema that all leaves of a catalog share."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from galbatch.core.columns import (
    DEC,
    EXCLUDE_KEY,
    GRID_KEY,
    ID,
    OWN_COLUMNS,
    RA,
    Column,
    flag_columns,
    quantile_columns,
)
from galbatch.core.flags import FLAGS_KEY, flags_as_json
from galbatch.core.pixels import PATH_COLUMNS
from galbatch.errors import CatalogError, ConfigError

__all__ = ["column_field", "default_columns", "leaf_schema", "require_own_columns", "schema_difference"]

# Entries of the field metadata that are copied from the object list and compared between leaves.
KEPT_METADATA = (b"unit", b"description", b"ucd", EXCLUDE_KEY)


def leaf_schema(columns: Sequence[Column], *, id_type: pa.DataType, kept: pa.Schema) -> pa.Schema:
    """Return the schema of a leaf: _healpix_29, object_id, ra_deg, dec_deg, then `kept`, then `columns`.

    Parameters
    ----------
    columns : sequence of Column
        Result columns. Their unit, description and UCD become field metadata.
    id_type : pyarrow.DataType
        Type of `object_id`: int64 or string.
    kept : pyarrow.Schema
        Columns copied from the object list, with their unit, description and UCD.

    Raises
    ------
    ConfigError
        Two columns have the same name.
    """
    fields = [column_field(column) for column in OWN_COLUMNS]
    fields[1] = fields[1].with_type(id_type)
    fields += [field.with_metadata(_kept_metadata(field)) for field in kept]
    fields += [column_field(column) for column in columns]
    names = [field.name for field in fields]
    # Readers of partitioned Parquet add columns named after the folders, which would hide one of the same name.
    if twice := sorted({name for name in names if names.count(name) > 1 or name in PATH_COLUMNS}):
        raise ConfigError(
            f"catalog columns {', '.join(twice)}: the name is taken; rename the column in [objects] keep, or "
            "the [[models]] entry whose results have it"
        )
    return pa.schema(fields)


def column_field(column: Column) -> pa.Field:
    """Return the Arrow field of a column, with unit, description, UCD and bits of flags as field metadata."""
    metadata = {"unit": column.unit, "description": column.description, "ucd": column.ucd}
    if column.flags is not None:
        metadata[FLAGS_KEY] = flags_as_json(column.flags)
    if column.grid is not None:
        metadata[GRID_KEY] = json.dumps([*column.grid, column.length])
    return pa.field(column.name, column.arrow_type, metadata={k: v for k, v in metadata.items() if v})


def default_columns(names: Sequence[str]) -> list[str]:
    """Return the columns that LSDB opens where none are named: id, position, medians and flags, in the catalog's order."""
    medians = {columns[0.5] for columns in quantile_columns(names).values() if 0.5 in columns}
    wanted = {ID.name, RA.name, DEC.name, *medians, *flag_columns(names)}
    return [name for name in names if name in wanted]


def _kept_metadata(field: pa.Field) -> dict[bytes, bytes]:
    return {key: value for key, value in (field.metadata or {}).items() if key in KEPT_METADATA}


def require_own_columns(schema: pa.Schema, where: str) -> None:
    """Raise if a schema does not begin with `OWN_COLUMNS`.

    Raises
    ------
    CatalogError
        Names or types differ. The message lists the columns found.
    """
    types = [field.type for field in schema][: len(OWN_COLUMNS)]
    expected = [column.arrow_type for column in OWN_COLUMNS]
    if pa.types.is_string(types[1] if len(types) > 1 else pa.null()):
        expected[1] = pa.string()
    if schema.names[: len(OWN_COLUMNS)] != [column.name for column in OWN_COLUMNS] or types != expected:
        found = ", ".join(f"{field.name} {field.type}" for field in list(schema)[: len(OWN_COLUMNS)])
        raise CatalogError(
            f"{where}: a leaf begins with _healpix_29 int64, object_id int64 or string, ra_deg double, dec_deg double; "
            f"found {found}; make the table with leaf_schema"
        )


def schema_difference(found: pa.Schema, expected: pa.Schema) -> str:
    """Return a message about the first difference between two schemas (names, types, units, descriptions, UCDs), "" if equal."""
    if found.names != expected.names:
        differing = sorted(set(found.names) ^ set(expected.names))
        return f"columns {', '.join(differing) or 'in another order'}"
    for field, other in zip(found, expected, strict=True):
        if field.type != other.type:
            return f"column {field.name} is {field.type}, expected {other.type}"
        if _kept_metadata(field) != _kept_metadata(other):
            return f"column {field.name} has another unit, description or ucd"
    return ""
