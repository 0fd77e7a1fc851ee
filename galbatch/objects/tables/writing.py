"""Arrow tables, written as Parquet, FITS, ECSV, CSV and VOTable files."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.table import Column, MaskedColumn, Table
from astropy.units import UnitBase, UnitScaleError
from astropy.utils.exceptions import AstropyWarning

from galbatch import storage
from galbatch.errors import OutputError
from galbatch.objects.tables.field_metadata import described, reader_metadata

__all__ = ["astropy_table", "check_table_suffix", "csv_table", "write_parquet", "write_table"]

WRITTEN = (".parquet", ".csv", ".ecsv", ".fits", ".vot", ".xml")
"""Suffixes of the tables that are written."""

WIDER = {pa.int8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.float16(): pa.float32()}
"""Types that FITS or VOTable lack, and those that hold the same numbers with room for a null value."""


def write_parquet(path: str, table: pa.Table) -> None:
    """Write a Parquet file, whole or not at all; raises as `storage.publish` does."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    storage.publish(path, buffer.getvalue())


def write_table(path: str, table: pa.Table) -> None:
    """Write a table in the format of its suffix: ``.parquet``, ``.csv``, ``.ecsv``, ``.fits``, ``.vot`` or ``.xml``.

    The field metadata ``unit``, ``description`` and ``ucd`` become those of the columns in all formats but CSV. FITS has
    them as TUNIT, TCOMM and TUCD, and as comments that astropy reads. Where a format lacks a type, the values are written
    in another that keeps them: dates and times as ISO 8601 text, lists of varying length and structs as JSON text, binary data as
    hexadecimal text, small and unsigned integers as wider ones, booleans with nulls as 0 and 1. Decimals become float64
    in FITS, ECSV and VOTable. A missing integer is the least one of its type that the column has not, stated as TNULL in FITS
    and by VALUES null in VOTable. In FITS, which is ASCII, other characters are escaped as in Python, by a backslash and
    their code.

    Raises
    ------
    OutputError
        Another suffix; no space, or no permission.
    """
    check_table_suffix(path)
    with warnings.catch_warnings():
        # astropy warns of units that a format does not know; it writes them as they are, or leaves them to its comments.
        warnings.simplefilter("ignore", AstropyWarning)
        data = _encoded(table, path.rpartition(".")[2])
    storage.publish(path, data)


def _encoded(table: pa.Table, suffix: str) -> bytes:
    if suffix == "parquet":
        return _as_parquet(table)
    if suffix == "csv":
        return _as_csv(table)
    if suffix == "fits":
        return _as_fits(astropy_table(table, ascii_only=True))
    if suffix == "ecsv":
        text = io.StringIO()
        astropy_table(table).write(text, format="ascii.ecsv")
        return text.getvalue().encode()
    return _as_votable(astropy_table(table))


def _as_parquet(table: pa.Table) -> bytes:
    known = {**(table.schema.metadata or {}), **reader_metadata(table)}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(known), buffer)
    return buffer.getvalue()


