"""Counts of what each worker has done: exported to Prometheus, and sent to the scheduler with each heartbeat."""

from __future__ import annotations

import threading

from distributed import WorkerPlugin
from distributed.scheduler import Scheduler
from distributed.worker import Worker
from prometheus_client import Counter

__all__ = ["CountsOnWorker", "count", "totals", "totals_of"]


class _Counts:
    """Counters of this process; every worker has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = {"cutouts": 0, "galaxies": 0, "passes": 0}
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


_COUNTS = _Counts()


def count(*, cutouts: int = 0, galaxies: int = 0, passes: int = 0) -> None:
    """Add to what this process has done; Prometheus exports it under /metrics."""
    for name, n in (("cutouts", cutouts), ("galaxies", galaxies), ("passes", passes)):
        if n:
            _COUNTS.add(name, n)


def totals() -> dict[str, int]:
    """Return what this process has done: numbers of cutouts, galaxies (inferred) and passes."""
    return _COUNTS.snapshot()


class CountsOnWorker(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Send this worker's totals to the scheduler with each heartbeat."""

    name = "galbatch-counts"

    def setup(self, worker: Worker) -> None:
        """Register the metric."""

        async def galaxies(_worker: Worker) -> dict[str, int]:
            return totals()

        worker.metrics["galaxies"] = galaxies


def totals_of(scheduler: Scheduler) -> dict[str, int]:
    """Return the totals over all connected workers, from their last heartbeats."""
    result = dict.fromkeys(totals(), 0)
    for worker in scheduler.workers.values():
        for name, n in worker.metrics.get("galaxies", {}).items():
            result[name] += n
    return result
