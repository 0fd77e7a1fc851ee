"""Workers that fail what others can do, by their disk or by their GPU: started again once, then given no more work."""

from __future__ import annotations

from collections import Counter

from galbatch import cluster
from galbatch.cluster import Notify
from galbatch.errors import GpuBroken
from galbatch.execution.submission.faults import Fault

__all__ = ["FaultyGpus", "FaultyWorkers"]

IN_A_ROW = 3
"""So many failures without any success in between are a GPU's own, whatever other GPUs do with the same partitions."""


class FaultyWorkers:
    """Starts a worker again that fails what others can do, and refuses it when it does so once more.

    Parameters
    ----------
    monitor : WorkerMonitor
    notify : callable
        Takes human-readable lines.
    """

    def __init__(self, monitor: cluster.WorkerMonitor, notify: Notify) -> None:
        self._monitor = monitor
        self._notify = notify
        # By addresses that stay when a worker is started again.
        self._restarted: set[str] = set()
        self._refused: set[str] = set()

    def end(self, worker: str, fault: Fault) -> None:
        """Start a worker again, or refuse it if that was done before or cannot be done."""
        origin = self._monitor.origin(worker)
        self._notify(f"worker {worker} fails what others can do: {fault.problem}: {fault.reason}")
        if origin not in self._restarted:
            self._restarted.add(origin)
            if self._monitor.restart(worker):
                return
        self._monitor.refuse(worker, f"it alone fails: {fault.problem}")
        self._refused.add(worker)

    def readmit(self) -> None:
        """Give work again to all that were refused: others fail as well, so that nothing was wrong with these alone."""
        for worker in self._refused:
            self._monitor.readmit(worker)
        self._refused.clear()
        self._restarted.clear()


class FaultyGpus:
    """Starts a worker again whose GPU fails, and refuses it when its GPU fails another partition.

    A partition that fails twice is at fault itself, and what it failed on is not: unless a GPU fails again and again. A GPU is
    known by its host and UUID and by the nanny of its worker, so that it stays the same when the worker is started again.

    Parameters
    ----------
    monitor : WorkerMonitor
    notify : callable
        Takes human-readable lines.
    """

    def __init__(self, monitor: cluster.WorkerMonitor, notify: Notify) -> None:
        self._monitor = monitor
        self._notify = notify
        # The names of each worker's GPU, by its nanny; the partitions that failed on a GPU, and its failures in a row, by each
        # of its names; the workers that were refused, with these names.
        self._names: dict[str, frozenset[str]] = {}
        self._failed: dict[str, set[str]] = {}
        self._in_a_row: Counter[str] = Counter()
        self._refused: dict[str, frozenset[str]] = {}

    def failed(self, partition: str, error: GpuBroken) -> bool:
        """Start the worker again or refuse it; return whether the partition is at fault, else another worker may take it."""
        origin = self._monitor.origin(error.worker)
        names = self._names[origin] = frozenset({origin, error.gpu} - {""})
        is_repeated = any(partition in failed for failed in self._failed.values())
        for name in names:
            self._in_a_row[name] += 1
            self._failed.setdefault(name, set()).add(partition)
        if is_repeated:
            self._acquit(partition)
        if self._is_faulty(names):
            self._refused[error.worker] = names
            self._monitor.refuse(error.worker, f"its GPU fails again: {error}")
            return False
        self._notify(f"partition {partition}: worker {error.worker}: {error}")
        if not self._monitor.restart(error.worker):
            # Without a nanny the process goes on, and after such an error it can use the GPU no more.
            self._monitor.refuse(error.worker, f"{error}; nothing can start it again")
        return is_repeated

    def worked(self, worker: str | None) -> None:
        """Note that a partition has been inferred on this worker."""
        for name in self._names.get(self._monitor.origin(worker), ()) if worker else ():
            self._in_a_row.pop(name, None)

    def others(self, worker: str) -> frozenset[str]:
        """Return the workers that may take a partition that failed on this one: those whose GPUs never failed, if there are any."""
        able = frozenset(self._monitor.able("cuda")) - {worker}
        return frozenset(one for one in able if not self._failed.get(self._monitor.origin(one))) or able

    def _acquit(self, partition: str) -> None:
        """Hold the failures of this partition against no GPU any more."""
        for failed in self._failed.values():
            failed.discard(partition)
        for worker, names in list(self._refused.items()):
            if not self._is_faulty(names):
                del self._refused[worker]
                self._monitor.readmit(worker)

    def _is_faulty(self, names: frozenset[str]) -> bool:
        """Return whether two partitions failed on a GPU, or too many tasks in a row."""
        return any(len(self._failed.get(name, ())) > 1 or self._in_a_row[name] >= IN_A_ROW for name in names)
