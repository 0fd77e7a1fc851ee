"""Parquet: a file, or a folder of files, read whole or one row group at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.objects.tables.columns import (
    errors_of_astropy,
    errors_of_reading,
    existing_columns,
    joined,
    with_nulls,
    with_plain_types,
)
from galbatch.objects.tables.units import with_units_of_footer

__all__ = ["RowGroup", "names_in_parquet", "parquet_files", "read_parquet", "row_groups"]


def parquet_files(folder: str) -> list[str]:
    """Return the paths of all Parquet files below a folder, as Dask, pandas and Spark write a table; none if it is absent."""
    names = storage.list_files(folder, suffix=".parquet")
    # Numbers count as numbers, so that part.10 follows part.9: of rows with one id the first is kept.
    names = sorted(names, key=lambda name: [part.zfill(20) for part in re.split(r"(\d+)", name)])
    return [storage.join(folder, name) for name in names]


def _files_of(path: str) -> list[str]:
    """Return the paths of the files that a table consists of: `path` itself, or the Parquet files below it."""
    try:
        storage.open_file(path).close()
    except (FileNotFoundError, IsADirectoryError):
        files = parquet_files(path)
        if not files:
            raise
        return files
    return [path]


def read_parquet(path: str, columns: Sequence[str] | None) -> pa.Table:
    """Read columns of a table (None: all), and those that say where they are null."""
    parts = []
    for name in _files_of(path):
        with storage.open_file(name) as file:
            parquet = pq.ParquetFile(file)
            names = existing_columns(name, parquet.schema_arrow.names, columns)
            parts.append(_plain(parquet.read(columns=names).select(names), parquet))
    return joined(path, parts).replace_schema_metadata(None)


def _plain(table: pa.Table, file: pq.ParquetFile) -> pa.Table:
    """Return columns of a file with plain types and the units that its footer states."""
    with errors_of_astropy():
        table = with_units_of_footer(table, file.schema_arrow.metadata)
    return with_plain_types(table)


def names_in_parquet(path: str) -> list[str]:
    """Return the names of the columns of a table, those of the first of several files."""
    with storage.open_file(_files_of(path)[0]) as file:
        return [str(name) for name in pq.ParquetFile(file).schema_arrow.names]


@dataclass(frozen=True)
class RowGroup:
    """A row group of a file, read when it is asked for; it can be used until the next one is asked for.

    Attributes
    ----------
    path : of its file
    n_rows : number of its rows
    """

    path: str
    n_rows: int
    _file: pq.ParquetFile
    _number: int | None  # None: the file has no row group

    def limits(self, columns: Sequence[str]) -> dict[str, tuple[Any, Any]]:
        """Return the least and greatest value of columns, as far as the file's footer has them; nulls and NaN do not count."""
        found: dict[str, tuple[Any, Any]] = {}
        if self._number is None:
            return found
        group = self._file.metadata.row_group(self._number)
        for number in range(group.num_columns):
            column = group.column(number)
            # Of a list the path is that of its items, which is no column's name.
            if column.path_in_schema in columns and column.is_stats_set and column.statistics.has_min_max:
                limits = column.statistics.min, column.statistics.max
                # Some old writers put NaN there.
                if all(limit == limit for limit in limits):
                    found[column.path_in_schema] = limits
        return found

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Read columns of its rows."""
        return self._read(columns, [] if self._number is None else [self._number])

    def empty(self, columns: Sequence[str]) -> pa.Table:
        """Return columns without rows, of the types of `read`; the rows are not read."""
        return self._read(columns, [])

    def _read(self, columns: Sequence[str], groups: Sequence[int]) -> pa.Table:
        names = existing_columns(self.path, self._file.schema_arrow.names, columns)
        with errors_of_reading(self.path, ".parquet"):
            table = _plain(self._file.read_row_groups(groups, columns=names).select(names), self._file)
            return with_nulls(table).select(list(columns)).replace_schema_metadata(None)


def row_groups(path: str) -> Iterator[RowGroup]:
    """Iterate over the row groups of a table in the order of its rows; a file without rows counts as one."""
    for name in _files_of(path):
        with storage.open_file(name) as file:
            yield from _row_groups_of_file(name, file)


def _row_groups_of_file(path: str, file: BinaryIO) -> Iterator[RowGroup]:
    parquet = pq.ParquetFile(file)
    for number in range(parquet.metadata.num_row_groups):
        yield RowGroup(path, parquet.metadata.row_group(number).num_rows, parquet, number)
    if not parquet.metadata.num_row_groups:
        yield RowGroup(path, 0, parquet, None)
