"""Dask plugins of a run: workers of this process leave signals and the news of the end to it, schedulers forget what has ended."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from dask.utils import key_split
from distributed import Client, SchedulerPlugin, WorkerPlugin
from distributed.scheduler import Scheduler
from distributed.spans import Span
from distributed.worker import Worker

__all__ = ["ForgetsTasks", "LeavesSignals", "NoHeartbeatErrors", "register_plugins"]


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


class ForgetsTasks(SchedulerPlugin):  # type: ignore[misc]
    """Dask plugin by which a scheduler forgets what it keeps of tasks that have ended, some 0.6 kB each.

    Dask notes the kind of each submission in the task's span for ever, and the prefixes of the last 100,000 keys with the keys.
    Nothing of galbatch or of Dask's dashboard shows the one, and the other is only a cache.
    """

    name = "galbatch-forgets-tasks"
    # A scheduler that several runs join, one after another, needs it once.
    idempotent = True
    EVERY: ClassVar[int] = 1000
    """The number of tasks after which the scheduler forgets."""

    def __init__(self) -> None:
        self._n_tasks = 0

    def update_graph(self, scheduler: Scheduler, *, tasks: Sequence[Any], **others: Any) -> None:
        """Count tasks that were submitted, and forget from time to time."""
        self._n_tasks += len(tasks)
        if self._n_tasks >= self.EVERY:
            self._n_tasks = 0
            key_split.cache_clear()
            Span._metadata_seen.clear()
            for span in (
                scheduler.extensions["spans"].spans.values() if "spans" in scheduler.extensions else ()
            ):
                span._metadata = None


def register_plugins(client: Client) -> None:
    """Give the workers of a client, also those that start later, the plugins of this file."""
    for plugin in (LeavesSignals(), NoHeartbeatErrors()):
        client.register_plugin(plugin)
