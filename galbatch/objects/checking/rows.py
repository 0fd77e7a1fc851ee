"""The rows of a list that is checked: a file, or a HATS catalog, in blocks that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.config import FlagsConfig, ObjectsConfig
from galbatch.core import sky
from galbatch.objects.hats import HatsSource
from galbatch.objects.neighbors import flags_of_distance, search_radius_arcsec
from galbatch.objects.reading import examine, refuse_empty
from galbatch.objects.region import Region
from galbatch.objects.rows import ListCounts, RowFilter
from galbatch.objects.selection import SelectedObjects
from galbatch.objects.tables import is_read_in_parts

__all__ = ["Blocks", "CheckedCatalog", "CheckedList", "CheckedRows"]

Blocks = Callable[[Sequence[str]], Iterable[pa.Table]]
"""Takes names of columns, and iterates over these columns of a list's usable rows; there is one block at least."""


class CheckedRows(Protocol):
    """A list's rows that ``[objects] region`` and ``where`` choose."""

    @property
    def objects(self) -> ObjectsConfig:
        """``[objects]``, with the names of the columns."""

    @property
    def counts(self) -> ListCounts:
        """Numbers of rows in the list, in the region and chosen."""

    def listed(self) -> Iterator[pa.Table]:
        """Iterate over the ids and positions of all chosen rows, with the reasons why rows cannot be used, as `reading.examine` makes them."""

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Iterate over columns of the usable rows."""

    def object_flags(self, flags: FlagsConfig) -> Iterator[npt.NDArray[np.int32]]:
        """Iterate over the bits that other objects set for the usable rows."""


@dataclass(frozen=True)
class CheckedList:
    """The rows of a list in one file, or in a folder of Parquet files; ids and positions are in memory.

    Attributes
    ----------
    objects : ``[objects]``
    region : the region that it names
    columns : all that `blocks` will be asked for
    """

    objects: ObjectsConfig
    region: Region | None
    columns: tuple[str, ...]

    @property
    def counts(self) -> ListCounts:
        return self._examined[1]

    @cached_property
    def _whole(self) -> tuple[pa.Table, ListCounts] | None:
        """All columns of a file that is read as a whole; None for Parquet, whose columns are read when they are asked for."""
        if is_read_in_parts(self.objects.path):
            return None
        objects = self.objects
        wanted = dict.fromkeys((objects.id, objects.ra, objects.dec, *self.columns))
        return RowFilter(objects, self.region).read(objects.path, list(wanted))

    @cached_property
    def _examined(self) -> tuple[pa.Table, ListCounts]:
        objects = self.objects
        positions = [objects.id, objects.ra, objects.dec]
        table, counts = self._whole or RowFilter(objects, self.region).read(objects.path, positions)
        refuse_empty(objects, counts)
        return examine(objects.path, table, objects=objects), counts

    @property
    def _usable(self) -> npt.NDArray[np.bool_]:
        return np.asarray(pc.is_null(self._examined[0].column("reason")))

    def listed(self) -> Iterator[pa.Table]:
        yield self._examined[0]

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        if self._whole:
            yield self._whole[0].select(list(columns)).filter(pa.array(self._usable))
            return
        filtered = RowFilter(self.objects, self.region)
        schema, usable, start = filtered.schema(self.objects.path, columns), self._usable, 0
        for table, _ in filtered.read_parts(self.objects.path, columns):
            yield table.cast(schema).filter(pa.array(usable[start : start + len(table)]))
            start += len(table)

    def object_flags(self, flags: FlagsConfig) -> Iterator[npt.NDArray[np.int32]]:
        listed = self._examined[0]
        ra, dec = (listed.column(name).to_numpy()[self._usable] for name in ("ra_deg", "dec_deg"))
        nearest = sky.nearest_arcsec(ra, dec, within_arcsec=search_radius_arcsec(flags))
        yield flags_of_distance(nearest, flags)


@dataclass(frozen=True)
class CheckedCatalog:
    """The rows of a HATS catalog, pixel by pixel."""

    source: HatsSource

    @property
    def objects(self) -> ObjectsConfig:
        return self.source.config

    @property
    def counts(self) -> ListCounts:
        return self.source.listed

    def listed(self) -> Iterator[pa.Table]:
        return (self.source.examine(chunk)[0] for chunk in range(len(self.source.files)))

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        first = None
        for chunk in range(len(self.source.files)):
            table, usable = self.source.rows(chunk, columns)
            first = first or table.schema
            yield self.source.cast(table, first, chunk).filter(pa.array(usable))

    def object_flags(self, flags: FlagsConfig) -> Iterator[npt.NDArray[np.int32]]:
        # Read as a run reads it, so that kept columns that differ from file to file are found as well.
        objects = SelectedObjects(self.source, (), flags)
        bounds = np.concatenate([[0], np.cumsum(self.source.counts)])
        return (objects.take(int(start), int(stop)).flags for start, stop in pairwise(bounds) if stop > start)
