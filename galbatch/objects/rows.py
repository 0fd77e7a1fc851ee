"""The rows of a list that are a run's objects: those in `[objects] region` for which `[objects] where` is true.

Of Parquet files only the row groups are read that may hold such rows, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.config import ObjectsConfig
from galbatch.errors import ConfigError
from galbatch.objects.region import Region
from galbatch.objects.tables import TablePart, joined, table_parts
from galbatch.objects.values import limits_in_degrees, positions_of
from galbatch.objects.where import may_be_true, names_in, select_rows

__all__ = ["ListCounts", "RowFilter"]


@dataclass(frozen=True)
class ListCounts:
    """Numbers of rows of a list.

    Attributes
    ----------
    n_listed : all rows
    n_in_region : those of them that lie in the region
    n_chosen : those in the region for which `where` is true
    """

    n_listed: int = 0
    n_in_region: int = 0
    n_chosen: int = 0

    def __add__(self, other: ListCounts) -> ListCounts:
        return ListCounts(
            self.n_listed + other.n_listed,
            self.n_in_region + other.n_in_region,
            self.n_chosen + other.n_chosen,
        )


@dataclass(frozen=True)
class RowFilter:
    """Reads the rows of a list that ``[objects]`` chooses.

    Attributes
    ----------
    objects : ``[objects]``, with the names of the position columns
    region : the region that it names; None: the whole sky
    """

    objects: ObjectsConfig
    region: Region | None

    def read(self, path: str, columns: Sequence[str]) -> tuple[pa.Table, ListCounts]:
        """Return columns of the chosen rows of a list, or of one of its files, and the numbers of its rows.

        Raises
        ------
        ObjectListError
            As `read_table`; or positions that are no angles.
        ConfigError
            The expression is none, or compares unlike kinds.
        """
        counts, tables = ListCounts(), list[pa.Table]()
        for table, found in self.read_parts(path, columns):
            counts += found
            # The types of one part without rows stand for those of the list if no row is chosen.
            if found.n_chosen or not tables:
                tables.append(table)
        return joined(path, tables), counts

    def read_parts(self, path: str, columns: Sequence[str]) -> Iterator[tuple[pa.Table, ListCounts]]:
        """Iterate over what `read` returns, in parts that fit in memory: row groups of Parquet files, else all at once."""
        for part in self._parts(path, columns):
            found, rows = self._chosen(path, part)
            if not found.n_chosen:
                yield part.empty(columns), found
            elif found.n_chosen == part.n_rows:
                yield part.read(columns), found
            else:
                yield part.read(columns).filter(pa.array(rows)), found

    def schema(self, path: str, columns: Sequence[str]) -> pa.Schema:
        """Return the types of columns of a table, of which no row is read; raises as `read` does."""
        return joined(path, [part.empty(columns) for part in self._parts(path, columns)]).schema

    def _parts(self, path: str, columns: Sequence[str]) -> Iterator[TablePart]:
        objects = self.objects
        also = [objects.ra, objects.dec] if self.region else []
        return table_parts(
            path,
            columns=list(dict.fromkeys([*columns, *also, *self._names_in_where()])),
            hdu=objects.hdu,
            text=[objects.id] if objects.id_type == "text" else [],
            ids=[objects.id] if objects.id_type == "as_stored" else [],
        )

    def _chosen(self, path: str, part: TablePart) -> tuple[ListCounts, npt.NDArray[np.bool_]]:
        """Return the numbers of a part's rows, and which are chosen, (row,) bool; columns are read as far as they are needed."""
        rows = self._in_region(path, part)
        counts = ListCounts(part.n_rows, int(np.count_nonzero(rows)))
        where = self.objects.where
        if where and counts.n_in_region:
            names = self._names_in_where()
            if may_be_true(where, part.limits(names)):
                rows[rows] = self._selected(path, part.read(names).filter(pa.array(rows)))
            else:
                rows[:] = False
        return replace(counts, n_chosen=int(np.count_nonzero(rows))), rows

    def _in_region(self, path: str, part: TablePart) -> npt.NDArray[np.bool_]:
        """Return which rows of a part lie in the region, (row,) bool; a row without a position lies in none."""
        if self.region is None:
            return np.ones(part.n_rows, np.bool_)
        result = np.zeros(part.n_rows, np.bool_)
        names = [self.objects.ra, self.objects.dec]
        limits, schema = part.limits(names), part.empty(names).schema
        in_degrees = (limits_in_degrees(path, schema, name, limits.get(name)) for name in names)
        if self.region.bounds.may_hold(*in_degrees):
            found = positions_of(path, part.read(names), self.objects)
            ra, dec = found["ra_deg"], found["dec_deg"]
            rows = np.flatnonzero(np.isfinite(ra) & (np.abs(np.nan_to_num(dec, nan=99.0)) <= 90.0))
            # A point just below 0 wraps to 360 exactly, by rounding.
            wrapped = np.mod(np.mod(ra[rows], 360.0), 360.0)
            result[rows] = self.region.contains(wrapped, dec[rows])
        return result

    def _names_in_where(self) -> list[str]:
        try:
            return names_in(self.objects.where)
        except ConfigError as error:
            raise ConfigError(f"run.toml: [objects] {error}") from None

    def _selected(self, path: str, table: pa.Table) -> npt.NDArray[np.bool_]:
        columns = dict(zip(table.column_names, table.columns, strict=True))
        try:
            return select_rows(columns, len(table), self.objects.where)
        except ConfigError as error:
            raise ConfigError(f"{path}: [objects] {error}") from None
