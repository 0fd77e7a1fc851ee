"""The cutout store: Zarr v3, sharded, one group per partition and grid.

A group is done when its ``_done.json`` exists: it is deleted before anything is rewritten and written last,
so a group without it is unfinished whatever lies there. It is kept inside the folder of the array
``object_id``: Zarr and xarray warn of files that they do not know in a group's folder, not in an array's.

One task owns a whole group, and shards are written whole: concurrent writes into one shard would corrupt it
silently (zarr-python#3682). Zarr encodes in memory and storage.py writes, whole files at once: Zarr's own way
to S3 asks three times before each of the 35 files of a small group.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.abc.codec import BytesBytesCodec
from zarr.buffer import cpu
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.storage import MemoryStore

from galbatch import storage
from galbatch.core.flags import MaskBit, PixelFlag
from galbatch.core.pixels import ORDER_FOLDERS, HealpixPixel, Partition, split_path
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid
from galbatch.errors import ConfigError, FingerprintError
from galbatch.storage import zarr_groups

__all__ = [
    "STORE_ENTRIES",
    "blocks_in_memory",
    "bytes_per_object",
    "create_groups",
    "list_done",
    "list_pixels",
    "read_block",
    "read_blocks",
    "read_done",
    "read_object_ids",
    "reading_bytes",
    "remove_partition",
    "write_partition",
]

# The tables that these follow from: docs/benchmarks.md, "The cutout store".

# Object stores like objects of 5 to 64 MB. 96 px in 2 bands: 256 cutouts are 19 MB; 239 px in 5 bands: 16 are 18 MB.
MAX_SHARD_BYTES = 32 * 10**6
MIN_SHARD_BYTES = 5 * 10**6
LARGEST_SHARD_BYTES = 64 * 10**6  # of a single cutout; larger ones are divided

# What reading one object fetches. Larger chunks read blocks 10 % faster, and one object up to 1.6 times slower.
MAX_CHUNK_BYTES = 10**6

# The last chunk of a group is filled up: in a group of so many chunks that takes 6 % at most.
MIN_CHUNKS = 16


@dataclass(frozen=True, slots=True)
class Codec:
    """What codes the chunks of a plane, as Zarr writes it down and as a function; None: nothing does."""

    metadata: BytesBytesCodec | None = None
    encode: Callable[[npt.NDArray[Any]], bytes] | None = None


# Noise hardly compresses: 10 % for twice the time. Variances save 30 % for twice the time, 0.1 ms a cutout of 239 px:
# worth it where a worker writes less than 700 MB/s. Masks shrink to nothing, and are written in a third of the time.
PLANE_CODECS: dict[str, Codec] = {
    "image": Codec(),
    "mask": Codec(ZstdCodec(level=1), numcodecs.Zstd(1).encode),
    "variance": Codec(
        BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle"),
        numcodecs.Blosc("lz4", 1, numcodecs.Blosc.BITSHUFFLE).encode,
    ),
}

STORE_ENTRIES = ("zarr.json", *ORDER_FOLDERS)
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
    """Bytes one object takes in the store, before the codecs of mask and variance."""
    pixels = grid.size_px**2 * len(bands)
    of_planes = sum(np.dtype(PLANE_DTYPES[plane]).itemsize for plane in planes)
    return pixels * of_planes + SMALL_BYTES + SMALL_BYTES_PER_BAND * len(bands)


def blocks_in_memory(store_path: str, grid: Grid, bands: Sequence[str]) -> int:
    """Blocks that are in memory while a group is written: of a shard, and on S3 as many that are being written."""
    shard_objects = _Division.of((len(bands), grid.size_px, grid.size_px), n_objects=BLOCK_OBJECTS).shard[0]
    return (2 if storage.overlaps_writes(store_path) else 1) * max(1, shard_objects // BLOCK_OBJECTS)


def reading_bytes(grid: Grid, bands: Sequence[str]) -> int:
    """Memory that reading the images of a block takes: the block, the files it is read from, and a decoded shard."""
    block = BLOCK_OBJECTS * bytes_per_object(grid, bands, ("image",))
    division = _Division.of((len(bands), grid.size_px, grid.size_px), n_objects=BLOCK_OBJECTS)
    shard = int(np.prod(division.shard)) * 4
    return block + max(block, shard) + min(block, shard)


def create_groups(
    store_path: str, *, attributes: Mapping[str, Any], partitions: Sequence[Partition], grids: Sequence[Grid]
) -> None:
    """Make the store and the groups above those of `partitions`, where they are not there.

    The client does this before it submits: tasks then make their own groups only, `grids` of them each,
    whose labels become the root's attribute ``grids`` if `attributes` has none. Root attributes are renewed.
    """
    before = storage.read_json(storage.join(store_path, "zarr.json")) or {}
    labels = {"grids": [grid.label for grid in grids]}
    root = zarr_groups.group_file({**before.get("attributes", {}), **labels, **attributes})
    # Writing again what may be there takes one request each; asking first takes four.
    storage.write_files(store_path, {"zarr.json": [root], **zarr_groups.parent_files(partitions)})


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
    OutputError
        No space, or no permission.
    OSError
        Any other fault of disk or network: trying again may help.
    """
    group_path = _group_path(store_path, partition, grid)
    storage.remove(_done_path(group_path))
    storage.remove(group_path)
    with _GroupWriter(group_path, grid, capacity=partition.n_objects, planes=tuple(planes)) as writer:
        for block in blocks:
            writer.append(block)
            del block  # or it would stay while the next one is cut
        writer.finish()
    done = {"fingerprint": dict(fingerprint), "n_objects": writer.n_objects, "shards": writer.n_shards}
    storage.publish_json(_done_path(group_path), done)


