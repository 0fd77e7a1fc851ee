"""How many tasks a second does the run loop submit and collect, against a bare loop over Dask's as_completed?

The tasks return at once, so that nothing but the loops is measured: the run loop makes the real tasks of a plan, sends them,
counts results and chooses next steps, a bounded number at a time; the bare loop submits as many calls of a function of one
integer at once. Both run on one cluster of two processes with eight threads each. Processor time of all three processes is
compared, too: it changes less than wall time where a machine is shared. Then the run loop does 2,000, 10,000 and 50,000
partitions, and the memory that each adds to this process, in which the client and the scheduler run, is compared.
Run: python benchmarks/scheduling.py [TASKS [PARTITIONS ..]]
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster, as_completed
from harness import RESULTS, compare, report
from plan import make_tile

from galbatch import cluster as galbatch_cluster
from galbatch import dashboard
from galbatch.cluster.kinds.worker_plugins import ForgetsTasks
from galbatch.config import RunConfig
from galbatch.core.types import Grid
from galbatch.execution import tasks
from galbatch.execution.submission import Attempt, SubmissionQueue
from galbatch.objects import open_objects
from galbatch.planning import ModelPlan, Plan, make_plan


def main(n_tasks: int = 2_000, *numbers: int) -> None:
    """Compare the loops, then the memory of short and long runs; report."""
    with tempfile.TemporaryDirectory() as folder, cluster() as client, steps_that_return_at_once():
        compare_loops(client, *toy_plan(folder, n_tasks))
        compare_memory(client, folder, numbers or (2_000, 10_000, 50_000))


def compare_memory(client: Client, folder: str, numbers: Sequence[int]) -> None:
    """Report the memory that runs of so many partitions add to this process, one after the other on one cluster."""
    # One object in ten shares its partition with another one.
    config, plan = toy_plan(folder, max(numbers) * 6 // 5)
    run_loop(client, config, plan, most=min(numbers))  # so that caches and pools of memory are filled
    added = {}
    for n in numbers:
        gc.collect()
        before, peak = resident_mib(), Peak()
        run_loop(client, config, plan, most=n, note=peak.look)
        gc.collect()
        added[n] = {"after": round(resident_mib() - before, 1), "peak": round(peak.mib - before, 1)}
        print(f"  {n} tasks added, in MiB: {added[n]}", flush=True)
    keep("memory_of_the_run_loop", {"added_mib": added})


def compare_loops(client: Client, config: RunConfig, plan: Plan) -> None:
    """Report the wall time and the processor time of both loops."""
    pids = [os.getpid(), *client.run(os.getpid).values()]
    spent_s: dict[str, list[float]] = {"bare": [], "run": []}

    def timed(name: str, loop: Callable[[], object]) -> None:
        before = processor_s(pids)
        loop()
        spent_s[name].append(processor_s(pids) - before)

    n_tasks = len(plan.partitions)
    measured = compare(
        {
            "bare loop over as_completed": lambda: timed("bare", lambda: bare_loop(client, n_tasks)),
            "run loop": lambda: timed("run", lambda: run_loop(client, config, plan)),
        }
    )
    report("Run loop against a bare loop over as_completed", measured, items=n_tasks, unit="task")
    # The first of each was the warm-up.
    rates = [bare / run for bare, run in zip(*(measure.seconds for measure in measured), strict=True)]
    costs = [bare / run for bare, run in zip(spent_s["bare"][1:], spent_s["run"][1:], strict=True)]
    print(f"  rate of the run loop in that of the bare loop: {statistics.median(rates):.2f}")
    print(f"  the same in tasks per second of processor time: {statistics.median(costs):.2f}")
    keep("rate_of_the_run_loop", {"tasks": n_tasks, "of_wall_time": rates, "of_processor_time": costs})


def keep(name: str, content: dict[str, object]) -> None:
    """Keep a result beside those of `harness.report`."""
    content = {"cores": os.cpu_count(), "machine": platform.machine()} | content
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def cluster(**options: object) -> Iterator[Client]:
    """Two worker processes with eight threads each; client and scheduler are in this process."""
    options = {"n_workers": 2, "threads_per_worker": 8, "dashboard_address": "127.0.0.1:0"} | options
    with (
        galbatch_cluster.short_logs(),
        LocalCluster(host="127.0.0.1", **options) as running,
        Client(running) as client,
    ):
        client.register_plugin(ForgetsTasks())
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


def run_loop(
    client: Client,
    config: RunConfig,
    plan: Plan,
    *,
    most: int | None = None,
    note: Callable[[], None] = lambda: None,
) -> int:
    """Do the first step of each partition, or of `most` of them; return the number of objects."""
    n_objects, parts = 0, plan.partitions[:most]

    def count(attempt: Attempt, result: tasks.TaskResult) -> None:
        nonlocal n_objects
        n_objects += result.n_objects
        note()

    queue = SubmissionQueue(config, plan, client, next_attempt=count, sink=dashboard.Silent())
    queue.work([Attempt(part, "ingest") for part in parts])
    if queue.failed or n_objects != sum(part.partition.n_objects for part in parts):
        raise SystemExit(f"{n_objects} objects in {len(parts)} partitions; failed: {queue.failed}")
    return n_objects


def toy_plan(folder: str, n_objects: int) -> tuple[RunConfig, Plan]:
    """A plan of one object a partition, at random over patches that are made up; its list is written to `folder`.

    Partitions are not divided below order 13, some 0.4 arcmin, so the patches grow with the number of objects.
    """
    rng = np.random.default_rng(1)
    side_deg = max(1.0, math.sqrt(n_objects / 5_000))
    table = pa.table(
        {
            "object_id": np.arange(n_objects),
            "ra_deg": rng.uniform(149.5, 149.5 + side_deg, n_objects),
            "dec_deg": rng.uniform(1.5, 1.5 + side_deg, n_objects),
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
    n_patches = math.ceil(side_deg / 0.19)
    tiles = [
        make_tile(f"{x},{y}", "i", 149.6 + 0.19 * x, 1.6 + 0.19 * y)
        for x in range(n_patches)
        for y in range(n_patches)
    ]
    model = ModelPlan("gampen", None, ("gampen.pt",), ("0" * 64,), Grid(96, 0.168), ("i",))
    return config, make_plan(config, open_objects(config.objects), tiles, [model])


def processor_s(pids: Sequence[int]) -> float:
    """The processor time of these processes so far, in seconds."""
    tasks_ = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text(encoding="utf-8").split()[0]) for task in tasks_) / 1e9


def resident_mib() -> float:
    """The memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Peak:
    """The most memory of this process at any look."""

    def __init__(self) -> None:
        self.mib = 0.0

    def look(self) -> None:
        """Look at the memory now."""
        self.mib = max(self.mib, resident_mib())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
