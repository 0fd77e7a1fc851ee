"""The first step of a partition: its objects are cut on every grid, and the groups committed in the store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from distributed import secede

from galbatch import dashboard, ingest
from galbatch.core.types import CutoutBlock, CutoutSpec
from galbatch.errors import DamagedError
from galbatch.execution import growth
from galbatch.execution.tasks.base import GridTask, IngestTask, TaskResult

__all__ = ["cut_rows", "ingest_partition"]


def ingest_partition(task: IngestTask) -> TaskResult:
    """Cut the partition's objects on every grid and commit the groups in the store.

    Raises
    ------
    TileError
        A tile cannot be read.
    OutputError, OSError
        The store cannot be written.
    """
    started = time.monotonic()
    n_taken, notes = 0, list[str]()
    with dashboard.TaskCounts() as counts:
        for grid in task.grids:
            stored = growth.stored_cutouts(task, grid)
            try:
                _write(task, grid, stored, counts)
            except DamagedError as error:
                # Only an older store is read here. Damage of its pixels shows when they are decompressed.
                notes.append(
                    f"partition {task.partition.name}: cutouts are cut again where the base is damaged: {error}"
                )
                stored = None
                _write(task, grid, stored, counts)
            if stored is not None:
                n_taken += int(stored.taken.sum())
                notes += [f"partition {task.partition.name}: {note}" for note in stored.notes]
        n_cutouts = sum(len(grid.rows) for grid in task.grids) - n_taken
        counts.finished(cutouts=n_cutouts)
    seconds = time.monotonic() - started
    return TaskResult(
        task.partition, len(task.objects), n_cutouts, 0, seconds, notes=tuple(notes), n_taken=n_taken
    )


def _write(
    task: IngestTask, grid: GridTask, stored: ingest.BaseCutouts | None, counts: dashboard.TaskCounts
) -> None:
    """Write the group of one grid, with the cutouts that are stored elsewhere taken from there."""
    ingest.write_partition(
        task.store,
        task.partition,
        grid.grid,
        _counted(cut_rows(task, grid, grid.rows, stored=stored), stored, counts),
        planes=task.planes,
        fingerprint=task.fingerprint.as_json(),
        before_sync=_leave_thread if grid is task.grids[-1] else _stay,
    )


def _leave_thread() -> None:
    """Let the worker begin its next task while this one only waits for the disk, which may be a third of its time."""
    with contextlib.suppress(ValueError):  # not on a worker
        secede()


def _stay() -> None:
    """Keep the worker's thread: other grids are cut next, and two tasks that cut at a time would take twice the memory."""


def _counted(
    blocks: Iterator[CutoutBlock], stored: ingest.BaseCutouts | None, counts: dashboard.TaskCounts
) -> Iterator[CutoutBlock]:
    """Yield the blocks, and count the cutouts of each that were cut as under way."""
    start = 0
    for block in blocks:
        stop = start + len(block)
        counts.add(cutouts=len(block) - (0 if stored is None else int(stored.taken[start:stop].sum())))
        start = stop
        yield block


def cut_rows(
    task: IngestTask,
    grid: GridTask,
    rows: npt.NDArray[np.intp],
    *,
    stored: ingest.BaseCutouts | None = None,
) -> Iterator[CutoutBlock]:
    """Cut the partition's objects at `rows` (cutout,) in blocks of up to 256, but for those that are stored; nothing is written."""
    return ingest.cut_blocks(
        task.objects.take(rows),
        task.tiles,
        spec=CutoutSpec(grid.grid, grid.bands, task.resampling, grid.settings),
        flags=task.flags,
        object_flags=task.object_flags[rows],
        stored=stored,
        light=task.light,
    )
