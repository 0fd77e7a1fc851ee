"""What `ingest.py` compares: whole runs of Cutana and galbatch, and the cut alone in one process.

Apart from `ingest.py` because worker processes import the main module again, and should not pay for this one.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ingest_data
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS, FITSFixedWarning
from harness import Measured, compare, report

import galbatch
from galbatch import config, ingest
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, CutoutSpec, Grid, ObjectTable, Tile, njy_per_unit

__all__ = ["compare_in_memory", "compare_runs", "make_data"]

GRID = Grid(239, 0.168)
IMAGE_BYTES = GRID.size_px**2 * 4
N_IN_MEMORY = 2048
FREE_BYTES = 300 * 2**20


@dataclass(frozen=True)
class Data:
    """Tiles and their files, objects and the number of the patch that holds each."""

    folder: Path
    paths: list[Path]
    tiles: list[Tile]
    objects: ObjectTable
    patches: np.ndarray

    @property
    def list_path(self) -> Path:
        """The object list as galbatch reads it."""
        return self.folder / "objects.parquet"


def make_data(folder: Path, n_objects: int) -> Data:
    """Four patches in `folder`, and objects on them."""
    warnings.simplefilter("ignore", FITSFixedWarning)
    paths = ingest_data.make_tiles(folder)
    objects, patches = ingest_data.make_objects(n_objects, margin_px=GRID.size_px // 2 + 1)
    tiles = ingest.read_tiles(config.SurveyConfig(layout="hsc", tiles=str(folder), bands=("g",)))
    data = Data(folder, paths, tiles, objects, patches)
    columns = {"object_id": objects.object_id, "ra_deg": objects.ra_deg, "dec_deg": objects.dec_deg}
    pq.write_table(pa.table(columns), data.list_path)
    return data


# --- whole runs ------------------------------------------------------------------------------------------


def compare_runs(data: Data, *, output: Path, peers_python: str | None, workers: int, rounds: int) -> None:
    """Cutana and galbatch as users start them, and a plain write of the same bytes; `output` is emptied."""
    memory = PeakMemory()

    def ours(survey: str, *planes: str) -> Callable[[], None]:
        return lambda: run_galbatch(data, survey, planes=planes, output=output, workers=workers)

    contenders: dict[str, Callable[[], None]] = {}
    if peers_python:
        listed = _write_list(output.with_suffix(".csv"), data)
        contenders["Cutana 0.4.0, image"] = lambda: run_cutana(
            peers_python, listed, output, workers=workers, n_expected=len(data.objects)
        )
    contenders["galbatch, image alone"] = ours(IMAGE_ALONE, "image")
    contenders["galbatch, flags from mask and variance, image stored"] = ours(ALL_PLANES, "image")
    contenders["galbatch, flags, three planes stored"] = ours(ALL_PLANES, "image", "mask", "variance")
    contenders["plain write of the images' bytes"] = lambda: write_plainly(
        output / "plain", len(data.objects)
    )
    watched = {name: memory.watching(name, contender) for name, contender in contenders.items()}
    measured = compare(watched, rounds=rounds, warm_up=False, before=lambda: _empty(output))
    name = f"ingest of {GRID.size_px} px cutouts, {workers} workers, whole runs"
    report(name, measured, items=len(data.objects), unit="cutout")
    _print_rates(measured, len(data.objects), workers=workers, peak_bytes=memory.peak_bytes)


def _write_list(path: Path, data: Data) -> Path:
    """The list as Cutana reads it: each source with the tile that holds it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["SourceID", "RA", "Dec", "diameter_pixel", "fits_file_paths"])
        objects = data.objects
        for identifier, ra, dec, patch in zip(
            objects.object_id, objects.ra_deg, objects.dec_deg, data.patches, strict=True
        ):
            tile = str([str(data.paths[patch])])
            writer.writerow([f"s{identifier}", repr(float(ra)), repr(float(dec)), GRID.size_px, tile])
    return path


