"""How long would 10^9 galaxies take on 8 to 512 GPUs, with slow workers, preemption and failures, and how much work is lost?

A simulation, seeded: the run's own submission queue decides what is submitted when, what is tried again and what is given up;
workers, their speed and their faults are made up here and take no time. Each worker has one GPU, which infers one partition at
a time, and threads that cut. What a task takes beside its objects, how tasks scatter, how fast a thread cuts and how many passes a
galaxy takes are measured (`task_times.py`, `stopping.py`); the speed of a GPU and the faults are assumptions: see `Rates`.
Run: python benchmarks/survey_scale.py [GALAXIES]
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from harness import RESULTS

from galbatch import dashboard
from galbatch.config import RunConfig
from galbatch.execution import tasks
from galbatch.execution.submission import Attempt, SubmissionQueue, pausing, queue, sending

HOUR_S = 3600.0


MEASURED = ("passes", "cutouts_per_s", "start_s", "start_cutting_s", "scatter")
"""The rates that other benchmarks measure; no GPU was measured, and faults are nobody's to measure here."""


@dataclass(frozen=True)
class Rates:
    """The speeds and faults of the simulation; `measured` replaces what other benchmarks have measured.

    Attributes
    ----------
    passes_per_s : passes of one object that a GPU makes in a second, at 239 px (an aim, not measured)
    passes : mean number of passes an object
    cutouts_per_s : objects that one thread cuts in a second, at 239 px, with mask and variance
    cutting_threads : threads of a worker that cut
    start_s, start_cutting_s : time of a task beside its objects, of one that infers and one that cuts: opening files, committing
    scatter : standard deviation of the logarithm of a task's time
    slow, slow_factor : share of the tasks that take longer, and how many times as long
    lost_every_h, back_after_h : mean time after which a worker is taken away, and until another takes its place
    passing, broken : share of the tasks that fail once with an I/O error, and of the partitions that always fail
    """

    passes_per_s: float = 10_000.0
    passes: float = 44.0
    cutouts_per_s: float = 250.0
    cutting_threads: int = 3
    start_s: float = 2.0
    start_cutting_s: float = 2.0
    scatter: float = 0.1
    slow: float = 0.01
    slow_factor: float = 5.0
    lost_every_h: float = 24.0
    back_after_h: float = 1 / 6
    passing: float = 0.002
    broken: float = 1e-4

    @classmethod
    def measured(cls) -> Rates:
        """Return the rates with the values of the last kept runs of `task_times.py` and `stopping.py`."""
        times = json.loads((RESULTS / "task_times.json").read_text(encoding="utf-8"))["measured"]
        stopping = json.loads((RESULTS / "stopping_of_full_width.json").read_text(encoding="utf-8"))
        return cls(
            passes=stopping["learned"]["mean_passes"],
            cutouts_per_s=1 / times["ingest"]["object_s"],
            start_s=times["infer"]["start_s"],
            start_cutting_s=times["ingest"]["start_s"],
            scatter=max(one["scatter"] for one in times.values()),
        )


@dataclass
class Future:
    """A submitted task, as the queue and the simulated scheduler see it."""

    key: str
    step: str
    part: Any
    worker: int = -1
    started_s: float = 0.0
    status: str = "pending"