def read_done(store_path: str, pixel: HealpixPixel, grid: Grid) -> dict[str, Any] | None:
    """Keys fingerprint, n_objects and shards of a finished group; None if it is unfinished or absent."""
    return storage.read_json(_done_path(_group_path(store_path, pixel, grid)))


def list_done(store_path: str) -> list[tuple[HealpixPixel, Grid]]:
    """Pixel and grid of all finished groups."""
    found = (split_path(path) for path in storage.list_files(store_path, suffix=DONE_PATH[-1]))
    named = ((pixel, Grid.from_label(rest.split("/")[1])) for pixel, rest in filter(None, found))
    return [(pixel, grid) for pixel, grid in named if grid is not None]


def list_pixels(store_path: str) -> set[HealpixPixel]:
    """Pixels of which anything is there, finished or not."""
    found = (split_path(path) for path in storage.list_files(store_path, suffix=""))
    return {pixel for pixel, _ in filter(None, found)}


def remove_partition(store_path: str, pixel: HealpixPixel) -> None:
    """Remove the partition's cutouts on all grids; an absent partition is fine."""
    path = storage.join(store_path, pixel.path)
    for mark in storage.list_files(path, suffix=DONE_PATH[-1]):
        storage.remove(storage.join(path, mark))
    storage.remove(path)


