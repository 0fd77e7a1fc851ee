"""The reporter of a run: it shows what happens, and writes it next to the catalog for others to follow."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

from galbatch import storage
from galbatch.dashboard.events import Event, Tally, utc_now
from galbatch.dashboard.lines import JsonLines
from galbatch.dashboard.sinks import ProgressSink
from galbatch.errors import UsageError

__all__ = ["Reporter", "log_path", "progress_path"]

TICK_S = 1.0
PROGRESS_S = 60.0
"""Time between two lines of progress, and between two writes of the log to an object store."""

STATE_S = 5.0
"""Time between two writes of the file that `galbatch status` reads."""

# Lines that wait while nothing can be written; older ones are dropped, so that a full disk does not fill the memory too.
MAX_LINES = 100_000

# A storm of failures: the log has all of them.
MAX_FAILURES_SHOWN = 20


def log_path(catalog_path: str) -> str:
    """Return the path of the log of a catalog's runs; on an object store it is a folder, as nothing can be appended there."""
    return catalog_path.rstrip("/") + "_log.jsonl"


def progress_path(catalog_path: str) -> str:
    """Return the path of the file that says how far the run is that writes a catalog."""
    return catalog_path.rstrip("/") + "_progress.json"


class Reporter:
    """A sink that passes everything on to another one, adds a line of progress a minute, and keeps log and state next to the catalog.

    The files are written from the first stage on: a run whose inputs are refused leaves none. Use it as a context manager; a thread of its own writes the files, so that a slow disk does not hold the run up. Faults of the
    files end nothing: the outputs say what is done.

    Parameters
    ----------
    display : ProgressSink
        Shows the run to whoever started it.
    catalog_path : str
        Local or S3.
    clock : callable
        Returns the time in seconds, of a monotonic clock.
    """

    def __init__(
        self, display: ProgressSink, catalog_path: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display
        self._log, self._state = log_path(catalog_path), progress_path(catalog_path)
        self._clock = clock
        self._tally = Tally()
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._as_json = JsonLines(self._lines.append)
        self._lock = threading.RLock()
        self._started = utc_now()
        self._has_begun = False
        self._n_states = self._n_parts = self._n_shown = 0
        self._shown_s = self._state_s = self._logged_s = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick_until_stopped, name="galbatch-report", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        ended = "finished" if error is None else f"ended: {error or (kind and kind.__name__)}"
        with self._lock:
            progress = self._tally.progress(self._clock())
            self._as_json.record(Event("end", f"{ended}; {progress.text}", numbers=progress.numbers))
            self._write_state(progress, ended)
            self._write_log()

    # --- what a sink does ----------------------------------------------------------------------------------

    def start(self, stage: str, total: int, done: int) -> None:
        """Begin a stage."""
        with self._lock:
            self._has_begun = True
            self._tally.start(stage, total, done, now_s=self._clock())
            self._as_json.start(stage, total, done)
        self._display.start(stage, total, done)

    def advance(self, stage: str, n: int) -> None:
        """Count objects as done."""
        with self._lock:
            self._tally.advance(stage, n)
        self._display.advance(stage, n)

    def note(self, line: str) -> None:
        """Show and log a line."""
        with self._lock:
            self._as_json.note(line)
        self._display.note(line)

    def record(self, event: Event) -> None:
        """Log an event and show it; of many failures within a minute the first are shown."""
        with self._lock:
            self._as_json.record(event)
            if event.kind == "failed":
                self._tally.n_failed += 1
                self._n_shown += 1
                if self._n_shown == MAX_FAILURES_SHOWN + 1:
                    self._display.note(f"more partitions fail; all are in {self._log}")
                if self._n_shown > MAX_FAILURES_SHOWN:
                    return
        self._display.record(event)

    # --- what happens by the clock -------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due: a line of progress, the state, the log."""
        now_s = self._clock()
        with self._lock:
            progress = self._tally.progress(now_s)
            # Before the first stage there is nothing to count: planning says what it does.
            if self._has_begun and now_s - self._shown_s >= PROGRESS_S:
                self._shown_s, self._n_shown = now_s, 0
                self._tally.sample(now_s)
                self._as_json.record(progress)
                self._display.record(progress)
            if now_s - self._state_s >= STATE_S:
                self._state_s = now_s
                self._write_state(progress, "running")
            # Each write to an object store is a file of its own there.
            if now_s - self._logged_s >= (PROGRESS_S if storage.reads_by_request(self._log) else 0.0):
                self._logged_s = now_s
                self._write_log()

    def _tick_until_stopped(self) -> None:
        while not self._stop.wait(TICK_S):
            self.tick()

    def _write_state(self, progress: Event, state: str) -> None:
        if not self._has_begun:
            return
        self._n_states += 1
        value = {
            **progress.as_json(utc_now()),
            "state": state,
            "started": self._started,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            # Readers see by it that the run lives, without comparing clocks.
            "count": self._n_states,
        }
        folder, _, name = self._state.rpartition("/")
        with _no_faults():
            storage.write_files(folder or ".", {name: [storage.json_bytes(value)]})

    def _write_log(self) -> None:
        if not self._lines or not self._has_begun:
            return
        data = "".join(f"{line}\n" for line in self._lines).encode()
        part = f"{self._started.replace(':', '')}_{self._n_parts:05d}.jsonl"
        with _no_faults():
            storage.append(self._log, data, part=part)
            # Lines that could not be written stay for the next time.
            self._lines.clear()
            self._n_parts += 1


@contextlib.contextmanager
def _no_faults() -> Iterator[None]:
    with contextlib.suppress(OSError, UsageError):
        yield
