"""Counts of the work that each worker has done; heartbeats send them to the scheduler, and Prometheus exports them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from distributed import WorkerPlugin
from distributed.worker import Worker
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["COUNTED", "METRIC", "CountsOnWorker", "count", "exported_from", "totals"]

COUNTED = ("cutouts", "galaxies", "passes")
"""Names of the counts: cutouts made, galaxies inferred, Monte Carlo passes."""

METRIC = "galbatch"
"""Name of the worker metric that heartbeats carry: the process, its counts, and those of before the worker joined."""


class _Counts:
    """The counters of this process. Every worker process has one instance."""

    def __init__(self) -> None:
        # A worker may have several threads, and += on an entry of a dict is not atomic.
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(COUNTED, 0)
        # A worker that reconnects keeps its process, and one that is started again at the same address does not.
        self.process = uuid.uuid4().hex

    def add(self, name: str, n: int) -> None:
        with self._lock:
            self._totals[name] += n

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._totals)


_COUNTS = _Counts()


def count(*, cutouts: int = 0, galaxies: int = 0, passes: int = 0) -> None:
    """Add to the counts of this process, which Dask exports to Prometheus under /metrics."""
    for name, n in (("cutouts", cutouts), ("galaxies", galaxies), ("passes", passes)):
        if n:
            _COUNTS.add(name, n)


def totals() -> dict[str, int]:
    """Return the counts of this process: the numbers of cutouts, of galaxies inferred and of passes, by name."""
    return _COUNTS.snapshot()


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
            return {"process": _COUNTS.process, "before": before, **totals()}

        worker.metrics[METRIC] = counts
