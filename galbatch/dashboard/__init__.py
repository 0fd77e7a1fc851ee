"""The progress of a running run: a page on the Dask dashboard, Prometheus metrics, bars or lines, a log next to the catalog."""

from galbatch.dashboard.counts import CountsOnWorker, count, totals, totals_of
from galbatch.dashboard.events import Event, Tally
from galbatch.dashboard.lines import JsonLines, TextLines
from galbatch.dashboard.page import PAGE, GalaxiesPage, watch
from galbatch.dashboard.reporter import Reporter, log_path, progress_path
from galbatch.dashboard.sinks import ProgressBars, ProgressSink, Silent
from galbatch.dashboard.watching import follow, last_news

__all__ = [
    "PAGE",
    "CountsOnWorker",
    "Event",
    "GalaxiesPage",
    "JsonLines",
    "ProgressBars",
    "ProgressSink",
    "Reporter",
    "Silent",
    "Tally",
    "TextLines",
    "count",
    "follow",
    "last_news",
    "log_path",
    "progress_path",
    "totals",
    "totals_of",
    "watch",
]
