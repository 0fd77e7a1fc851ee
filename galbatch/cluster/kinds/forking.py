"""The process that local workers are forked from: it imports their code once, while the run's own process reads its inputs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from typing import Any

import dask
import distributed.utils

__all__ = ["forked", "import_ahead"]

NANNY = "distributed.nanny"
"""The module whose function a worker process runs first."""

METHOD = "distributed.worker.multiprocessing-method"
ENVIRONMENT = "distributed.nanny.pre-spawn-environ"


def import_ahead(module: str) -> None:
    """Start the process that workers will be forked from, if it does not run; it imports `module` in the background.

    It lives as long as this process, computes nothing, and leaves SIGTERM and SIGINT to it. Where the import fails, each worker
    raises the error when it needs the module.

    Parameters
    ----------
    module : str
        Name of a module that all tasks need. No thread may be started by its import: threads are not forked.
    """
    forkserver.set_forkserver_preload([NANNY, module])
    _ensure_running()


@contextmanager
def forked() -> Iterator[None]:
    """Let Dask fork the workers that start within the context, from the process that `import_ahead` has prepared or a new one."""
    _ensure_running()
    # Else Dask would import pandas here, and name other modules to be imported: multiprocessing keeps one list of them for all.
    named = distributed.utils._forkserver_preload_set
    distributed.utils._forkserver_preload_set = True
    try:
        with dask.config.set({METHOD: "forkserver"}):
            yield
    finally:
        distributed.utils._forkserver_preload_set = named


def _ensure_running() -> None:
    # Started by `forkserver` otherwise, and its start unblocks SIGTERM.
    resource_tracker.ensure_running()
    # What Dask sets for a worker process before it starts, as it is read at the start alone: by malloc, BLAS and OpenMP.
    with _environment(dask.config.get(ENVIRONMENT)), _terminations_blocked():
        forkserver.ensure_running()


@contextmanager
def _environment(variables: Mapping[str, Any]) -> Iterator[None]:
    """Set environment variables, whose values may be numbers, within the context."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _terminations_blocked() -> Iterator[None]:
    """Block SIGTERM in this thread within the context: processes that it starts keep it blocked, and those forked from them do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
