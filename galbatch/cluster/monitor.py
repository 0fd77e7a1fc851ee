"""The workers of a run while it lasts: who is there, who was refused, and since when nobody can do something."""

from __future__ import annotations

import time

from distributed import Client

from galbatch.cluster.checks import HOW_TO_START, Tell
from galbatch.cluster.pool import Pool
from galbatch.cluster.scheduler import refused_workers
from galbatch.config import ClusterConfig
from galbatch.errors import SchedulerLost

__all__ = ["Crew"]

LOOK_S = 1.0
"""Between two looks at the workers; a look is one question to the scheduler."""

RESTART_S = 180
"""At most: a process that imports torch from a busy file system takes minutes."""


class Crew:
    """Keeps an eye on the workers.

    Attributes
    ----------
    refused : addresses of workers that get no work, and why
    """

    def __init__(self, client: Client, cluster: ClusterConfig, tell: Tell) -> None:
        self._client = client
        self._cluster = cluster
        self._tell = tell
        self._looked_s = time.monotonic()
        self._missing_since_s: dict[str, float] = {}
        self.refused: dict[str, str] = {}
        self._pool = Pool.of(client)

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler can be asked now; a connection that was lost is made again where that is possible.

        Raises
        ------
        SchedulerLost
            It is not.
        """
        if self._client.status in ("closing", "closed"):
            raise SchedulerLost(
                f"{self._cluster.scheduler or 'the local scheduler'}: the scheduler is gone; what is done stays: start it again, "
                "and its workers, and the same command goes on from there"
            )
        return bool(self._client.status == "running")

    @property
    def window(self) -> int:
        """Tasks to have under way."""
        return self._pool.window

    def look(self) -> None:
        """See who is there, at most once a second; on a joined scheduler newcomers that are not like this process are refused."""
        if not self.is_connected or time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        known = self._pool
        try:
            self._pool = Pool.of(self._client)
        except OSError:  # the connection is lost: it is made again, or that fails
            return
        if self._cluster.kind == "scheduler" and set(self._pool.threads) - set(known.threads):
            for worker, reason in refused_workers(self._client).items():
                self.refuse(worker, reason)

    def able(self, device: str) -> list[str]:
        """The workers that can compute on `device`."""
        return self._pool.able(device, self.refused)

    def refuse(self, worker: str, reason: str) -> None:
        """Give a worker no more work."""
        if worker not in self.refused:
            self._tell(f"worker {worker} gets no work: {reason}")
        self.refused[worker] = reason

    def restart(self, worker: str) -> None:
        """Start a worker anew; what else it was at is done again, here or on another."""
        if worker not in self._pool.nannied:
            self._tell(f"worker {worker} has no nanny that could start it anew; it goes on as it is")
            return
        # Blocks until it is back: Dask gives the tasks it had to others meanwhile.
        ended = self._client.restart_workers([worker], timeout=RESTART_S, raise_for_error=False)
        self._tell(f"worker {worker} was started anew: {', '.join(ended.values())}")
        self._looked_s = 0.0

    def given_up(self, device: str) -> str | None:
        """Why nothing can be computed on `device` any more; None while it can, or may again."""
        if self.able(device):
            self._missing_since_s.pop(device, None)
            return None
        since_s = self._missing_since_s.get(device)
        wait_s = self._patience_s
        if since_s is None:
            since_s = self._missing_since_s[device] = time.monotonic()
            if wait_s:
                self._tell(
                    f"{self._pool.described(device)}: waiting up to {wait_s:g} s for one that can go on"
                )
        if time.monotonic() - since_s < wait_s:
            return None
        return self._reason(device, wait_s)

    @property
    def _patience_s(self) -> float:
        """Workers that were started here and are there, but unable, stay so; others may come, or be started anew."""
        there = bool(self._pool.threads) and self._cluster.kind != "scheduler"
        return 0.0 if there else self._cluster.wait_s

    def _reason(self, device: str, wait_s: float) -> str:
        parts = [self._pool.described(device) + (f" after {wait_s:g} s" if wait_s else "")]
        parts += [f"{worker} is refused: {reason}" for worker, reason in list(self.refused.items())[:3]]
        if self._cluster.kind == "scheduler":
            command = HOW_TO_START[device].format(address=self._cluster.scheduler)
            parts.append(f"start workers with {command} and run again")
        return "; ".join(parts)
