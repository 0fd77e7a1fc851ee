"""galbatch's own commands as processes, and what they print while they run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LIMIT_S = 600.0
"""No command takes so long, however busy the machine is; one that does hangs."""

STEPS = ("ingest", "infer")


@dataclass(frozen=True)
class Ended:
    code: int
    stderr: str
    events: list[dict[str, Any]] = field(default_factory=list)
    printed: str = ""


def galbatch(*arguments: object, env: Mapping[str, str]) -> Ended:
    """Run a command to its end."""
    command = [sys.executable, "-m", "galbatch", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, env={**os.environ, **env}, check=False
    )
    return Ended(done.returncode, done.stderr, printed=done.stdout)


class Started:
    """A run of galbatch in a process group of its own, whose events are read as they come."""

    def __init__(self, *arguments: object, env: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "galbatch", *map(str, arguments), "--log-format", "json"]
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in `close`)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        )
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, is_so: Callable[[list[dict[str, Any]]], bool], timeout_s: float = LIMIT_S) -> bool:
        """Wait until `is_so` of the events, or the run has ended, or the time is over; return whether it is so."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not is_so(self.events) and self._reader.is_alive() and time.monotonic() < deadline:
                self._changed.wait(0.2)
            return is_so(self.events)

    def wait_steps(self, n: int) -> bool:
        """Wait until `n` steps of partitions are done, for 0 until the work begins."""
        if not n:
            return self.wait_until(lambda events: any(one["event"] == "start" for one in events))
        return self.wait_until(lambda events: sum(one["event"] in STEPS for one in events) >= n)

    def n_steps(self) -> int:
        """The number of steps of partitions that are done."""
        with self._changed:
            return sum(one["event"] in STEPS for one in self.events)

    def wait_note(self, part: str, timeout_s: float) -> bool:
        """Wait until a note has `part` in its text."""
        return self.wait_until(
            lambda events: any(one["event"] == "note" and part in one["text"] for one in events), timeout_s
        )

    def end(self) -> Ended:
        """Wait until the run has ended; workers that it left behind go on."""
        code = self.process.wait(LIMIT_S)
        # Workers that outlive a killed run hold its stdout: what they would print is not waited for.
        self._reader.join(5.0)
        self._stderr.seek(0)
        return Ended(code, self._stderr.read(), list(self.events))

    def close(self) -> None:
        """Kill what is left of the run's processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(LIMIT_S)
        self._stderr.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
