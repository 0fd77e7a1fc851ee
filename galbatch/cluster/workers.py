"""Workers that are started or joined when they are first needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from distributed import Client, Future

from galbatch.cluster.base import Notify
from galbatch.cluster.pool import Pool
from galbatch.cluster.registry import connect
from galbatch.config import ClusterConfig

__all__ = ["Workers", "on_demand"]


def on_demand(cluster: ClusterConfig, *, notify: Notify = lambda line: None) -> Workers:
    """Return the configured workers, as a context manager; they start when they are first needed, and end with the context."""
    return Workers(cluster, notify=notify)


class Workers:
    """Workers that start at their first use, so that most errors in a run's inputs are found before any worker starts."""

    def __init__(self, cluster: ClusterConfig, *, notify: Notify = lambda line: None) -> None:
        self._cluster = cluster
        self._notify = notify
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
        """The connection to the workers; the first use starts or joins them, and may raise ClusterError."""
        if self._client is None:
            self._client = self._stack.enter_context(connect(self._cluster, notify=self._notify))
        return self._client

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
