from .broadcast import Broadcast
from .counts import CountsOnWorker, GpuOnWorker, TaskCounts, count, totals
from .events import Event, Sample, Tally
from .lines import JsonLines, TextLines
from .notebook import NotebookBars, in_notebook
from .page import PAGE, GalaxiesPage, watch
from .reporter import Reporter, log_path, progress_path
from .samples import Sampler, flag_counts
from .sinks import ProgressBars, ProgressSink, Silent
from .watching import follow, last_news

__all__ = [
    "PAGE",
    "Broadcast",
    "CountsOnWorker",
    "Event",
    "GalaxiesPage",
    "GpuOnWorker",
    "JsonLines",
    "NotebookBars",
    "ProgressBars",
    "ProgressSink",
    "Reporter",
    "Sample",
    "Sampler",
    "Silent",
    "Tally",
    "TaskCounts",
    "TextLines",
    "count",
    "flag_counts",
    "follow",
    "in_notebook",
    "last_news",
    "log_path",
    "progress_path",
    "totals",
    "watch",
]
