"""The page ``/galaxies`` on the Dask dashboard, which plots the rates of a run against time."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from bokeh.layouts import column
from bokeh.models import ColumnDataSource, Div
from bokeh.plotting import figure
from distributed import Client, SchedulerPlugin
from distributed.dashboard.core import BokehApplication
from distributed.scheduler import Scheduler
from tornado.ioloop import IOLoop

from galbatch.dashboard.counts import CountsOnWorker, totals, totals_of

__all__ = ["PAGE", "GalaxiesPage", "watch"]

PAGE = "/galaxies"
"""Path of galbatch's page on the Dask dashboard."""

# More often would show nothing new: workers send their counts with heartbeats, every half second or less often.
REFRESH_MS = 1000
# A quarter of an hour at one point a second.
HISTORY_POINTS = 900


def watch(client: Client) -> str:
    """Add the page and the counters to a cluster, and return the URL of the page."""
    client.register_plugin(GalaxiesPage())
    client.register_plugin(CountsOnWorker())
    # Dask's link leads to its own page, /status.
    link: str = client.dashboard_link
    return link.removesuffix("/status") + PAGE


class GalaxiesPage(SchedulerPlugin):  # type: ignore[misc]
    """Dask plugin that adds the page ``/galaxies`` to the scheduler's dashboard."""

    name = "galbatch-page"
    # A scheduler that several runs join, one after another, has the page already.
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page; does nothing if the scheduler has no dashboard."""
        if getattr(scheduler, "http_application", None) is None:
            return
        application = BokehApplication({PAGE: _galaxies_page}, scheduler, prefix="", template_variables={})
        scheduler.http_application.add_application(application)
        application.initialize(IOLoop.current())


class _Rates:
    """Computes rates per second from the last ten totals, about ten seconds of a run."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque(maxlen=10)

    def __call__(self, now_s: float, totals: dict[str, int]) -> dict[str, float]:
        self._seen.append((now_s, totals))
        first_s, first = self._seen[0]
        elapsed_s = now_s - first_s
        if elapsed_s <= 0:
            return dict.fromkeys(totals, 0.0)
        # When a worker leaves, its counts go with it: without the limit the rate would be negative.
        return {name: max(0.0, (n - first[name]) / elapsed_s) for name, n in totals.items()}


_PANELS = (
    ("cutouts", "Cutouts per second", "#0072b2"),
    ("galaxies", "Galaxies inferred per second", "#d55e00"),
    ("passes", "Monte Carlo passes per second", "#009e73"),
)


def _galaxies_page(scheduler: Scheduler, _extra: dict[str, Any], doc: Any) -> None:
    """Fill a Bokeh document with the totals and with three plots of rates against time."""
    # Bokeh calls this for each browser that opens the page, so each has a history of its own.
    source = ColumnDataSource({name: [] for name in ("time", *totals())})
    headline = Div(text=_headline(scheduler, totals_of(scheduler)), sizing_mode="stretch_width")
    rates = _Rates()

    def update() -> None:
        now = totals_of(scheduler)
        point = {
            # Bokeh's time axis is in milliseconds since 1970.
            "time": [time.time() * 1000.0],
            **{k: [v] for k, v in rates(time.monotonic(), now).items()},
        }
        source.stream(point, rollover=HISTORY_POINTS)
        headline.text = _headline(scheduler, now)

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


def _headline(scheduler: Scheduler, done: dict[str, int]) -> str:
    return (
        f"<h2>galbatch</h2><p>{len(scheduler.workers)} workers &middot; {done['cutouts']:,} cutouts &middot; "
        f"{done['galaxies']:,} galaxies inferred &middot; {done['passes']:,} passes</p>"
    )
