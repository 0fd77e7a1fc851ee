"""Which codec, chunks and shards should the cutout store have, and how near does it come to a plain write?

239 px cutouts of one band: sky noise and galaxies, a variance plane, a mask that is mostly 0. Every codec is
lossless. Times are of one process on a local disk, whose cache takes the bytes; S3 is a server on this machine:
there requests and bytes are counted. Run: python benchmarks/store.py
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import harness
import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from galbatch import ingest
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid
from galbatch.ingest.store import layout as store_module
from galbatch.ingest.store.layout import Codec

# As galbatch sets it for its workers: freed buffers stay with the process.
KEPT_BY_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(2**28), "MALLOC_MMAP_THRESHOLD_": str(2**28)}

GRID = Grid(239, 0.168)
N_OBJECTS = 1024
PARTITION = Partition(5, 7, 0, N_OBJECTS)
CUTOUT_BYTES = GRID.size_px**2 * 4

CODECS: dict[str, Codec] = {"none": Codec()}
for level in (1, 3, 9):
    CODECS[f"zstd {level}"] = Codec(ZstdCodec(level=level), numcodecs.Zstd(level).encode)
for cname, shuffle in itertools.product(("lz4", "zstd"), ("noshuffle", "shuffle", "bitshuffle")):
    number = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}[shuffle]
    CODECS[f"blosc {cname} 1, {shuffle}"] = Codec(
        BloscCodec(cname=cname, clevel=1, shuffle=shuffle), numcodecs.Blosc(cname, 1, number).encode
    )
CHUNKS = (1, 4, 8, 16, 64)
SHARDS = (32, 64, 128, 256)


def main() -> None:
    """Print and keep all tables."""
    if not KEPT_BY_MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT_BY_MALLOC})
    blocks = simulate(N_OBJECTS)
    with tempfile.TemporaryDirectory(prefix="store-") as folder:
        compare_with_plain_write(blocks, Path(folder))
        for plane in ("image", "variance", "mask"):
            compare_codecs(blocks, plane, Path(folder))
        compare_chunks(blocks, Path(folder))
        compare_shards(blocks, Path(folder))
    count_requests(blocks[:2])


def simulate(n_objects: int) -> list[CutoutBlock]:
    """Blocks of cutouts: a galaxy in each, noise of the sky and of its light, one in 100 pixels masked in patches."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: GRID.size_px, : GRID.size_px].astype(np.float32) - GRID.center_px
    return [_block(rng, start, x, y) for start in range(0, n_objects, BLOCK_OBJECTS)]


def _block(rng: np.random.Generator, start: int, x: np.ndarray, y: np.ndarray) -> CutoutBlock:
    n, shape = BLOCK_OBJECTS, (BLOCK_OBJECTS, 1, *x.shape)
    radius_px = rng.uniform(3, 25, n).astype(np.float32)
    flux = rng.lognormal(2, 1, n).astype(np.float32)
    image = np.empty(shape, np.float32)
    mask = np.zeros(shape, np.uint16)
    # A coadd's variance differs from pixel to pixel by a per cent: each has its own set of exposures and weights.
    variance = (1.0 + 0.01 * rng.standard_normal(shape, np.float32)).astype(np.float32)
    for index in range(n):
        galaxy = flux[index] * np.exp(-np.hypot(x, 1.5 * y) / radius_px[index])
        variance[index, 0] += 0.05 * galaxy
        image[index, 0] = galaxy + np.sqrt(variance[index, 0]) * rng.standard_normal(x.shape, np.float32)
        mask[index, 0][np.hypot(x, y) < 2 * radius_px[index]] = 32
        row, column = rng.integers(0, GRID.size_px - 24, 2)
        mask[index, 0, row : row + 24, column : column + 24] |= 4
    ones = np.ones((n, 1), np.float32)
    return CutoutBlock(
        grid=GRID,
        bands=("r",),
        object_id=np.arange(start, start + n),
        ra_deg=rng.uniform(0, 360, n),
        dec_deg=rng.uniform(-90, 90, n),
        image=image,
        mask=mask,
        variance=variance,
        crpix=rng.uniform(0, 4000, (n, 2)),
        crval=rng.uniform(0, 90, (n, 2)),
        cd=rng.uniform(-1, 1, (n, 2, 2)),
        tile=np.array(["9813/4,4"] * n),
        coverage=ones,
        sky_sigma_njy=ones,
        psf_fwhm_arcsec=ones,
        noise_correlation=ones,
        flags=np.zeros(n, np.int32),
    )


