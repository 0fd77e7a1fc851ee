"""The cutout store: Zarr v3, sharded, one group per partition and grid.

A group is done when its ``_done.json`` exists: it is deleted before anything is rewritten and written last,
so a group without it is unfinished whatever lies there. It is kept inside the folder of the array
``object_id``: Zarr and xarray warn of files that they do not know in a group's folder, not in an array's.

One task owns a whole group, and shards are written whole: concurrent writes into one shard would corrupt it
silently (zarr-python#3682).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import UnstableSpecificationWarning

from galbatch import storage
from galbatch.errors import ConfigError, FingerprintError
from galbatch.types import BLOCK_OBJECTS, CutoutBlock, Grid, MaskBit, Partition, PixelFlag

__all__ = [
    "STORE_ENTRIES",
    "bytes_per_object",
    "create_groups",
    "list_done",
    "read_block",
    "read_done",
    "remove_partition",
    "write_partition",
]

# Object stores like objects of 5 to 64 MB. 96 px in 2 bands: 256 cutouts are 19 MB; 239 px in 5 bands: 32 are 37 MB.
MAX_SHARD_BYTES = 64 * 10**6

# Reading one object fetches one chunk; below about 0.6 MB the cost of a chunk shows in writing
# (96 px, 2 bands, objects a chunk: cutouts/s written; 1: 2100, 8: 2900, 16: 3100, 256: 3000).
MAX_CHUNK_BYTES = 2**20

STORE_ENTRIES = ("zarr.json", *(f"Norder={healpix_order}" for healpix_order in range(30)))
"""All that this room writes in a store's folder, in the order in which to delete it."""

PLANE_AXES = ("object", "band", "y", "x")
PLANE_DTYPES = {"image": "float32", "mask": "uint16", "variance": "float32"}
PLANE_UNITS = {"image": "nJy", "mask": "", "variance": "nJy^2"}

# Axes and unit of every array that is not a plane; `tile` is an index into the group's attribute tiles.
SMALL_ARRAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "object_id": (("object",), ""),
    "ra_deg": (("object",), "deg"),
    "dec_deg": (("object",), "deg"),
    "crpix": (("object", "world_axis"), "pixel"),
    "crval": (("object", "world_axis"), "deg"),
    "cd": (("object", "world_axis", "pixel_axis"), "deg/pixel"),
    "tile": (("object",), ""),
    "coverage": (("object", "band"), ""),
    "sky_sigma_njy": (("object", "band"), "nJy"),
    "psf_fwhm_arcsec": (("object", "band"), "arcsec"),
    "noise_correlation": (("object", "band"), ""),
    "flags": (("object",), ""),
}

# int64 id, 2 positions, 4 + 4 values of the WCS, tile and flags; 4 float32 a band.
SMALL_BYTES, SMALL_BYTES_PER_BAND = 8 + 16 + 64 + 8, 16


def bytes_per_object(grid: Grid, bands: Sequence[str], planes: Sequence[str]) -> int:
    """Bytes one object takes in the store, before the codec of the mask."""
    pixels = grid.size_px**2 * len(bands)
    of_planes = sum(np.dtype(PLANE_DTYPES[plane]).itemsize for plane in planes)
    return pixels * of_planes + SMALL_BYTES + SMALL_BYTES_PER_BAND * len(bands)


def create_groups(
    store_path: str, *, attributes: Mapping[str, Any], partitions: Sequence[Partition], grids: Sequence[Grid]
) -> None:
    """Make the store and the groups above those of `partitions`, where they are not there.

    The client does this before it submits: tasks then make their own groups only, `grids` of them each,
    whose labels become the root's attribute ``grids`` if `attributes` has none. Root attributes are renewed.
    """
    labels = {"grids": [grid.label for grid in grids]}
    zarr.open_group(store_path, mode="a").attrs.update({**labels, **attributes})
    parents = {"/".join(partition.path.split("/")[:depth]) for partition in partitions for depth in (1, 2, 3)}
    for parent in sorted(parents):
        if not storage.exists(storage.join(store_path, parent, "zarr.json")):
            zarr.create_group(storage.join(store_path, parent))


