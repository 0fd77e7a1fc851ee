"""Writing the cutouts of a partition: shards as blocks come, small arrays and the mark at the end.

Shards are written whole: concurrent writes into one shard would corrupt it silently (zarr-python#3682).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galbatch import storage
from galbatch.core.columns import PIXEL_FLAGS
from galbatch.core.flags import PixelFlag, flag_attributes
from galbatch.core.pixels import HealpixPixel, Partition
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid, Resampling
from galbatch.errors import DamagedError
from galbatch.ingest.store import layout
from galbatch.ingest.store.sharding import encode_shards
from galbatch.storage import zarr_groups

__all__ = ["create_groups", "remove_partition", "write_partition"]


def create_groups(
    store_path: str,
    *,
    attributes: Mapping[str, Any],
    partitions: Iterable[HealpixPixel],
    grids: Sequence[Grid],
) -> None:
    """Make the store and the groups above those of `partitions`, where they are not there.

    The client does this before it submits: tasks then make their own groups only, `grids` of them each,
    whose labels become the root's attribute ``grids`` if `attributes` has none. Root attributes are renewed.
    """
    before: dict[str, Any] = {}
    with contextlib.suppress(DamagedError):  # what the run itself knows is written once more
        before = zarr_groups.read_root_attributes(store_path) or {}
    labels = {"grids": [grid.label for grid in grids]}
    zarr_groups.write_root(store_path, {**before, **labels, **attributes}, partitions)


def write_partition(
    store_path: str,
    partition: Partition,
    grid: Grid,
    blocks: Iterable[CutoutBlock],
    *,
    planes: Sequence[str],
    fingerprint: Mapping[str, Any],
    before_sync: Callable[[], None] = lambda: None,
) -> None:
    """Write the cutouts of one partition on one grid and mark them done.

    What was there before goes first. If anything raises, also in making `blocks`, the group stays
    unfinished: without its ``_done.json``.

    Parameters
    ----------
    blocks : the partition's cutouts in order, 256 objects each but the last; may be none
    planes : which of image, mask and variance are stored
    fingerprint : what the cutouts were made from, kept in ``_done.json``
    before_sync : called when all is written but the mark, before the disk is waited for

    Raises
    ------
    ValueError
        A block but the last has not 256 objects, or there are more than the partition holds.
    OutputError
        No space, or no permission.
    OSError
        Any other fault of disk or network: trying again may help.
    """
    path = zarr_groups.group_path(store_path, partition, grid.label)
    with _CutoutWriter(path, grid, capacity=partition.n_objects, planes=tuple(planes)) as writer:
        for block in blocks:
            writer.append(block)
            del block  # or it would stay while the next one is cut
        writer.finish(fingerprint, before_sync=before_sync)


def remove_partition(store_path: str, pixel: HealpixPixel) -> None:
    """Remove the partition's cutouts on all grids; an absent partition is fine."""
    zarr_groups.remove_pixel(store_path, pixel)


@functools.cache
def _writing_thread() -> ThreadPoolExecutor:
    """Return the one thread of the process that writes: s3fs connects again in every thread."""
    return ThreadPoolExecutor(1, thread_name_prefix="galbatch-store")


