"""Processes of this machine that tests look for."""

from __future__ import annotations

import psutil

__all__ = ["is_worker", "workers_below"]

FORKED_FROM = "multiprocessing.forkserver"
STARTED_BY_NANNY = "spawn_main"


def workers_below(pid: int) -> list[psutil.Process]:
    """Return the worker processes of a process that has nannies; none once it has ended."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if is_worker(child)]
    except psutil.Error:
        return []


def is_worker(process: psutil.Process) -> bool:
    """Return whether a process is a worker that a nanny has started."""
    line = _command(process)
    # A forked process has the command line of the one that it was forked from.
    return STARTED_BY_NANNY in line or (FORKED_FROM in line and FORKED_FROM in _command(process.parent()))


def _command(process: psutil.Process | None) -> str:
    return "" if process is None else " ".join(process.cmdline())
