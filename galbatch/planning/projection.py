"""The projected cost of cutting objects: number of cutouts, bytes read and written, requests.

Each object counts as one window on one tile of each band, the tile that covers it; pixels that are completed from
neighboring tiles are not counted. Whether a tile is read whole or by windows is decided as the readers decide it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch import storage
from galbatch.core.types import Grid, Tile
from galbatch.ingest import Footprint, bytes_per_object, cutting_cost
from galbatch.objects import Chunk, LruCache, SelectedObjects

__all__ = ["GridPlan", "Projection", "Projector", "grid_text"]


def grid_text(grid: Grid, bands: Sequence[str]) -> str:
    """Return a grid and its bands as fingerprints and messages show them: ``96px_0.168arcsec g+r``."""
    return f"{grid.label} {'+'.join(bands)}"


@dataclass(frozen=True)
class _Counts:
    """Numbers of windows on the places of a survey. A place is the area of tiles with the same corners, one in each band.

    Attributes
    ----------
    places : (place,) intp, numbers of the places that have windows, in rising order
    n_windows : (place,) intp, number of windows on each
    """

    places: npt.NDArray[np.intp]
    n_windows: npt.NDArray[np.intp]

    @classmethod
    def of(cls, places: npt.NDArray[np.int32]) -> _Counts:
        """Count the windows (window,) on each place; -1, outside all tiles, is left out."""
        places = places[places >= 0]
        if not len(places):
            return cls(np.zeros(0, np.intp), np.zeros(0, np.intp))
        # Places are numbered along HEALPix, so those of a partition lie close together, and bincount is faster than the
        # sort of np.unique. Where they lie far apart, its array would be mostly zeros.
        first, last = int(places.min()), int(places.max())
        if last - first > 4 * len(places) + 1024:
            values, counts = np.unique(places, return_counts=True)
            return cls(values.astype(np.intp), counts)
        n_windows = np.bincount(places - first)
        there = np.flatnonzero(n_windows)
        return cls(there + first, n_windows[there])

    @classmethod
    def sum(cls, parts: Sequence[_Counts]) -> _Counts:
        """Return the sum of counts on the same places."""
        if len(parts) == 1:
            return parts[0]
        # The empty array stands first, as np.concatenate refuses an empty list.
        none = np.zeros(0, np.intp)
        places, inverse = np.unique(
            np.concatenate([none, *(part.places for part in parts)]), return_inverse=True
        )
        counts = np.zeros(len(places), np.intp)
        np.add.at(counts, inverse, np.concatenate([none, *(part.n_windows for part in parts)]))
        return cls(places, counts)


@dataclass(frozen=True)
class GridPlan:
    """One grid of the store.

    Attributes
    ----------
    grid : size and pixel scale of the cutouts
    bands : bands that ``[cutouts]`` states, then those of its networks
    models : index of each network that uses it, in the order of ``[[models]]``
    is_stated : whether ``[cutouts]`` states it: then every object is cut, not those alone that its networks select
    n_cutouts : number of objects that are cut
    n_covered : number of those that a tile covers: cutting the others takes no time
    settings : for each band a digest of the settings that its pixels depend on
    """

    grid: Grid
    bands: tuple[str, ...]
    models: tuple[int, ...]
    is_stated: bool = False
    n_cutouts: int = 0
    n_covered: int = 0
    settings: tuple[str, ...] = ()

    def needed(self, selected: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which objects are cut on the grid, (object,) bool, of those that each network selects, (model, object) bool."""
        if self.is_stated:
            return np.ones(selected.shape[1], np.bool_)
        return np.any(selected[list(self.models)], axis=0)


@dataclass(frozen=True, slots=True)
class Projection:
    """The projected cost of cutting some objects.

    Attributes
    ----------
    n_cutouts : number of cutouts on each grid
    read_bytes : bytes read from tiles
    window_bytes : bytes of the cutouts' own pixels in the tiles, each window counted by itself
    requests : number of requests to S3; 0 for local tiles
    write_bytes : bytes of cutouts that are written, before compression
    """

    n_cutouts: tuple[int, ...]
    read_bytes: int
    window_bytes: int
    requests: int
    write_bytes: int

    @property
    def total_bytes(self) -> int:
        """The bytes read and written."""
        return self.read_bytes + self.write_bytes

    @classmethod
    def sum(cls, parts: Sequence[Projection], n_grids: int) -> Projection:
        """Return the total cost of several partitions."""
        return cls(
            tuple(sum(part.n_cutouts[grid] for part in parts) for grid in range(n_grids)),
            sum(part.read_bytes for part in parts),
            sum(part.window_bytes for part in parts),
            sum(part.requests for part in parts),
            sum(part.write_bytes for part in parts),
        )


