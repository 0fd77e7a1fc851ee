"""Workers that fail what others can do: they are started again once, and then get no more work."""

from __future__ import annotations

from galbatch import cluster
from galbatch.cluster import Notify
from galbatch.execution.submission.faults import Fault

__all__ = ["FaultyWorkers"]


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
