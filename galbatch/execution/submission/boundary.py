"""The boundary between Dask and tasks: it runs a task on a worker.

Every error of a task is sent back to the submission queue, which tries again or records the reason for the partition
(`faults` says which). None ends the run.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from distributed import KilledWorker, get_worker
from distributed.protocol import pickle

from galbatch import ingest, models, storage
from galbatch.errors import GalbatchError, GpuBroken, ShortOfMemory, WorkerRefused
from galbatch.execution import tasks
from galbatch.execution.submission.faults import is_out_of_memory, reason_of
from galbatch.storage import zarr_groups

__all__ = ["packed", "run_packed", "run_task", "worker_of"]


def packed(
    function: Callable[[Any], tasks.TaskResult], task: Any, locks: Sequence[storage.LockHandle] = ()
) -> bytes:
    """Return the arguments of `run_task` as bytes, for `run_packed`."""
    # Dask sends each array of an argument as a message frame of its own, from the client to the scheduler and from there to
    # the worker. A task has a dozen small arrays: as one piece of bytes it costs client and scheduler half as much time.
    data: bytes = pickle.dumps((function, task, locks))
    return data


def run_packed(data: bytes) -> tasks.TaskResult | GalbatchError | OSError:
    """Run a task that `packed` made; see `run_task`."""
    return run_task(*pickle.loads(data))


def run_task(
    function: Callable[[Any], tasks.TaskResult], task: Any, locks: Sequence[storage.LockHandle] = ()
) -> tasks.TaskResult | GalbatchError | OSError:
    """Run a task on a worker; return its result, or the error that it expects to meet.

    Other exceptions are raised: they are faults of the program.

    Parameters
    ----------
    function : callable
        Takes the task, returns its result.
    task : IngestTask or InferTask
    locks : sequence of LockHandle
        The locks that the run must still hold when the task commits its output.
    """
    # Warnings filters belong to a process, and workers are processes of their own.
    zarr_groups.ignore_unspecified()
    ingest.ignore_astropy()
    try:
        result = _run_task(function, task, locks)
    except (GalbatchError, OSError) as error:
        # Dask writes what a task raises to the terminal, with its traceback: pages of it while a disk is full.
        return error
    return replace(result, worker=_address())


def _run_task(
    function: Callable[[Any], tasks.TaskResult], task: Any, locks: Sequence[storage.LockHandle]
) -> tasks.TaskResult:
    """Run a task.

    Raises
    ------
    LockLost
        The run does not hold its locks any more.
    WorkerRefused
        This worker cannot provide an engine; others may.
    ShortOfMemory
        The batch is too large for this worker.
    GpuBroken
        The GPU of this worker fails.
    """
    inferring = isinstance(task, tasks.InferTask)
    try:
        if inferring:
            # Before any cutout is read, so that a worker without the engine fails at once and others take its part.
            _require_engines(task)
        with storage.guarded(locks):
            return function(task)
    except Exception as error:
        error.on_worker = _address()  # type: ignore[attr-defined]  # attributes cross to the client with the error
        if inferring and task.device == "cuda":
            _raise_of_gpu(error, task.posterior.batch)
        if not inferring or not is_out_of_memory(error):
            raise
        # MemoryError is the host's memory, also on a worker with a GPU.
        raise ShortOfMemory(f"not enough memory (batch {task.posterior.batch}): {reason_of(error)}") from None


def _raise_of_gpu(error: Exception, batch: int) -> None:
    """Raise ShortOfMemory or GpuBroken for an error that says something of this worker's GPU; return for others."""
    trouble, worker = models.gpu_trouble(error), _address() or ""
    if trouble is None:
        return
    if trouble.kind == "memory":
        # After a failed allocation a process may not get GPU memory again (dask-cuda#725, #859), so the queue restarts
        # the worker that is named here.
        raise ShortOfMemory(models.gpu_shortage(error, batch), worker=worker) from None
    gpu = _gpu()
    raise GpuBroken(f"GPU {gpu or 'of unknown name'} fails: {trouble.text}", worker=worker, gpu=gpu) from None


def _gpu() -> str:
    """Return this host and the name of its GPU that this process uses; "" if it has no name."""
    try:
        name = models.gpu_identity()
    except (GalbatchError, RuntimeError):
        # A GPU that is lost does not tell its UUID.
        name = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    return f"{socket.gethostname()} {name}" if name else ""


def _address() -> str | None:
    """Return the address of this worker; None outside of one."""
    try:
        return str(get_worker().address)
    except ValueError:
        return None


def worker_of(error: BaseException) -> str | None:
    """Return the address of the worker on which a task failed; None if it is not known."""
    if isinstance(error, KilledWorker):
        return getattr(error.last_worker, "address", None)
    return getattr(error, "on_worker", None) or getattr(error, "worker", None)


def _require_engines(task: tasks.InferTask) -> None:
    """Refuse this worker if it cannot provide the engine of each network; a damaged bundle is an error of the task."""
    missing = tasks.missing_engine(task)
    if missing is not None:
        worker = get_worker().address
        raise WorkerRefused(f"worker {worker} cannot provide {missing}", worker=worker)
