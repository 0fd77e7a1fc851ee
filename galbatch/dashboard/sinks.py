"""Receivers of a run's progress: bars in the terminal, or nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from galbatch.dashboard.events import Event

__all__ = ["ProgressBars", "ProgressSink", "Silent"]


class ProgressSink(Protocol):
    """A receiver of a run's progress."""

    def start(self, stage: str, total: int, done: int) -> None:
        """Begin a stage of `total` objects, of which `done` were done by earlier runs."""

    def advance(self, stage: str, n: int) -> None:
        """Count `n` further objects of the stage as done."""

    def note(self, line: str) -> None:
        """Show a human-readable line; the run continues."""

    def record(self, event: Event) -> None:
        """Show or keep an event."""


class Silent:
    """A sink that shows nothing."""

    def start(self, stage: str, total: int, done: int) -> None:
        """Show nothing."""

    def advance(self, stage: str, n: int) -> None:
        """Show nothing."""

    def note(self, line: str) -> None:
        """Show nothing."""

    def record(self, event: Event) -> None:
        """Show nothing."""


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Return the rate in objects per second since the start."""
        # Objects of earlier runs took no time of this one.
        elapsed_s = task.elapsed or 0.0
        done = task.completed - task.fields["before"]
        return Text(f"{done / elapsed_s:6.1f}/s" if elapsed_s > 0 and done else "     -/s", style="cyan")


class ProgressBars:
    """Progress bars in the terminal, one for each stage, with counts, rate and time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def on(cls, console: Console) -> Iterator[ProgressBars]:
        """Show the bars on `console` while the context lasts."""
        columns = (
            TextColumn("{task.description:>9}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield cls(progress)

    def start(self, stage: str, total: int, done: int) -> None:
        """Add a bar for `stage`, which starts at the objects that are done."""
        self._tasks[stage] = self._progress.add_task(stage, total=total, completed=done, before=done)

    def advance(self, stage: str, n: int) -> None:
        """Move the bar of `stage`."""
        self._progress.advance(self._tasks[stage], n)

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        # rich would break the line at the terminal's width, and read brackets in paths as markup.
        self._progress.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def record(self, event: Event) -> None:
        """Print failures above the bars; the bars show the rest."""
        if event.kind == "failed":
            self.note(event.text)