@dataclass(frozen=True)
class _Cost:
    """The cost of windows on the tiles of one survey and grid."""

    read_bytes: int
    window_bytes: int
    requests: int


class _Survey:
    """The cost of windows on the tiles of one survey, for the cutouts of one grid."""

    def __init__(self, footprint: Footprint, tiles: Sequence[Tile], grid: GridPlan) -> None:
        self._grid = grid.grid
        self._costs: dict[tuple[int, int], _Cost] = {}
        numbers: dict[object, int] = {}
        # One tile of each group of tiles that cost the same.
        self._alike: list[Tile] = []
        at_place: list[list[int]] = [[] for _ in range(footprint.n_places)]
        for tile, place in zip(tiles, footprint.place.tolist(), strict=True):
            if tile.band in grid.bands:
                key = _cost_key(tile)
                if key not in numbers:
                    numbers[key] = len(numbers)
                    self._alike.append(tile)
                at_place[place].append(numbers[key])
        # Places whose tiles cost the same are of one kind: the 5,000 patches of a survey have a few kinds, so the cost of
        # n windows is computed a few times and not for each patch.
        kinds: dict[tuple[int, ...], int] = {}
        kind_of = [kinds.setdefault(tuple(sorted(tiles_there)), len(kinds)) for tiles_there in at_place]
        self._kind_of_place = np.array(kind_of, np.int64)
        self._tiles_of_kind = list(kinds)

    def cost(self, counts: _Counts) -> _Cost:
        """Return the total cost of the given numbers of windows on places."""
        # Kind and number of windows in one int64, 32 bits each, so that equal pairs can be counted by one sort.
        pairs = self._kind_of_place[counts.places] << 32 | counts.n_windows
        values, times = np.unique(pairs, return_counts=True)
        read = window = requests = 0
        for value, n in zip(values.tolist(), times.tolist(), strict=True):
            one = self._cost_at(value >> 32, value & 0xFFFF_FFFF)
            read += n * one.read_bytes
            window += n * one.window_bytes
            requests += n * one.requests
        return _Cost(read, window, requests)

    def _cost_at(self, kind: int, n_windows: int) -> _Cost:
        """Return the cost of `n_windows` windows on one place of a kind, computed once."""
        key = (kind, n_windows)
        if key not in self._costs:
            read = window = requests = 0
            for number in self._tiles_of_kind[kind]:
                tile = self._alike[number]
                # Side of the window in pixels of the tile. A thousandth of a pixel is subtracted, so that pixel scales
                # that differ by rounding do not take one more pixel.
                size = math.ceil(
                    self._grid.size_px * self._grid.pixel_scale_arcsec / tile.pixel_scale_arcsec - 1e-3
                )
                cost = cutting_cost(tile, n_windows=n_windows, size_px=size)
                n_pixels = min(size, tile.shape_px[0]) * min(size, tile.shape_px[1])
                read += cost.bytes_
                requests += cost.requests
                window += n_windows * n_pixels * sum(plane.bytes_per_px for plane in tile.pixel_planes)
            self._costs[key] = _Cost(read, window, requests)
        return self._costs[key]


def _cost_key(tile: Tile) -> tuple[object, ...]:
    """Return everything that `cutting_cost` depends on; tiles with equal keys cost the same."""
    # Of a path only the kind of storage and of compression count.
    planes = tile.pixel_planes
    of_planes = [
        (
            storage.reads_by_request(p.path),
            p.path.endswith((".gz", ".bz2")),
            p.block_px,
            p.bytes_per_px,
            p.stored_bytes,
        )
        for p in planes
    ]
    n_files = len({plane.path for plane in planes})
    return tile.shape_px, tile.pixel_scale_arcsec, n_files, *of_planes


@dataclass(frozen=True)
class _Windows:
    """The windows that a chunk of the object list takes.

    Attributes
    ----------
    needed : (grid, object) bool, whether the object is cut on the grid
    places : (survey, object) int32, number of the place that covers the object; -1 if no tile does
    """

    needed: npt.NDArray[np.bool_]
    places: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Summary:
    """The sums that are kept of a chunk; its windows, with one number per object, are dropped.

    Attributes
    ----------
    n_needed : number of cutouts on each grid
    counts : number of windows on each place, for each grid and survey
    """

    n_needed: tuple[int, ...]
    counts: tuple[tuple[_Counts, ...], ...]