@dataclass
class Simulated:
    """A simulated scheduler with its workers and their clock; it stands for Dask's client, its outcomes and the monitor.

    Attributes
    ----------
    gpu_s : time that GPUs worked, in seconds; of it `lost_s` on tasks that did not end
    """

    rates: Rates
    n_workers: int
    rng: np.random.Generator
    now: float = 0.0
    status: str = "running"
    refused: dict[str, str] = field(default_factory=dict)
    is_connected: bool = True
    gpu_s: float = 0.0
    lost_s: float = 0.0
    n_lost: int = 0

    def __post_init__(self) -> None:
        self.events: list[tuple[float, int, str, Any]] = []
        self.n_events = 0
        self.waiting: dict[str, deque[Future]] = {"ingest": deque(), "infer": deque()}
        # Places where a task can run; a worker that was taken away has none.
        self.free = {
            "infer": set(range(self.n_workers)),
            "ingest": {
                (w, thread) for w in range(self.n_workers) for thread in range(self.rates.cutting_threads)
            },
        }
        self.away: set[int] = set()
        self.begun: dict[str, Future] = {}  # tasks that run, by their keys
        for worker in range(self.n_workers):
            self._later(self.rng.exponential(self.rates.lost_every_h * HOUR_S), "lost", worker)

    # --- the client and the monitor that the queue asks --------------------------------------------------------

    @property
    def max_submitted(self) -> int:
        """As `galbatch.cluster.Pool`: a task for each thread, and another for each worker."""
        return (self.n_workers - len(self.away)) * (self.rates.cutting_threads + 2)

    def able(self, device: str) -> range:
        """The workers that are there."""
        return range(self.n_workers - len(self.away))

    def is_divided(self, device: str) -> bool:
        """Every worker cuts and infers here."""
        return False

    def look(self) -> None:
        """Nothing to ask for."""

    def given_up(self, device: str) -> None:
        """Workers come back."""

    def running(self, keys: list[str]) -> dict[str, tuple[str, float]]:
        """The worker and the time of the tasks that run."""
        ran = {key: self.begun[key] for key in keys if key in self.begun}
        return {key: (str(one.worker), self.now - one.started_s) for key, one in ran.items()}

    def holders(self, keys: list[str]) -> list[str]:
        """Results come at once."""
        return []

    def cancel(self, futures: list[Future]) -> None:
        """Nothing is canceled, as no worker is refused and no task hangs."""

    def map(
        self, function: Any, waiting: Sequence[tuple[str, Any]], *, key: Sequence[str], **_: Any
    ) -> list[Future]:
        """Take tasks, and start those for which there is room."""
        futures = [Future(name, *task) for name, task in zip(key, waiting, strict=True)]
        for future in futures:
            self.waiting[future.step].append(future)
        self._start()
        return futures

    def watch(self, future: Future) -> None:
        """All tasks are watched."""

    def take(self, *, timeout_s: float) -> list[tuple[Future, Any]]:
        """Return the next task that ends, and advance the clock to its end, or by the timeout."""
        until = self.now + timeout_s
        while self.events and self.events[0][0] <= until:
            self.now, _, kind, what = heapq.heappop(self.events)
            if kind == "lost":
                self._lose(what)
            elif kind == "back":
                self._return(what)
            elif self.begun.get(what.key) is what:
                outcome = self._end(what)
                self._start()
                return [(what, outcome)]
        self.now = until
        return []

    # --- what happens there ------------------------------------------------------------------------------------

    def _later(self, after_s: float, kind: str, what: Any) -> None:
        self.n_events += 1
        heapq.heappush(self.events, (self.now + after_s, self.n_events, kind, what))

    def _start(self) -> None:
        for step, free in self.free.items():
            while free and self.waiting[step]:
                future, place = self.waiting[step].popleft(), free.pop()
                future.worker = place if step == "infer" else place[0]
                future.place, future.started_s = place, self.now
                self.begun[future.key] = future
                self._later(self._duration_s(future), "ended", future)

    def _duration_s(self, future: Future) -> float:
        rates, n_objects = self.rates, future.part.partition.n_objects
        infers = future.step == "infer"
        of_one = rates.passes / rates.passes_per_s if infers else 1 / rates.cutouts_per_s
        start_s = rates.start_s if infers else rates.start_cutting_s
        slow = rates.slow_factor if self.rng.random() < rates.slow else 1.0
        return (start_s + n_objects * of_one) * slow * self.rng.lognormal(0.0, rates.scatter)

    def _end(self, future: Future) -> Any:
        del self.begun[future.key]
        self.free[future.step].add(future.place)
        spent_s = (self.now - future.started_s) * (future.step == "infer")
        self.gpu_s += spent_s
        if future.part.is_broken and future.step == "infer":
            self.lost_s += spent_s
            return ValueError("this partition always fails")
        if self.rng.random() < self.rates.passing:
            self.lost_s += spent_s
            return OSError(errno.EPIPE, "broken pipe")
        partition = future.part.partition
        return tasks.TaskResult(partition, partition.n_objects, 0, 0, self.now - future.started_s)

    def _lose(self, worker: int) -> None:
        """Take a worker away; Dask gives its tasks to others, first of all that wait."""
        self.away.add(worker)
        self.n_lost += 1
        for future in [one for one in self.begun.values() if one.worker == worker]:
            del self.begun[future.key]
            spent_s = (self.now - future.started_s) * (future.step == "infer")
            self.gpu_s += spent_s
            self.lost_s += spent_s
            again = Future(future.key, future.step, future.part)
            self.waiting[future.step].appendleft(again)
        self.free["infer"].discard(worker)
        self.free["ingest"] = {place for place in self.free["ingest"] if place[0] != worker}
        self._later(self.rates.back_after_h * HOUR_S, "back", worker)
        self._start()

    def _return(self, worker: int) -> None:
        self.away.discard(worker)
        self.free["infer"].add(worker)
        self.free["ingest"] |= {(worker, thread) for thread in range(self.rates.cutting_threads)}
        self._later(self.rng.exponential(self.rates.lost_every_h * HOUR_S), "lost", worker)
        self._start()


