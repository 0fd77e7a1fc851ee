"""Tables in and out: Parquet, FITS, CSV and VOTable files as Arrow tables.

Integers stay integers from file to catalog: an id of 17 digits does not fit a float64.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.table import Column, MaskedColumn, Table

from galbatch import storage
from galbatch.errors import ObjectListError, OutputError

__all__ = [
    "ISNULL_SUFFIX",
    "TABLE_SUFFIXES",
    "as_booleans",
    "check_table_suffix",
    "column_names",
    "read_table",
    "unit_of",
    "write_parquet",
    "write_table",
]

WRITTEN = (".parquet", ".csv", ".fits", ".vot", ".xml")
"""Suffixes of the tables that are written."""

ISNULL_SUFFIX = "_isnull"
"""Suffix that HSC's archive adds to a column's name for the column that says where it is null."""


# --- reading ---------------------------------------------------------------------------------------------


def read_table(path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table by its suffix: ``.parquet``, ``.fits``, ``.csv``, ``.vot`` or ``.xml``; local or S3.

    All but Parquet also gzipped, with ``.gz`` after the suffix. Units and descriptions of FITS and VOTable
    columns come as the field metadata ``unit`` and ``description``. A CSV header, or one of its names, may
    begin with ``#``, as in HSC's. Masked values become null, and so do the values of a column ``ra`` where a
    column ``ra_isnull`` of the same table is true: so HSC's archive writes null where the format has none.

    Parameters
    ----------
    columns : sequence of str or None
        Only these, in this order; None: all.

    Raises
    ------
    ObjectListError
        The file is not there, has another suffix, cannot be read as what its suffix says, or lacks a
        column; the message names the columns there and the nearest.
    """
    suffix = next((s for s in READERS if path.lower().endswith(s)), None)
    if suffix is None:
        raise ObjectListError(f"{path}: unknown kind of table; known are {', '.join(READERS)}")
    try:
        table = _with_plain_types(READERS[suffix](path, columns))
    except FileNotFoundError:
        raise ObjectListError(f"{path}: there is no such file") from None
    except (pa.ArrowException, ValueError, TypeError, OSError) as error:
        raise ObjectListError(f"{path}: cannot be read as {suffix}: {error}") from error
    for index, field in enumerate(table.schema):
        if field.name + ISNULL_SUFFIX in table.column_names and not field.name.endswith(ISNULL_SUFFIX):
            is_null = as_booleans(table.column(field.name + ISNULL_SUFFIX))
            column = pc.if_else(is_null, pa.scalar(None, field.type), table.column(field.name))
            table = table.set_column(index, field.with_nullable(True), column)
    return table if columns is None else table.select(list(columns))


def column_names(path: str) -> list[str]:
    """Return the names of a table's columns; of Parquet and CSV only the header is read. Raises as `read_table`."""
    lower = path.lower()
    try:
        if lower.endswith(".parquet"):
            with storage.open_file(path) as file:
                return [str(name) for name in pq.ParquetFile(file).schema_arrow.names]
        if lower.endswith((".csv", ".csv.gz")):
            return _names_and_rows(_read_bytes(path))[0]
    except (pa.ArrowException, ValueError, OSError):
        pass  # read_table raises the error with its message
    return [str(name) for name in read_table(path).column_names]


def as_booleans(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert booleans, numbers, or text such as ``t`` or ``True`` to booleans; null counts as false."""
    if pa.types.is_string(column.type):
        true = pc.is_in(pc.utf8_lower(column), value_set=pa.array(["t", "true", "1", "y", "yes"]))
    elif pa.types.is_null(column.type):
        true = pc.is_valid(column)
    else:
        true = column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
        true = true.cast(pa.bool_())
    return true.fill_null(False)


def unit_of(field: pa.Field) -> str:
    """Return the unit in a column's metadata; "" if there is none."""
    return str((field.metadata or {}).get(b"unit", b"").decode())


def _with_plain_types(table: pa.Table) -> pa.Table:
    # The leaves of one catalog must agree on types: what a dictionary or a large string stands for is the same.
    fields = []
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(field.with_type(pa.string() if pa.types.is_large_string(kind) else kind))
    return table.cast(pa.schema(fields))


def _read_parquet(path: str, columns: Sequence[str] | None) -> pa.Table:
    with storage.open_file(path) as file:
        parquet = pq.ParquetFile(file)
        names = _existing(path, parquet.schema_arrow.names, columns)
        table: pa.Table = parquet.read(columns=names)
    return table.select(names).replace_schema_metadata(None)


def _read_csv(path: str, columns: Sequence[str] | None) -> pa.Table:
    names, body = _names_and_rows(_read_bytes(path))
    read = _existing(path, names, columns)
    if not body.strip():
        return pa.table({name: pa.nulls(0) for name in read})
    # Empty text is a missing value: an id column with holes must not turn into text.
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, include_columns=read)
    # The kind of a column is guessed from the first block: where a later one differs (a column without a
    # value at first, whole numbers at first), all is read in one block.
    for block_bytes in (2**20, min(max(len(body) + 1, 2**20), 2**31 - 1)):
        reading = pyarrow.csv.ReadOptions(column_names=names, block_size=block_bytes)
        try:
            return pyarrow.csv.read_csv(io.BytesIO(body), read_options=reading, convert_options=options)
        except pa.ArrowInvalid as error:
            failure = error
    raise failure