def _as_csv(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(csv_table(table), buffer)
    return buffer.getvalue()


def csv_table(table: pa.Table) -> pa.Table:
    """Return a table whose columns CSV can hold: lists and structs are JSON text, times ISO 8601, binary data hexadecimal."""
    columns = [_plain_column(column.combine_chunks(), in_csv=True) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _as_votable(table: Table) -> bytes:
    """Return a VOTable file, whose fields state which integer stands for a missing one."""
    nulls = _fill_integers(table)
    votable = from_table(table)
    for field in votable.get_first_table().fields:
        field.values.null = nulls.get(field.name)
    buffer = io.BytesIO()
    votable.to_xml(buffer)
    return buffer.getvalue()


def _as_fits(table: Table) -> bytes:
    """Return a FITS file with a binary table, whose cards TCOMMn and TUCDn say what astropy says in comments only.

    TNULLn is the integer that stands for a missing one.
    """
    nulls = _fill_integers(table)
    # astropy refuses units that are multiples in FITS, as hourangle is of deg: their text is all that a card needs.
    units = {column.name: _text_of_multiple(column.unit) for column in table.itercols()}
    for name in filter(units.get, units):
        table[name].unit = None
    buffer = io.BytesIO()
    table.write(buffer, format="fits")
    with fits.open(io.BytesIO(buffer.getvalue())) as hdus:
        header = hdus[1].header
        for number, column in enumerate(table.itercols(), 1):
            stated = {
                "TUNIT": units[column.name] or None,
                "TNULL": nulls.get(column.name),
                "TCOMM": column.description,
                "TUCD": column.meta.get("ucd"),
            }
            for key, value in stated.items():
                if value is not None:
                    header[f"{key}{number}"] = value
        result = io.BytesIO()
        hdus.writeto(result)
    return result.getvalue()


def _fill_integers(table: Table) -> dict[str, int]:
    """Fill masked columns of integers, in place, and return the integer that stands for a missing one, by the column's name.

    astropy's writers take 999999 for all columns, so that an id of this value would be missing too, and know none for arrays.
    """
    nulls: dict[str, int] = {}
    for column in list(table.itercols()):
        if column.dtype.kind in "iu" and isinstance(column, MaskedColumn):
            nulls[column.name] = _unused_integer(column.compressed())
            filled = column.filled(nulls[column.name])
            table.replace_column(column.name, filled)
    return nulls


def _unused_integer(values: np.ndarray[Any, Any]) -> int:
    """Return the least integer of a type that is none of some values."""
    taken = np.unique(values)
    # Values that are taken from the least one on without a gap.
    n_taken = np.argmin(np.append(taken == np.iinfo(values.dtype).min + np.arange(len(taken)), False))
    return int(np.iinfo(values.dtype).min + n_taken)


def _text_of_multiple(unit: UnitBase | None) -> str:
    """Return the text of a unit that FITS has no card for; "" for others."""
    try:
        if unit is not None:
            unit.to_string("fits")
    except UnitScaleError:
        return str(unit)
    except ValueError:
        pass  # astropy warns of it, and keeps it in its comments
    return ""


def astropy_table(table: pa.Table, *, ascii_only: bool = False, for_file: bool = True) -> Table:
    """Return an Arrow table as astropy's, with units, descriptions and UCDs; null is masked, other types are as in `write_table`.

    Parameters
    ----------
    table : pyarrow.Table
    ascii_only : bool
        Whether characters beyond ASCII are escaped, for FITS.
    for_file : bool
        Whether integers and booleans become what FITS and VOTable have. If not, they keep their types, with masks: unsigned ones
        beyond 2^63, booleans with nulls, and vectors of unsigned integers of 64 bits, which are text in files.
    """
    result = Table()
    for field in table.schema:
        column = table.column(field.name).combine_chunks()
        if for_file or not _is_exact_in_numpy(column):
            column = _plain_column(column, in_csv=False)
        result[field.name] = _astropy_column(field, column, ascii_only=ascii_only)
    return result


def _is_exact_in_numpy(column: pa.Array) -> bool:
    """Return whether NumPy has a masked array for a column of integers or booleans, or of vectors of integers."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.types.is_integer(kind.value_type) and _vector_length(column) > 1
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def check_table_suffix(path: str) -> None:
    """Refuse the name of a table that `write_table` could not write.

    Raises
    ------
    OutputError
        Its suffix is not known.
    """
    if not path.endswith(WRITTEN):
        raise OutputError(f"{path}: unknown kind of table; known are {', '.join(WRITTEN)}")


def _plain_column(column: pa.Array, *, in_csv: bool) -> pa.Array:
    """Convert a column to numbers, booleans or text, which every format holds; fixed-length arrays stay for FITS and VOTable."""
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):
        return _plain_column(column.dictionary_decode(), in_csv=in_csv)
    if types.is_null(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return column.cast(pa.string())
    if types.is_temporal(kind):
        return _as_text(
            column, lambda value: value.isoformat() if hasattr(value, "isoformat") else str(value)
        )
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _as_text(column, bytes.hex)
    # JSON, because every language reads it; `default=str` writes dates and decimals inside of lists.
    if types.is_nested(kind):
        if not in_csv and _is_regular(column):
            wider = _wider(kind.value_type, has_nulls=_has_nulls(column))
            return column.cast(pa.list_(wider, _vector_length(column)))
        return _as_text(column, lambda value: json.dumps(value, default=str))
    if types.is_decimal(kind):
        return _as_text(column, str) if in_csv else column.cast(pa.float64())
    return column if in_csv else _widened(column)


def _widened(column: pa.Array) -> pa.Array:
    """Convert numbers and booleans that FITS or VOTable lack to the nearest type that holds them, with room for null."""
    if pa.types.is_uint64(column.type):
        # Ids beyond 2^63 as digits: as float64 they would lose the last ones.
        too_large = len(column) > column.null_count and pc.max(column).as_py() >= 2**63
        return column.cast(pa.string() if too_large else pa.int64())
    if pa.types.is_boolean(column.type) and column.null_count:
        return column.cast(pa.int8()).cast(pa.int16())
    return column.cast(_wider(column.type, has_nulls=_has_nulls(column)))


def _wider(kind: pa.DataType, *, has_nulls: bool) -> pa.DataType:
    """Return the type of numbers that FITS and VOTable have for those of `kind`, in which one more value may stand for null."""
    # All 256 values of a byte may be taken.
    return pa.int16() if has_nulls and kind == pa.uint8() else WIDER.get(kind, kind)


def _has_nulls(column: pa.Array) -> bool:
    """Return whether a value is null, in a column of lists also one within a list."""
    return bool(column.null_count or (pa.types.is_nested(column.type) and column.flatten().null_count))


def _as_text(column: pa.Array, text: Callable[[Any], str]) -> pa.Array:
    return pa.array([None if value is None else text(value) for value in column.to_pylist()], pa.string())


def _is_regular(column: pa.Array) -> bool:
    """Return whether a column of lists is an array (object, value) of numbers, which may be null."""
    if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
        return False
    kind = column.type.value_type
    # Unsigned integers of 64 bits may be larger than all that FITS and VOTable have.
    is_number = pa.types.is_floating(kind) or (pa.types.is_integer(kind) and kind != pa.uint64())
    return is_number and _vector_length(column) > 1


def _vector_length(column: pa.Array) -> int:
    """Return the number of values that each list of a column has; 0 where they differ, or there is no list to tell."""
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    lengths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
    return int(lengths[0]) if len(lengths) == 1 else 0


def _astropy_column(field: pa.Field, column: pa.Array, *, ascii_only: bool) -> Column:
    mask = np.asarray(pc.is_null(column))
    if pa.types.is_string(column.type):
        texts = [value or "" for value in column.to_pylist()]
        if ascii_only:
            texts = [_ascii(text) for text in texts]
        # At least one character wide: neither format has text of no width.
        values = np.array(texts, dtype=f"U{max([len(value) for value in texts], default=0) or 1}")
    elif pa.types.is_nested(column.type):
        values, mask = _masked_vectors(column)
    else:
        nothing = False if pa.types.is_boolean(column.type) else 0
        values = column.fill_null(nothing).to_numpy(zero_copy_only=False)
    result = MaskedColumn(values, mask=mask) if mask.any() else Column(values)
    stated = {key: _ascii(text) if ascii_only else text for key, text in described(field).items()}
    result.unit, result.description = stated.get("unit"), stated.get("description")
    if "ucd" in stated:
        # Where astropy's VOTable reader and writer keep it.
        result.meta["ucd"] = stated["ucd"]
    return result


def _masked_vectors(column: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the values (object, value) of a regular column of lists, and where they are null; a null list is null throughout."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    items = column.drop_null().flatten()
    nothing = np.nan if pa.types.is_floating(items.type) else 0
    # Filled before NumPy has them: it would make floats of integers with nulls.
    found = items.fill_null(pa.scalar(nothing, items.type)).to_numpy(zero_copy_only=False)
    found = found.reshape(np.count_nonzero(there), _vector_length(column))
    values = np.full((len(column), found.shape[1]), nothing, found.dtype)
    mask = np.ones(values.shape, np.bool_)
    values[there] = found
    mask[there] = items.is_null().to_numpy(zero_copy_only=False).reshape(found.shape)
    return values, mask


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
