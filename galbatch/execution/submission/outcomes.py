"""The results and errors of tasks, fetched in the background while the client submits others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

from distributed import CancelledError, Client, Future

from galbatch.errors import WorkerLost

__all__ = ["Outcomes"]

ALONE_S = 0.2
"""Results that are ready wait for the request that is under way, for this time in seconds at most.

The results of all tasks that end meanwhile are then fetched by one request. A worker that does not answer delays the others by
no more."""


class _Request:
    """A request for the results of some finished tasks, and when it was sent."""

    def __init__(self, futures: Sequence[Future]) -> None:
        self.futures = tuple(futures)
        self.sent_s = time.monotonic()
        self.fetched: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()


class Outcomes:
    """Collects the results and errors of tasks, without a round trip to the scheduler and the workers for each task.

    Parameters
    ----------
    client : distributed.Client
        Connection to the workers.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Tasks that ended, and requests that were answered: filled in Dask's threads, emptied in the one that calls `take`.
        self._news: SimpleQueue[Future | _Request] = SimpleQueue()
        self._ready: list[Future] = []
        self._under_way: list[_Request] = []

    def watch(self, future: Future) -> None:
        """Collect the result of this task when it ends."""
        future.add_done_callback(self._news.put)

    def take(self, *, timeout_s: float) -> list[tuple[Future, Any]]:
        """Return the tasks that ended, each with its result or the exception that ended it; each is returned once.

        Parameters
        ----------
        timeout_s : float
            Time to wait for the first one; the list is empty if none comes.
        """
        end_s, outcomes = time.monotonic() + timeout_s, list[tuple[Future, Any]]()
        while not outcomes:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                break
            outcomes = self._read_news(min(left_s, ALONE_S) if self._ready else left_s)
            self._send_due()
        for future, _ in outcomes:
            # Tracebacks of errors hold futures; Dask forgets a task, and its result, only when its futures are released.
            future.release()
        return outcomes

    def _read_news(self, timeout_s: float) -> list[tuple[Future, Any]]:
        """Return the outcomes that are there; tasks whose results are to be fetched become ready."""
        try:
            news = [self._news.get(timeout=timeout_s)]
        except Empty:
            return []
        # Only this thread takes, so that what is there stays there.
        news += [self._news.get() for _ in range(self._news.qsize())]
        outcomes = []
        for one in news:
            if isinstance(one, _Request):
                self._under_way.remove(one)
                outcomes += self._answered(one)
            elif one.status in ("error", "cancelled"):
                outcomes.append((one, _error_of(one)))
            else:
                # Also where its worker has left since: the request then waits until Dask has run it again.
                self._ready.append(one)
        return outcomes

    def _send_due(self) -> None:
        """Ask for the results of the tasks that are ready, unless the last request may be answered any moment."""
        waits = self._under_way and time.monotonic() - self._under_way[-1].sent_s < ALONE_S
        if self._ready and not waits:
            self._send(self._ready)
            self._ready = []

    def _send(self, futures: Sequence[Future]) -> None:
        request = _Request(futures)
        self._under_way.append(request)
        # If a worker leaves before its result was fetched, Dask runs the task again, and the result comes then.
        fetching = self._client.gather(list(futures), direct=False, asynchronous=True)
        request.fetched = asyncio.run_coroutine_threadsafe(fetching, self._client.loop.asyncio_loop)
        request.fetched.add_done_callback(lambda _: self._news.put(request))

    def _answered(self, request: _Request) -> list[tuple[Future, Any]]:
        """Return the outcomes that a request brought."""
        error = CancelledError() if request.fetched.cancelled() else request.fetched.exception()
        if error is None:
            return list(zip(request.futures, request.fetched.result(), strict=True))
        if len(request.futures) == 1:
            return [(request.futures[0], _outcome_of(error))]
        # One of the tasks was canceled since: the others have their results.
        for future in request.futures:
            self._send([future])
        return []


def _error_of(future: Future) -> BaseException:
    """Return the exception that ended a task; it was sent to this process with the end of the task."""
    if future.cancelled():
        return _outcome_of(CancelledError())
    return _outcome_of(future.exception() or CancelledError())


def _outcome_of(error: BaseException) -> BaseException:
    # Canceled by the queue, or by Dask with a connection that was lost: either way its worker counts as lost.
    if isinstance(error, (CancelledError, asyncio.CancelledError, concurrent.futures.CancelledError)):
        return WorkerLost("its worker was lost, or gets no work any more")
    return error
