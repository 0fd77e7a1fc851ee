"""Reading the rows of a catalog that conditions hold for: only the leaves, row groups and columns that are needed."""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galbatch import storage
from galbatch.catalog.layout import leaf_path
from galbatch.catalog.leaves import open_leaf, read_leaf
from galbatch.catalog.schema import column_field
from galbatch.core import sky
from galbatch.core.columns import DEC, HEALPIX, RA, SEPARATION
from galbatch.core.pixels import HealpixPixel
from galbatch.core.prefetch import map_in_threads
from galbatch.errors import UsageError

__all__ = ["AtIndices", "Cone", "HasText", "InPixel", "RowCondition", "RowLimits", "leaves_at_once", "scan"]

RowLimits = Mapping[str, tuple[Any, Any]]
"""Least and greatest value of columns in some rows; of columns that are absent nothing is known."""

PIXEL_DEG = 58.6
"""Width of a HEALPix pixel at order 0 in deg: the square root of 41253 / 12 square degrees."""

LEAVES_AT_ONCE = 16
"""Most leaves read at the same time: on S3 each takes 50 ms, most of it waiting for the network."""


def leaves_at_once(catalog_path: str) -> int:
    """Return the number of leaves to read at the same time: `LEAVES_AT_ONCE`, but on a disk no more than there are cores.

    16 threads on two cores take 1.5 times the processor time of one for 100 row groups: they wait for the interpreter's lock.
    """
    if storage.reads_by_request(catalog_path):
        return LEAVES_AT_ONCE
    # os.cpu_count counts hardware threads, of which two mostly share a core.
    return min(LEAVES_AT_ONCE, max(1, (os.cpu_count() or 1) // 2))


class RowCondition(Protocol):
    """A condition on the rows of a catalog."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether it may hold for any row within the limits; false only where it holds for none."""

    def holds(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows it holds for, (row,) bool, from a table that has its columns."""


@dataclass(frozen=True)
class Cone:
    """A circle on the sky: center in deg (ICRS), radius in arcsec; its edge belongs to it.

    Raises
    ------
    UsageError
        The position is not a position on the sky, or the radius is negative or not finite.
    """

    ra_deg: float
    dec_deg: float
    radius_arcsec: float

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.ra_deg) and -90 <= self.dec_deg <= 90 and 0 <= self.radius_arcsec < math.inf
        ):
            raise UsageError(
                f"cone about ra {self.ra_deg}, dec {self.dec_deg} with radius {self.radius_arcsec} arcsec: expected a "
                "finite right ascension, a declination within -90..90 and a radius of 0 or more"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that it reads."""
        return RA.name, DEC.name

    @cached_property
    def index_ranges(self) -> list[tuple[int, int]]:
        """Ranges of the HEALPix index at order 29 that cover the cone; the second number is not included."""
        # Pixels about as wide as the radius cover the cone, so a handful suffice whatever the radius is. A radius of 0 has
        # no logarithm, and 1e-3 arcsec gives an order below 29; a cone cannot be larger than the sphere.
        search_arcsec = min(max(self.radius_arcsec, 1e-3), 180 * 3600.0)
        order = max(int(math.log2(3600.0 * PIXEL_DEG / search_arcsec)), 0)
        pixels = sky.cone_pixels(
            self.ra_deg % 360.0, self.dec_deg, radius_arcsec=search_arcsec, healpix_order=order
        )
        return [HealpixPixel(order, pixel).index_range for pixel in pixels.tolist()]

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether rows within the limits of their HEALPix index may lie in the cone."""
        if HEALPIX.name not in limits:
            return True
        least, greatest = limits[HEALPIX.name]
        return any(least < stop and start <= greatest for start, stop in self.index_ranges)

    def separation_arcsec(self, rows: pa.Table) -> npt.NDArray[np.float64]:
        """Return the distances (row,) float64 of rows from the center, in arcsec."""
        ra, dec = rows.column(RA.name).to_numpy(), rows.column(DEC.name).to_numpy()
        return sky.separation_arcsec(self.ra_deg, self.dec_deg, ra, dec)

    def with_separation(self, rows: pa.Table) -> pa.Table:
        """Return rows with the distance from the center as the last column, ``separation_arcsec``, in place of one of that name."""
        kept = [name for name in rows.column_names if name != SEPARATION.name]
        separation = pa.array(self.separation_arcsec(rows), pa.float64())
        return rows.select(kept).append_column(column_field(SEPARATION), separation)

    def holds(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows lie in the cone, (row,) bool."""
        return np.asarray(self.separation_arcsec(rows) <= self.radius_arcsec)


class AtIndices:
    """Rows at some HEALPix indices at order 29, (index,) integers."""

    columns = (HEALPIX.name,)

    def __init__(self, indices: Iterable[int]) -> None:
        self._indices = sorted(set(indices))

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether one of the indices is within the limits."""
        within = limits.get(HEALPIX.name)
        return within is None or bool(self._between(*within))

    def holds(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows are at one of the indices, (row,) bool."""
        there = rows.column(HEALPIX.name).to_numpy()
        # Of thousands of indices a row group has one or two, and NumPy compares with few values one by one.
        return np.isin(there, self._between(there.min(), there.max()) if len(there) else [])

    def _between(self, least: int, greatest: int) -> list[int]:
        return self._indices[bisect_left(self._indices, least) : bisect_right(self._indices, greatest)]


@dataclass(frozen=True)
class InPixel:
    """Rows inside a HEALPix pixel."""

    pixel: HealpixPixel

    columns = (HEALPIX.name,)

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether rows within the limits of their HEALPix index may lie in the pixel."""
        if HEALPIX.name not in limits:
            return True
        (least, greatest), (start, stop) = limits[HEALPIX.name], self.pixel.index_range
        return bool(least < stop and start <= greatest)

    def holds(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows lie in the pixel, (row,) bool."""
        index, (start, stop) = rows.column(HEALPIX.name).to_numpy(), self.pixel.index_range
        return np.asarray((index >= start) & (index < stop))


class HasText:
    """Rows in which one of some columns of text is one of some values."""

    def __init__(self, columns: Iterable[str], values: Iterable[str]) -> None:
        self.columns = tuple(columns)
        self._values = sorted(set(values))

    def may_hold(self, limits: RowLimits) -> bool:
        """Return whether one of the columns may have one of the values within the limits."""
        return any(
            name not in limits or any(limits[name][0] <= value <= limits[name][1] for value in self._values)
            for name in self.columns
        )

    def holds(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return which rows have one of the values in one of the columns, (row,) bool."""
        found = [
            pc.is_in(rows.column(name), pa.array(self._values, rows.schema.field(name).type))
            for name in self.columns
        ]
        return np.logical_or.reduce([np.asarray(column) for column in found])


def scan(
    catalog_path: str,
    leaves: Sequence[HealpixPixel],
    conditions: Sequence[RowCondition] = (),
    *,
    columns: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """Yield the rows of leaves that all conditions hold for, a table for each leaf that may have such rows.

    A leaf is opened only if the pixel that it covers allows it, and a row group is read only if its statistics do. Of such a
    row group the conditions' columns are read first, and the others only if a row remains.

    Parameters
    ----------
    catalog_path : str
    leaves : sequence of HealpixPixel
        Leaves that exist; the tables come in their order.
    conditions : sequence of RowCondition
    columns : sequence of str or None
        Columns of the tables, in this order; all must exist. None: all of the leaf.

    Raises
    ------
    DamagedError
        A leaf cannot be read as Parquet, or is not as it was written.
    """
    near = [leaf for leaf in leaves if _may_hold(conditions, _limits_of_leaf(leaf))]
    yield from map_in_threads(
        lambda leaf: _read_rows(leaf_path(catalog_path, leaf), conditions, columns),
        near,
        n_threads=leaves_at_once(catalog_path),
    )


def _may_hold(conditions: Sequence[RowCondition], limits: RowLimits) -> bool:
    return all(condition.may_hold(limits) for condition in conditions)


def _limits_of_leaf(leaf: HealpixPixel) -> RowLimits:
    start, stop = leaf.index_range
    return {HEALPIX.name: (start, stop - 1)}


def _read_rows(path: str, conditions: Sequence[RowCondition], columns: Sequence[str] | None) -> pa.Table:
    if not conditions:
        return read_leaf(path, columns=None if columns is None else list(columns))
    with open_leaf(path) as leaf:
        paths = leaf.metadata.schema.names
        groups = [
            number
            for number in range(leaf.metadata.num_row_groups)
            if _may_hold(conditions, _LimitsOfGroup(leaf.metadata.row_group(number), paths))
        ]
        # A row group that has an index within its limits mostly has the row: all columns are read at once then.
        if any(isinstance(condition, AtIndices) for condition in conditions):
            return _read_at_once(leaf, groups, conditions, columns)
        return _read_in_two_steps(leaf, groups, conditions, columns)


def _read_at_once(
    leaf: pq.ParquetFile,
    groups: Sequence[int],
    conditions: Sequence[RowCondition],
    columns: Sequence[str] | None,
) -> pa.Table:
    """Return the rows of row groups that all conditions hold for; their columns are read together with those of the rows."""
    # To name all columns takes as long as to read them. Leaves are read in threads already.
    wanted = None if columns is None else list(dict.fromkeys([*columns, *_tested(conditions)]))
    rows = leaf.read_row_groups(groups, columns=wanted, use_threads=False).replace_schema_metadata(None)
    chosen = np.logical_and.reduce([condition.holds(rows) for condition in conditions])
    # Rows are taken by their numbers, as a filter looks at every row of every column.
    found = rows.take(pa.array(np.flatnonzero(chosen)))
    return found if columns is None else found.select(list(columns))


def _read_in_two_steps(
    leaf: pq.ParquetFile,
    groups: Sequence[int],
    conditions: Sequence[RowCondition],
    columns: Sequence[str] | None,
) -> pa.Table:
    """Return the rows of row groups that all conditions hold for; of a row group without such a row only the conditions' columns are read."""
    tested = _tested(conditions)
    schema = leaf.schema_arrow.remove_metadata()
    names = list(schema.names if columns is None else columns)
    found = [pa.schema([schema.field(name) for name in names]).empty_table()]
    others = [name for name in names if name not in tested]
    for number in groups:
        rows = leaf.read_row_group(number, columns=tested, use_threads=False)
        chosen = np.logical_and.reduce([condition.holds(rows) for condition in conditions])
        if not chosen.any():
            continue
        rest = leaf.read_row_group(number, columns=others, use_threads=False) if others else rows
        whole = [(rows if name in tested else rest).column(name) for name in names]
        found.append(pa.table(whole, schema=found[0].schema).filter(pa.array(chosen)))
    return pa.concat_tables(found)


def _tested(conditions: Sequence[RowCondition]) -> list[str]:
    return list(dict.fromkeys(name for condition in conditions for name in condition.columns))


class _LimitsOfGroup(RowLimits):
    """Least and greatest value of the columns whose statistics the footer has; nulls and NaN do not count.

    They are read when they are asked for: a catalog has a hundred columns and more, a condition asks for one or two.
    """

    def __init__(self, group: pq.RowGroupMetaData, names: Sequence[str]) -> None:
        self._group = group
        self._names = names

    def __getitem__(self, name: str) -> tuple[Any, Any]:
        column = self._group.column(self._names.index(name)) if name in self._names else None
        if column is None or not column.is_stats_set or not column.statistics.has_min_max:
            raise KeyError(name)
        return column.statistics.min, column.statistics.max

    def __iter__(self) -> Iterator[str]:
        return iter(name for name in self._names if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))