@contextlib.contextmanager
def simulated_queue(simulated: Simulated) -> Iterator[None]:
    """Give the submission queue the simulated client, outcomes, monitor and clock."""
    clock = SimpleNamespace(monotonic=lambda: simulated.now, sleep=lambda seconds: None)
    with contextlib.ExitStack() as stack:
        for module in (queue, pausing):
            stack.enter_context(mock.patch.object(module, "time", clock))
        stack.enter_context(mock.patch.object(queue, "Outcomes", return_value=simulated))
        stack.enter_context(mock.patch.object(queue.cluster, "WorkerMonitor", return_value=simulated))
        stack.enter_context(mock.patch.object(sending, "packed", lambda function, task, locks: task))
        stack.enter_context(mock.patch.object(tasks, "ingest_task", lambda plan, part, **_: ("ingest", part)))
        stack.enter_context(mock.patch.object(tasks, "infer_task", lambda plan, part, **_: ("infer", part)))
        yield


def divide(n_galaxies: int, max_objects: int, rates: Rates, rng: np.random.Generator) -> list[Any]:
    """Partitions as a plan has them: a pixel is split in four while it holds more than the limit."""
    sizes = np.empty(0, int)
    while sizes.sum() < n_galaxies:
        # So the logarithm of their size is uniform between a quarter of the limit and the limit.
        more = (max_objects * 4.0 ** -rng.random(n_galaxies // max_objects + 1)).astype(int)
        sizes = np.concatenate([sizes, more])
    sizes = sizes[: np.searchsorted(sizes.cumsum(), n_galaxies) + 1]
    broken = rng.random(len(sizes)) < rates.broken
    return [
        SimpleNamespace(
            partition=SimpleNamespace(name=f"partition {number}", n_objects=int(size)), is_broken=bool(bad)
        )
        for number, (size, bad) in enumerate(zip(sizes, broken, strict=True))
    ]


def run(n_galaxies: int, n_gpus: int, max_objects: int, *, rates: Rates, seed: int = 1) -> dict[str, Any]:
    """Simulate a run; return its time, cost and waste."""
    rng = np.random.default_rng(seed)
    parts = divide(n_galaxies, max_objects, rates, rng)
    simulated = Simulated(rates, n_gpus, rng)
    config = RunConfig(
        survey={"layout": "hsc", "tiles": "s3://survey", "bands": ("i",)},
        objects={"path": "objects.parquet"},
        models=[{"name": "gampen", "bundle": "gampen.pt"}],
        cluster={"kind": "scheduler", "scheduler": "tcp://127.0.0.1:8786", "device": "cuda"},
    )
    n_done = 0

    def next_attempt(attempt: Attempt, result: tasks.TaskResult) -> Attempt | None:
        nonlocal n_done
        if attempt.step == "ingest":
            return Attempt(attempt.part, "infer", n_failed=attempt.n_failed)
        n_done += result.n_objects
        return None

    started = time.perf_counter()
    with simulated_queue(simulated):
        plan = SimpleNamespace(models=[SimpleNamespace(name="gampen")])
        work = SubmissionQueue(config, plan, simulated, next_attempt=next_attempt, sink=dashboard.Silent())
        work.work([Attempt(part, "ingest") for part in parts])
    n_objects = sum(part.partition.n_objects for part in parts)
    n_missed = sum(part.partition.n_objects for part in parts if part.partition.name in work.failed)
    if n_done + n_missed != n_objects:
        raise SystemExit(f"{n_done} done and {n_missed} failed are not {n_objects}")
    ideal_s = n_objects * rates.passes / rates.passes_per_s
    return {
        "galaxies": n_objects,
        "gpus": n_gpus,
        "max_objects_per_partition": max_objects,
        "partitions": len(parts),
        "hours": round(simulated.now / HOUR_S, 2),
        "gpu_hours": round(n_gpus * simulated.now / HOUR_S, 2),
        "gpu_hours_without_faults": round(ideal_s / HOUR_S, 2),
        "share_lost": round(simulated.lost_s / simulated.gpu_s, 4),
        "share_idle": round(1 - simulated.gpu_s / (n_gpus * simulated.now), 4),
        "workers_lost": simulated.n_lost,
        "partitions_failed": len(work.failed),
        "queue_ms_a_task": round(1e3 * (time.perf_counter() - started) / (2 * len(parts)), 3),
    }


def main(n_galaxies: int = 1_000_000_000) -> None:
    """Simulate runs on more and more GPUs, and with smaller and larger partitions; report."""
    rates, rows = Rates.measured(), []
    for n_gpus, max_objects in ((8, 20_000), (64, 20_000), (512, 20_000), (512, 80_000), (512, 5_000)):
        rows.append(run(n_galaxies, n_gpus, max_objects, rates=rates))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    split = {
        kind: {name: value for name, value in asdict(rates).items() if (name in MEASURED) == is_measured}
        for kind, is_measured in (("measured", True), ("assumed", False))
    }
    content = {"question": __doc__.splitlines()[0], **split, "simulated": rows}
    (RESULTS / "survey_scale.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
