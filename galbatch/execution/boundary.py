"""The boundary between Dask and tasks: runs a task on a worker, and says what its errors mean for the run.

Whatever a task raises travels back to the submission queue and becomes a retry or the reason of its partition, never the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed import KilledWorker, get_worker
from distributed.scheduler import NoValidWorkerError

from galbatch import dashboard, ingest, models
from galbatch.errors import BundleError, GalbatchError, ShortOfMemory, UsageError, WorkerRefused
from galbatch.execution import tasks
from galbatch.storage import zarr_groups

__all__ = ["is_retriable", "reason_of", "run_task"]


def run_task(function: Callable[[Any], tasks.TaskResult], task: Any) -> tasks.TaskResult:
    """Run a task on a worker and count it for the dashboard.

    Raises
    ------
    WorkerRefused
        This worker cannot provide an engine; others may.
    ShortOfMemory
        The batch is too large for this worker.
    """
    zarr_groups.ignore_unspecified()
    ingest.ignore_astropy()
    inferring = isinstance(task, tasks.InferTask)
    try:
        if inferring:
            _require_engines(task)
        result = function(task)
    except Exception as error:
        if not inferring or not _is_out_of_memory(error):
            raise
        batch, on_gpu = task.posterior.batch, task.device == "cuda" and not isinstance(error, MemoryError)
        if on_gpu:
            # A process may not get GPU memory again after it once did not (dask-cuda#725, #859): it is started again.
            raise ShortOfMemory(models.gpu_shortage(error, batch), worker=get_worker().address) from None
        raise ShortOfMemory(f"not enough memory (batch {batch}): {reason_of(error)}") from None
    inferred = result.n_objects if inferring else 0
    dashboard.count(cutouts=result.n_cutouts, galaxies=inferred, passes=result.n_passes)
    return result


def _require_engines(task: tasks.InferTask) -> None:
    for model in task.models:
        name, network = model.network.name, tasks.load_network(model.network)
        engine = models.Engine.named(model.network.engine)
        try:
            for bundle in network.bundles:
                models.executor(bundle, engine, task.device)
        except BundleError as error:
            worker = get_worker().address
            raise WorkerRefused(
                f"worker {worker} cannot provide the engine {engine.name} of {name} on {task.device}: {error}",
                worker=worker,
            ) from None


def is_retriable(error: BaseException) -> bool:
    """Return whether an attempt may succeed next time: after I/O errors, lost workers and lack of memory, not with wrong inputs."""
    if isinstance(error, UsageError):
        return False
    return isinstance(error, OSError | KilledWorker | NoValidWorkerError) or _is_out_of_memory(error)


def _is_out_of_memory(error: BaseException) -> bool:
    # By name: torch.OutOfMemoryError, without importing torch where there is none to do.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def reason_of(error: BaseException) -> str:
    """Return an error as one human-readable line; with its type, where it is not one of galbatch's own."""
    return str(error) if isinstance(error, GalbatchError) else f"{type(error).__name__}: {error}"
