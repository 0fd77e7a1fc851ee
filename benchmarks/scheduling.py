"""How many tasks a second does the run loop submit and collect, against a bare loop over Dask's as_completed?

The tasks return at once, so that nothing but the loops is measured: the run loop makes the real tasks of a plan, sends them,
counts results and chooses next steps, a bounded number at a time; the bare loop submits as many calls of a function of one
integer at once. Both run on one cluster of two processes with eight threads each. Then the run loop does 2,000 and 50,000
partitions, and the memory that it adds to this process, in which the client and the scheduler run, is compared.
Run: python benchmarks/scheduling.py [TASKS [MANY]]
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster, as_completed
from harness import RESULTS, compare, report
from plan import make_tile

from galbatch import dashboard
from galbatch.config import RunConfig
from galbatch.core.types import Grid
from galbatch.execution import tasks
from galbatch.execution.submission import Attempt, SubmissionQueue
from galbatch.objects import open_objects
from galbatch.planning import ModelPlan, Plan, make_plan


def main(n_tasks: int = 2_000, n_many: int = 50_000) -> None:
    """Compare the loops, then the memory of short and long runs; report."""
    with tempfile.TemporaryDirectory() as folder, cluster() as client, steps_that_return_at_once():
        config, plan = toy_plan(folder, n_tasks)
        measured = compare(
            {
                "bare loop over as_completed": lambda: bare_loop(client, len(plan.partitions)),
                "run loop": lambda: run_loop(client, config, plan),
            }
        )
        report(
            "Run loop against a bare loop over as_completed",
            measured,
            items=len(plan.partitions),
            unit="task",
        )
        added = {}
        for n in (n_tasks, n_many):
            config, plan = toy_plan(folder, n)
            before = resident_mib()
            run_loop(client, config, plan)
            gc.collect()
            added[len(plan.partitions)] = round(resident_mib() - before, 1)
            print(
                f"  {len(plan.partitions)} tasks added {added[len(plan.partitions)]} MiB to client and scheduler"
            )
    content = {"cores": os.cpu_count(), "machine": platform.machine(), "added_mib": added}
    (RESULTS / "memory_of_the_run_loop.json").write_text(
        json.dumps(content, indent=1) + "\n", encoding="utf-8"
    )


@contextlib.contextmanager
def cluster(**options: object) -> Iterator[Client]:
    """Two worker processes with eight threads each; client and scheduler are in this process."""
    options = {"n_workers": 2, "threads_per_worker": 8, "dashboard_address": None} | options
    with LocalCluster(host="127.0.0.1", **options) as running, Client(running) as client:
        yield client


def nothing(number: int) -> int:
    """The task of the bare loop."""
    return number


def no_step(task: tasks.IngestTask | tasks.InferTask) -> tasks.TaskResult:
    """The task of the run loop: its objects count as done."""
    return tasks.TaskResult(task.partition, len(task.objects), 0, 0, 0.0)


@contextlib.contextmanager
def steps_that_return_at_once() -> Iterator[None]:
    """Replace the steps that the run loop submits; everything around them is the run's own."""
    with mock.patch.object(tasks, "ingest_partition", no_step):
        yield


def bare_loop(client: Client, n_tasks: int) -> int:
    """Submit all tasks, and take each result as it comes."""
    futures = [client.submit(nothing, number, pure=False) for number in range(n_tasks)]
    return sum(1 for _ in as_completed(futures, with_results=True))


def run_loop(client: Client, config: RunConfig, plan: Plan) -> int:
    """Do the first step of each partition; return the number of objects."""
    n_objects = 0

    def count(attempt: Attempt, result: tasks.TaskResult) -> None:
        nonlocal n_objects
        n_objects += result.n_objects

    queue = SubmissionQueue(config, plan, client, next_attempt=count, sink=dashboard.Silent())
    queue.work([Attempt(part, "ingest") for part in plan.partitions])
    if queue.failed or n_objects != len(plan.objects):
        raise SystemExit(f"{n_objects} of {len(plan.objects)} objects; failed: {queue.failed}")
    return n_objects


def toy_plan(folder: str, n_objects: int) -> tuple[RunConfig, Plan]:
    """A plan of one object a partition, at random over a few patches that are made up; its list is written to `folder`."""
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "object_id": np.arange(n_objects),
            "ra_deg": rng.uniform(149.5, 150.5, n_objects),
            "dec_deg": rng.uniform(1.5, 2.5, n_objects),
        }
    )
    path = Path(folder) / f"objects_{n_objects}.parquet"
    pq.write_table(table, path)
    config = RunConfig(
        survey={"layout": "hsc", "tiles": "s3://survey", "bands": ("i",)},
        objects={"path": str(path)},
        models=[{"name": "gampen", "bundle": "gampen.pt"}],
        plan={"max_objects_per_partition": 1},
    )
    tiles = [make_tile(f"{x},{y}", "i", 149.6 + 0.19 * x, 1.6 + 0.19 * y) for x in range(6) for y in range(6)]
    model = ModelPlan("gampen", None, ("gampen.pt",), ("0" * 64,), Grid(96, 0.168), ("i",))
    return config, make_plan(config, open_objects(config.objects), tiles, [model])


def resident_mib() -> float:
    """The memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
