"""Prefetching: other threads make the next items while the caller works on the current one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

__all__ = ["map_in_threads", "prefetch"]

Item = TypeVar("Item")
Result = TypeVar("Result")
# Marks the end of the items. None would not do, because it can be an item.
END = object()


@contextmanager
def prefetch(items: Iterable[Item], *, n_ahead: int = 1) -> Iterator[Iterator[Item]]:
    """Iterate over items in order, while another thread makes the next ones in advance.

    At most ``1 + n_ahead`` items are in memory: the current one and the next `n_ahead`. An exception raised by `items`
    is raised when the caller asks for that item. When the context ends, normally or by an exception, it waits for the
    item that is being made, drops the others, and ends the thread.

    Parameters
    ----------
    items : iterable
        Consumed only by the other thread.
    n_ahead : int
        Number of items to make in advance, at least 1.

    Yields
    ------
    iterator
        Over the items.
    """
    # One thread: a generator raises if two threads advance it at once, and items must keep their order.
    thread = ThreadPoolExecutor(1, thread_name_prefix="galbatch-prefetch")
    try:
        yield _in_order(iter(items), thread, n_ahead)
    finally:
        thread.shutdown(wait=True, cancel_futures=True)


def _in_order(items: Iterator[Item], thread: ThreadPoolExecutor, n_ahead: int) -> Iterator[Item]:
    coming = deque(thread.submit(next, items, END) for _ in range(n_ahead))
    # The future is popped before its result is taken: a future in the deque would keep its item in memory.
    while (item := coming.popleft().result()) is not END:
        coming.append(thread.submit(next, items, END))
        yield item  # type: ignore[misc]


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, n_threads: int
) -> Iterator[Result]:
    """Yield the result of a function for each item, in order, computed in several threads.

    Unlike with `ThreadPoolExecutor.map`, no more than ``2 * n_threads`` results are in memory, however many items there are
    and however slow the caller is. An exception of the function is raised when the caller asks for that result.

    Parameters
    ----------
    function : callable
        Called in the threads, mostly waiting for a disk or a network.
    items : iterable
        Consumed in the caller's thread, a few items ahead.
    n_threads : int
        Number of threads.
    """
    waiting = iter(items)
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="galbatch-map")
    try:
        coming = deque(pool.submit(function, item) for item in islice(waiting, 2 * n_threads))
        while coming:
            result = coming.popleft().result()
            coming.extend(pool.submit(function, item) for item in islice(waiting, 1))
            yield result
    finally:
        # Also if the caller stops early: nothing that was not begun is computed any more.
        pool.shutdown(wait=True, cancel_futures=True)
