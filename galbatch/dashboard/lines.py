"""The progress of a run as lines, where there is no terminal: human-readable ones, or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

from galbatch.dashboard.events import Event, utc_now

__all__ = ["JsonLines", "TextLines"]

SHOWN = ("failed", "progress")
"""Events that are shown as text; a line for each partition that was done would be pages."""


class TextLines:
    """A sink that writes human-readable lines; those of progress begin with the time.

    Parameters
    ----------
    write : callable
        Takes a line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def start(self, stage: str, total: int, done: int) -> None:
        """Write how many objects the stage has."""
        self._write(f"{utc_now()} {stage}: {done} of {total} objects were done before")

    def advance(self, stage: str, n: int) -> None:
        """Write nothing: progress is an event."""

    def note(self, line: str) -> None:
        """Write the line."""
        self._write(line)

    def record(self, event: Event) -> None:
        """Write failures and progress."""
        if event.kind in SHOWN:
            self._write(f"{utc_now()} {event.text}")


class JsonLines:
    """A sink that writes every event as one line of JSON.

    Parameters
    ----------
    write : callable
        Takes a line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def start(self, stage: str, total: int, done: int) -> None:
        """Write how many objects the stage has."""
        text = f"{stage}: {done} of {total} objects were done before"
        self.record(Event("start", text, numbers={"stage": stage, "total": total, "done": done}))

    def advance(self, stage: str, n: int) -> None:
        """Write nothing: the event of the step says it."""

    def note(self, line: str) -> None:
        """Write the line as an event."""
        self.record(Event("note", line))

    def record(self, event: Event) -> None:
        """Write the event."""
        self._write(json.dumps(event.as_json(utc_now())))
