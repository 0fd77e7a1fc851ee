"""The monitor of a run's workers: which are connected, which were refused, and how long none has been able to work."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from distributed import Client

from galbatch.cluster.base import Device, Notify, count_of
from galbatch.cluster.kinds.local import RESTART_S
from galbatch.cluster.pool import Pool
from galbatch.cluster.registry import kind_of
from galbatch.config import ClusterConfig
from galbatch.errors import SchedulerLost

__all__ = ["WorkerMonitor"]

LOOK_S = 1.0
"""Time between two looks at the workers; each look is one request to the scheduler."""

REPLACE_S = 5.0
"""Time between two attempts to replace workers that are gone for good."""


SILENT_S = 15.0
"""A worker that has not reported for this time, in seconds, is silent: each reports every few seconds at least."""


class WorkerMonitor:
    """Watches the workers of a run.

    Parameters
    ----------
    client : distributed.Client
        Connection to the scheduler.
    cluster : ClusterConfig
        The ``[cluster]`` section of the run.
    notify : callable
        Takes human-readable lines.

    Attributes
    ----------
    refused : dict of str
        The reason for each worker that gets no work, by its address.
    """

    def __init__(self, client: Client, cluster: ClusterConfig, notify: Notify) -> None:
        self._client = client
        self._kind = kind_of(cluster)
        self._scheduler = cluster.scheduler or "the local scheduler"
        self._notify = notify
        self._looked_s = time.monotonic()
        # Times by the monotonic clock, which a correction of the machine's clock does not change.
        self._missing_since_s: dict[Device, float] = {}
        self.refused: dict[str, str] = {}
        self._pool = Pool.of(client)
        self._most_workers = 0
        self._replaced_s = 0.0
        self._news, self._news_s = "", 0.0

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler answers now. While Dask tries to reconnect this is False.

        Raises
        ------
        SchedulerLost
            The connection was lost and could not be made again.
        """
        # Dask sets the status to "closed" when its own attempts to reconnect have failed.
        if self._client.status in ("closing", "closed"):
            raise SchedulerLost(
                f"{self._scheduler}: the scheduler is gone; what is done stays: start it again, "
                "and its workers, and the same command continues from there"
            )
        return bool(self._client.status == "running")

    @property
    def max_submitted(self) -> int:
        """The number of tasks that should be submitted at a time."""
        return self._pool.max_submitted

    def look(self) -> None:
        """Ask the scheduler, at most once a second, which workers are connected; refuse new ones that are not suitable."""
        if not self.is_connected or time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        known = self._pool
        self._replace_workers()
        self._notify_of_news()
        try:
            self._pool = Pool.of(self._client)
        except OSError:
            # The connection was just lost: is_connected tells whether it comes back.
            return
        # Checking asks every worker for its versions, so it is done only when a new one has connected.
        if set(self._pool.threads) - set(known.threads):
            for worker, reason in self._kind.refused_workers(self._client).items():
                self.refuse(worker, reason)

    def _replace_workers(self) -> None:
        """Start workers of this run again that are gone for good; asked only while some are missing."""
        n_there, now = len(self._pool.threads), time.monotonic()
        self._most_workers = max(self._most_workers, n_there)
        if n_there == self._most_workers or now - self._replaced_s < REPLACE_S:
            return
        self._replaced_s = now
        if n_started := self._kind.replace_workers(self._client):
            self._notify(f"{count_of(n_started, 'worker')} gone for good: started again")

    def _notify_of_news(self) -> None:
        """Notify the user of workers that are still to come, when there is something new to say."""
        if time.monotonic() - self._news_s < REPLACE_S:
            return
        self._news_s = time.monotonic()
        if (news := self._kind.news(self._client)) != self._news:
            self._news = news
            if news:
                self._notify(news)

    def able(self, device: Device) -> list[str]:
        """Return the addresses of the workers that are to compute on `device`; in a run on GPUs, those without one for the cpu."""
        able = self._pool.able(device, self.refused)
        if device == "cuda" or self._kind.device == "cpu":
            return able
        # A thread that cuts takes Python's lock from the one that feeds the GPU.
        return [worker for worker in able if worker not in self._pool.gpus] or able

    def is_divided(self, device: Device) -> bool:
        """Return whether some connected workers are not to compute on `device`."""
        return bool(self.refused) or (device == "cpu" and len(self.able(device)) < len(self._pool.threads))

    def refuse(self, worker: str, reason: str) -> None:
        """Give a worker no more work; the user is notified once."""
        if worker not in self.refused:
            self._notify(f"worker {worker} gets no work: {reason}")
        self.refused[worker] = reason

    def readmit(self, worker: str) -> None:
        """Give a worker that was refused work again."""
        self.refused.pop(worker, None)

    def origin(self, worker: str) -> str:
        """Return an address that stays when a worker is started again: its nanny's, or its own if it has none."""
        return self._pool.nannies.get(worker, worker)

    def running(self, keys: Collection[str]) -> dict[str, tuple[str, float]]:
        """Return the worker that has each task, and the seconds that it has run, by its key; tasks that wait are left out."""
        if not keys:
            return {}
        try:
            found: dict[str, tuple[str, float]] = self._client.run_on_scheduler(_running, frozenset(keys))
        except OSError:
            # The connection was just lost: is_connected tells whether it comes back.
            return {}
        return found

    def holders(self, keys: Collection[str]) -> list[str]:
        """Return the addresses of the workers that hold the results of finished tasks, only the silent ones if some are."""
        if not keys:
            return []
        try:
            silent_s: dict[str, float] = self._client.run_on_scheduler(_holders, frozenset(keys))
        except OSError:
            return []
        # One request fetches the results of several workers, so that one of them delays what the others hold.
        silent = [worker for worker, seconds in silent_s.items() if seconds > SILENT_S]
        return sorted(silent or silent_s)

    def restart(self, worker: str) -> bool:
        """Restart a worker's process; return False if it has no nanny, the process that can do so.

        Dask runs its other tasks again, there or on another worker.
        """
        if worker not in self._pool.nannies:
            self._notify(f"worker {worker} has no nanny that could start it again; it continues as it is")
            return False
        # Blocks until the worker is back. Meanwhile Dask gives its tasks to others.
        try:
            ended = self._client.restart_workers([worker], timeout=RESTART_S, raise_for_error=False)
        except KeyError:
            # Dask does not know this address any more: the worker has ended meanwhile, and its nanny starts another one.
            ended = {worker: "it had ended already"}
        self._notify(f"worker {worker} was started again: {', '.join(ended.values())}")
        # The next look is due at once, as the worker may have another address now.
        self._looked_s = 0.0
        return True

    def given_up(self, device: Device) -> str | None:
        """Return the reason why nothing can be computed on `device` any more; None while a worker can, or may soon."""
        if self.able(device):
            self._missing_since_s.pop(device, None)
            return None
        since_s = self._missing_since_s.get(device)
        wait_s = self._kind.patience_s(len(self._pool.threads))
        if since_s is None:
            since_s = self._missing_since_s[device] = time.monotonic()
            if wait_s:
                self._notify(
                    f"{self._pool.described(device)}: waiting up to {wait_s:g} s for one that can continue"
                )
        if time.monotonic() - since_s < wait_s:
            return None
        parts = [self._pool.described(device) + (f" after {wait_s:g} s" if wait_s else "")]
        # Three reasons are enough: mostly all workers of a cluster are refused for the same one.
        parts += [f"{worker} is refused: {reason}" for worker, reason in list(self.refused.items())[:3]]
        # Where none can cut, none is there at all: one that can infer does both.
        if command := self._kind.how_to_start(self._kind.device):
            parts.append(f"start workers with {command} and run again")
        return "; ".join(parts)


def _running(keys: Collection[str], dask_scheduler: Any = None) -> dict[str, tuple[str, float]]:
    """Return worker and seconds so far of each of these tasks that a worker has; called in the scheduler's process."""
    tasks = (dask_scheduler.tasks.get(key) for key in keys)
    given = [task for task in tasks if task is not None and task.processing_on is not None]
    # Workers report with their heartbeats what they execute; one that is stopped has not reported since. A task that it was
    # given and never began counts from its last heartbeat: Dask itself would wait five minutes.
    return {
        task.key: (worker.address, worker.executing.get(task, 0.0) + time.time() - worker.last_seen)
        for task in given
        for worker in [task.processing_on]
    }


def _holders(keys: Collection[str], dask_scheduler: Any = None) -> dict[str, float]:
    """Return the workers that hold these tasks' results, and the seconds since each reported; called in the scheduler's process."""
    held = [dask_scheduler.tasks[key].who_has or () for key in keys if key in dask_scheduler.tasks]
    return {worker.address: time.time() - worker.last_seen for workers in held for worker in workers}
