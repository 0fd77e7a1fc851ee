"""Making the next items in another thread while the last one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["prefetch"]

Item = TypeVar("Item")
END = object()


@contextmanager
def prefetch(items: Iterable[Item], *, n_ahead: int = 1) -> Iterator[Iterator[Item]]:
    """Iterate over items that another thread makes in advance, in their order.

    While one item is worked on, the next `n_ahead` are made: ``1 + n_ahead`` are in memory, never more. An exception
    raised while an item is made comes where that item is asked for. When the context ends, however it ends, the item
    being made is waited for, those not yet begun are dropped, and the thread ends.

    Parameters
    ----------
    items : iterable
        Consumed by the other thread alone.
    n_ahead : int
        Number of items to make in advance, at least 1.

    Yields
    ------
    iterator over the items
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="galbatch-prefetch")
    try:
        yield _in_order(iter(items), thread, n_ahead)
    finally:
        thread.shutdown(wait=True, cancel_futures=True)


def _in_order(items: Iterator[Item], thread: ThreadPoolExecutor, n_ahead: int) -> Iterator[Item]:
    coming = deque(thread.submit(next, items, END) for _ in range(n_ahead))
    # The future is popped before it is waited for: one that was kept would keep its item in memory.
    while (item := coming.popleft().result()) is not END:
        coming.append(thread.submit(next, items, END))
        yield item  # type: ignore[misc]
