"""Workers that start, or are joined, when they are first needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from distributed import Client, Future

from galbatch.cluster.checks import Tell
from galbatch.cluster.connecting import connect
from galbatch.cluster.pool import Pool
from galbatch.config import ClusterConfig

__all__ = ["Workers", "on_demand"]


def on_demand(cluster: ClusterConfig, *, tell: Tell = lambda line: None) -> Workers:
    """Workers as configured that start when they are first needed; a context manager, as they end with it."""
    return Workers(cluster, tell=tell)


class Workers:
    """Workers that start at first use: what is wrong with a run is told before, unless finding it needs them."""

    def __init__(self, cluster: ClusterConfig, *, tell: Tell = lambda line: None) -> None:
        self._cluster = cluster
        self._tell = tell
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
            self._client = self._stack.enter_context(connect(self._cluster, tell=self._tell))
        return self._client

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Results of ``function(item)``, computed on the workers, in the order of the items.

        A bounded window of items is under way at a time. What `function` raises is raised here, and the
        rest is given up.
        """
        client = self.client
        window = Pool.of(client).window
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
