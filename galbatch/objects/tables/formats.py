"""Parquet, FITS, CSV, ECSV, VOTable and HDF5 files, read as Arrow tables.

Integers stay integers from file to catalog: an id of 17 digits does not fit a float64.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from astropy.io import fits
from astropy.io.votable import parse
from astropy.table import MaskedColumn, Table

from galbatch import storage
from galbatch.core.file_kinds import FIRST_BYTES, kind_by_content
from galbatch.errors import ObjectListError
from galbatch.objects.tables.columns import (
    errors_of_astropy,
    errors_of_reading,
    existing_columns,
    with_nulls,
    with_plain_types,
)
from galbatch.objects.tables.ecsv import EcsvHeader, ecsv_header
from galbatch.objects.tables.hdf5 import HDF5_SUFFIXES, hdf5_names, read_hdf5
from galbatch.objects.tables.parquet import names_in_parquet, parquet_files, read_parquet, row_groups
from galbatch.objects.tables.units import text_of_unit

# What packed data begin with, what they are called, and what unpacks them.
UNPACK: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gzipped", gzip.decompress),
    b"BZh": ("bzipped", bz2.decompress),
}

__all__ = ["TABLE_SUFFIXES", "TablePart", "column_names", "is_read_in_parts", "read_table", "table_parts"]

TABLE_SUFFIXES = (
    ".parquet",
    *(name + zipped for name in (".csv", ".ecsv", ".fits", ".fit", ".vot", ".xml") for zipped in ("", ".gz")),
    *HDF5_SUFFIXES,
)
"""Suffixes of the tables that are read."""


def read_table(
    path: str,
    *,
    columns: Sequence[str] | None = None,
    hdu: int | str | None = None,
    text: Sequence[str] = (),
    ids: Sequence[str] = (),
) -> pa.Table:
    """Read a table by its suffix: ``.parquet``, ``.fits``, ``.fit``, ``.csv``, ``.ecsv``, ``.vot``, ``.xml``, ``.h5`` or ``.hdf5``; local or S3.

    All but Parquet also gzipped, with ``.gz`` after the suffix; Parquet also as a folder of files, as Dask and
    pandas write it. Units, descriptions and UCDs of FITS (TUNIT, TCOMM, TUCD) and VOTable columns come as the field metadata
    ``unit``, ``description`` and ``ucd``; so do units of ECSV, HDF5 and Parquet (in the footer, too). A CSV header, or one of its names, may begin with ``#``, as in HSC's. Masked values become
    null, and so do the values of a column ``ra`` where a column ``ra_isnull`` of the same table is true: HSC's
    archive writes null in this way where the format has none. Arrays come as lists.

    Parameters
    ----------
    columns : sequence of str or None
        Only these, in this order; None: all that Arrow can hold (no complex numbers).
    hdu : int, str or None
        The table of a file with several: the number or EXTNAME of an HDU of a FITS file, the number, ID or
        name of a table of a VOTable file, a group or dataset of an HDF5 file. None: the only one with rows, or that of a
        FITS_LDAC file (SExtractor), or the top of an HDF5 file.
    text : sequence of str
        Columns that are read as text, with leading zeros, though they hold digits only.
    ids : sequence of str
        Columns that are refused if they are read as integers of text with leading zeros, which integers do not have.

    Raises
    ------
    ObjectListError
        The file does not exist, has another suffix, cannot be read as what its suffix says, has several tables
        and `hdu` is None, lacks a column, or has ids with leading zeros; the message lists the tables or columns
        of the file.
    """
    suffix = _suffix(path)
    with errors_of_reading(path, suffix):
        if suffix.startswith(".parquet"):
            table = read_parquet(path, columns)
        elif suffix.startswith((".csv", ".ecsv")):
            table = _read_csv(path, columns, text=text, ids=ids)
        elif suffix in HDF5_SUFFIXES:
            with errors_of_astropy():
                found = read_hdf5(path, columns, hdu)
            table = _read_astropy(path, columns, found)
        else:
            table = _read_astropy(path, columns, _astropy_table(path, suffix, hdu))
        table = with_nulls(with_plain_types(table))
    return table if columns is None else table.select(list(columns))


class TablePart(Protocol):
    """Some rows of a table, of which columns are read when they are asked for."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""

    def limits(self, columns: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        """Return the least and greatest value of those columns for which they are known without reading them."""

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of all rows, in this order; raises as `read_table` does."""

    def empty(self, columns: Sequence[str]) -> pa.Table:
        """Return columns without rows, of the types of `read`; the rows are not read."""


@dataclass(frozen=True)
class _WholeTable:
    """A table of a format that is read as a whole."""

    table: pa.Table

    @property
    def n_rows(self) -> int:
        return len(self.table)

    def limits(self, columns: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        return {}

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self.table.select(list(columns))

    def empty(self, columns: Sequence[str]) -> pa.Table:
        return self.read(columns).slice(0, 0)


def table_parts(
    path: str,
    *,
    columns: Sequence[str],
    hdu: int | str | None = None,
    text: Sequence[str] = (),
    ids: Sequence[str] = (),
) -> Iterator[TablePart]:
    """Iterate over the rows of a table in parts that fit in memory: the row groups of Parquet files, or all rows at once.

    A part can be used until the next one is asked for. The arguments are those of `read_table`, and so are the errors.

    Parameters
    ----------
    columns : sequence of str
        All columns that any part will be asked for.
    """
    suffix = _suffix(path)
    if suffix.startswith(".parquet"):
        with errors_of_reading(path, suffix):
            yield from row_groups(path)
    else:
        yield _WholeTable(read_table(path, columns=columns, hdu=hdu, text=text, ids=ids))


def is_read_in_parts(path: str) -> bool:
    """Return whether `table_parts` gives a table in several parts: Parquet; raises as `read_table` does."""
    return _suffix(path).startswith(".parquet")


def column_names(path: str, *, hdu: int | str | None = None) -> list[str]:
    """Return the names of a table's columns, without converting any of them; raises as `read_table` does."""
    suffix = _suffix(path)
    with errors_of_reading(path, suffix):
        if suffix.startswith(".parquet"):
            return names_in_parquet(path)
        if suffix.startswith((".csv", ".ecsv")):
            return _CsvFile.open(path).names
        if suffix in HDF5_SUFFIXES:
            with errors_of_astropy():
                return hdf5_names(path, hdu)
        return [str(name) for name in _astropy_table(path, suffix, hdu).colnames]


def _suffix(path: str) -> str:
    suffix = next((s for s in TABLE_SUFFIXES if path.lower().endswith(s)), None)
    if suffix is None and parquet_files(path):
        return ".parquet"
    if suffix is None:
        raise ObjectListError(f"{path}: unknown kind of table; known are {', '.join(TABLE_SUFFIXES)}")
    return suffix


@dataclass(frozen=True)
class _CsvFile:
    """A CSV file: the names of its columns, the rows below them, and what its header states if it is ECSV."""

    names: list[str]
    body: bytes
    header: EcsvHeader | None = None

    @classmethod
    def open(cls, path: str) -> _CsvFile:
        data = _csv_bytes(path)
        if found := ecsv_header(data):
            header, table = found
            first, _, body = table.partition(b"\n")
            return cls(_cells(first.decode("utf-8"), header.delimiter), body, header)
        return cls(*_names_and_rows(data))

    def read(self, columns: Sequence[str], *, text: Sequence[str]) -> pa.Table:
        """Return columns of the rows, those in `text` as text."""
        types = (
            {name: kind for name, kind in self.header.types.items() if name in columns} if self.header else {}
        )
        # Empty text is a missing value: an id column with holes must not turn into text.
        options = pyarrow.csv.ConvertOptions(
            strings_can_be_null=True,
            include_columns=columns,
            column_types=types | dict.fromkeys(text, pa.string()),
        )
        parsing = pyarrow.csv.ParseOptions(delimiter=self.header.delimiter if self.header else ",")
        # The kind of a column is guessed from the first block: where a later one differs (a column without a
        # value at first, whole numbers at first), all is read in one block.
        for block_bytes in (2**20, min(max(len(self.body) + 1, 2**20), 2**31 - 1)):
            reading = pyarrow.csv.ReadOptions(column_names=self.names, block_size=block_bytes)
            try:
                return pyarrow.csv.read_csv(
                    io.BytesIO(self.body),
                    read_options=reading,
                    parse_options=parsing,
                    convert_options=options,
                )
            except pa.ArrowInvalid as error:
                failure = error
        raise failure


def _read_csv(
    path: str, columns: Sequence[str] | None, *, text: Sequence[str], ids: Sequence[str]
) -> pa.Table:
    file = _CsvFile.open(path)
    read = existing_columns(path, file.names, columns)
    if file.body.strip():
        table = file.read(read, text=text)
    else:
        table = pa.table({name: pa.nulls(0) for name in read})
    for name in ids:
        if pa.types.is_integer(table.schema.field(name).type):
            _refuse_leading_zeros(path, name, file.read([name], text=[name]).column(0))
    return file.header.described(table) if file.header else table


def _refuse_leading_zeros(path: str, name: str, column: pa.ChunkedArray) -> None:
    # Arrow takes 0x1F for 31.
    zeros = pc.match_substring_regex(column, r"^\s*[+-]?0[\dxX]").fill_null(False)
    if first := column.filter(zeros).slice(0, 1).to_pylist():
        n_rows = pc.sum(zeros).as_py()
        raise ObjectListError(
            f"{path}: column {name}: {n_rows} of {len(column)} ids begin with a zero, which an integer loses: {first[0]!r}; "
            'set [objects] id_type = "text" to keep them as they are, or "integer" if the zeros mean nothing'
        )


def _read_bytes(path: str) -> bytes:
    """Read the whole file, unpacked if its first bytes say that it is packed by gzip or bzip2, whatever its name is."""
    data = storage.read_bytes(path)
    for magic, (packed, unpack) in UNPACK.items():
        if data.startswith(magic):
            # A file that was cut off in a download would else end in the middle of a row without a word.
            try:
                return unpack(data)
            except (EOFError, zlib.error, ValueError, OSError) as error:
                raise OSError(f"the {packed} data are damaged or cut off: {error}") from None
    return data


def _csv_bytes(path: str) -> bytes:
    """Read a CSV file; raise OSError if its content says that it is something else."""
    data = _read_bytes(path)
    found = kind_by_content(data[:FIRST_BYTES]) if data else ""
    if found:
        raise OSError(f"the content {found}")
    return data


def _names_and_rows(data: bytes) -> tuple[list[str], bytes]:
    """Split a CSV file into its column names and the rows below them.

    The names are in the last leading ``#`` line, if the first line below it holds values, not names, or there is
    none; else in the first line without ``#``.
    """
    comments = []
    data = data.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")  # the line ends of old Macs, which some spreadsheets still write
    while data.startswith(b"#"):
        line, _, data = data.partition(b"\n")
        comments.append(line.decode("utf-8"))
    first, _, rest = data.partition(b"\n")
    cells = _cells(first.decode("utf-8"))
    if len(cells) == 1 and (separator := re.search(r"[;\t|]|(?<=\w) +(?=\w+ +\w)", cells[0])):
        raise OSError(
            f"its columns are separated by {separator[0]!r}, expected commas, and points in decimal numbers: convert it"
        )
    names = [name.strip().lstrip("#").strip() for name in _cells(comments[-1])] if comments else []
    if not data.strip() or (len(names) == len(cells) and any(map(_is_number, cells))):
        return names, data
    return [name.strip().lstrip("#").strip() for name in cells], rest


def _cells(line: str, delimiter: str = ",") -> list[str]:
    try:
        return next(csv.reader([line.strip()], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:  # a name of more than 128 KiB
        raise OSError(f"its line of names: {error}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _astropy_table(path: str, suffix: str, hdu: int | str | None) -> Table:
    """Read one table of a FITS or VOTable file; its columns are not converted to Arrow yet."""
    data = io.BytesIO(_read_bytes(path))
    with errors_of_astropy():
        if suffix.startswith((".fits", ".fit")):
            with fits.open(data) as hdus:
                return _described_table(_fits_table(path, hdus, hdu))
        return _votable(path, data, hdu)


def _votable(path: str, data: io.BytesIO, hdu: int | str | None) -> Table:
    # Names, not IDs as by astropy's default: people write ra, not col2. Only of equal names the IDs tell them apart.
    tables = list(parse(data).iter_tables())
    listed = [(i, table.name or table.ID or "", len(table.array)) for i, table in enumerate(tables)]
    with_rows = [i for i, _, n_rows in listed if n_rows]
    table = tables[_chosen(path, listed, hdu=hdu, candidates=with_rows)]
    names = [field.name for field in table.fields]
    found = table.to_table()
    by_id = zip(names, table.fields, strict=True)
    unique = [name if names.count(name) == 1 else field.ID for name, field in by_id]
    found.rename_columns(list(found.colnames), unique)
    return found


def _described_table(table: fits.BinTableHDU) -> Table:
    """Return a table of a FITS file with the descriptions and UCDs that cards state."""
    # In comments astropy states which columns form a SkyCoord or a Time; here they are columns as in the file.
    table.header.remove("COMMENT", ignore_missing=True, remove_all=True)
    # Silent: a unit that astropy does not know stays as text, for `examine` to judge.
    found = Table.read(table, format="fits", unit_parse_strict="silent")
    for number, column in enumerate(table.columns, 1):
        # astropy reads descriptions from its own comments alone.
        if text := table.header.get(f"TCOMM{number}"):
            found[column.name].description = str(text)
        if ucd := table.header.get(f"TUCD{number}"):
            found[column.name].meta["ucd"] = str(ucd)
    return found


def _fits_table(path: str, hdus: fits.HDUList, hdu: int | str | None) -> fits.BinTableHDU:
    tables = {
        number: table
        for number, table in enumerate(hdus)
        if isinstance(table, fits.BinTableHDU | fits.TableHDU)
    }
    listed = [(number, table.name, table.header["NAXIS2"]) for number, table in tables.items()]
    ldac = [number for number, table in tables.items() if table.name == "LDAC_OBJECTS"]
    # The LSST pipelines write footprints and PSF models of the sources into tables behind them, as an archive.
    candidates = ldac or [
        number
        for number, table in tables.items()
        if table.header["NAXIS2"] and not table.header.get("EXTTYPE", "").startswith("ARCHIVE_")
    ]
    return hdus[_chosen(path, listed, hdu=hdu, candidates=candidates)]


def _chosen(
    path: str, tables: Sequence[tuple[int, str, int]], *, hdu: int | str | None, candidates: Sequence[int]
) -> int:
    """Return the number of the table to read, of (number, name, rows) of all; raise ObjectListError where it is unclear."""
    numbers = [number for number, _, _ in tables]
    if hdu is None:
        # A file whose tables are all empty has no rows to lose: the first stands for all.
        found = list(candidates) or numbers[:1]
    else:
        found = [number for number, name, _ in tables if hdu == number or str(hdu).lower() == name.lower()]
    if len(found) == 1:
        return found[0]
    if not tables:
        raise OSError("it has no table")
    there = ", ".join(f"{number} {name or '(no name)'} ({rows} rows)" for number, name, rows in tables)
    if hdu is None:
        raise ObjectListError(
            f"{path}: has several tables: {there}; set [objects] hdu to the number or name of one, or join them first"
        )
    raise ObjectListError(f"{path}: hdu = {hdu!r} means {len(found)} of its tables; there are {there}")


def _read_astropy(path: str, columns: Sequence[str] | None, table: Table) -> pa.Table:
    arrays, fields = [], []
    for name in existing_columns(path, table.colnames, columns):
        column = table[name]
        try:
            arrays.append(_arrow_array(column))
        except (pa.ArrowException, ValueError, TypeError) as error:
            if columns is None:
                continue  # nobody asked for it
            raise ObjectListError(
                f"{path}: column {name} holds {column.dtype.name}, which a catalog cannot hold: {error}"
            ) from None
        stated = {
            "unit": text_of_unit(column.unit),
            "description": column.description,
            "ucd": column.meta.get("ucd"),
        }
        metadata = {key: value for key, value in stated.items() if value}
        fields.append(pa.field(name, arrays[-1].type, metadata=metadata))
    return pa.table(arrays, schema=pa.schema(fields))


def _arrow_array(column: Any) -> pa.Array:
    """Convert an astropy column; masked values become null, arrays lists, bytes text."""
    values = np.asarray(column)
    mask = np.asarray(column.mask) if isinstance(column, MaskedColumn) else None
    if values.dtype.kind in "SUO" or values.ndim > 1:
        kind = None
        if values.dtype.kind in "SU":
            kind = pa.string()
        elif values.dtype.kind != "O":
            kind = pa.from_numpy_dtype(values.dtype.newbyteorder("="))
        elif not any(isinstance(value, np.ndarray | list | tuple) for value in values.flat):
            kind = pa.string()
        for _ in range(values.ndim - 1 if kind is not None else 0):
            kind = pa.list_(kind)
        items = [_plain_value(value, is_text=kind == pa.string()) for value in column.tolist()]
        # tolist forgets the mask of a column of bytes.
        return pa.array(items, kind, mask=mask if values.ndim == 1 else None)
    # FITS is big-endian, Arrow little-endian.
    return pa.array(values.astype(values.dtype.newbyteorder("=")), mask=mask)


def _plain_value(value: Any, *, is_text: bool = False) -> Any:
    """Convert an item of a table to what Arrow takes: lists for arrays, text for bytes, None for masked values."""
    if value is None or value is np.ma.masked:
        return None
    if isinstance(value, np.ndarray):
        value = value.tolist()  # of a masked array: None where it is masked
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    return str(value) if is_text else value
