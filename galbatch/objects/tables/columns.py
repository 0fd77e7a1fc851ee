"""Columns of a table of any format: their types, their units, and where they are null."""

from __future__ import annotations

import difflib
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from xml.parsers.expat import ExpatError

import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits

from galbatch import storage
from galbatch.core.file_kinds import FIRST_BYTES, kind_by_content
from galbatch.errors import GalbatchError, ObjectListError
from galbatch.objects.tables.units import require_one_unit

__all__ = [
    "ISNULL_SUFFIX",
    "as_booleans",
    "errors_of_astropy",
    "errors_of_reading",
    "existing_columns",
    "joined",
    "what_it_is",
    "with_nulls",
    "with_plain_types",
]


DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""Errors for bytes that are not what they should be: of pyarrow, of files and packed data, and of text that is no UTF-8."""

ASTROPY_DAMAGE = (
    fits.VerifyError,
    ExpatError,
    struct.error,
    zlib.error,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
)
"""Errors that astropy raises for damaged FITS and VOTable files: its readers check little, so that its own assertions, attributes
that are None and keywords that are missing are among them."""


@contextmanager
def errors_of_reading(path: str, kind: str) -> Iterator[None]:
    """Turn what the libraries raise for a file that is not what its suffix says into ObjectListError.

    Raises
    ------
    ObjectListError
        With the file, the kind that its suffix says and the library's message.
    """
    try:
        yield
    except FileNotFoundError:
        raise ObjectListError(f"{path}: there is no such file") from None
    # Before the others: pyarrow's error of memory is one of its own errors, too.
    except MemoryError as error:
        raise ObjectListError(
            f"{path}: to read it as {kind} takes more memory than there is: {_said(error)}; if it is that large, write it as "
            "Parquet and choose rows by [objects] where and region, or as a HATS catalog; if it is not, its header is damaged: "
            "fetch it again"
        ) from error
    except DAMAGE as error:
        raise ObjectListError(
            f"{path}: cannot be read as {kind}: {_said(error)}{what_it_is(path)}"
        ) from error


def what_it_is(path: str) -> str:
    """Return what a file is by its content, as the end of a message about what it is not; "" if that is not known."""
    try:
        with storage.open_file(path) as file:
            found = kind_by_content(file.read(FIRST_BYTES))
    except (OSError, GalbatchError):
        return ""
    return f"; it {found}" if found else ""


@contextmanager
def errors_of_astropy() -> Iterator[None]:
    """Turn what astropy, or h5py, raises for a damaged file into OSError; nothing else may run inside, as its faults would be hidden."""
    try:
        yield
    except ASTROPY_DAMAGE as error:
        raise OSError(_said(error)) from error


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


ISNULL_SUFFIX = "_isnull"
"""Suffix that HSC's archive adds to a column's name for the column that says where it is null."""


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


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type whose values a dictionary, a large or a view type stands for, also inside of lists."""
    types = pa.types
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_float16(kind):  # few readers of Parquet know it
        return pa.float32()
    if any(is_list(kind) for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return pa.list_(_plain_type(kind.value_type))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    return kind


def with_plain_types(table: pa.Table) -> pa.Table:
    """Return the table without dictionaries, large types and views: the leaves of one catalog must agree on types."""
    kinds = [field.with_type(_plain_type(field.type)) for field in table.schema]
    return table.cast(pa.schema(kinds)) if kinds else table


def existing_columns(path: str, existing: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the names of the columns to read: the `wanted` ones (None: all), and their columns ``<name>_isnull``.

    Columns called ``ra_isnull`` and the like, as in HSC's tables, say where column ``ra`` is null.

    Raises
    ------
    ObjectListError
        A column is not among the `existing` ones, or occurs more than once.
    """
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


def joined(path: str, parts: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all parts of a table, whose columns may be of another type where a part has no value.

    Raises
    ------
    ObjectListError
        A column is of kinds that cannot stand in one column, or in different units.
    """
    require_one_unit(path, [part.schema for part in parts])
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise ObjectListError(
            f"{path}: its files, or parts of it, differ: {error}; write the column with one type in all of them"
        ) from None


def with_nulls(table: pa.Table) -> pa.Table:
    """Return the table with null in a column ``ra`` where its column ``ra_isnull``, if it has one, is true."""
    for index, field in enumerate(table.schema):
        if field.name + ISNULL_SUFFIX in table.column_names and not field.name.endswith(ISNULL_SUFFIX):
            is_null = as_booleans(table.column(field.name + ISNULL_SUFFIX))
            column = pc.if_else(is_null, pa.scalar(None, field.type), table.column(field.name))
            table = table.set_column(index, field.with_nullable(True), column)
    return table