class _CutoutWriter:
    """Appends blocks to one group; small arrays are gathered and written at the end, one chunk each.

    What Zarr makes in memory is written out block by block: to S3 by a thread while the next block is cut. On a
    local disk that does not pay: the two get in each other's way, and with mask and variance cut and write took
    18 % longer than one after the other.
    """

    def __init__(self, path: str, grid: Grid, *, capacity: int, planes: tuple[str, ...]) -> None:
        self._group = zarr_groups.GroupWriter(path)
        self._grid = grid
        self._capacity = capacity
        self._planes = planes
        self._bands: tuple[str, ...] = ()
        self._resampling: Resampling = "low_pass"
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._pending: list[CutoutBlock] = []
        self._shard_objects = BLOCK_OBJECTS
        self._small: list[dict[str, npt.NDArray[Any]]] = []
        self._writing: Future[None] | None = None
        self._n_objects = 0
        self._n_shards = 0

    def __enter__(self) -> _CutoutWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writing is not None:
            wait([self._writing])

    def append(self, block: CutoutBlock) -> None:
        """Write the block's planes, in whole shards."""
        stop = self._n_objects + len(block)
        if self._n_objects % BLOCK_OBJECTS or stop > self._capacity:
            raise ValueError(
                f"{self._group.path}: a block of {len(block)} after {self._n_objects} of {self._capacity} objects; "
                f"blocks but the last hold {BLOCK_OBJECTS}"
            )
        # Only the first block tells the bands, and which of them a group without objects would have is not known.
        if not self._arrays:
            self._create_planes(block)
        values = {name: getattr(block, name) for name in layout.SMALL_ARRAYS}
        self._small.append({name: value for name, value in values.items() if value is not None})
        self._pending.append(block)
        self._n_objects = stop
        if stop % self._shard_objects == 0:
            self._write_pending()

    def _create_planes(self, block: CutoutBlock) -> None:
        self._bands, self._resampling = block.bands, block.resampling
        cutout = block.image.shape[1:]
        division = layout.Division.of(cutout, n_objects=self._capacity)
        self._shard_objects = max(BLOCK_OBJECTS, division.shard[0])
        for plane in self._planes:
            self._arrays[plane] = self._group.create_array(
                plane,
                shape=(self._capacity, *cutout),
                chunks=division.chunk,
                shards=division.shard,
                dtype=layout.PLANE_DTYPES[plane],
                compressors=layout.PLANE_CODECS[plane].metadata,
                fill_value=0 if plane == "mask" else np.nan,
                dimension_names=layout.PLANE_AXES,
                attributes=layout.plane_attributes(plane, block.resampling),
            )

    def _write_pending(self) -> None:
        """Write the pending blocks, or hand them to the thread; faults of its last write are raised here."""
        self._wait()
        blocks, self._pending = self._pending, []
        start = self._n_objects - sum(len(block) for block in blocks)
        if storage.overlaps_writes(self._group.path):
            self._writing = _writing_thread().submit(self._write_planes, blocks, start)
        else:
            self._write_planes(blocks, start)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write_planes(self, blocks: list[CutoutBlock], start: int) -> None:
        for plane, array in self._arrays.items():
            parts = [getattr(block, plane) for block in blocks]
            values = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if array.chunks[1:] == array.shape[1:]:
                shards = dict(encode_shards(array, values, start=start, codec=layout.PLANE_CODECS[plane]))
                self._group.write(shards)
                self._n_shards += len(shards)
            else:  # cutouts above 64 MB, in parts: left to Zarr
                array[start : start + len(values)] = values
                self._n_shards += self._group.flush(f"{plane}/c/")

    def finish(self, fingerprint: Mapping[str, Any], *, before_sync: Callable[[], None]) -> None:
        """Write what is left: the last shards, the small arrays, attributes, metadata and the mark.

        Raises
        ------
        OSError
            Not all that was written is there.
        """
        if self._pending:
            self._write_pending()
        self._wait()
        for array in self._arrays.values():
            # The arrays were made for all objects of the partition; fewer come where no network of the grid selects some.
            if array.shape[0] != self._n_objects:
                array.resize((self._n_objects, *array.shape[1:]))
        # Names of tiles are long and repeat: objects hold places in this list, which is an attribute of the group.
        tiles = sorted({str(tile) for block in self._small for tile in block["tile"]} - {""})
        with zarr_groups.unspecified():
            for name, small in layout.SMALL_ARRAYS.items():
                values = self._gathered(name, tiles)
                if values is not None:
                    bits = flag_attributes(PixelFlag) if name == PIXEL_FLAGS.name else {}
                    attributes = {**small.attributes, **bits}
                    self._group.add_array(name, values, axes=small.axes, attributes=attributes)
            if self._bands:
                bands = np.array(self._bands, np.str_)
                self._group.add_array(layout.BAND, bands, axes=("band",), attributes={"long_name": "band"})
        # All at once: attrs.update writes the group's metadata again for each of them.
        self._group.group.update_attributes(
            {
                "bands": list(self._bands),
                "coordinates": layout.COORDINATES,
                "unit": "nJy",
                "size_px": self._grid.size_px,
                "pixel_scale_arcsec": self._grid.pixel_scale_arcsec,
                "resampling": self._resampling,
                "tiles": tiles,
            }
        )
        done = {"fingerprint": dict(fingerprint), "n_objects": self._n_objects, "shards": self._n_shards}
        self._group.finish(done, before_sync=before_sync)

    def _gathered(self, name: str, tiles: list[str]) -> npt.NDArray[Any] | None:
        """Return the values of a small array; None for an array that a group without objects lacks."""
        if not self._small:
            return np.empty(0, np.int64) if name == "object_id" else None
        if name not in self._small[0]:
            return None
        values = np.concatenate([block[name] for block in self._small])
        if name == "tile":
            number = {"": -1, **{tile: index for index, tile in enumerate(tiles)}}
            return np.array([number[str(tile)] for tile in values], np.int32)
        # Text ids are stored with a fixed width; the reader makes objects of them again.
        return values.astype(np.str_) if values.dtype.kind == "O" else values
