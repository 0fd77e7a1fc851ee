"""The step between cutting and inference: a partition's cutouts are measured, and the columns committed beside them in the store."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import ingest
from galbatch.core.columns import photometry_columns
from galbatch.execution.tasks.base import PhotometryTask, TaskResult
from galbatch.execution.tasks.reading import read_cutouts
from galbatch.photometry import measure_photometry

__all__ = ["photometry_partition"]


def photometry_partition(task: PhotometryTask) -> TaskResult:
    """Measure the partition's cutouts on every grid and commit their photometry in the store.

    Raises
    ------
    FingerprintError
        There are no cutouts, or they were made with other settings or inputs.
    DamagedError, OSError
        The store cannot be read or written.
    """
    started = time.monotonic()
    for grid in task.grids:
        values = {column.name: column.empty(len(grid.rows)) for column in photometry_columns(grid.bands)}
        object_id: npt.NDArray[Any] = np.empty(0, np.int64)
        ids, start = [object_id], 0
        blocks = read_cutouts(task.store, task.partition, grid, fingerprint=task.ingest_fingerprint)
        for _, cutouts in blocks:
            stop = start + len(cutouts)
            for name, result in measure_photometry(cutouts, task.settings).items():
                values[name][start:stop] = result
            ids.append(cutouts.object_id)
            start = stop
        ingest.write_photometry(
            task.store,
            task.partition,
            grid.grid,
            values,
            object_id=np.concatenate(ids[1:] or ids),
            fingerprint=task.fingerprint.as_json(),
        )
    seconds = time.monotonic() - started
    return TaskResult(task.partition, task.n_objects, 0, 0, seconds)
