"""The throughput of a running run: a page on the Dask dashboard, Prometheus metrics, and bars in the terminal."""

from galbatch.dashboard.counts import CountsOnWorker, count, totals, totals_of
from galbatch.dashboard.page import PAGE, GalaxiesPage, watch
from galbatch.dashboard.sinks import ProgressBars, ProgressSink, Silent

__all__ = [
    "PAGE",
    "CountsOnWorker",
    "GalaxiesPage",
    "ProgressBars",
    "ProgressSink",
    "Silent",
    "count",
    "totals",
    "totals_of",
    "watch",
]
