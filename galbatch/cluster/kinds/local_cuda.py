"""The kind "local-cuda": one worker process for each GPU of this machine, through dask-cuda, and others that cut for them.

Neither this module nor its callers may use CUDA before the workers start: a CUDA context in this process would put all
workers on the first GPU (dask-cuda#719). So GPUs are counted through NVML, and checked on the workers afterwards.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, Nanny

from galbatch import models
from galbatch.cluster.base import ClusterKind, Device, Notify, count_of
from galbatch.cluster.checks import require_distinct_gpus
from galbatch.cluster.kinds.gpus import WHERE, require_admission, visible_gpus
from galbatch.cluster.kinds.local import (
    free_address,
    kept_by_malloc,
    patient_with_workers,
    replace_workers,
    started,
)
from galbatch.cluster.kinds.worker_plugins import register_plugins
from galbatch.cluster.pool import GPU
from galbatch.core.process import how_to_install
from galbatch.errors import ClusterError

__all__ = ["LocalCuda", "cutting_workers", "require_gpus", "visible_gpus"]

THREADS = 2
"""Threads of a GPU's worker: one feeds the GPU, the other one reads headers, and cuts where no other worker is left.

Launching small kernels beside three threads that cut takes 8 to 25 times as long, as all of them take Python's lock."""

MOST_CUTTING = 4
"""Processes that cut for each GPU, at most: at 250 cutouts/s each they feed 10,000 passes/s of 40 passes a galaxy four times over."""


class LocalCuda(ClusterKind):
    """One worker process for each GPU of this machine, and processes that cut for them on the other cores."""

    name = "local-cuda"
    only_for_runs = True

    @property
    def device(self) -> Device:
        return "cuda"

    def workers_planned(self) -> tuple[int, str]:
        try:
            n_gpus = len(visible_gpus())
        except ClusterError:
            # The run may be planned on this machine and executed on one with GPUs.
            n_gpus = 0
        n_workers = self.config.workers or n_gpus or 1
        return n_workers, count_of(n_workers, "GPU worker")

    def require(self) -> None:
        require_gpus(self.config.workers)

    @contextmanager
    def connect(self, notify: Notify) -> Iterator[Client]:
        gpus = require_gpus(self.config.workers)
        n_cutting = cutting_workers(len(gpus))
        # dask-cuda's limits of GPU memory keep their defaults: spilling moves objects that Dask holds, and torch's memory is
        # not among them (dask-cuda#755). Each thread computes on one core (Dask's nannies set OMP_NUM_THREADS=1).
        with (
            kept_by_malloc(),
            patient_with_workers(),
            started(
                _cluster_class(),
                notify,
                CUDA_VISIBLE_DEVICES=gpus,
                n_workers=len(gpus),
                threads_per_worker=THREADS,
                # The plan projects what a worker takes; Dask would end one that takes more than its share of the machine.
                memory_limit=0,
                resources={GPU: 1},
                host="127.0.0.1",
                dashboard_address=free_address(self.config.dashboard_address),
                silence_logs=40,
            ) as workers,
            Client(workers) as client,
        ):
            # wait_s = 0 means not to wait for workers elsewhere; here they are being started, so there is no limit.
            _add_cutting_workers(workers, n_cutting)
            client.wait_for_workers(len(gpus) + n_cutting, timeout=self.config.wait_s or None)
            require_distinct_gpus(client)
            register_plugins(client)
            yield client

    def replace_workers(self, client: Client) -> int:
        return replace_workers(client)


def require_gpus(n_workers: int | None) -> list[str]:
    """Return the GPUs on which to start `n_workers` workers, one each; all GPUs if `n_workers` is None.

    Raises
    ------
    ClusterError
        There are too few GPUs, or dask-cuda or a torch built for CUDA is missing.
    """
    gpus = visible_gpus()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = "" if listed is None else f" that CUDA_VISIBLE_DEVICES={listed!r} leaves"
    if not gpus:
        raise ClusterError(f"{WHERE}: there is no GPU{seen}; kind = 'local' runs on the cpu")
    if n_workers and n_workers > len(gpus):
        raise ClusterError(
            f"{WHERE}: {n_workers} workers are asked for and there {'is' if len(gpus) == 1 else 'are'} {len(gpus)} "
            f"GPU{'s' if len(gpus) > 1 else ''}{seen}; each worker has one of its own: ask for {len(gpus)} at most"
        )
    if models.torch_cuda() is None:
        raise ClusterError(
            f"{WHERE}: torch is a build without CUDA here: install one with it, see https://pytorch.org/get-started/locally"
        )
    _cluster_class()
    taken = gpus[: n_workers or len(gpus)]
    require_admission(taken)
    return taken


def _cluster_class() -> Any:
    try:
        return importlib.import_module("dask_cuda").LocalCUDACluster
    except ImportError as error:
        if error.name == "dask_cuda":
            hint = f"dask-cuda is not installed here: {how_to_install('dask_cuda')}"
        else:
            release = (models.torch_cuda() or "13").partition(".")[0]
            hint = f'dask-cuda cannot be loaded here ({error}): pip install "dask-cuda[cu{release}]" brings CUDA\'s bindings'
        raise ClusterError(f"{WHERE}: {hint}") from None


def cutting_workers(n_gpus: int) -> int:
    """Return the number of processes that cut: for each GPU one to four, depending on the cores."""
    # os.cpu_count counts hardware threads, of which two mostly share a core; each GPU's worker has a core for itself.
    n_cores = (os.cpu_count() or 1) // 2
    return n_gpus * min(MOST_CUTTING, max(1, n_cores // n_gpus - 1))


def _add_cutting_workers(workers: Any, n_workers: int) -> None:
    """Start processes without a GPU beside the workers of a cluster of this process."""
    own = {"data", "plugins", "preload", "preload_argv", "resources"}  # of the workers with a GPU
    options = {key: value for key, value in workers.new_spec["options"].items() if key not in own}
    # An empty list keeps them off the GPUs, whatever they import: one that admits a single process belongs to its worker.
    options |= {"nthreads": 1, "memory_limit": 0, "env": {"CUDA_VISIBLE_DEVICES": ""}}
    for number in range(n_workers):
        workers.worker_spec[f"cut-{number}"] = {"cls": Nanny, "options": dict(options)}
    # The number stays: this makes Dask start those that are missing.
    workers.scale(len(workers.worker_spec))
