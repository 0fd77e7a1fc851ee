"""Dask plugins of worker processes that this process started: they leave signals and the news of the end to it."""

from __future__ import annotations

import logging
import signal
import threading

from distributed import Client, WorkerPlugin
from distributed.worker import Worker

__all__ = ["LeavesSignals", "NoHeartbeatErrors", "register_plugins"]


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


class NoHeartbeatErrors(WorkerPlugin):  # type: ignore[misc]
    """Dask plugin by which a worker does not print that a heartbeat did not reach the scheduler.

    On a busy machine the scheduler is gone before the last worker, which prints a traceback of forty lines then. The
    scheduler is a part of the run's process, which says itself how the run ended.
    """

    name = "galbatch-no-heartbeat-errors"
    MESSAGE = "Failed to communicate with scheduler during heartbeat"

    def setup(self, worker: Worker) -> None:
        """Leave these records of distributed.worker out in this process."""
        # Each plugin is set up once a process; a filter that is added twice would do no harm.
        logging.getLogger("distributed.worker").addFilter(self.passes)

    @classmethod
    def passes(cls, record: logging.LogRecord) -> bool:
        """Return whether a record is to be printed."""
        return not record.getMessage().startswith(cls.MESSAGE)


def register_plugins(client: Client) -> None:
    """Give the workers of a client, also those that start later, the plugins of this file."""
    for plugin in (LeavesSignals(), NoHeartbeatErrors()):
        client.register_plugin(plugin)
