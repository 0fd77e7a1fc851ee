"""Worker processes of this machine leave SIGTERM and SIGINT to the process that started them."""

from __future__ import annotations

import signal
import threading

from distributed import WorkerPlugin
from distributed.worker import Worker

__all__ = ["LeavesSignals"]


class LeavesSignals(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Dask plugin by which a worker ignores SIGTERM and SIGINT.

    Ctrl-C in a terminal and a job that is canceled signal the whole process group. The run's process decides what that means:
    a worker that died at once would leave the commit that it is at. Workers end when that process asks them or is gone.
    """

    name = "galbatch-leaves-signals"

    def setup(self, worker: Worker) -> None:
        """Ignore the signals in this process, unless the worker is only a thread of the run's own."""
        # The event loop of a worker process runs in its main thread, the only one in which Python sets handlers.
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
