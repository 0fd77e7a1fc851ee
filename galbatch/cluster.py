"""Where workers come from. This version: worker processes on this machine."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import dask
from distributed import Client, Future, LocalCluster

from galbatch.config import ClusterConfig
from galbatch.errors import NotInThisVersion

__all__ = ["Workers", "connect", "on_demand", "worker_count"]


def worker_count(cluster: ClusterConfig) -> int:
    """Worker processes to start: as configured, else one per two cores, at least one."""
    return cluster.workers or max(1, (os.cpu_count() or 1) // 2)


@contextmanager
def connect(cluster: ClusterConfig) -> Iterator[Client]:
    """Start workers as configured and connect to them; they end with the context.

    Raises
    ------
    NotInThisVersion
        For kinds other than ``local``.
    """
    if cluster.kind != "local":
        raise NotInThisVersion(
            f"[cluster] kind = {cluster.kind!r} is not in this version; use kind = 'local'"
        )
    # Passes free and take buffers of some MB all the time. With glibc's and Dask's defaults each goes back to the system and
    # comes as fresh pages: that took as much time again as the computing (1.43 against 0.76 ms of processor time a pass).
    kept_by_malloc = {
        f"distributed.nanny.pre-spawn-environ.{name}": 2**28
        for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    }
    # One computing thread a worker (Dask's nannies set OMP_NUM_THREADS=1): workers are
    # the parallelism, and one thread gives the same bits on any machine of a kind.
    with (
        dask.config.set(kept_by_malloc),
        LocalCluster(
            n_workers=worker_count(cluster),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=_free_address(cluster.dashboard_address),
            silence_logs=40,
        ) as local,
        Client(local) as client,
    ):
        yield client


def _free_address(address: str) -> str:
    """`address`, or the same host with port 0 (any) where the port is taken."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return address


def on_demand(cluster: ClusterConfig) -> Workers:
    """Workers as configured that start when they are first needed; a context manager, as they end with it."""
    return Workers(cluster)


class Workers:
    """Workers that start at first use: what is wrong with a run is told before, unless finding it needs them."""

    def __init__(self, cluster: ClusterConfig) -> None:
        self._cluster = cluster
        self._stack = ExitStack()
        self._client: Client | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client = None
        self._stack.close()

    @property
    def client(self) -> Client:
        """The connection; the first use starts the workers. Raises as `connect` does."""
        if self._client is None:
            self._client = self._stack.enter_context(connect(self._cluster))
        return self._client

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Results of ``function(item)``, computed on the workers, in the order of the items.

        Twice as many items as workers are under way at a time. What `function` raises is raised here, and the
        rest is given up.
        """
        client = self.client
        window = 2 * max(1, len(client.scheduler_info()["workers"]))
        pending: deque[Future] = deque()
        try:
            for item in items:
                pending.append(client.submit(function, item, pure=False, retries=0))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            client.cancel(list(pending))