class Projector:
    """Projects the cost of any range of the objects. All objects are read once, when it is made.

    Parameters
    ----------
    objects : SelectedObjects
    surveys : sequence of sequence of Tile
        The tiles of each survey.
    grids : sequence of GridPlan
    planes : sequence of str
        The planes that are stored.

    Attributes
    ----------
    n_selected : ndarray of int64, (model,)
        Number of objects that each network selects.
    n_shared : ndarray of int64, (model, model)
        Number of objects that two networks both select.
    n_covered : ndarray of int64, (model,)
        Number of those that a tile covers.
    n_covered_on : ndarray of int64, (grid,)
        Number of objects that a tile covers and that are cut on the grid.
    n_outside : int
        Number of objects that are to be cut but no tile covers.
    """

    def __init__(
        self,
        objects: SelectedObjects,
        surveys: Sequence[Sequence[Tile]],
        grids: Sequence[GridPlan],
        *,
        planes: Sequence[str],
    ) -> None:
        self._objects = objects
        self._grids = tuple(grids)
        # Bytes of one object on each grid.
        self._written = [bytes_per_object(grid.grid, grid.bands, planes) for grid in grids]
        self._footprints = [Footprint(tiles) for tiles in surveys]
        self._surveys = [
            [
                _Survey(footprint, tiles, grid)
                for footprint, tiles in zip(self._footprints, surveys, strict=True)
            ]
            for grid in grids
        ]
        # Most ranges begin or end within a chunk: the windows of the chunks used last stay in memory.
        self._windows: LruCache[_Windows] = LruCache(self._find_windows)
        self.n_outside = 0
        self.n_selected: npt.NDArray[np.int64] = np.zeros(objects.n_models, np.int64)
        self.n_shared: npt.NDArray[np.int64] = np.zeros((objects.n_models, objects.n_models), np.int64)
        self.n_covered: npt.NDArray[np.int64] = np.zeros(objects.n_models, np.int64)
        self.n_covered_on: npt.NDArray[np.int64] = np.zeros(len(grids), np.int64)
        self._summaries = []
        for index in range(len(objects.source.ranges)):
            chunk: Chunk = objects.chunks[index]
            windows = self._windows[index]
            covered = (windows.places >= 0).any(axis=0)  # (survey, object) to (object,)
            self.n_selected += chunk.selected.sum(axis=1)  # (model, object) to (model,)
            as_numbers = chunk.selected.astype(np.int64)
            self.n_shared += as_numbers @ as_numbers.T
            self.n_covered += (chunk.selected & covered).sum(axis=1)
            self.n_covered_on += (windows.needed & covered).sum(axis=1)  # (grid, object) to (grid,)
            self.n_outside += int((windows.needed.any(axis=0) & ~covered).sum())
            self._summaries.append(_summary(windows, slice(None)))

    def _find_windows(self, index: int) -> _Windows:
        """Return the windows of a chunk of the object list."""
        chunk = self._objects.chunks[index]
        table = chunk.table
        needed = [grid.needed(chunk.selected) for grid in self._grids]
        places = [footprint.covering(table.ra_deg, table.dec_deg) for footprint in self._footprints]
        # reshape: without any grid or survey the arrays would have no axis of objects.
        return _Windows(
            np.array(needed, np.bool_).reshape(len(needed), len(table)),
            np.array(places, np.int32).reshape(len(places), len(table)),
        )

    def project(self, start: int, stop: int) -> Projection:
        """Return the cost of the objects from `start` to before `stop`, taken as one partition."""
        parts = []
        # Chunks that lie within the range are not read again.
        for span in self._objects.spans(start, stop):
            if span.is_whole:
                parts.append(self._summaries[span.chunk])
            else:
                parts.append(_summary(self._windows[span.chunk], span.rows))
        n_cutouts = tuple(sum(part.n_needed[g] for part in parts) for g in range(len(self._grids)))
        # Windows are merged over chunks before their cost is taken: a tile that several chunks need is read once.
        costs = [
            survey.cost(_Counts.sum([part.counts[g][s] for part in parts]))
            for g, surveys in enumerate(self._surveys)
            for s, survey in enumerate(surveys)
        ]
        return Projection(
            n_cutouts,
            sum(cost.read_bytes for cost in costs),
            sum(cost.window_bytes for cost in costs),
            sum(cost.requests for cost in costs),
            sum(n * written for n, written in zip(n_cutouts, self._written, strict=True)),
        )


def _summary(windows: _Windows, rows: slice) -> _Summary:
    """Count the cutouts and windows of the chunk's objects at `rows`."""
    n_needed, counts = [], []
    for needed in windows.needed[:, rows]:
        n_needed.append(int(np.count_nonzero(needed)))
        counts.append(tuple(_Counts.of(places[rows][needed]) for places in windows.places))
    return _Summary(tuple(n_needed), tuple(counts))