@dataclass(frozen=True)
class Layout:
    """How a plane is stored: codec, and objects in a chunk and in a shard."""

    codec: Codec = CODECS["none"]
    chunk: int = 4
    shard: int = 128


@contextlib.contextmanager
def stored_as(layout: Layout) -> Iterator[None]:
    """The store's constants for this layout."""
    constants = {
        "MAX_CHUNK_BYTES": layout.chunk * CUTOUT_BYTES,
        "MAX_SHARD_BYTES": layout.shard * CUTOUT_BYTES,
        "PLANE_CODECS": dict.fromkeys(store_module.PLANE_CODECS, layout.codec),
    }
    with contextlib.ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(mock.patch.object(store_module, name, value))
        yield


def write(store: str, blocks: list[CutoutBlock], *, planes: tuple[str, ...], layout: Layout) -> None:
    partition = Partition(5, 7, 0, sum(map(len, blocks)))
    with stored_as(layout):
        ingest.create_groups(store, attributes={}, partitions=[partition], grids=[GRID])
        ingest.write_partition(store, partition, GRID, blocks, planes=planes, fingerprint={})


def read(store: str, planes: tuple[str, ...] = ("image",)) -> int:
    return sum(len(block) for block in ingest.read_blocks(store, PARTITION, GRID, planes=planes))


def read_one(store: str, plane: str, index: int = 300) -> Any:
    """One object as users read it, through Zarr."""
    return zarr.open_group(f"{store}/{PARTITION.path}/{GRID.label}", mode="r", zarr_format=3)[plane][index]


def size_of(store: str, plane: str) -> int:
    """Bytes of a plane's shards."""
    folder = Path(store) / PARTITION.path / GRID.label / plane / "c"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare_with_plain_write(blocks: list[CutoutBlock], folder: Path) -> None:
    """The store against the plain write of the same bytes, and against Zarr doing it all by itself."""
    layout = Layout()

    def plain(sync: bool) -> None:
        for number, block in enumerate(blocks):
            with open(folder / f"plain-{number}", "wb") as file:
                file.write(block.image.data.cast("B"))
                if sync:
                    file.flush()
                    os.fsync(file.fileno())

    def by_zarr() -> None:
        pixels = blocks[0].image.shape[1:]
        array = zarr.create_array(
            folder / "zarr",
            shape=(N_OBJECTS, *pixels),
            chunks=(layout.chunk, *pixels),
            shards=(layout.shard, *pixels),
            dtype="float32",
            compressors=None,
            fill_value=np.nan,
            overwrite=True,
            config={"write_empty_chunks": True},
        )
        for number, block in enumerate(blocks):
            array[number * BLOCK_OBJECTS : (number + 1) * BLOCK_OBJECTS] = block.image

    contenders = {
        "plain write, synced": lambda: plain(True),
        "plain write": lambda: plain(False),
        "the store": lambda: write(str(folder / "store"), blocks, planes=("image",), layout=layout),
        "Zarr by itself": by_zarr,
    }
    measured = harness.compare(contenders, rounds=7)
    harness.report("Writing image planes to a local disk", measured, items=N_OBJECTS, unit="cutout")


def compare_codecs(blocks: list[CutoutBlock], plane: str, folder: Path) -> None:
    planes = ("image",) if plane == "image" else ("image", plane)
    _compare(
        f"Codec of the {plane} plane",
        {name: Layout(codec) for name, codec in CODECS.items()},
        blocks,
        folder,
        planes,
    )


def compare_chunks(blocks: list[CutoutBlock], folder: Path) -> None:
    layouts = {
        f"{chunk} objects, {chunk * CUTOUT_BYTES / 1e6:.1f} MB": Layout(chunk=chunk) for chunk in CHUNKS
    }
    _compare("Objects in a chunk", layouts, blocks, folder, ("image",))


