"""How long does a task take beside its objects, and by how much do tasks of one size scatter?

Two runs on four HSC-sized patches, by as many workers as cores: cutouts of 239 px with mask and variance; and cutouts and 32 passes of
demo:gampen at 96 px. The times of their tasks, as the run's log has them, are fitted by a time of the task and one of each object.
`survey_scale.py` takes what it can from the kept result. Run: python benchmarks/task_times.py [--objects N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ingest_data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.optimize
from harness import RESULTS

import galbatch
from galbatch import dashboard
from galbatch.config import RunConfig
from galbatch.core.types import ObjectTable

KEPT = RESULTS / "task_times.json"
SIZE_PX = 239
N_PASSES = 32
MOST_OBJECTS = 1000
"""Of a partition."""


@dataclass(frozen=True)
class TaskTimes:
    """The fit of tasks' times.

    Attributes
    ----------
    n_tasks : number of tasks
    start_s : time of a task beside its objects
    object_s : time of an object
    scatter : standard deviation of the logarithm of a task's time over the fitted one
    slow : share of the tasks that take more than twice the fitted time
    """

    n_tasks: int
    start_s: float
    object_s: float
    scatter: float
    slow: float


class TaskLog(dashboard.Silent):
    """A sink that keeps the events of tasks that ended."""

    def __init__(self) -> None:
        self.events: list[dashboard.Event] = []

    def record(self, event: dashboard.Event) -> None:
        """Keep an event."""
        self.events.append(event)

    def times(self, step: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of objects of the tasks of a step, and their times in seconds."""
        found = [event.numbers for event in self.events if event.kind == step and "seconds" in event.numbers]
        return np.array([one["objects"] for one in found]), np.array([one["seconds"] for one in found])


def fit(n_objects: np.ndarray, seconds: np.ndarray) -> TaskTimes:
    """Fit a time of the task and one of each object, neither of them negative; relative differences count alike."""
    design = np.stack([np.ones(len(seconds)), n_objects], axis=1)
    (start_s, object_s), _ = scipy.optimize.nnls(design / seconds[:, None], np.ones(len(seconds)))
    ratio = seconds / (start_s + object_s * n_objects)
    return TaskTimes(
        n_tasks=len(seconds),
        start_s=float(start_s),
        object_s=float(object_s),
        scatter=float(np.log(ratio).std()),
        slow=float((ratio > 2).mean()),
    )


def write_list(path: Path, objects: ObjectTable) -> None:
    """Write the objects as a run takes them."""
    columns = {"object_id": objects.object_id, "ra_deg": objects.ra_deg, "dec_deg": objects.dec_deg}
    pq.write_table(pa.table({name: pa.array(np.asarray(column)) for name, column in columns.items()}), path)


def run(folder: Path, name: str, *, workers: int, most_objects: int, **settings: Any) -> TaskLog:
    """Run on the patches in `folder`; return the log of the tasks."""
    config = RunConfig(
        survey={"layout": "hsc", "tiles": str(folder / "**/calexp-*.fits"), "bands": ("g",)},
        objects={"path": str(folder / "objects.parquet")},
        catalog={"path": str(folder / name / "catalog")},
        cluster={"kind": "local", "workers": workers, "dashboard_address": "127.0.0.1:0"},
        # Their numbers differ by a factor of four, as a pixel is split in four: the fit needs that.
        plan={"max_objects_per_partition": most_objects},
        **{
            **settings,
            "cutouts": {**settings.get("cutouts", {}), "store": str(folder / name / "cutouts.zarr")},
        },
    )
    log = TaskLog()
    result = galbatch.run(config, stage="all" if "models" in settings else "ingest", progress=log)
    if result.failed:
        raise SystemExit(f"partitions failed: {result.failed}")
    return log


def measure(
    folder: Path, n_objects: int, *, workers: int, most_objects: int = MOST_OBJECTS
) -> dict[str, TaskTimes]:
    """Run both, and fit the times of their tasks."""
    ingest_data.make_tiles(folder)
    objects, _ = ingest_data.make_objects(n_objects, margin_px=SIZE_PX // 2 + 1)
    write_list(folder / "objects.parquet", objects)
    planes = ("image", "mask", "variance")
    grid = {"size_px": SIZE_PX, "pixel_scale_arcsec": 0.168, "bands": ("g",), "planes": planes}
    cut = run(folder, "cut", workers=workers, most_objects=most_objects, cutouts=grid)
    inferred = run(
        folder,
        "inferred",
        workers=workers,
        most_objects=most_objects,
        models=({"name": "gampen", "bundle": "demo:gampen"},),
        posterior={"passes": N_PASSES},
    )
    return {"ingest": fit(*cut.times("ingest")), "infer": fit(*inferred.times("infer"))}


def main() -> None:
    """Measure, print and keep the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=24_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="task-times-") as folder:
        found = measure(Path(folder), options.objects, workers=options.workers)
    content = {
        "question": __doc__.splitlines()[0],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "workers": options.workers,
        "passes": N_PASSES,
        "measured": {step: asdict(times) for step, times in found.items()},
    }
    for step, times in found.items():
        print(
            f"{step}: {times.n_tasks} tasks, {times.start_s:.2f} s beside their objects, {1e3 * times.object_s:.2f} ms an object, scatter "
            f"{times.scatter:.2f}, {times.slow:.1%} take twice as long"
        )
    KEPT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
