"""The objects of a run with all that is known before any pixel: which networks select each, and its neighbors.

They come along HEALPix from any source; at most two chunks of the source are in memory at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.config import FlagsConfig
from galbatch.core import sky
from galbatch.core.types import ObjectTable
from galbatch.objects.neighbors import flags_of_distance, is_near_edge, search_radius_arcsec
from galbatch.objects.sources import ObjectSource
from galbatch.objects.where import select

__all__ = ["Chunk", "LruCache", "PartitionObjects", "SelectedObjects", "Span"]

CHUNKS_IN_MEMORY = 2

T = TypeVar("T")


class LruCache(Generic[T]):
    """A cache of a function's results for its most recently used arguments.

    Parameters
    ----------
    make : function of an index
    n_kept : number of results that are kept
    """

    def __init__(self, make: Callable[[int], T], n_kept: int = CHUNKS_IN_MEMORY) -> None:
        self._make = make
        self._n_kept = n_kept
        self._kept: OrderedDict[int, T] = OrderedDict()

    def __getitem__(self, index: int) -> T:
        if index not in self._kept:
            while len(self._kept) >= self._n_kept:
                self._kept.popitem(last=False)
            self._kept[index] = self._make(index)
        self._kept.move_to_end(index)
        return self._kept[index]

    @property
    def kept(self) -> list[T]:
        """The results in memory, the latest last."""
        return list(self._kept.values())


@dataclass(frozen=True)
class PartitionObjects:
    """Objects with their flags and selections.

    Attributes
    ----------
    table : the objects
    flags : (object,) int32, NEIGHBOR and DUPLICATE_POSITION in PixelFlag bits
    selected : (model, object) bool
    """

    table: ObjectTable
    flags: npt.NDArray[np.int32]
    selected: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Span:
    """Rows of one chunk of the object list.

    Attributes
    ----------
    chunk : number of the chunk
    rows : the rows
    is_whole : whether these are all rows of the chunk
    """

    chunk: int
    rows: slice
    is_whole: bool


@dataclass(frozen=True)
class _Edge:
    """Objects near the edge of their chunk's pixel."""

    healpix_29: npt.NDArray[np.int64]
    ra_deg: npt.NDArray[np.float64]
    dec_deg: npt.NDArray[np.float64]


class Chunk:
    """A chunk of the object list in memory.

    Parameters
    ----------
    table : its objects
    wheres : the selection of each model as an expression; None selects all objects
    flags : radii of the flags that other objects set

    Attributes
    ----------
    selected : (model, object) bool
    """

    def __init__(self, table: ObjectTable, wheres: Sequence[str | None], flags: FlagsConfig) -> None:
        self.table = table
        selected = [select(table, where) for where in wheres]
        self.selected = np.array(selected, np.bool_).reshape(len(wheres), len(table))
        self._flags = flags

    @cached_property
    def nearest_arcsec(self) -> npt.NDArray[np.float64]:
        """The distance (object,) in arcsec to the nearest other object of the chunk; infinite beyond the flags' radii."""
        radius_arcsec = search_radius_arcsec(self._flags)
        return sky.nearest_arcsec(self.table.ra_deg, self.table.dec_deg, within_arcsec=radius_arcsec)


