"""The results and errors of tasks, fetched in the background while the client submits others."""

from __future__ import annotations

import asyncio
import concurrent.futures
from queue import Empty, SimpleQueue
from typing import Any

from distributed import CancelledError, Client, Future

from galbatch.errors import WorkerLost

__all__ = ["Outcomes"]


class Outcomes:
    """Collects the results and errors of tasks, without a blocking round trip for each task.

    Dask joins requests for results that come while another one is under way, so with many short tasks a request fetches
    the results of several.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Filled in the thread of the client's event loop, emptied in the one that calls `take`.
        self._arrived: SimpleQueue[tuple[Future, concurrent.futures.Future[Any]]] = SimpleQueue()

    def watch(self, future: Future) -> None:
        """Collect the result of this task when it ends."""
        # If the worker leaves before its result was fetched, Dask runs the task again, and the result comes then.
        fetched = asyncio.run_coroutine_threadsafe(
            self._client.gather(future, asynchronous=True), self._client.loop.asyncio_loop
        )
        fetched.add_done_callback(lambda fetched: self._arrived.put((future, fetched)))

    def take(self, *, timeout_s: float) -> list[tuple[Future, Any]]:
        """Return the tasks that ended, each with its result or the exception that ended it; each is returned once.

        Parameters
        ----------
        timeout_s : float
            Time to wait for the first one; the list is empty if none comes.
        """
        try:
            taken = [self._arrived.get(timeout=timeout_s)]
        except Empty:
            return []
        # Only this thread takes, so that what is there stays there.
        taken += [self._arrived.get() for _ in range(self._arrived.qsize())]
        for future, _ in taken:
            # Tracebacks of errors hold futures; Dask forgets a task, and its result, only when its futures are released.
            future.release()
        return [(future, _outcome(future, fetched)) for future, fetched in taken]


def _outcome(future: Future, fetched: concurrent.futures.Future[Any]) -> Any:
    """Return the result of a task, or the exception that ended it."""
    error = None if fetched.cancelled() else fetched.exception()
    if fetched.cancelled() or isinstance(error, CancelledError):
        # By the queue, or by Dask with a connection that was lost: either way its worker counts as lost.
        return WorkerLost("its worker was lost, or gets no work any more")
    return fetched.result() if error is None else error
