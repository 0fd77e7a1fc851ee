"""Counts of the work that each worker has done or is at, and its GPU: heartbeats send them, and Prometheus exports what is done."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from distributed import WorkerPlugin
from distributed.diagnostics import nvml
from distributed.utils import offload
from distributed.worker import Worker
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = [
    "COUNTED",
    "METRIC",
    "CountsOnWorker",
    "GpuOnWorker",
    "TaskCounts",
    "count",
    "exported_from",
    "totals",
]

COUNTED = ("cutouts", "galaxies", "passes")
"""Names of the counts: cutouts made, galaxies inferred, Monte Carlo passes."""

METRIC = "galbatch"
"""Name of the worker metric that heartbeats carry: the process, its counts, those of before the worker joined, and those under way."""


class _Counts:
    """The counters of this process. Every worker process has one instance."""

    def __init__(self) -> None:
        # A worker may have several threads, and += on an entry of a dict is not atomic.
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(COUNTED, 0)
        self._tasks: list[TaskCounts] = []
        # A worker that reconnects keeps its process, and one that is started again at the same address does not.
        self.process = uuid.uuid4().hex

    def add(self, done: Mapping[str, int], *, ended: TaskCounts | None = None) -> None:
        """Add to the counts; those of a task that has ended are under way no more."""
        # Both at once: a heartbeat in between would show its work twice, or not at all.
        with self._lock:
            for name, n in done.items():
                self._totals[name] += n
            if ended in self._tasks:
                self._tasks.remove(ended)

    def begin(self, task: TaskCounts) -> None:
        with self._lock:
            self._tasks.append(task)

    def snapshot(self) -> tuple[dict[str, int], dict[str, float]]:
        """Return the counts of what is done, and of what tasks are at."""
        with self._lock:
            under_way = {name: sum((task.so_far[name] for task in self._tasks), 0.0) for name in COUNTED}
            return dict(self._totals), under_way


_COUNTS = _Counts()


def count(*, cutouts: int = 0, galaxies: int = 0, passes: int = 0) -> None:
    """Add to the counts of this process, which Dask exports to Prometheus under /metrics."""
    _COUNTS.add({"cutouts": cutouts, "galaxies": galaxies, "passes": passes})


class TaskCounts:
    """The counts of one task while it runs, so that rates do not jump when it ends.

    Use it as a context manager. What is added counts as under way until the task has `finished`, which tells its numbers, or the
    context ends: the work of a task that failed is done again, and counted then.

    Attributes
    ----------
    so_far : the parts that were added, by name
    """

    def __init__(self) -> None:
        self.so_far = dict.fromkeys(COUNTED, 0.0)

    def __enter__(self) -> TaskCounts:
        _COUNTS.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _COUNTS.add({}, ended=self)

    def add(self, *, cutouts: float = 0.0, galaxies: float = 0.0, passes: float = 0.0) -> None:
        """Count a part of the task as under way; a galaxy that one of two networks has inferred is half a one."""
        self.so_far["cutouts"] += cutouts
        self.so_far["galaxies"] += galaxies
        self.so_far["passes"] += passes

    def finished(self, *, cutouts: int = 0, galaxies: int = 0, passes: int = 0) -> None:
        """Count the task's work as done, and none of it as under way."""
        _COUNTS.add({"cutouts": cutouts, "galaxies": galaxies, "passes": passes}, ended=self)


def totals() -> dict[str, int]:
    """Return the counts of this process: the numbers of cutouts, of galaxies inferred and of passes, by name."""
    return _COUNTS.snapshot()[0]


def own_metrics() -> Iterable[Metric]:
    """Yield this process's counts for Prometheus."""
    yield from counters(totals(), "done by this process")


def counters(values: dict[str, int], text: str) -> Iterable[Metric]:
    """Yield counts by name for Prometheus, which adds ``_total`` to ``galbatch_<name>``."""
    for name, n in values.items():
        yield CounterMetricFamily(f"galbatch_{name}", f"{name} {text}", value=n)


class _Export(Collector):
    """The collector that Prometheus asks. Its source is this process's counts, or those of the scheduler that runs in it."""

    def __init__(self) -> None:
        self.source: Callable[[], Iterable[Metric]] = own_metrics

    def collect(self) -> Iterable[Metric]:
        return self.source()


# Made once per process: Prometheus refuses a second metric of the same name.
_EXPORT = _Export()
REGISTRY.register(_EXPORT)


def exported_from(source: Callable[[], Iterable[Metric]]) -> None:
    """Let /metrics of this process export what `source` yields; `own_metrics` is what it does without."""
    _EXPORT.source = source


class CountsOnWorker(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Dask plugin that sends a worker's counts to the scheduler with each heartbeat."""

    name = "galbatch-counts"

    def setup(self, worker: Worker) -> None:
        """Register the metric with the worker."""
        # Work for another scheduler, or for an earlier run, is part of the totals, but not of this scheduler's rates.
        before = totals()

        # Dask calls and awaits each metric at every heartbeat.
        async def counts(_worker: Worker) -> dict[str, Any]:
            done, under_way = _COUNTS.snapshot()
            return {"process": _COUNTS.process, "before": before, "under_way": under_way, **done}

        worker.metrics[METRIC] = counts


class GpuOnWorker(WorkerPlugin):  # type: ignore[misc]
    """Dask plugin that sends the use of a worker's GPU and its memory to the scheduler with each heartbeat.

    Dask has such a metric, but finds out that there is a GPU only after a worker has chosen its metrics.
    """

    name = "galbatch-gpu"

    def setup(self, worker: Worker) -> None:
        """Register the metric with the worker, unless it sees no GPU."""
        # Workers that cut for those with a GPU have an empty list, for which Dask takes the first GPU.
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or nvml.device_get_count() == 0:
            return
        of_device = nvml.one_time()

        async def gpu(_worker: Worker) -> dict[str, Any]:
            # NVML may take milliseconds to answer.
            return {**of_device, **await offload(nvml.real_time)}

        worker.metrics["gpu"] = gpu
