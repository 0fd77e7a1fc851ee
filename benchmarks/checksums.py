"""What do checksums cost when cutouts are written, and what does waiting for the disk?

One partition of cutouts is cut and written in one process. The processor time that checksums take is summed where they are computed, and is
compared with all the rest of the same round, so that other work on the machine falls on both. Waiting for the disk is the difference
of rounds with and without syncing files.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import ingest_contenders
import numpy as np
from harness import Measured, compare, report

from galbatch import config, ingest
from galbatch.core.pixels import Partition
from galbatch.core.types import CutoutSpec
from galbatch.storage.base import Piece
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
    """Report what checksums and syncing add to cutting and writing; return their shares of processor and wall time."""
    rest_s: list[float] = []
    checksums_s: list[float] = []

    def without_syncing() -> None:
        before = time.process_time()
        with unsynced(), timed_checksums() as spent_s:
            write(data, store, planes)
        checksums_s.append(sum(spent_s))
        rest_s.append(time.process_time() - before - sum(spent_s))

    contenders = {"without syncing": without_syncing, "with syncing": lambda: write(data, store, planes)}
    measured = compare(contenders, rounds=rounds, before=lambda: shutil.rmtree(store, ignore_errors=True))
    # The first of each was the warm-up.
    ratios = [one / other for one, other in zip(checksums_s[1:], rest_s[1:], strict=True)]
    cost = Measured("checksums", checksums_s[1:], statistics.median(ratios), min(ratios), max(ratios))
    report(
        f"processor time of checksums of {name} at 239 px",
        [Measured("cutting and writing", rest_s[1:], 1.0, 1.0, 1.0), cost],
        items=len(data.objects),
        unit="cutout",
    )
    report(f"syncing of {name} at 239 px", measured, items=len(data.objects), unit="cutout")
    return {"checksums": cost.ratio_median, "syncing": measured[1].ratio_median - 1}


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
def unsynced() -> Iterator[None]:
    """Write files without waiting until the disk has stored them."""
    with mock.patch.object(writing.files, "sync_files"):
        yield


@contextlib.contextmanager
def timed_checksums() -> Iterator[list[float]]:
    """Yield a list that gets the processor time in seconds of each checksum; shards are written by several threads."""
    spent_s: list[float] = []
    of = Checksum.of

    def timed(pieces: Sequence[Piece]) -> Checksum:
        before = time.thread_time()
        found = of(pieces)
        spent_s.append(time.thread_time() - before)
        return found

    with mock.patch.object(writing.Checksum, "of", timed):
        yield spent_s


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--disk", default=tempfile.gettempdir(), help="folder on the disk to measure on")
    return parser.parse_args()


if __name__ == "__main__":
    main()
