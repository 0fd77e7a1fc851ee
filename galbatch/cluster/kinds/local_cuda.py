"""The kind "local-cuda": one worker process for each GPU of this machine, through dask-cuda.

Neither this module nor its callers may use CUDA before the workers start: a CUDA context in this process would put all
workers on the first GPU (dask-cuda#719). So GPUs are counted through NVML, and checked on the workers afterwards.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

from distributed import Client

from galbatch import models
from galbatch.cluster.base import ClusterKind, Device, Notify, count_of
from galbatch.cluster.checks import require_distinct_gpus
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

__all__ = ["LocalCuda", "require_gpus", "threads_of_worker", "visible_gpus"]

WHERE = "[cluster] kind = 'local-cuda'"


class LocalCuda(ClusterKind):
    """One worker process for each GPU of this machine, with 2 to 4 threads."""

    name = "local-cuda"

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
                threads_per_worker=threads_of_worker(len(gpus)),
                resources={GPU: 1},
                host="127.0.0.1",
                dashboard_address=free_address(self.config.dashboard_address),
                silence_logs=40,
            ) as workers,
            Client(workers) as client,
        ):
            # wait_s = 0 means not to wait for workers elsewhere; here they are being started, so there is no limit.
            client.wait_for_workers(len(gpus), timeout=self.config.wait_s or None)
            require_distinct_gpus(client)
            register_plugins(client)
            yield client

    def replace_workers(self, client: Client) -> int:
        return replace_workers(client)


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine that CUDA_VISIBLE_DEVICES allows, by their numbers or UUIDs as in that variable.

    Raises
    ------
    ClusterError
        GPUs cannot be counted: dask-cuda or the driver is missing.
    """
    n_gpus = _count_gpus()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(number) for number in range(n_gpus)]

    def is_there(name: str) -> bool:
        return name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < n_gpus)

    # CUDA reads the list up to the first entry that is no GPU, and ignores the rest.
    return list(dict.fromkeys(takewhile(is_there, (name.strip() for name in listed.split(",")))))


def _count_gpus() -> int:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise ClusterError(
            f"{WHERE}: dask-cuda is not installed here: {how_to_install('dask_cuda')}"
        ) from None
    try:
        nvml.nvmlInit()
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        raise ClusterError(
            f"{WHERE}: no GPU is found here ({error}); it needs an NVIDIA GPU and its driver; kind = 'local' runs on the cpu"
        ) from None


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
    return gpus[: n_workers or len(gpus)]


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


def threads_of_worker(n_workers: int) -> int:
    """Return the number of threads of each worker, 2 to 4 depending on the cores: one feeds the GPU, the others cut."""
    return min(4, max(2, (os.cpu_count() or 1) // n_workers))
