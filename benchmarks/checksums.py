"""What do checksums cost when cutouts are written, and what does waiting for the disk?

One partition of cutouts is cut and written in one process: as it is, without syncing files, and without syncing and checksums.
The cost of checksums is the difference of the last two over the last; that of syncing, the difference of the first two.
Run: python benchmarks/checksums.py [--objects N] [--rounds N] [--disk FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import ingest_contenders
import numpy as np
from harness import compare, report

from galbatch import config, ingest
from galbatch.core.pixels import Partition
from galbatch.core.types import CutoutSpec
from galbatch.storage.checksums import Checksum
from galbatch.storage.zarr_groups import writing

PLANES = {"image alone": ("image",), "three planes": ("image", "mask", "variance")}


def main() -> None:
    """Make the data, compare with one plane and with three, report."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.disk, prefix="checksums-") as folder:
        data = ingest_contenders.make_data(Path(folder), arguments.objects)
        for name, planes in PLANES.items():
            measure(data, Path(folder) / "store.zarr", name, planes=planes, rounds=arguments.rounds)


def measure(
    data: ingest_contenders.Data, store: Path, name: str, *, planes: tuple[str, ...], rounds: int
) -> dict[str, float]:
    """Report what checksums and syncing add to cutting and writing; return their shares of wall and processor time."""
    processor_s: dict[str, list[float]] = {}

    def timed(label: str, unlike: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        before = time.process_time()
        with unlike():
            write(data, store, planes)
        processor_s.setdefault(label, []).append(time.process_time() - before)

    contenders = {
        "neither": without_checksums_and_syncing,
        "checksums": without_syncing,
        "checksums and syncing": contextlib.nullcontext,
    }
    measured = compare(
        {
            label: lambda label=label, unlike=unlike: timed(label, unlike)
            for label, unlike in contenders.items()
        },
        rounds=rounds,
        before=lambda: shutil.rmtree(store, ignore_errors=True),
    )
    report(
        f"checksums and syncing of {name} at 239 px",
        measured,
        items=len(data.objects),
        unit="cutout",
    )
    # The first of each was the warm-up.
    neither, checksums, both = (statistics.median(processor_s[label][1:]) for label in contenders)
    wall = {row.name: row.ratio_median for row in measured}
    shares = {
        "checksums": wall["checksums"] - 1,
        "syncing": wall["checksums and syncing"] - wall["checksums"],
        "checksums, processor time": checksums / neither - 1,
        "syncing, processor time": (both - checksums) / neither,
    }
    print("  " + ", ".join(f"{label}: {share:+.1%}" for label, share in shares.items()), flush=True)
    return shares


def write(data: ingest_contenders.Data, store: Path, planes: tuple[str, ...]) -> None:
    """Cut all objects and write them as one partition."""
    images = [dataclasses.replace(tile, mask=None, weight=None) for tile in data.tiles]
    blocks = ingest.cut_blocks(
        data.objects,
        images if planes == ("image",) else data.tiles,
        spec=CutoutSpec(ingest_contenders.GRID, ("g",)),
        flags=config.FlagsConfig(),
        object_flags=np.zeros(len(data.objects), np.int32),
    )
    partition, grid = Partition(0, 0, 0, len(data.objects)), ingest_contenders.GRID
    ingest.create_groups(str(store), attributes={}, partitions=[partition], grids=[grid])
    ingest.write_partition(str(store), partition, grid, blocks, planes=planes, fingerprint={})


@contextlib.contextmanager
def without_syncing() -> Iterator[None]:
    """Write files without waiting until the disk has stored them."""
    with mock.patch.object(writing.files, "sync_files"):
        yield


@contextlib.contextmanager
def without_checksums_and_syncing() -> Iterator[None]:
    """Write files without syncing; their checksums are not computed."""
    none = Checksum(0, "0" * 8)
    with without_syncing(), mock.patch.object(writing.Checksum, "of", return_value=none):
        yield


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--disk", default=tempfile.gettempdir(), help="folder on the disk to measure on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
