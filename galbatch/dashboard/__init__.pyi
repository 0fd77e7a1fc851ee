from .counts import CountsOnWorker, count, totals, totals_of
from .events import Event, Tally
from .lines import JsonLines, TextLines
from .notebook import NotebookBars, in_notebook
from .page import PAGE, GalaxiesPage, watch
from .reporter import Reporter, log_path, progress_path
from .sinks import ProgressBars, ProgressSink, Silent
from .watching import follow, last_news

__all__ = [
    "PAGE",
    "CountsOnWorker",
    "Event",
    "GalaxiesPage",
    "JsonLines",
    "NotebookBars",
    "ProgressBars",
    "ProgressSink",
    "Reporter",
    "Silent",
    "Tally",
    "TextLines",
    "count",
    "follow",
    "in_notebook",
    "last_news",
    "log_path",
    "progress_path",
    "totals",
    "totals_of",
    "watch",
]