def compare_shards(blocks: list[CutoutBlock], folder: Path) -> None:
    layouts = {
        f"{shard} objects, {shard * CUTOUT_BYTES / 1e6:.0f} MB": Layout(shard=shard) for shard in SHARDS
    }
    _compare("Objects in a shard", layouts, blocks, folder, ("image",))


def _compare(
    question: str,
    layouts: Mapping[str, Layout],
    blocks: list[CutoutBlock],
    folder: Path,
    planes: tuple[str, ...],
) -> None:
    """Write, read in blocks and read one object with every layout; a row of ratios to the first for each.

    Of a plane other than the image, only that plane's blocks are written: the image's time would hide it.
    """
    plane = planes[-1]
    stores = {name: str(folder / f"{plane}-{number}") for number, name in enumerate(layouts)}
    only = (plane,)

    def writing(name: str) -> Callable[[], object]:
        return lambda: write(stores[name], blocks, planes=only, layout=layouts[name])

    def reading(name: str) -> Callable[[], object]:
        return lambda: _read_plane(stores[name], plane)

    def reading_one(name: str) -> Callable[[], object]:
        return lambda: [read_one(stores[name], plane, index) for index in range(100, 900, 100)]

    written = harness.compare({name: writing(name) for name in layouts}, rounds=5)
    read_all = harness.compare({name: reading(name) for name in layouts}, rounds=5)
    read_some = harness.compare({name: reading_one(name) for name in layouts}, rounds=5)
    harness.report(f"{question}: writing", written, items=N_OBJECTS, unit="cutout")
    harness.report(f"{question}: reading blocks", read_all, items=N_OBJECTS, unit="cutout")
    harness.report(f"{question}: reading one object", read_some, items=8, unit="object")
    first = size_of(stores[next(iter(layouts))], plane)
    print(f"| {question} | write | read blocks | read one object | bytes |\n|---|---|---|---|---|")
    for a, b, c in zip(written, read_all, read_some, strict=True):
        size = size_of(stores[a.name], plane) / first
        print(
            f"| {a.name} | {a.ratio_median:.2f} | {b.ratio_median:.2f} | {c.ratio_median:.2f} | {size:.3f} |"
        )


def _read_plane(store: str, plane: str) -> None:
    group = zarr.open_group(f"{store}/{PARTITION.path}/{GRID.label}", mode="r", zarr_format=3)
    for start in range(0, N_OBJECTS, BLOCK_OBJECTS):
        group[plane][start : start + BLOCK_OBJECTS]


def count_requests(blocks: list[CutoutBlock]) -> None:
    """Requests to S3 and bytes, for 512 objects in one group."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="store")
    print("| chunk, shard | write | read blocks | read one object |\n|---|---|---|---|")
    for chunk, shard in ((1, 128), (4, 32), (4, 64), (4, 128), (4, 256), (16, 128), (64, 128)):
        store = f"s3://store/{chunk}-{shard}"
        with counting() as first:
            write(store, blocks, planes=("image",), layout=Layout(chunk=chunk, shard=shard))
        with counting() as second:
            list(ingest.read_blocks(store, Partition(5, 7, 0, 512), GRID))
        with counting() as third:
            read_one(store, "image")
        print(f"| {chunk}, {shard} | {_told(first)} | {_told(second)} | {_told(third)} |")
    server.stop()


def _told(counted: Mapping[str, int]) -> str:
    requests = sum(n for name, n in counted.items() if name != "bytes")
    return f"{requests} requests, {counted['bytes'] / 1e6:.1f} MB"


@contextlib.contextmanager
def counting() -> Iterator[collections.Counter[str]]:
    """Counts requests to S3 by method, and the bytes of bodies."""
    import s3fs

    counted: collections.Counter[str] = collections.Counter()
    original = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *arguments: Any, **keywords: Any) -> Any:
        counted[method] += 1
        counted["bytes"] += len(keywords.get("Body") or b"")
        answer = await original(self, method, *arguments, **keywords)
        if method == "get_object":
            counted["bytes"] += answer["ContentLength"]
        return answer

    with mock.patch.object(s3fs.S3FileSystem, "_call_s3", call):
        yield counted


if __name__ == "__main__":
    main()
