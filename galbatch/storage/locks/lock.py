"""Locks, by which one run at a time holds an output: a file with a counter that beats while its run lives."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from galbatch.errors import LockedError, LockLost, UsageError
from galbatch.storage import files
from galbatch.storage.systems import file_system

__all__ = ["Clock", "Lock", "LockHandle"]

# Six beats of five seconds: a few may fail before another run takes the lock for dead.
BEAT_S = 5.0
PERIOD_S = 30.0

# A local lock is changed in place: while its length stays the same, no reader finds a part of it.
LOCK_BYTES = 512

# How often a lock is looked for that is not there, and the time between: one that another run moved aside by mistake is
# put back within a millisecond.
LOOKS, LOOK_AGAIN_S = 3, 0.3

# Time between two looks at another run's lock.
WATCH_S = 1.0


@dataclass(frozen=True)
class Clock:
    """The time by which one process judges locks; it need not agree with that of any other machine."""

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class _Found:
    """A lock file as it was found: its values, and its content and version by which it can be replaced."""

    values: dict[str, Any]
    content: bytes
    version: str

    @property
    def owner(self) -> str:
        """The run that holds the lock; "" while the file is being written."""
        return str(self.values.get("owner", ""))

    @property
    def period_s(self) -> float:
        """The time, as the lock states it, that its counter stands still only if its run is dead."""
        return float(self.values.get("period_s", PERIOD_S))

    @property
    def run(self) -> str:
        return f"process {self.values.get('pid', '?')} on {self.values.get('host', '?')}"


@dataclass(frozen=True)
class LockHandle:
    """Names a lock that a run holds, for the workers of the run.

    Attributes
    ----------
    path : of the lock file
    owner : the run that holds it
    """

    path: str
    owner: str

    def require(self) -> None:
        """Raise an error unless the run still holds the lock.

        Raises
        ------
        LockLost
            Another run took it over, or this run gave it back.
        """
        for look in range(LOOKS):
            # Without the version, which would be another request to an object store.
            found = _read(self.path, with_version=False)
            if found is not None and found.owner == self.owner:
                return
            if found is not None and found.owner:
                break
            if look + 1 < LOOKS:
                time.sleep(LOOK_AGAIN_S)
        raise LockLost(
            f"{_output_of(self.path)}: this run does not hold its lock any more: "
            + (
                f"the run of {found.run} took it over"
                if found is not None
                else "it was given back or removed"
            )
            + "; nothing is written without it"
        )


class Lock:
    """Holds an output for one run, as a context manager.

    The lock file names its owner and has a counter, which a thread raises every `beat_s`. A run that finds a lock watches it:
    if the counter moves, its run lives; if it stands still for as long as the lock itself states, its run is dead, and one of
    those that watch takes it over. Only the watcher's own monotonic clock is asked. Process ids and hosts stand in the file for
    people: in containers every run is process 1 of its host, and ids are used again. On exit the file is removed.

    Parameters
    ----------
    path : str
        Path of the lock file, local or on S3, such as ``catalog_lock.json``.
    beat_s, period_s : float
        Time between two beats, and the time without one after which others take the lock for dead, in seconds.
    waits : bool
        Whether to wait for the run that holds the lock, however long that takes.
    notify : callable
        Takes human-readable lines.
    clock : Clock

    Raises
    ------
    LockedError
        On entering, if another run holds the output.
    """

    def __init__(
        self,
        path: str,
        *,
        beat_s: float = BEAT_S,
        period_s: float = PERIOD_S,
        waits: bool = False,
        notify: Callable[[str], None] = lambda line: None,
        clock: Clock | None = None,
    ) -> None:
        self.path = path
        self._beat_s = beat_s
        self._period_s = period_s
        self._waits = waits
        self._notify = notify
        self._clock = clock or Clock()
        # Process ids are used again, and two hosts may have the same name.
        self._owner = uuid.uuid4().hex
        self._system = file_system(path)
        self._started = ""
        self._n_beats = 0
        self._seen: _Found | None = None
        self._since_s = 0.0
        self._told, self._waits_for = False, ""
        self._took_over = False
        self._stop, self._lost = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def handle(self) -> LockHandle:
        """The values with which the workers of the run check the lock."""
        return LockHandle(self.path, self._owner)

    @property
    def took_over(self) -> bool:
        """Whether the lock was that of a run that had died, and may have left temporary files."""
        return self._took_over

    @property
    def is_lost(self) -> bool:
        """Whether another run was found to have taken the lock over."""
        return self._lost.is_set()

    def __enter__(self) -> Lock:
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with contextlib.ExitStack() as undo:
            # A signal may end the run when the file has just been made.
            undo.callback(self._give_back)
            self._acquire()
            self._thread = threading.Thread(
                target=self._beat_until_stopped, name="galbatch-lock", daemon=True
            )
            self._thread.start()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _give_back(self) -> None:
        """End the beats, and remove the file if this run holds the lock."""
        self._stop.set()
        # A signal may have come while it started: it ends then without a beat.
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        # What the run did stays good without it: a lock that cannot be given back now is taken for dead later.
        with contextlib.suppress(OSError, UsageError):
            # After a beat no other run takes the lock for dead while it is removed.
            if self.beat():
                self._system.remove(self.path)

    def look(self) -> None:
        """Begin to watch the lock if another run holds it, so that entering later need not wait as long."""
        if self._seen is None:
            self._watch(_read(self.path))

    def beat(self) -> bool:
        """Raise the counter once; return whether this run still holds the lock."""
        for look in range(LOOKS):
            found = _read(self.path)
            if found is not None and found.owner == self._owner:
                self._n_beats += 1
                content = self._content()
                if self._system.renew(self.path, content, content=found.content, version=found.version):
                    return True
            elif found is not None and found.owner:
                break
            if look + 1 < LOOKS:
                self._clock.sleep(LOOK_AGAIN_S)
        self._lost.set()
        return False

    def _beat_until_stopped(self) -> None:
        while not self._stop.wait(self._beat_s):
            # While the storage fails, or its credentials have expired, no other run can take the lock over either.
            with contextlib.suppress(OSError, UsageError):
                if not self.beat():
                    return

    def _acquire(self) -> None:
        files.make_folder(os.path.dirname(self.path) or ".")
        while not self._system.create(self.path, self._content()):
            found = _read(self.path)
            if found is None:
                # Removed since: its run has just ended.
                continue
            if found.owner == self._owner:
                # A request was repeated whose first answer was lost.
                return
            moved = self._seen is not None and found.content != self._seen.content
            if moved and not self._waits:
                raise self._refusal(found)
            if not self._told or (moved and found.owner != self._waits_for):
                self._tell(found, lives=moved)
            if moved or self._seen is None:
                self._watch(found)
            elif self._clock.now_s() - self._since_s >= found.period_s and self._take_over(found):
                return
            self._clock.sleep(min(WATCH_S, found.period_s / 4))

    def _watch(self, found: _Found | None) -> None:
        self._seen, self._since_s = found, self._clock.now_s()

    def _take_over(self, found: _Found) -> bool:
        """Replace a dead lock; return whether this run has it now. Of several runs that try, one succeeds."""
        taken = self._system.take_over(
            self.path, self._content(), content=found.content, version=found.version
        )
        if taken:
            self._took_over = True
            self._notify(
                f"{_output_of(self.path)}: the run of {found.run} is dead, its lock has not beaten for "
                f"{found.period_s:g} s; taken over"
            )
        return taken

    def _tell(self, found: _Found, *, lives: bool) -> None:
        """Notify the user that a lock is watched, or that its run is waited for."""
        self._told = True
        run = f"{_output_of(self.path)}: the run of {found.run}"
        if lives:
            self._waits_for = found.owner
            self._notify(f"{run} lives: waiting for it to end")
        else:
            self._notify(f"{run} may be writing it: watching its lock, for {found.period_s:g} s at most")

    def _refusal(self, found: _Found) -> LockedError:
        return LockedError(
            f"{_output_of(self.path)}: held by the run of {found.run}, since {found.values.get('started', '?')}; it is alive, "
            "as its lock's counter moves: wait for it to end (galbatch run --wait-lock does), or stop it"
        )

    def _content(self) -> bytes:
        """Return the lock file as it is to be now; it always has the same length."""
        values = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "beat": self._n_beats,
            "period_s": self._period_s,
        }
        return files.json_bytes(values).ljust(LOCK_BYTES)


def _read(path: str, *, with_version: bool = True) -> _Found | None:
    """Return a lock file; None if it does not exist. One that is being written has no values yet."""
    system = file_system(path)
    try:
        # The version is read before the content: if the file changes in between, replacing this version fails.
        version = system.identity(path).version if with_version else ""
        data = system.read_bytes(path)
    except FileNotFoundError:
        return None
    return _Found(files.parse_json(data) or {}, data, version)


def _output_of(path: str) -> str:
    return path.removesuffix("_lock.json").rstrip("/")