def read_block(
    store_path: str,
    pixel: HealpixPixel,
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
    return _GroupReader(_group_path(store_path, pixel, grid), grid, planes=planes).block(start, stop)


def read_blocks(
    store_path: str, pixel: HealpixPixel, grid: Grid, *, planes: Sequence[str] = ("image",)
) -> Iterator[CutoutBlock]:
    """All cutouts of a finished group, block by block; raises as `read_block` does.

    The arrays that are no planes are read once for the whole group: on S3 that saves some 30 requests a block.
    """
    reader = _GroupReader(_group_path(store_path, pixel, grid), grid, planes=planes)
    for start in range(0, reader.n_objects, BLOCK_OBJECTS):
        yield reader.block(start, min(start + BLOCK_OBJECTS, reader.n_objects))


def read_object_ids(store_path: str, pixel: HealpixPixel, grid: Grid) -> npt.NDArray[Any]:
    """Ids (object,) of a finished group, int64 or str; raises as `read_block` does."""
    return _GroupReader(_group_path(store_path, pixel, grid), grid, planes=("image",)).object_id


class _GroupReader:
    """A finished group, its small arrays in memory.

    Whole files are read by storage.py and decoded by Zarr in memory: Zarr itself reads NaN where a file is
    gone or empty, without a word, and asks S3 for the chunks of an unfinished shard one after another.
    """

    def __init__(self, path: str, grid: Grid, *, planes: Sequence[str]) -> None:
        self._path = path
        self._grid = grid
        self._files: dict[str, Buffer] = {}
        try:
            self._fetch(["zarr.json"])
        except FingerprintError:
            raise FingerprintError(
                f"{path}: no cutouts there; run galbatch run --stage ingest first"
            ) from None
        with zarr_groups.unspecified():
            group = zarr.open_group(MemoryStore(self._files), mode="r", zarr_format=3)
            self._planes = _arrays(group, ["image", *planes], path=path)
            small = _arrays(group, list(SMALL_ARRAYS), path=path)
            self._fetch([key for array in small.values() for key in zarr_groups.chunk_files(array, 0, None)])
            self._values = {name: np.asarray(array[...]) for name, array in small.items()}
        self._bands = tuple(_texts(group.attrs["bands"]))
        if self._values["object_id"].dtype.kind == "U":
            self._values["object_id"] = self._values["object_id"].astype(object)
        tiles = np.array([*_texts(group.attrs["tiles"]), ""], dtype=np.str_)
        self._values["tile"] = tiles[self._values["tile"]]

    @property
    def n_objects(self) -> int:
        """Objects in the group."""
        return len(self._values["object_id"])

    @property
    def object_id(self) -> npt.NDArray[Any]:
        """Ids of all objects."""
        return self._values["object_id"]

    def block(self, start: int, stop: int) -> CutoutBlock:
        """Cutouts `start` to `stop`."""
        if not 0 <= start <= stop <= self.n_objects:
            raise FingerprintError(
                f"{self._path}: objects {start} to {stop} asked for, {self.n_objects} are there; run galbatch "
                "clean, then again"
            )
        self._fetch(
            [key for array in self._planes.values() for key in zarr_groups.chunk_files(array, start, stop)]
        )
        values = {name: array[start:stop] for name, array in self._values.items()}
        values |= {name: self._decoded(array, start, stop) for name, array in self._planes.items()}
        absent = {name: None for name in PLANE_DTYPES if name not in values}
        return CutoutBlock(grid=self._grid, bands=self._bands, **values, **absent)  # type: ignore[arg-type]

    def _decoded(self, array: zarr.Array[Any], start: int, stop: int) -> npt.NDArray[Any]:
        """Objects `start` to `stop` of a plane, shard by shard: files that are read to their end go at once.

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
                for name in zarr_groups.chunk_files(array, low, high):
                    del self._files[name]
        return result

    def _fetch(self, names: Sequence[str]) -> None:
        """Have these files in memory, and no others: a shard of several blocks stays for the next one."""
        for name in self._files.keys() - set(names):
            del self._files[name]
        try:
            found = storage.read_files(self._path, [name for name in names if name not in self._files])
        except FileNotFoundError as error:
            raise self._damaged(f"a file is gone ({error})") from None
        for name, data in found.items():
            if not data:
                raise self._damaged(f"{name} is empty")
            self._files[name] = cpu.Buffer.from_bytes(data)

    def _damaged(self, what: str) -> FingerprintError:
        return FingerprintError(f"{self._path}: {what}; remove this folder, then run again")


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


def _group_path(store_path: str, pixel: HealpixPixel, grid: Grid) -> str:
    return storage.join(store_path, pixel.path, grid.label)


def _done_path(group_path: str) -> str:
    return storage.join(group_path, *DONE_PATH)


@dataclass(frozen=True, slots=True)
class _Division:
    """Shape of a plane's shards and of the chunks in them: (object, band, y, x)."""

    shard: tuple[int, ...]
    chunk: tuple[int, ...]

    @classmethod
    def of(cls, cutout: tuple[int, ...], *, n_objects: int) -> _Division:
        """For `n_objects` cutouts of shape (band, y, x); all planes are divided as the image is."""
        n_bytes = int(np.prod(cutout)) * 4
        if n_bytes > LARGEST_SHARD_BYTES:
            part = (1, *_part(cutout))
            return cls(part, part)
        # Powers of two, so that blocks, shards and chunks nest. Shards of more than one block hold small cutouts,
        # up to the least size that object stores like: what waits for the next block takes memory.
        least = 2 * _power_of_two(MIN_SHARD_BYTES // n_bytes)
        shard = min(_power_of_two(MAX_SHARD_BYTES // n_bytes), max(BLOCK_OBJECTS, least))
        chunk = min(shard, _power_of_two(MAX_CHUNK_BYTES // n_bytes), _power_of_two(n_objects // MIN_CHUNKS))
        return cls((shard, *cutout), (chunk, *cutout))


def _part(cutout: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the part of a large cutout (band, y, x) that a shard takes: some bands, or rows of one band."""
    _, n_rows, n_columns = cutout
    band_bytes = n_rows * n_columns * 4
    if band_bytes <= LARGEST_SHARD_BYTES:
        return (LARGEST_SHARD_BYTES // band_bytes, n_rows, n_columns)
    n_parts = -(-band_bytes // LARGEST_SHARD_BYTES)
    return (1, -(-n_rows // n_parts), n_columns)


def _power_of_two(limit: int) -> int:
    """The largest power of two up to `limit`, at least 1."""
    return 1 << max(0, limit.bit_length() - 1)


def _shards(
    array: zarr.Array[Any], values: npt.NDArray[Any], *, start: int, codec: Codec
) -> Iterator[tuple[str, list[storage.Piece]]]:
    """Files of the shards that hold `values`, from object `start` on, which begins a shard.

    What Zarr's sharding codec gives, without its three copies: those take twice the time of the writing.
    """
    n_objects, n_chunk = (array.shards or array.chunks)[0], array.chunks[0]
    for first in range(0, len(values), n_objects):
        part = np.ascontiguousarray(values[first : first + n_objects], array.dtype)
        rest = np.full((-len(part) % n_chunk, *part.shape[1:]), array.fill_value, array.dtype)
        pieces, lengths = _coded(part, rest, n_chunk=n_chunk, codec=codec)
        key = "/".join([array.path, "c", str((start + first) // n_objects), *("0" for _ in part.shape[1:])])
        yield key, [*pieces, _shard_index(tuple(lengths), n_objects // n_chunk)]


def _coded(
    part: npt.NDArray[Any], rest: npt.NDArray[Any], *, n_chunk: int, codec: Codec
) -> tuple[list[storage.Piece], list[int]]:
    """Contents of a shard's chunks and their lengths; `rest` fills the last one up."""
    n_chunks = (len(part) + len(rest)) // n_chunk
    if codec.encode is None:
        return [part.data.cast("B"), rest.tobytes()], [n_chunk * part[0].nbytes] * n_chunks
    chunks = [part[first : first + n_chunk] for first in range(0, len(part), n_chunk)]
    if len(rest):
        chunks[-1] = np.concatenate([chunks[-1], rest])
    pieces = [codec.encode(chunk) for chunk in chunks]
    return [*pieces], [len(piece) for piece in pieces]


@functools.lru_cache(maxsize=8)
def _shard_index(lengths: tuple[int, ...], n_places: int) -> bytes:
    """The end of a shard: offset and length of every chunk, all bits set for those not there, and a checksum."""
    index = np.full((n_places, 2), 2**64 - 1, "<u8")
    index[: len(lengths), 0] = np.cumsum((0, *lengths[:-1]))
    index[: len(lengths), 1] = lengths
    data = index.tobytes()
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


@functools.cache
def _writing_thread() -> ThreadPoolExecutor:
    """One for the whole process: s3fs connects anew in every thread."""
    return ThreadPoolExecutor(1, thread_name_prefix="galbatch-store")


class _GroupWriter:
    """Appends blocks to one group; small arrays are gathered and written at the end, one chunk each.

    Zarr makes the group in memory, and what it made is written out block by block: to S3 by a thread while
    the next block is cut. On a local disk that does not pay: the two get in each other's way, and with mask
    and variance cut and write took 18 % longer than one after the other.
    """

    def __init__(self, path: str, grid: Grid, *, capacity: int, planes: tuple[str, ...]) -> None:
        self._path = path
        self._files: dict[str, Buffer] = {}
        self._store = MemoryStore(self._files)
        self._group = zarr.create_group(self._store)
        self._grid = grid
        self._capacity = capacity
        self._planes = planes
        self._bands: tuple[str, ...] = ()
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._pending: list[CutoutBlock] = []
        self._shard_objects = BLOCK_OBJECTS
        self._small: list[dict[str, npt.NDArray[Any]]] = []
        self._written: set[str] = set()
        self._writing: Future[None] | None = None
        self.n_objects = 0
        self.n_shards = 0

    def __enter__(self) -> _GroupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writing is not None:
            wait([self._writing])

    def append(self, block: CutoutBlock) -> None:
        """Write the block's planes, in whole shards."""
        stop = self.n_objects + len(block)
        if self.n_objects % BLOCK_OBJECTS or stop > self._capacity:
            raise ValueError(
                f"{self._path}: a block of {len(block)} after {self.n_objects} of {self._capacity} objects; "
                f"blocks but the last hold {BLOCK_OBJECTS}"
            )
        if not self._arrays:
            self._create_planes(block)
        self._small.append({name: getattr(block, name) for name in SMALL_ARRAYS})
        self._pending.append(block)
        self.n_objects = stop
        if self.n_objects % self._shard_objects == 0:
            self._write_pending()

    def _create_planes(self, block: CutoutBlock) -> None:
        self._bands = block.bands
        cutout = block.image.shape[1:]
        division = _Division.of(cutout, n_objects=self._capacity)
        self._shard_objects = max(BLOCK_OBJECTS, division.shard[0])
        for plane in self._planes:
            self._arrays[plane] = self._group.create_array(
                plane,
                shape=(self._capacity, *cutout),
                chunks=division.chunk,
                shards=division.shard,
                dtype=PLANE_DTYPES[plane],
                compressors=PLANE_CODECS[plane].metadata,
                fill_value=0 if plane == "mask" else np.nan,
                dimension_names=PLANE_AXES,
                attributes={"units": PLANE_UNITS[plane]},
                # A chunk that is not written reads as NaN without error: a lost shard must show.
                config={"write_empty_chunks": True},
            )

    def _write_pending(self) -> None:
        """Write the pending blocks, or hand them to the thread; faults of its last write are raised here."""
        self._wait()
        blocks, self._pending = self._pending, []
        start = self.n_objects - sum(len(block) for block in blocks)
        if storage.overlaps_writes(self._path):
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
                shards = dict(_shards(array, values, start=start, codec=PLANE_CODECS[plane]))
            else:  # cutouts above 64 MB, in parts: left to Zarr
                array[start : start + len(values)] = values
                shards = self._take_files(prefix=f"{plane}/c/")
            self._write(shards)
            self.n_shards += len(shards)

    def _take_files(self, *, prefix: str) -> dict[str, list[storage.Piece]]:
        """The files that Zarr made below `prefix`, no longer in memory after this."""
        names = [name for name in self._files if name.startswith(prefix)]
        return {name: [self._files.pop(name).as_buffer_like()] for name in names}

    def _write(self, files: Mapping[str, Sequence[storage.Piece]]) -> None:
        storage.write_files(self._path, files)
        self._written.update(files)

    def finish(self) -> None:
        """Write what is left: the last shards, the small arrays, attributes and metadata.

        Raises
        ------
        OSError
            Not all that was written is there.
        """
        if self._pending:
            self._write_pending()
        self._wait()
        for array in self._arrays.values():
            if array.shape[0] != self.n_objects:
                array.resize((self.n_objects, *array.shape[1:]))
        tiles = sorted({str(tile) for block in self._small for tile in block["tile"]} - {""})
        with zarr_groups.unspecified():
            for name, (axes, units) in SMALL_ARRAYS.items():
                values = self._gathered(name, tiles)
                if values is not None:
                    self._write_small(name, values, axes=axes, units=units)
            self._group.attrs.update(self._attributes(tiles))
            zarr.consolidate_metadata(self._store)
        self._write(self._take_files(prefix=""))
        zarr_groups.require_written(self._path, self._written)

    def _attributes(self, tiles: list[str]) -> dict[str, Any]:
        return {
            "bands": list(self._bands),
            "unit": "nJy",
            "size_px": self._grid.size_px,
            "pixel_scale_arcsec": self._grid.pixel_scale_arcsec,
            "tiles": tiles,
            "mask_bits": {str(bit.name): int(bit) for bit in MaskBit},
            "flag_bits": {str(flag.name): int(flag) for flag in PixelFlag},
        }

    def _gathered(self, name: str, tiles: list[str]) -> npt.NDArray[Any] | None:
        if not self._small:
            return np.empty(0, np.int64) if name == "object_id" else None
        values = np.concatenate([block[name] for block in self._small])
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
