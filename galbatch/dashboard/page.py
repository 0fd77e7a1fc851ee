"""The page ``/galaxies`` on the Dask dashboard: a scheduler plugin that keeps the state of runs, and serves it as HTML."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
from distributed import Client, SchedulerPlugin
from distributed.protocol import pickle
from distributed.scheduler import Scheduler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from tornado.ioloop import PeriodicCallback
from tornado.web import RequestHandler

from galbatch.dashboard.broadcast import HANDLER, RunNews
from galbatch.dashboard.counts import (
    COUNTED,
    METRIC,
    CountsOnWorker,
    GpuOnWorker,
    counters,
    exported_from,
    own_metrics,
)
from galbatch.dashboard.history import Course, Workers
from galbatch.dashboard.view import WorkerView, render_page, render_state, worker_view

__all__ = ["PAGE", "GalaxiesPage", "watch"]

PAGE = "/galaxies"
"""Path of galbatch's page on the Dask dashboard."""

# More often would show nothing new: workers send their counts with heartbeats, every half second or less often.
LOOK_MS = 1000


def watch(client: Client) -> str:
    """Add the page and the counters to a cluster, and return the URL of the page."""
    client.register_plugin(GalaxiesPage())
    client.register_plugin(CountsOnWorker())
    client.register_plugin(GpuOnWorker())
    # Dask's link leads to its own page, /status.
    link: str = client.dashboard_link
    return link.removesuffix("/status") + PAGE


class GalaxiesPage(SchedulerPlugin):  # type: ignore[misc]  # distributed has no types
    """Dask plugin that keeps what runs and workers did, and adds the page ``/galaxies`` to the scheduler's dashboard.

    The state lives here, so whoever opens the page late sees all of the run.

    Parameters
    ----------
    clock : callable
        Returns the time in seconds, of a monotonic clock.
    """

    name = "galbatch-page"
    # A scheduler that several runs join, one after another, has the page already.
    idempotent = True

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._workers = Workers(COUNTED)
        self._so_far: tuple[float, ...] = (0.0,) * len(COUNTED)
        self._news: RunNews | None = None
        self._displaced: set[str] = set()
        self._course: Course | None = None
        # The state is rendered once a look, however many browsers ask.
        self._rendered: tuple[int, bytes] = (-1, b"")
        self._looks = 0

    async def start(self, scheduler: Scheduler) -> None:
        """Begin to look at the workers; add the page to the scheduler's server and to the menu of Dask's pages."""
        self._scheduler = scheduler
        self._periodic = PeriodicCallback(self.look, LOOK_MS)
        self._periodic.start()
        exported_from(self.metrics)
        scheduler.handlers[HANDLER] = self._receive
        # Behind a proxy the paths have a prefix, which the scheduler was told (--dashboard-prefix).
        routes = [(rf"(?:/.*)?{PAGE}", _Page), (rf"(?:/.*)?{PAGE}/now", _State, {"page": self})]
        scheduler.http_application.add_handlers(r".*$", routes)
        _add_to_menu(scheduler)

    async def close(self) -> None:
        """Stop looking."""
        self._periodic.stop()
        exported_from(own_metrics)

    async def _receive(self, news: bytes) -> None:
        self.take(pickle.loads(news))

    def take(self, news: RunNews) -> None:
        """Take the news of a run; a run that was not known begins a new course."""
        self.look()
        if news.run in self._displaced:
            # Two runs at once: the page is of the one that began last, as the scheduler has heard. Their clocks may differ.
            return
        if self._news is None or self._news.run != news.run:
            self._course = Course(self._clock(), self._so_far)
            self._displaced |= {self._news.run} if self._news is not None else set()
        self._news = news

    def look(self) -> None:
        """Take the counts of the last heartbeats."""
        now_s = self._clock()
        metrics = [worker.metrics.get(METRIC) for worker in self._scheduler.workers.values()]
        seen = [self._workers.see(metric, now_s) for metric in metrics if metric]
        # The tasks of workers that are gone are under way no more.
        under_way = np.sum([one.under_way for one in seen], axis=0) if seen else 0.0
        self._so_far = tuple((np.asarray(self._workers.worked) + under_way).tolist())
        # The course of a run ends with it, so that it can be looked at the next morning; its last counts come later.
        if self._course is not None and (self._news is None or self._news.is_running):
            self._course.add(now_s, self._so_far)
        elif self._course is not None:
            self._course.settle(self._so_far)
        self._looks += 1

    def rendered(self) -> bytes:
        """Return the state as HTML, encoded."""
        if self._rendered[0] != self._looks:
            html = render_state(self._news, self._course, self._views())
            self._rendered = (self._looks, html.encode())
        return self._rendered[1]

    def _views(self) -> list[WorkerView]:
        now_s = self._clock()
        views = []
        for state in self._scheduler.workers.values():
            metric = state.metrics.get(METRIC)
            rates = self._workers.see(metric, now_s).rates(now_s) if metric else (0.0,) * len(COUNTED)
            views.append(worker_view(state, rates))
        return views

    def metrics(self) -> Iterable[Metric]:
        """Yield the sums over all workers, and the state of the run, for Prometheus."""
        yield from counters(self._workers.totals(), "done by all workers of this scheduler")
        if (news := self._news) is None:
            return
        objects = GaugeMetricFamily("galbatch_objects", "objects of the run", labels=["stage", "state"])
        for stage in news.stages:
            objects.add_metric([stage.name, "all"], stage.total)
            objects.add_metric([stage.name, "done"], stage.done)
        yield objects
        yield GaugeMetricFamily("galbatch_failed_partitions", "partitions given up", value=news.n_failed)
        yield CounterMetricFamily("galbatch_retries", "attempts that were made again", value=news.n_retries)


class _Page(RequestHandler):
    """Serves the page, whose script asks for the state."""

    def get(self) -> None:
        self.write(render_page())


class _State(RequestHandler):
    """Serves the state as a piece of HTML."""

    def initialize(self, page: GalaxiesPage) -> None:
        self._page = page

    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.write(self._page.rendered())


def _add_to_menu(scheduler: Scheduler) -> None:
    """Add the page to the menu at the top of Dask's own pages."""
    # Dask has no API for this, but one list of pages for all templates of a scheduler; tests/integration/test_dashboard.py
    # fails when that changes. Without Bokeh there are no such pages.
    try:
        from distributed.dashboard.scheduler import template_variables
    except ImportError:
        return
    pages = template_variables(scheduler)["pages"]
    if (entry := PAGE.strip("/")) not in pages:
        pages.insert(0, entry)
