"""Reading the cutouts of a partition, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer import cpu

from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid
from galbatch.errors import ConfigError, FingerprintError
from galbatch.ingest.store.layout import OPTIONAL_ARRAYS, PLANE_DTYPES, SMALL_ARRAYS
from galbatch.storage import zarr_groups

__all__ = [
    "CutoutReader",
    "damaged_pixel",
    "find_damage",
    "list_done",
    "list_groups",
    "list_pixels",
    "read_block",
    "read_blocks",
    "read_done",
    "read_object_ids",
    "stored_bands",
    "stored_grids",
    "stored_planes",
]


def read_done(store_path: str, pixel: HealpixPixel, grid: Grid) -> dict[str, Any] | None:
    """Return the keys fingerprint, n_objects and shards of a finished group; None if it is unfinished or absent.

    Raises
    ------
    DamagedError
        The group's mark is not as it was written.
    """
    return zarr_groups.read_done(zarr_groups.group_path(store_path, pixel, grid.label))


def list_done(store_path: str) -> list[tuple[HealpixPixel, Grid]]:
    """Return pixel and grid of all finished groups."""
    named = ((pixel, Grid.from_label(label)) for pixel, label in zarr_groups.list_done(store_path))
    return [(pixel, grid) for pixel, grid in named if grid is not None]


def list_groups(store_path: str) -> list[tuple[HealpixPixel, str]]:
    """Return pixel and name of all finished groups: of cutouts, and of their photometry."""
    return zarr_groups.list_done(store_path)


def find_damage(store_path: str) -> dict[str, str]:
    """Return what is wrong with the files of a store, by their paths below it; every file is read."""
    return zarr_groups.find_damage(store_path)


def damaged_pixel(path: str) -> HealpixPixel | None:
    """Return the pixel whose cutouts a path below the store belongs to; None for the files above the groups."""
    found = zarr_groups.group_of_file(path)
    return found[0] if found is not None else None


def list_pixels(store_path: str) -> set[HealpixPixel]:
    """Return the pixels of which anything is there, finished or not."""
    return zarr_groups.list_pixels(store_path)


def read_block(
    store_path: str,
    pixel: HealpixPixel,
    grid: Grid,
    *,
    start: int,
    stop: int,
    planes: Sequence[str] = ("image",),
) -> CutoutBlock:
    """Return the cutouts `start` to `stop` of a finished group; planes not asked for are None.

    Raises
    ------
    FingerprintError
        The group is not there, or holds fewer objects.
    DamagedError
        A file is gone, or not as it was written.
    ConfigError
        A plane is not in the store.
    """
    return CutoutReader(store_path, pixel, grid, planes=planes).block(start, stop)


def read_blocks(
    store_path: str,
    pixel: HealpixPixel,
    grid: Grid,
    *,
    planes: Sequence[str] = ("image",),
    needs_planes: Callable[[int, CutoutBlock], bool] | None = None,
) -> Iterator[CutoutBlock]:
    """Yield all cutouts of a finished group, block by block; raises as `read_block` does.

    The arrays that are no planes are read once for the whole group: on S3 that saves some 30 requests a block.
    `needs_planes` is asked with the number of a block's first object and the block without planes; those of which it says no
    come without: their image is NaN everywhere. None: all planes are read.
    """
    reader = CutoutReader(store_path, pixel, grid, planes=planes)
    for start in range(0, reader.n_objects, BLOCK_OBJECTS):
        stop = min(start + BLOCK_OBJECTS, reader.n_objects)
        if needs_planes is None or needs_planes(start, reader.without_planes(start, stop)):
            yield reader.block(start, stop)
        else:
            yield reader.without_planes(start, stop)


def read_object_ids(store_path: str, pixel: HealpixPixel, grid: Grid) -> npt.NDArray[Any]:
    """Return the ids (object,) of a finished group, int64 or str; raises as `read_block` does."""
    return CutoutReader(store_path, pixel, grid).object_id


def stored_grids(store_path: str) -> list[Grid]:
    """Return the grids of a store, the largest cutouts first; none if there is no store.

    Raises
    ------
    DamagedError
        The root of the store is not as it was written.
    """
    labels = (zarr_groups.read_root_attributes(store_path) or {}).get("grids", [])
    grids = [grid for label in labels if (grid := Grid.from_label(str(label))) is not None]
    return sorted(grids, key=lambda grid: -grid.size_px)


def stored_bands(store_path: str, pixel: HealpixPixel, grid: Grid) -> tuple[str, ...]:
    """Return the bands of a finished group, in the order of its axis band; raises as `read_block` does."""
    group = zarr_groups.GroupReader(zarr_groups.group_path(store_path, pixel, grid.label))
    return tuple(map(str, group.attributes["bands"]))


def stored_planes(store_path: str, pixel: HealpixPixel, grid: Grid) -> list[str]:
    """Return which of image, mask and variance a finished group holds; raises as `read_block` does."""
    group = zarr_groups.GroupReader(zarr_groups.group_path(store_path, pixel, grid.label))
    return [plane for plane in PLANE_DTYPES if group.array(plane) is not None]


class CutoutReader:
    """A finished group, its small arrays in memory; planes are read block by block.

    Parameters
    ----------
    store_path, pixel, grid : the group
    planes : planes that `block` reads; image always

    Raises
    ------
    FingerprintError
        The group is not there.
    DamagedError
        A file is gone, or not as it was written.
    ConfigError
        A plane is not in the store.
    """

    def __init__(
        self, store_path: str, pixel: HealpixPixel, grid: Grid, *, planes: Sequence[str] = ("image",)
    ) -> None:
        path = zarr_groups.group_path(store_path, pixel, grid.label)
        self._grid = grid
        try:
            self._group = zarr_groups.GroupReader(path)
        except FingerprintError:
            raise FingerprintError(
                f"{path}: no cutouts there; run galbatch run --stage ingest first"
            ) from None
        self._planes = self._arrays(["image", *planes])
        small = [n for n in SMALL_ARRAYS if n not in OPTIONAL_ARRAYS or self._group.array(n) is not None]
        values = self._group.read(self._arrays(small))
        attributes = self._group.attributes
        self._bands = tuple(map(str, attributes["bands"]))
        # As in object lists, where text ids are Python's own strings.
        if values["object_id"].dtype.kind == "U":
            values["object_id"] = values["object_id"].astype(object)
        # The array holds places in the list of tiles; -1, the last place, is no tile.
        values["tile"] = np.array([*map(str, attributes["tiles"]), ""], dtype=np.str_)[values["tile"]]
        self._values = values

    def _arrays(self, names: Iterable[str]) -> dict[str, zarr.Array[Any]]:
        arrays: dict[str, zarr.Array[Any]] = {}
        for name in dict.fromkeys(names):
            array = self._group.array(name)
            if array is None:
                raise ConfigError(
                    f"{self._group.path}: {name} is not stored; name it in [cutouts] planes and choose another store"
                )
            arrays[name] = array
        return arrays

    @property
    def n_objects(self) -> int:
        """Number of objects in the group."""
        return len(self.object_id)

    @property
    def object_id(self) -> npt.NDArray[Any]:
        """Ids of all objects."""
        return self._values["object_id"]

    @property
    def block_objects(self) -> int:
        """Number of objects that are read together without reading a file twice: those of a block, or of a larger shard."""
        image = self._planes["image"]
        return max(BLOCK_OBJECTS, (image.shards or image.chunks)[0])

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands, in the order of the axis band."""
        return self._bands

    def measured(self, name: str) -> npt.NDArray[Any]:
        """Return an array of all objects that is no plane, by its name in `CutoutBlock`.

        Raises
        ------
        FingerprintError
            The group was written by an older version, which did not have it.
        """
        if name not in self._values:
            raise FingerprintError(
                f"{self._group.path}: {name} is not stored; the cutouts are of an older version"
            )
        return self._values[name]

    def block(self, start: int, stop: int) -> CutoutBlock:
        """Return the cutouts of the objects `start` to `stop`, the last not included; their planes are read now.

        Raises
        ------
        FingerprintError
            The group has fewer objects.
        DamagedError
            A shard is not as it was written.
        """
        # All files of the block together: on S3 many requests are on their way at a time.
        found = self.without_planes(start, stop)
        self._group.fetch(
            [file for array in self._planes.values() for file in zarr_groups.chunk_files(array, start, stop)]
        )
        planes = {name: self._decoded(array, start, stop) for name, array in self._planes.items()}
        return replace(found, **planes)  # type: ignore[arg-type]

    def without_planes(self, start: int, stop: int) -> CutoutBlock:
        """Return the objects `start` to `stop` without their planes: the image is NaN everywhere, and takes no memory.

        Raises
        ------
        FingerprintError
            The group has fewer objects.
        """
        if not 0 <= start <= stop <= self.n_objects:
            raise FingerprintError(
                f"{self._group.path}: objects {start} to {stop} asked for, {self.n_objects} are there; run galbatch "
                "clean, then again"
            )
        values = {name: array[start:stop] for name, array in self._values.items()}
        shape = (stop - start, *self._planes["image"].shape[1:])
        absent = {"image": np.broadcast_to(np.float32(np.nan), shape), "mask": None, "variance": None}
        # Stores of before there was a choice do not say it.
        resampling = self._group.attributes.get("resampling", "low_pass")
        spec: dict[str, Any] = {"grid": self._grid, "bands": self._bands, "resampling": resampling}
        return CutoutBlock(**spec, **values, **absent)  # type: ignore[arg-type]

    def _decoded(self, array: zarr.Array[Any], start: int, stop: int) -> npt.NDArray[Any]:
        """Return objects `start` to `stop` of a plane, shard by shard: files that are read to their end go at once.

        Whole planes would be in memory three times, as files, as shards and as what is returned.
        """
        result = np.empty((stop - start, *array.shape[1:]), array.dtype)
        step = (array.shards or array.chunks)[0]
        for first in range(start // step * step, stop, step):
            low, high = max(start, first), min(stop, first + step)
            array.get_basic_selection(
                slice(low, high), out=cpu.NDBuffer.from_numpy_array(result[low - start : high - start])
            )
            if high == min(first + step, array.shape[0]):
                self._group.forget(zarr_groups.chunk_files(array, low, high))
        return result
