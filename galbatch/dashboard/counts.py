"""Counts of the work that each worker has done; Prometheus exports them, and heartbeats send them to the scheduler."""

from __future__ import annotations

import threading

from distributed import WorkerPlugin
from distributed.scheduler import Scheduler
from distributed.worker import Worker
from prometheus_client import Counter

__all__ = ["CountsOnWorker", "count", "totals", "totals_of"]


class _Counts:
    """The counters of this process. Every worker process has one instance."""

    def __init__(self) -> None:
        # A worker may have several threads, and += on an entry of a dict is not atomic.
        self._lock = threading.Lock()
        self._totals = {"cutouts": 0, "galaxies": 0, "passes": 0}
        # A Prometheus counter gives its number only through a collection of samples, so the numbers are kept here, too.
        self._exported = {
            name: Counter(f"galbatch_{name}", f"{name} done by this process") for name in self._totals
        }

    def add(self, name: str, n: int) -> None:
        with self._lock:
            self._totals[name] += n
        self._exported[name].inc(n)

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._totals)


# Made once per process: Prometheus refuses a second counter of the same name.
_COUNTS = _Counts()


def count(*, cutouts: int = 0, galaxies: int = 0, passes: int = 0) -> None:
    """Add to the counts of this process, which Dask exports to Prometheus under /metrics."""
    for name, n in (("cutouts", cutouts), ("galaxies", galaxies), ("passes", passes)):
        if n:
            _COUNTS.add(name, n)


def totals() -> dict[str, int]:
    """Return the counts of this process: the numbers of cutouts, of galaxies inferred and of passes, by name."""
    return _COUNTS.snapshot()


class CountsOnWorker(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Dask plugin that sends a worker's counts to the scheduler with each heartbeat."""

    name = "galbatch-counts"

    def setup(self, worker: Worker) -> None:
        """Register the metric with the worker."""

        # Dask calls and awaits each metric at every heartbeat.
        async def galaxies(_worker: Worker) -> dict[str, int]:
            return totals()

        worker.metrics["galaxies"] = galaxies


def totals_of(scheduler: Scheduler) -> dict[str, int]:
    """Return the sums of the counts of all connected workers, as of their last heartbeats."""
    result = dict.fromkeys(totals(), 0)
    for worker in scheduler.workers.values():
        for name, n in worker.metrics.get("galaxies", {}).items():
            result[name] += n
    return result