def run_cutana(python: str, listed: Path, output: Path, *, workers: int, n_expected: int) -> None:
    """A process of its own, until its cutouts are on disk; fails if any is missing."""
    script = Path(__file__).parent / "peers" / "run_cutana.py"
    command = [python, str(script), str(listed), str(output / "cutana"), str(GRID.size_px), str(workers)]
    subprocess.run(command, check=True, capture_output=True)
    os.sync()
    stores = sorted((output / "cutana").glob("*/images.zarr"))
    n_cutouts = sum(zarr.open_group(store, mode="r")["images"].shape[0] for store in stores)
    if n_cutouts != n_expected:
        raise RuntimeError(f"Cutana made {n_cutouts} cutouts of {n_expected}")


RUN_TOML = """\
[survey]
{survey}
tiles = "{tiles}"
[objects]
path = "{objects}"
[plan]
max_objects_per_partition = 2000
[cutouts]
store = "{output}/cutouts.zarr"
size_px = {size_px}
pixel_scale_arcsec = {pixel_scale_arcsec}
planes = {planes}
[catalog]
path = "{output}/catalog"
[cluster]
workers = {workers}
dashboard_address = "127.0.0.1:0"
"""
"""What a user writes for such a run."""

ALL_PLANES = """layout = "hsc"
bands = ["g"]"""
# The same files, of which mask and variance are not read.
IMAGE_ALONE = """layout = "generic"
bands = ["G"]
zero_point_mag = 27.0
generic = { pattern = 'calexp-HSC-(?P<band>G)-(?P<tile>.*)[.]fits', image = "IMAGE" }"""


def run_galbatch(data: Data, survey: str, *, planes: Sequence[str], output: Path, workers: int) -> None:
    """A process of its own, the command that a user gives, until its cutouts are on disk; fails if any is missing."""
    settings = RUN_TOML.format(
        survey=survey,
        tiles=data.folder / "deepCoadd-results/**/calexp-*.fits",
        objects=data.list_path,
        output=output,
        size_px=GRID.size_px,
        pixel_scale_arcsec=GRID.pixel_scale_arcsec,
        planes=json.dumps(list(planes)),
        workers=workers,
    )
    path = output / "run.toml"
    path.write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "galbatch", "run", str(path), "--stage", "ingest"]
    subprocess.run(command, check=True, capture_output=True)
    os.sync()
    n_cutouts = len(galbatch.open_store(str(output / "cutouts.zarr")))
    if n_cutouts != len(data.objects):
        raise RuntimeError(f"galbatch made {n_cutouts} cutouts of {len(data.objects)}")


def write_plainly(path: Path, n_cutouts: int) -> None:
    """One file of the cutouts' bytes in pieces of 32 MB, until it is on disk."""
    piece = np.random.default_rng(1).normal(size=2**22).astype(np.float64).tobytes()
    with path.open("wb") as file:
        for start in range(0, n_cutouts * IMAGE_BYTES, len(piece)):
            file.write(piece[: n_cutouts * IMAGE_BYTES - start])
    os.sync()


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.sync()
    _fill_page_cache(folder.with_name("holes"))


def _fill_page_cache(path: Path) -> None:
    """Read a file of holes until no memory is free, as on any machine that has been up for a while.

    The hosts of virtual machines take free memory back after seconds: on it a first write is ten times slower
    (0.4 against 4 GB/s were seen), and who writes most in the least time would pay most.
    """
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(psutil.virtual_memory().total)
    with path.open("rb", buffering=0) as file:
        while psutil.virtual_memory().free > FREE_BYTES and file.read(2**26):
            pass


class PeakMemory:
    """Peak of the memory that a contender's processes do not share with others, sampled five times a second."""

    def __init__(self) -> None:
        self.peak_bytes: dict[str, int] = {}

    def watching(self, name: str, contender: Callable[[], None]) -> Callable[[], None]:
        """The contender, watched while it runs."""

        def watched() -> None:
            stop = threading.Event()
            thread = threading.Thread(target=self._watch, args=(name, stop))
            thread.start()
            try:
                contender()
            finally:
                stop.set()
                thread.join()

        return watched

    def _watch(self, name: str, stop: threading.Event) -> None:
        while not stop.wait(0.2):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().uss
                except psutil.Error:  # it has just ended
                    continue
            self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), total)


