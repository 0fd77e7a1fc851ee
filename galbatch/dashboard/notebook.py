"""The progress of a run in a Jupyter notebook, as HTML that is replaced in place; it needs no ipywidgets."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from galbatch.dashboard.events import Event

__all__ = ["NotebookBars", "in_notebook"]

REFRESH_S = 0.5
"""Least time between two updates: each is a message to the browser, and stays in the notebook's file only as the last one."""

LAST_LINES = 8
"""Lines shown below the bars."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which shows HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class NotebookBars:
    """A sink that shows a bar for each stage, with counts, rate and time left, and the last lines below them.

    Parameters
    ----------
    show : callable
        Shows HTML in place of what it showed before.
    clock : callable
        Returns the time in seconds, of a monotonic clock.
    """

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._stages: dict[str, dict[str, float]] = {}
        self._lines: list[str] = []
        self._shown_s = -REFRESH_S
        # The reporter of a run writes from a thread of its own, too.
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def shown(cls) -> Iterator[NotebookBars]:
        """Show the bars in the notebook's current cell while the context lasts, and their last state after it."""
        # Only called where IPython runs, which is no dependency.
        from IPython.display import HTML, display

        handle: Any = display(HTML(""), display_id=True)
        bars = cls(lambda html: handle.update(HTML(html)))
        try:
            yield bars
        finally:
            bars.refresh()

    def start(self, stage: str, total: int, done: int) -> None:
        """Add a bar for `stage`, which starts at the objects that are done."""
        with self._lock:
            self._stages[stage] = {"total": total, "done": done, "before": done, "since_s": self._clock()}
        self._refresh_if_due()

    def advance(self, stage: str, n: int) -> None:
        """Move the bar of `stage`."""
        with self._lock:
            self._stages[stage]["done"] += n
        self._refresh_if_due()

    def note(self, line: str) -> None:
        """Show a line below the bars."""
        with self._lock:
            self._lines = [*self._lines, line][-LAST_LINES:]
        self._refresh_if_due()

    def record(self, event: Event) -> None:
        """Show failures; the bars show the rest."""
        if event.kind == "failed":
            self.note(event.text)

    def refresh(self) -> None:
        """Show the state now."""
        with self._lock:
            self._shown_s = self._clock()
            html = self._html()
        self._show(html)

    def _refresh_if_due(self) -> None:
        if self._clock() - self._shown_s >= REFRESH_S:
            self.refresh()

    def _html(self) -> str:
        bars = "".join(
            f"<div>{escape(stage)}</div><progress style='width:100%' max='{max(one['total'], 1):.0f}' value='{one['done']:.0f}'>"
            f"</progress><div>{one['done']:.0f} of {one['total']:.0f}{self._rate(one)}</div>"
            for stage, one in self._stages.items()
        )
        lines = "".join(f"<div style='overflow-wrap:anywhere'>{escape(line)}</div>" for line in self._lines)
        grid = "display:grid;grid-template-columns:max-content minmax(4em,20em) auto;gap:.2em .8em;align-items:center"
        return f"<div style='{grid}'>{bars}</div>{lines}"

    def _rate(self, stage: dict[str, float]) -> str:
        seconds, new = self._clock() - stage["since_s"], stage["done"] - stage["before"]
        if new <= 0 or seconds <= 0:
            return ""
        left_s = (stage["total"] - stage["done"]) * seconds / new
        left = f", {left_s // 60:.0f} min {left_s % 60:.0f} s left" if left_s > 0 else ""
        return f", {new / seconds:.1f}/s{left}"