def write_partition(
    store_path: str,
    partition: Partition,
    grid: Grid,
    blocks: Iterable[CutoutBlock],
    *,
    planes: Sequence[str],
    fingerprint: Mapping[str, Any],
) -> None:
    """Write the cutouts of one partition on one grid and mark them done.

    What was there before goes first. If anything raises, also in making `blocks`, the group stays
    unfinished: without its ``_done.json``.

    Parameters
    ----------
    blocks : the partition's cutouts in order, 256 objects each but the last; may be none
    planes : which of image, mask and variance are stored
    fingerprint : what the cutouts were made from, kept in ``_done.json``

    Raises
    ------
    ValueError
        A block but the last has not 256 objects, or there are more than the partition holds.
    """
    group_path = _group_path(store_path, partition, grid)
    storage.remove(_done_path(group_path))
    storage.remove(group_path)
    with _fixed_length_text():
        writer = _GroupWriter(group_path, grid, capacity=partition.n_objects, planes=tuple(planes))
        for block in blocks:
            writer.append(block)
        writer.finish()
    done = {"fingerprint": dict(fingerprint), "n_objects": writer.n_objects, "shards": writer.n_shards}
    storage.publish_json(_done_path(group_path), done)


def read_done(store_path: str, partition: Partition, grid: Grid) -> dict[str, Any] | None:
    """Keys fingerprint, n_objects and shards of a finished group; None if it is unfinished or absent."""
    return storage.read_json(_done_path(_group_path(store_path, partition, grid)))


def list_done(store_path: str) -> list[tuple[str, str]]:
    """(partition path, grid label) of all finished groups."""
    found = storage.list_files(store_path, suffix=DONE_PATH[-1])
    return [(path.rsplit("/", 3)[0], path.rsplit("/", 3)[1]) for path in found]


def remove_partition(store_path: str, partition: Partition) -> None:
    """Remove the partition's cutouts on all grids; an absent partition is fine."""
    path = storage.join(store_path, partition.path)
    for mark in storage.list_files(path, suffix=DONE_PATH[-1]):
        storage.remove(storage.join(path, mark))
    storage.remove(path)


def read_block(
    store_path: str,
    partition: Partition,
    grid: Grid,
    *,
    start: int,
    stop: int,
    planes: Sequence[str] = ("image",),
) -> CutoutBlock:
    """Cutouts `start` to `stop` of a finished group; planes not asked for are None.

    Raises
    ------
    FingerprintError
        The group is not there, or holds fewer objects.
    ConfigError
        A plane is not in the store.
    """
    path = _group_path(store_path, partition, grid)
    try:
        with _fixed_length_text():
            group = zarr.open_group(path, mode="r")
    except FileNotFoundError:
        raise FingerprintError(f"{path}: no cutouts there; run galbatch run --stage ingest first") from None
    arrays = _arrays(group, [*SMALL_ARRAYS, "image", *planes], path=path)
    n_objects = arrays["object_id"].shape[0]
    if not 0 <= start <= stop <= n_objects:
        raise FingerprintError(
            f"{path}: objects {start} to {stop} asked for, {n_objects} are there; run galbatch clean, then again"
        )
    values = {name: np.asarray(array[start:stop]) for name, array in arrays.items()}
    if values["object_id"].dtype.kind == "U":
        values["object_id"] = values["object_id"].astype(object)
    values["tile"] = np.array([*_texts(group.attrs["tiles"]), ""], dtype=np.str_)[values["tile"]]
    absent = {name: None for name in PLANE_DTYPES if name not in values}
    return CutoutBlock(grid=grid, bands=tuple(_texts(group.attrs["bands"])), **values, **absent)  # type: ignore[arg-type]


def _arrays(group: zarr.Group, names: Sequence[str], *, path: str) -> dict[str, zarr.Array[Any]]:
    arrays: dict[str, zarr.Array[Any]] = {}
    for name in dict.fromkeys(names):
        array = group.get(name)
        if not isinstance(array, zarr.Array):
            raise ConfigError(
                f"{path}: {name} is not stored; name it in [cutouts] planes and choose another store"
            )
        arrays[name] = array
    return arrays


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value]


DONE_PATH = ("object_id", "_done.json")


def _group_path(store_path: str, partition: Partition, grid: Grid) -> str:
    return storage.join(store_path, partition.path, grid.label)


def _done_path(group_path: str) -> str:
    return storage.join(group_path, *DONE_PATH)