def _print_rates(
    measured: list[Measured], n_cutouts: int, *, workers: int, peak_bytes: dict[str, int]
) -> None:
    """What the ratios come from, on this machine."""
    plain_s = float(np.median(measured[-1].seconds))
    for row in measured[:-1]:
        seconds = float(np.median(row.seconds))
        print(
            f"  {row.name:<55} {n_cutouts / seconds / workers:6.0f} cutouts/s per worker, "
            f"{n_cutouts * IMAGE_BYTES / seconds / 1e6:5.0f} MB/s of images, {plain_s / seconds:4.0%} of a plain write, "
            f"peak {peak_bytes.get(row.name, 0) / 2**20:.0f} MiB in all processes it started"
        )


# --- the cut alone ---------------------------------------------------------------------------------------


def compare_in_memory(data: Data, *, store: Path) -> None:
    """One process: image planes in nJy in memory, then the same written to the identical store."""
    objects, patches = data.objects.take(slice(N_IN_MEMORY)), data.patches[:N_IN_MEMORY]
    by_patch = [next(t for t in data.tiles if t.tile_id.endswith(name)) for name in ingest_data.PATCHES]
    image_alone = [dataclasses.replace(tile, mask=None, weight=None) for tile in data.tiles]

    def ours() -> Iterator[CutoutBlock]:
        return ingest.cut_blocks(
            objects,
            image_alone,
            spec=CutoutSpec(GRID, ("g",)),
            flags=config.FlagsConfig(),
            object_flags=np.zeros(len(objects), np.int32),
        )

    # What surrounds the pixels in the store, for Cutout2D's blocks: only its images are its own.
    frames = [dataclasses.replace(block, image=block.image[:0]) for block in ours()]

    def theirs() -> Iterator[CutoutBlock]:
        images = cut_with_astropy(objects, patches, by_patch)
        for frame in frames:
            image = np.stack([next(images) for _ in range(len(frame))])[:, None]
            yield dataclasses.replace(frame, image=image)

    measured = compare(
        {"Cutout2D": lambda: _exhaust(theirs()), "galbatch cut_blocks": lambda: _exhaust(ours())}
    )
    report("cutting in memory against Cutout2D", measured, items=len(objects), unit="cutout")
    written = compare(
        {
            "Cutout2D, written": lambda: _write(store, theirs(), len(objects)),
            "galbatch, written": lambda: _write(store, ours(), len(objects)),
        },
        before=lambda: shutil.rmtree(store, ignore_errors=True),
    )
    report("cutting and writing against Cutout2D", written, items=len(objects), unit="cutout")


def cut_with_astropy(
    objects: ObjectTable, patches: np.ndarray, tiles: Sequence[Tile]
) -> Iterator[np.ndarray]:
    """Image cutouts in nJy, (y, x) float32, one object at a time from memory-mapped files."""
    with ExitStack() as opened:
        files = [opened.enter_context(fits.open(tile.image.path, memmap=True)) for tile in tiles]
        images = [hdus[1].data for hdus in files]
        frames = [WCS(hdus[1].header) for hdus in files]
        for ra, dec, patch in zip(objects.ra_deg, objects.dec_deg, patches, strict=True):
            cutout = Cutout2D(
                images[patch],
                SkyCoord(ra * units.deg, dec * units.deg),
                GRID.size_px,
                wcs=frames[patch],
                mode="partial",
                fill_value=np.nan,
            )
            yield np.asarray(cutout.data, np.float32) * np.float32(njy_per_unit(27.0))


def _exhaust(blocks: Iterator[CutoutBlock]) -> None:
    for block in blocks:
        assert len(block) <= BLOCK_OBJECTS


def _write(store: Path, blocks: Iterator[CutoutBlock], n_objects: int) -> None:
    partition = Partition(0, 0, 0, n_objects)
    ingest.create_groups(str(store), attributes={}, partitions=[partition], grids=[GRID])
    ingest.write_partition(str(store), partition, GRID, blocks, planes=("image",), fingerprint={})
    os.sync()