class SelectedObjects:
    """All objects of a run in the order of their HEALPix index, read in chunks.

    Parameters
    ----------
    source : the object list, in chunks that are HEALPix pixels
    wheres : the selection of each model as an expression; None selects all objects
    flags : radii of the flags that other objects set
    """

    def __init__(self, source: ObjectSource, wheres: Sequence[str | None], flags: FlagsConfig) -> None:
        self.source = source
        self._wheres = tuple(wheres)
        self._flags = flags
        self._bounds = np.concatenate([[0], np.cumsum(source.counts)]).astype(np.int64)
        self._firsts = np.array([first for first, _ in source.ranges], np.int64)
        self._edges: dict[int, _Edge] = {}
        self.chunks: LruCache[Chunk] = LruCache(self._load)

    def __len__(self) -> int:
        return int(self._bounds[-1])

    @property
    def n_models(self) -> int:
        """Number of networks, each with its selection."""
        return len(self._wheres)

    def rank(self, healpix_29: int) -> int:
        """Return the number of objects whose HEALPix index of order 29 is below `healpix_29`."""
        chunk = int(np.searchsorted(self._firsts, healpix_29, side="right")) - 1
        if chunk < 0:
            return 0
        first, last = self.source.ranges[chunk]
        if healpix_29 == first or healpix_29 >= last:
            return int(self._bounds[chunk + (healpix_29 >= last)])
        table = self.chunks[chunk].table
        return int(self._bounds[chunk] + np.searchsorted(table.healpix_29, healpix_29))

    def spans(self, start: int, stop: int) -> Iterator[Span]:
        """Yield the chunks that hold the objects `start` <= number < `stop`, with the rows of each."""
        chunk = int(np.searchsorted(self._bounds, start, side="right")) - 1
        while start < stop:
            first, last = int(self._bounds[chunk]), int(self._bounds[chunk + 1])
            if last > start:
                rows = slice(start - first, min(stop, last) - first)
                yield Span(chunk, rows, is_whole=rows == slice(0, last - first))
                start = min(stop, last)
            chunk += 1

    def take(self, start: int, stop: int) -> PartitionObjects:
        """Return the objects `start` <= number < `stop`, with flags and selections."""
        parts = []
        for span in self.spans(start, stop):
            chunk = self.chunks[span.chunk]
            # Distances are known inside of a chunk; those across its edge come from the search over all edges.
            table = chunk.table.take(span.rows)
            nearest = chunk.nearest_arcsec[span.rows]
            if len(self.source.ranges) > 1:
                nearest = np.minimum(nearest, self._nearest_in_other_chunks(table))
            flags = flags_of_distance(nearest, self._flags)
            parts.append(PartitionObjects(table, flags, chunk.selected[:, span.rows]))
        if len(parts) == 1:
            return parts[0]
        flags = np.concatenate([part.flags for part in parts])
        selected = np.concatenate([part.selected for part in parts], axis=1)
        return PartitionObjects(_joined([part.table for part in parts]), flags, selected)

    # --- neighbors in other chunks -----------------------------------------------------------------------

    def _load(self, index: int) -> Chunk:
        chunk = Chunk(self.source.read(index), self._wheres, self._flags)
        if index not in self._edges and len(self.source.ranges) > 1:
            table, radius_arcsec = chunk.table, search_radius_arcsec(self._flags)
            near = is_near_edge(table.healpix_29, self.source.ranges[index], radius_arcsec)
            self._edges[index] = _Edge(table.healpix_29[near], table.ra_deg[near], table.dec_deg[near])
        return chunk

    @cached_property
    def _at_edges(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The HEALPix indices, rising, of objects that have another one near across a chunk's edge, and that one's distance in arcsec.

        Two neighbors in different chunks are both near their chunk's edge: only those objects are compared,
        some percent of all.
        """
        for index in range(len(self.source.ranges)):
            if index not in self._edges:
                self.chunks[index]
        edges = [self._edges[index] for index in range(len(self.source.ranges))]
        nearest = sky.nearest_arcsec(
            np.concatenate([edge.ra_deg for edge in edges]),
            np.concatenate([edge.dec_deg for edge in edges]),
            within_arcsec=search_radius_arcsec(self._flags),
        )
        healpix = np.concatenate([edge.healpix_29 for edge in edges])
        nothing = _Edge(*np.zeros((3, 0)))
        self._edges = dict.fromkeys(self._edges, nothing)  # known, and no longer needed
        found = np.isfinite(nearest)
        return healpix[found], nearest[found]

    def _nearest_in_other_chunks(self, table: ObjectTable) -> npt.NDArray[np.float64]:
        """Return the distance (object,) in arcsec to the nearest object of another chunk; infinite beyond the flags' radii."""
        healpix, nearest = self._at_edges
        result = np.full(len(table), np.inf)
        if len(healpix):
            # Objects of one index are 0.4 mas apart at most: each is the other's neighbor.
            at = np.minimum(np.searchsorted(healpix, table.healpix_29), len(healpix) - 1)
            known = healpix[at] == table.healpix_29
            result[known] = nearest[at[known]]
        return result


def _joined(parts: Sequence[ObjectTable]) -> ObjectTable:
    return ObjectTable(
        np.concatenate([part.object_id for part in parts]),
        np.concatenate([part.ra_deg for part in parts]),
        np.concatenate([part.dec_deg for part in parts]),
        np.concatenate([part.healpix_29 for part in parts]),
        pa.concat_tables(part.kept for part in parts),
        {
            band: np.concatenate([part.psf_fwhm_arcsec[band] for part in parts])
            for band in parts[0].psf_fwhm_arcsec
        },
        {name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs},
    )
