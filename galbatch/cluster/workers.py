"""Workers that are started or joined when they are first needed, or a little earlier where they surely will be."""

from __future__ import annotations

import concurrent.futures
import contextvars
import importlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from distributed import Client, Future

from galbatch.cluster.base import Notify
from galbatch.cluster.pool import Pool
from galbatch.cluster.registry import connect, kind_of
from galbatch.config import ClusterConfig

__all__ = ["Workers", "on_demand", "to_look"]


def on_demand(cluster: ClusterConfig, *, notify: Notify = lambda line: None, imports: str = "") -> Workers:
    """Return the configured workers, as a context manager; they start when they are first needed, and end with the context.

    Parameters
    ----------
    cluster : ClusterConfig
    notify : callable
        Takes human-readable lines while workers are waited for.
    imports : str
        A module that all tasks need, if the workers will surely be needed: see `Workers.begin`.
    """
    return Workers(cluster, notify=notify, imports=imports)


def to_look(cluster: ClusterConfig) -> Workers:
    """Return workers for a command that looks at a run and computes nothing of it, as a context manager: no job, pod or GPU is asked for.

    They start only if there are many headers to read.
    """
    if kind_of(cluster).only_for_runs:
        return Workers(ClusterConfig(dashboard_address=cluster.dashboard_address))
    return Workers(cluster)


class Workers:
    """Workers that start at their first use, so that most errors in a run's inputs are found before any worker starts."""

    def __init__(
        self, cluster: ClusterConfig, *, notify: Notify = lambda line: None, imports: str = ""
    ) -> None:
        self._cluster = cluster
        self._notify = notify
        self._imports = imports
        self._stack = ExitStack()
        # Dask notes the current client in the context of a thread: it must be forgotten in the context that has it.
        self._context = contextvars.copy_context()
        self._starting: concurrent.futures.Future[Client] | None = None
        self._client: Client | None = None

    def __enter__(self) -> Workers:
        if self._imports:
            kind_of(self._cluster).import_ahead(self._imports)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._starting is not None:
            concurrent.futures.wait([self._starting])
        self._client = None
        self._context.run(self._stack.close)

    def begin(self) -> None:
        """Start the workers in the background if they will surely be needed and are processes of this machine.

        They import what their tasks need meanwhile. Errors are raised by `client`.
        """
        if self._starting is None and self._client is None and self._imports:
            if not kind_of(self._cluster).starts_processes:
                return
            threads = concurrent.futures.ThreadPoolExecutor(1)
            self._starting = threads.submit(self._connected)
            threads.shutdown(wait=False)

    @property
    def client(self) -> Client:
        """The connection to the workers; the first use starts or joins them, and may raise ClusterError."""
        if self._client is None:
            self._client = self._connected() if self._starting is None else self._starting.result()
        return self._client

    def _connected(self) -> Client:
        context = connect(self._cluster, notify=self._notify)
        client = self._context.run(self._stack.enter_context, context)
        if self._imports and kind_of(self._cluster).starts_processes:
            # They import beside what this process does, instead of each at its first task.
            client.run(_import, self._imports, wait=False)
        return client

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield ``function(item)`` for each item, computed on the workers, in the order of the items.

        An exception of `function` is raised here, and the items that are left are canceled.
        """
        client = self.client
        # A bounded number is submitted at a time: millions of headers would fill the scheduler's memory.
        max_submitted = Pool.of(client).max_submitted
        pending: deque[Future] = deque()
        try:
            for item in items:
                # pure=False: a file may have changed since the same question was asked.
                pending.append(client.submit(function, item, pure=False, retries=0))
                if len(pending) >= max_submitted:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            client.cancel(list(pending))


async def _import(name: str) -> None:
    """Import a module in a worker. Asynchronous, as Dask answers before the end of such functions alone."""
    importlib.import_module(name)
