"""The check of a run's locks before workers write, and the end of commits when a run stops.

A commit publishes the file that makes an output count as done, a leaf or the ``_done.json`` of a group, or removes it. Tasks run
in other processes than the run that holds the locks, and may continue after it has lost them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from galbatch.errors import LockLost
from galbatch.storage.locks.lock import LockHandle

__all__ = ["committing", "end_commits", "guarded", "require_held"]

# Shards are written up to 50 times a second, and reading a lock on S3 takes two requests. A run that takes a lock over needs
# longer than this second before it writes.
CHECK_S = 1.0

# The locks that a commit in this thread needs. A context variable, as each thread of a worker may run another task.
_NEEDED: ContextVar[tuple[LockHandle, ...]] = ContextVar("galbatch_locks", default=())


class _Commits:
    """The commits that this process is making, and the runs for which it makes no more."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.underway: Counter[tuple[LockHandle, ...]] = Counter()
        self.ended: set[tuple[LockHandle, ...]] = set()
        self.checked_s: dict[tuple[LockHandle, ...], float] = {}


_COMMITS = _Commits()


@contextlib.contextmanager
def guarded(locks: Sequence[LockHandle]) -> Iterator[None]:
    """Require inside the context that the run still holds these locks, before each commit of this thread."""
    token = _NEEDED.set(tuple(locks))
    try:
        yield
    finally:
        _NEEDED.reset(token)


@contextlib.contextmanager
def committing() -> Iterator[None]:
    """Wrap a commit: it is refused if the run has lost a lock or has ended, and `end_commits` waits for it.

    Raises
    ------
    LockLost
        The run does not hold its locks any more; nothing may be written.
    """
    locks = _NEEDED.get()
    with _COMMITS.changed:
        _refuse_ended(locks)
        _COMMITS.underway[locks] += 1
    try:
        _require(locks)
        yield
    finally:
        with _COMMITS.changed:
            _COMMITS.underway[locks] -= 1
            _COMMITS.changed.notify_all()


def require_held() -> None:
    """Raise an error if the run of this thread's task has lost a lock or has ended; the locks are read once a second at most.

    Raises
    ------
    LockLost
        Nothing may be written.
    """
    locks = _NEEDED.get()
    _refuse_ended(locks)
    if time.monotonic() - _COMMITS.checked_s.get(locks, -CHECK_S) >= CHECK_S:
        _require(locks)


def _refuse_ended(locks: tuple[LockHandle, ...]) -> None:
    if locks in _COMMITS.ended:
        raise LockLost("the run was stopped before this was written; running again makes it")


def _require(locks: tuple[LockHandle, ...]) -> None:
    now_s = time.monotonic()
    for lock in locks:
        lock.require()
    _COMMITS.checked_s[locks] = now_s


def end_commits(locks: Sequence[LockHandle], timeout_s: float) -> bool:
    """Refuse further commits that need these locks in this process, and wait for those underway.

    Returns
    -------
    bool
        Whether none is underway any more; False after `timeout_s` seconds.
    """
    needed, deadline_s = tuple(locks), time.monotonic() + timeout_s
    with _COMMITS.changed:
        _COMMITS.ended.add(needed)
        while _COMMITS.underway[needed]:
            if not _COMMITS.changed.wait(max(0.0, deadline_s - time.monotonic())):
                return False
    return True
