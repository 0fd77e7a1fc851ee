"""Making the next item while the last one is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["made_ahead"]

Item = TypeVar("Item")
END = object()


@contextmanager
def made_ahead(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """The same items in the same order, each made in another thread while the one before is worked on.

    One item is ahead, never more: two are in memory. What making one raises is raised where it is asked for. With the
    end of the context, however that comes, what is being made is waited for, and the thread ends.

    Parameters
    ----------
    items : made one by one, by this thread alone
    """
    with ThreadPoolExecutor(1, thread_name_prefix="galbatch-ahead") as thread:
        yield _taken(iter(items), thread)


def _taken(items: Iterator[Item], thread: ThreadPoolExecutor) -> Iterator[Item]:
    coming = thread.submit(next, items, END)
    while (item := coming.result()) is not END:
        coming = thread.submit(next, items, END)
        yield item  # type: ignore[misc]
