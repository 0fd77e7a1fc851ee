"""The projected cost of cutting objects: cutouts, bytes read and written, requests. Objects are read through their source.

Every object counts as one window on one tile of each band, the one that covers it; what is completed from
neighboring tiles is not counted. How a tile with n windows is read is decided as the readers decide it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch import storage
from galbatch.core.types import Grid, Plane, Tile
from galbatch.ingest import Footprint, bytes_per_object, tile_read_cost
from galbatch.objects import Chunk, LruCache, SelectedObjects

__all__ = ["GridPlan", "Projection", "Projector"]

Counts = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Places, rising, and the number of windows on each."""


@dataclass(frozen=True)
class GridPlan:
    """One grid of the store with the union of its networks' bands, and which networks, by number, use it."""

    grid: Grid
    bands: tuple[str, ...]
    models: tuple[int, ...]
    n_cutouts: int = 0


@dataclass(frozen=True)
class Projection:
    """The projected cost of cutting some objects.

    Attributes
    ----------
    n_cutouts : one number for each grid
    read_bytes : bytes of tiles that are read
    window_bytes : bytes of the cutouts' own pixels in the tiles, which is the least to be read
    requests : to S3; 0 for local tiles
    write_bytes : of cutouts
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
        """Return the cost of several partitions together."""
        return cls(
            tuple(sum(part.n_cutouts[grid] for part in parts) for grid in range(n_grids)),
            sum(part.read_bytes for part in parts),
            sum(part.window_bytes for part in parts),
            sum(part.requests for part in parts),
            sum(part.write_bytes for part in parts),
        )


@dataclass(frozen=True)
class _Cost:
    read_bytes: int
    window_bytes: int
    requests: int


class _Survey:
    """The tiles of one survey on one grid: what windows on its places cost."""

    def __init__(self, footprint: Footprint, tiles: Sequence[Tile], grid: GridPlan) -> None:
        self._grid = grid.grid
        self._costs: dict[tuple[int, int], _Cost] = {}
        numbers: dict[object, int] = {}
        self._alike: list[Tile] = []
        at_place: list[list[int]] = [[] for _ in range(footprint.n_places)]
        for tile, place in zip(tiles, footprint.place.tolist(), strict=True):
            if tile.band in grid.bands:
                key = _cost_key(tile)
                if key not in numbers:
                    numbers[key] = len(numbers)
                    self._alike.append(tile)
                at_place[place].append(numbers[key])
        # Places whose tiles cost the same are one kind: 5,000 patches are mostly a handful.
        kinds: dict[tuple[int, ...], int] = {}
        kind_of = [kinds.setdefault(tuple(sorted(tiles_there)), len(kinds)) for tiles_there in at_place]
        self._kind_of_place = np.array(kind_of, np.int64)
        self._tiles_of_kind = list(kinds)

    def cost(self, counts: Counts) -> _Cost:
        """Return the cost of n windows on each of these places."""
        places, n_windows = counts
        pairs = self._kind_of_place[places] << 32 | n_windows
        values, times = np.unique(pairs, return_counts=True)
        read = window = requests = 0
        for value, n in zip(values.tolist(), times.tolist(), strict=True):
            one = self._one(value >> 32, value & 0xFFFF_FFFF)
            read += n * one.read_bytes
            window += n * one.window_bytes
            requests += n * one.requests
        return _Cost(read, window, requests)

    def _one(self, kind: int, n_windows: int) -> _Cost:
        """Return the cost of n windows on one place of a kind."""
        key = (kind, n_windows)
        if key not in self._costs:
            read = window = requests = 0
            for number in self._tiles_of_kind[kind]:
                tile = self._alike[number]
                # Pixel scales that differ by rounding must not ask for one more pixel: a thousandth is left out.
                size = math.ceil(
                    self._grid.size_px * self._grid.pixel_scale_arcsec / tile.pixel_scale_arcsec - 1e-3
                )
                cost = tile_read_cost(tile, n_windows=n_windows, size_px=size)
                n_pixels = min(size, tile.shape_px[0]) * min(size, tile.shape_px[1])
                read += cost.bytes_
                requests += cost.requests
                window += n_windows * n_pixels * sum(plane.bytes_per_px for plane in _planes(tile))
            self._costs[key] = _Cost(read, window, requests)
        return self._costs[key]


def _planes(tile: Tile) -> list[Plane]:
    return [plane for plane in (tile.image, tile.mask, tile.weight) if plane is not None]


def _cost_key(tile: Tile) -> tuple[object, ...]:
    """Return all that `tile_read_cost` depends on, with paths reduced to what they say of the storage."""
    planes = _planes(tile)
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
    """The objects of a chunk that each grid needs, and the place of each object in each survey.

    Attributes
    ----------
    needed : (grid, object) bool
    places : (survey, object) int32; -1 where no tile covers the object
    """

    needed: npt.NDArray[np.bool_]
    places: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Summary:
    """The part that is kept of every chunk: windows on each place, for each grid and survey."""

    n_needed: tuple[int, ...]
    counts: tuple[tuple[Counts, ...], ...]


class Projector:
    """Projects the cost of any range of the objects; looks at every object once when it is made.

    Attributes
    ----------
    n_selected : objects of each model
    n_outside : objects that a model selects and no tile covers
    whole : projection of all objects as if they were one partition
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
        self._written = [bytes_per_object(grid.grid, grid.bands, planes) for grid in grids]
        self._footprints = [Footprint(tiles) for tiles in surveys]
        self._surveys = [
            [
                _Survey(footprint, tiles, grid)
                for footprint, tiles in zip(self._footprints, surveys, strict=True)
            ]
            for grid in grids
        ]
        self._windows: LruCache[_Windows] = LruCache(self._find_windows)
        self.n_outside = 0
        self.n_selected: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._summaries = [self._summarize(chunk) for chunk in range(len(objects.source.ranges))]

    def _find_windows(self, index: int) -> _Windows:
        chunk = self._objects.chunks[index]
        table = chunk.table
        needed = [chunk.selected[list(grid.models)].any(axis=0) for grid in self._grids]
        places = [footprint.covering(table.ra_deg, table.dec_deg) for footprint in self._footprints]
        return _Windows(
            np.array(needed, np.bool_).reshape(len(needed), len(table)),
            np.array(places, np.int32).reshape(len(places), len(table)),
        )

    def _summarize(self, index: int) -> _Summary:
        chunk: Chunk = self._objects.chunks[index]
        windows = self._windows[index]
        n_selected = chunk.selected.sum(axis=1)
        self.n_selected = n_selected if not len(self.n_selected) else self.n_selected + n_selected
        outside = windows.needed.any(axis=0) & (windows.places < 0).all(axis=0)
        self.n_outside += int(outside.sum())
        return _summary(windows, slice(None))

    def project(self, start: int, stop: int) -> Projection:
        """Return the cost of the objects `start` to `stop` as one partition."""
        parts = []
        for span in self._objects.spans(start, stop):
            if span.is_whole:
                parts.append(self._summaries[span.chunk])
            else:
                parts.append(_summary(self._windows[span.chunk], span.rows))
        n_cutouts = tuple(sum(part.n_needed[g] for part in parts) for g in range(len(self._grids)))
        costs = [
            survey.cost(_merged([part.counts[g][s] for part in parts]))
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
    n_needed, counts = [], []
    for needed in windows.needed[:, rows]:
        n_needed.append(int(np.count_nonzero(needed)))
        counts.append(tuple(_counted(places[rows][needed]) for places in windows.places))
    return _Summary(tuple(n_needed), tuple(counts))


def _counted(places: npt.NDArray[np.int32]) -> Counts:
    """Return the number of windows on each place; place -1 is none."""
    places = places[places >= 0]
    if not len(places):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    # Places are numbered along HEALPix, so those of a partition lie close together: counting needs no sorting.
    first, last = int(places.min()), int(places.max())
    if last - first > 4 * len(places) + 1024:
        values, counts = np.unique(places, return_counts=True)
        return values.astype(np.intp), counts
    n_windows = np.bincount(places - first)
    there = np.flatnonzero(n_windows)
    return there + first, n_windows[there]


def _merged(parts: Sequence[Counts]) -> Counts:
    if len(parts) == 1:
        return parts[0]
    places, inverse = np.unique(
        np.concatenate([np.zeros(0, np.intp), *(part[0] for part in parts)]), return_inverse=True
    )
    counts = np.zeros(len(places), np.intp)
    np.add.at(counts, inverse, np.concatenate([np.zeros(0, np.intp), *(part[1] for part in parts)]))
    return places, counts