@contextlib.contextmanager
def _fixed_length_text() -> Iterator[None]:
    """Text ids are fixed-length: Zarr warns that v3 does not specify them yet; zarr-python and xarray read them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableSpecificationWarning)
        yield


@dataclass(frozen=True, slots=True)
class _Division:
    """Objects in a shard and in a chunk of it: powers of two, so blocks, shards and chunks nest."""

    shard: int
    chunk: int

    @classmethod
    def of(cls, image_bytes: int) -> _Division:
        """For cutouts whose image takes so many bytes."""
        return cls(
            _power_of_two(MAX_SHARD_BYTES // image_bytes), _power_of_two(MAX_CHUNK_BYTES // image_bytes)
        )


def _power_of_two(limit: int) -> int:
    """The largest power of two up to `limit`, between 1 and a block."""
    return 1 << max(0, min(limit, BLOCK_OBJECTS).bit_length() - 1)


class _GroupWriter:
    """Appends blocks to one group; small arrays are gathered and written at the end, one chunk each."""

    def __init__(self, path: str, grid: Grid, *, capacity: int, planes: tuple[str, ...]) -> None:
        self._group = zarr.create_group(path)
        self._grid = grid
        self._capacity = capacity
        self._planes = planes
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._blocks: list[dict[str, npt.NDArray[Any]]] = []
        self._bands: tuple[str, ...] = ()
        self._shard_objects = 1
        self.n_objects = 0

    @property
    def n_shards(self) -> int:
        """Shards of each plane."""
        return -(-self.n_objects // self._shard_objects)

    def append(self, block: CutoutBlock) -> None:
        """Write the block's planes, whole shards."""
        stop = self.n_objects + len(block)
        if self.n_objects % BLOCK_OBJECTS or stop > self._capacity:
            raise ValueError(
                f"{self._group.path}: a block of {len(block)} after {self.n_objects} of {self._capacity} objects; "
                f"blocks but the last hold {BLOCK_OBJECTS}"
            )
        if not self._arrays:
            self._create_planes(block)
        for plane, array in self._arrays.items():
            values = getattr(block, plane)
            for start in range(0, len(block), self._shard_objects):
                end = min(start + self._shard_objects, len(block))
                array[self.n_objects + start : self.n_objects + end] = values[start:end]
        self._blocks.append({name: getattr(block, name) for name in SMALL_ARRAYS})
        self.n_objects = stop

    def _create_planes(self, block: CutoutBlock) -> None:
        self._bands = block.bands
        division = _Division.of(block.image[0].nbytes)
        self._shard_objects = division.shard
        pixels = block.image.shape[1:]
        for plane in self._planes:
            self._arrays[plane] = self._group.create_array(
                plane,
                shape=(self._capacity, *pixels),
                chunks=(division.chunk, *pixels),
                shards=(division.shard, *pixels),
                dtype=PLANE_DTYPES[plane],
                # Noise hardly compresses: zstd saves 9 % and takes two thirds of the speed. Masks are mostly 0.
                compressors="auto" if plane == "mask" else None,
                fill_value=0 if plane == "mask" else np.nan,
                dimension_names=PLANE_AXES,
                attributes={"units": PLANE_UNITS[plane]},
                # A chunk that is not written reads as NaN without error: a lost shard must show.
                config={"write_empty_chunks": True},
            )

    def finish(self) -> None:
        """Write the small arrays and the group's attributes."""
        for array in self._arrays.values():
            if array.shape[0] != self.n_objects:
                array.resize((self.n_objects, *array.shape[1:]))
        tiles = sorted({str(tile) for block in self._blocks for tile in block["tile"]} - {""})
        for name, (axes, units) in SMALL_ARRAYS.items():
            values = self._gathered(name, tiles)
            if values is not None:
                self._write_small(name, values, axes=axes, units=units)
        self._group.attrs.update(
            {
                "bands": list(self._bands),
                "unit": "nJy",
                "size_px": self._grid.size_px,
                "pixel_scale_arcsec": self._grid.pixel_scale_arcsec,
                "tiles": tiles,
                "mask_bits": {str(bit.name): int(bit) for bit in MaskBit},
                "flag_bits": {str(flag.name): int(flag) for flag in PixelFlag},
            }
        )

    def _gathered(self, name: str, tiles: list[str]) -> npt.NDArray[Any] | None:
        if not self._blocks:
            return np.empty(0, np.int64) if name == "object_id" else None
        values = np.concatenate([block[name] for block in self._blocks])
        if name == "tile":
            number = {"": -1, **{tile: index for index, tile in enumerate(tiles)}}
            return np.array([number[str(tile)] for tile in values], np.int32)
        return values.astype(np.str_) if values.dtype.kind == "O" else values

    def _write_small(self, name: str, values: npt.NDArray[Any], *, axes: tuple[str, ...], units: str) -> None:
        array = self._group.create_array(
            name,
            shape=values.shape,
            chunks=tuple(max(1, length) for length in values.shape),
            dtype=values.dtype,
            dimension_names=axes,
            attributes={"units": units} if units else {},
            config={"write_empty_chunks": True},
        )
        array[...] = values