def _read_bytes(path: str) -> bytes:
    """Read the whole file, unpacked if its name ends in ``.gz``."""
    data = storage.read_bytes(path)
    if not path.lower().endswith(".gz"):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"the gzipped data are damaged or cut off: {error}") from None


def _names_and_rows(data: bytes) -> tuple[list[str], bytes]:
    """Split a CSV file into its column names and the rows below them.

    The names are in the last leading ``#`` line, if the first line below it holds values, not names, or there is
    none; else in the first line without ``#``.
    """
    comments = []
    data = data.removeprefix(codecs.BOM_UTF8)
    while data.startswith(b"#"):
        line, _, data = data.partition(b"\n")
        comments.append(line.decode("utf-8"))
    first, _, rest = data.partition(b"\n")
    cells = _cells(first.decode("utf-8"))
    names = [name.strip().lstrip("#").strip() for name in _cells(comments[-1])] if comments else []
    if not data.strip() or (len(names) == len(cells) and any(map(_is_number, cells))):
        return names, data
    return [name.strip().lstrip("#").strip() for name in cells], rest


def _cells(line: str) -> list[str]:
    return next(csv.reader([line.strip()], skipinitialspace=True), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_astropy(path: str, columns: Sequence[str] | None, kind: str) -> pa.Table:
    table = Table.read(io.BytesIO(_read_bytes(path)), format=kind)
    arrays, fields = [], []
    for name in _existing(path, table.colnames, columns):
        column = table[name]
        arrays.append(_arrow_array(column))
        metadata = {
            "unit": column.unit.to_string("vounit") if column.unit is not None else "",
            "description": column.description or "",
        }
        stated = {key: value for key, value in metadata.items() if value}
        fields.append(pa.field(name, arrays[-1].type, metadata=stated))
    return pa.table(arrays, schema=pa.schema(fields))


def _arrow_array(column: Any) -> pa.Array:
    values = np.asarray(column)
    mask = np.asarray(column.mask) if isinstance(column, MaskedColumn) else None
    if values.ndim > 1:
        return pa.array(values.tolist())
    if values.dtype.kind in "SUO":
        text = [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]
        return pa.array([None if value is None else str(value) for value in text], pa.string(), mask=mask)
    # FITS is big-endian, Arrow little-endian.
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)


def _existing(path: str, existing: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Check that the `wanted` columns (None: all) exist once each, and add the columns that say where they are null."""
    for name in existing if wanted is None else wanted:
        if (count := existing.count(name)) > 1:
            raise ObjectListError(
                f"{path}: {count} columns are called {name}; rename all but the one that is meant"
            )
    if wanted is None:
        return list(existing)
    for name in wanted:
        if name not in existing:
            near = difflib.get_close_matches(name, existing, n=1)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise ObjectListError(f"{path}: no column {name}{hint}; there are {', '.join(existing)}")
    flags = (name + ISNULL_SUFFIX for name in wanted if name + ISNULL_SUFFIX in existing)
    return list(dict.fromkeys([*wanted, *flags]))


READERS: Mapping[str, Callable[[str, Sequence[str] | None], pa.Table]] = {
    ".parquet": _read_parquet,
    **dict.fromkeys((".csv", ".csv.gz"), _read_csv),
    **dict.fromkeys((".fits", ".fits.gz"), partial(_read_astropy, kind="fits")),
    **dict.fromkeys((".vot", ".xml", ".vot.gz", ".xml.gz"), partial(_read_astropy, kind="votable")),
}

TABLE_SUFFIXES = tuple(READERS)
"""Suffixes of the tables that are read."""


# --- writing ---------------------------------------------------------------------------------------------


def write_parquet(path: str, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all; raises as `storage.publish` does."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.publish(path, buffer.getvalue())


def write_table(path: str, table: pa.Table) -> None:
    """Write a table in the format of its suffix: ``.parquet``, ``.csv``, ``.fits``, ``.vot`` or ``.xml``.

    The field metadata ``unit`` and ``description`` become those of the FITS and VOTable columns.

    Raises
    ------
    OutputError
        Another suffix; no space, or no permission.
    """
    check_table_suffix(path)
    buffer = io.BytesIO()
    if path.endswith(".parquet"):
        pq.write_table(table, buffer)
    elif path.endswith(".csv"):
        pyarrow.csv.write_csv(table, buffer)
    else:
        result = Table()
        for field in table.schema:
            result[field.name] = _astropy_column(field, table.column(field.name).combine_chunks())
        result.write(buffer, format="fits" if path.endswith(".fits") else "votable")
    storage.publish(path, buffer.getvalue())


def check_table_suffix(path: str) -> None:
    """Refuse the name of a table that `write_table` could not write.

    Raises
    ------
    OutputError
        Its suffix is not known.
    """
    if not path.endswith(WRITTEN):
        raise OutputError(f"{path}: unknown kind of table; known are {', '.join(WRITTEN)}")


def _astropy_column(field: pa.Field, column: pa.Array) -> Column:
    mask = np.asarray(pc.is_null(column))
    if pa.types.is_string(field.type):
        values = np.array([value or "" for value in column.to_pylist()], dtype=np.str_)
    else:
        values = column.fill_null(0).to_numpy(zero_copy_only=False)
    result = MaskedColumn(values, mask=mask) if mask.any() else Column(values)
    metadata = field.metadata or {}
    result.unit = metadata.get(b"unit", b"").decode() or None
    result.description = metadata.get(b"description", b"").decode() or None
    return result
