"""Throughput for people: a page on the Dask dashboard, Prometheus metrics, bars in the terminal."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from bokeh.layouts import column
from bokeh.models import ColumnDataSource, Div
from bokeh.plotting import figure
from distributed import Client, SchedulerPlugin, WorkerPlugin
from distributed.dashboard.core import BokehApplication
from distributed.scheduler import Scheduler
from distributed.worker import Worker
from prometheus_client import Counter
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
from tornado.ioloop import IOLoop

__all__ = [
    "PAGE",
    "CountsOnWorker",
    "GalaxiesPage",
    "ProgressBars",
    "ProgressSink",
    "Silent",
    "count",
    "counts",
    "totals_of",
    "watch",
]

PAGE = "/galaxies"
"""Path of galbatch's page on the Dask dashboard."""

REFRESH_MS = 1000
HISTORY_POINTS = 900  # a quarter of an hour at one point a second


class _Counts:
    """What this process has done; every worker has one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = {"cutouts": 0, "galaxies": 0, "passes": 0}
        self._exported = {
            name: Counter(f"galbatch_{name}", f"{name} done by this process") for name in self._totals
        }

    def add(self, name: str, n: int) -> None:
        with self._lock:
            self._totals[name] += n
        self._exported[name].inc(n)

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._totals)


_COUNTS = _Counts()


def count(*, cutouts: int = 0, galaxies: int = 0, passes: int = 0) -> None:
    """Add to what this process has done; Prometheus exports it under /metrics."""
    for name, n in (("cutouts", cutouts), ("galaxies", galaxies), ("passes", passes)):
        if n:
            _COUNTS.add(name, n)


def counts() -> dict[str, int]:
    """Totals of this process: cutouts, galaxies (inferred), passes."""
    return _COUNTS.snapshot()


class CountsOnWorker(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Send this worker's totals to the scheduler with each heartbeat."""

    name = "galbatch-counts"

    def setup(self, worker: Worker) -> None:
        """Register the metric."""

        async def galaxies(_worker: Worker) -> dict[str, int]:
            return counts()

        worker.metrics["galaxies"] = galaxies


class GalaxiesPage(SchedulerPlugin):  # type: ignore[misc]
    """Put the page ``/galaxies`` on the scheduler's dashboard."""

    name = "galbatch-page"

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page; without a dashboard there is nothing to add it to."""
        if getattr(scheduler, "http_application", None) is None:
            return
        application = BokehApplication({PAGE: _galaxies_page}, scheduler, prefix="", template_variables={})
        scheduler.http_application.add_application(application)
        application.initialize(IOLoop.current())


def watch(client: Client) -> str:
    """Put the page and the counters on a cluster; returns the page's address."""
    client.register_plugin(GalaxiesPage())
    client.register_plugin(CountsOnWorker())
    link: str = client.dashboard_link
    return link.removesuffix("/status") + PAGE


def totals_of(scheduler: Scheduler) -> dict[str, int]:
    """Totals over all workers that are there, from their last heartbeats."""
    result = dict.fromkeys(counts(), 0)
    for worker in scheduler.workers.values():
        for name, n in worker.metrics.get("galaxies", {}).items():
            result[name] += n
    return result


class _Rates:
    """Rates per second from totals seen in turn."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque(maxlen=10)

    def __call__(self, now_s: float, totals: dict[str, int]) -> dict[str, float]:
        self._seen.append((now_s, totals))
        first_s, first = self._seen[0]
        elapsed_s = now_s - first_s
        if elapsed_s <= 0:
            return dict.fromkeys(totals, 0.0)
        # A worker that left takes its totals along: a rate is never negative.
        return {name: max(0.0, (n - first[name]) / elapsed_s) for name, n in totals.items()}


_PANELS = (
    ("cutouts", "Cutouts per second", "#0072b2"),
    ("galaxies", "Galaxies inferred per second", "#d55e00"),
    ("passes", "Monte Carlo passes per second", "#009e73"),
)


def _galaxies_page(scheduler: Scheduler, _extra: dict[str, Any], doc: Any) -> None:
    """Three rates against time, and the totals."""
    source = ColumnDataSource({name: [] for name in ("time", *counts())})
    headline = Div(text=_headline(scheduler, totals_of(scheduler)), sizing_mode="stretch_width")
    rates = _Rates()

    def update() -> None:
        totals = totals_of(scheduler)
        point = {
            "time": [time.time() * 1000.0],
            **{k: [v] for k, v in rates(time.monotonic(), totals).items()},
        }
        source.stream(point, rollover=HISTORY_POINTS)
        headline.text = _headline(scheduler, totals)

    plots = [_panel(source, name, title, color) for name, title, color in _PANELS]
    doc.title = "galbatch: galaxies"
    doc.add_root(column(headline, *plots, sizing_mode="stretch_width"))
    doc.add_periodic_callback(update, REFRESH_MS)


def _panel(source: ColumnDataSource, name: str, title: str, color: str) -> Any:
    plot = figure(
        title=title, x_axis_type="datetime", height=220, sizing_mode="stretch_width", toolbar_location=None
    )
    plot.line("time", name, source=source, line_width=2, color=color)
    plot.varea("time", y1=name, y2=0, source=source, color=color, alpha=0.15)
    plot.y_range.start = 0
    plot.yaxis.axis_label = "1/s"
    return plot


def _headline(scheduler: Scheduler, totals: dict[str, int]) -> str:
    return (
        f"<h2>galbatch</h2><p>{len(scheduler.workers)} workers &middot; {totals['cutouts']:,} cutouts &middot; "
        f"{totals['galaxies']:,} galaxies inferred &middot; {totals['passes']:,} passes</p>"
    )


class ProgressSink(Protocol):
    """What a run tells about its progress."""

    def start(self, stage: str, total: int, done: int) -> None:
        """Announce a stage: objects in all and already there."""

    def advance(self, stage: str, n: int) -> None:
        """`n` more objects of the stage are done."""

    def note(self, line: str) -> None:
        """Tell people something that the run goes on after."""


class Silent:
    """A sink that shows nothing."""

    def start(self, stage: str, total: int, done: int) -> None:
        """Show nothing."""

    def advance(self, stage: str, n: int) -> None:
        """Show nothing."""

    def note(self, line: str) -> None:
        """Show nothing."""


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Objects per second since the start, without those that were there before."""
        elapsed_s = task.elapsed or 0.0
        done = task.completed - task.fields["before"]
        return Text(f"{done / elapsed_s:6.1f}/s" if elapsed_s > 0 and done else "     -/s", style="cyan")


class ProgressBars:
    """Bars in the terminal with counts, rate and time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def on(cls, console: Console) -> Iterator[ProgressBars]:
        """Show bars on `console` while the context lasts."""
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
        """Add a bar for `stage`."""
        self._tasks[stage] = self._progress.add_task(stage, total=total, completed=done, before=done)

    def advance(self, stage: str, n: int) -> None:
        """Move the bar of `stage`."""
        self._progress.advance(self._tasks[stage], n)

    def note(self, line: str) -> None:
        """Print the line above the bars."""
        self._progress.console.print(line, soft_wrap=True, highlight=False, markup=False)
