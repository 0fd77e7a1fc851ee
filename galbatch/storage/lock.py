"""Locks, by which one run at a time holds an output."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from galbatch.errors import LockedError, OutputError
from galbatch.storage import files
from galbatch.storage.systems import file_system

__all__ = ["Lock"]


@dataclass(frozen=True, slots=True)
class _Held:
    """The lock file of any run, as it was found: its values, and its content and version by which it can be replaced."""

    values: dict[str, Any]
    content: bytes
    version: str

    @property
    def owner(self) -> str | None:
        return self.values.get("owner")

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat."""
        return time.time() - float(self.values.get("heartbeat", time.time()))


class Lock:
    """Holds an output for one run, as a context manager.

    The lock file has the owner, host, process id, start and last heartbeat. It is created only if it does not exist
    (``O_EXCL``; on S3 ``If-None-Match: *``), and a thread renews the heartbeat. A lock whose heartbeat is older than
    `stale_after_s`, or whose process on this host has died, is taken over. On exit the file is removed if this lock still
    holds it.

    Parameters
    ----------
    path : str
        Path of the lock file, local or on S3, such as ``catalog_lock.json``.
    stale_after_s : float
        Age of the last heartbeat, in seconds, from which on a lock counts as abandoned. The default is six heartbeats, so
        that a few may fail.
    heartbeat_s : float
        Time between two heartbeats, in seconds.

    Raises
    ------
    LockedError
        On entering, if another run holds the output.
    """

    def __init__(self, path: str, *, stale_after_s: float = 120.0, heartbeat_s: float = 20.0) -> None:
        self.path = path
        self.stale_after_s = stale_after_s
        self.heartbeat_s = heartbeat_s
        # Process ids are used again, and two hosts may have the same name.
        self._owner = uuid.uuid4().hex
        self._system = file_system(path)
        self._started = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lock:
        self._started = time.time()
        if not self._create() and not self._take_over():
            raise self._locked()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="galbatch-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.is_ours():
            self._system.remove(self.path)

    def is_ours(self) -> bool:
        """Return whether this lock still holds the output; False after another run took it over."""
        held = self._read()
        return held is not None and held.owner == self._owner

    def _content(self) -> bytes:
        return files.json_bytes(
            {
                "owner": self._owner,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self._started,
                "heartbeat": time.time(),
            }
        )

    def _create(self) -> bool:
        """Create the lock file unless it exists; return whether it was created."""
        files.make_folder(os.path.dirname(self.path) or ".")
        return self._system.create(self.path, self._content())

    def _read(self) -> _Held | None:
        """Return the lock file; None if it does not exist."""
        try:
            # The version is read before the content: if the file changes in between, replacing this version fails.
            version = self._system.identity(self.path).version
            data = self._system.read_bytes(self.path)
            values = files.parse_json(data)
            if not values:
                # Its owner has created the file but not yet written it: the file's age is taken for the heartbeat's.
                since = self._system.half_written_since(self.path)
                values = {"heartbeat": time.time() if since is None else since}
        except FileNotFoundError:
            return None
        return _Held(values, data, version)

    def _take_over(self) -> bool:
        """Replace an abandoned lock; return whether this run has it now. If several runs try, one succeeds."""
        held = self._read()
        # Removed since it was found: its run has just ended.
        if held is None:
            return self._create()
        # Processes can be looked up on this host only; elsewhere the heartbeat alone tells.
        is_here = held.values.get("host") == socket.gethostname()
        is_dead = is_here and not _is_alive(int(held.values.get("pid", 0)))
        if not is_dead and time.time() - float(held.values.get("heartbeat", 0.0)) <= self.stale_after_s:
            return False
        return self._system.take_over(self.path, self._content(), content=held.content, version=held.version)

    def _locked(self) -> LockedError:
        held = self._read() or _Held({}, b"", "")
        output = self.path.removesuffix("_lock.json").rstrip("/")
        return LockedError(
            f"{output}: held by the run of process {held.values.get('pid', '?')} on {held.values.get('host', '?')}, "
            f"last heard of {held.silent_s:.0f} s ago; wait for it to end or stop it. If it is dead, its lock is taken over "
            f"when it has been silent for {self.stale_after_s:.0f} s"
        )

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_s):
            # A missed heartbeat does no harm, as other runs wait for six.
            with contextlib.suppress(OSError, OutputError):
                held = self._read()
                if held is None or held.owner != self._owner:
                    return
                self._system.renew(self.path, self._content(), version=held.version)


def _is_alive(pid: int) -> bool:
    # An unknown process counts as alive: the heartbeat decides.
    if pid <= 0:
        return True
    try:
        # Signal 0 only checks whether the process exists.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # The process exists and belongs to somebody else.
        return True
    return True
