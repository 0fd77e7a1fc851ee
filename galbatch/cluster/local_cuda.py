"""One worker process for each GPU of this machine, through dask-cuda.

Nothing here, and nothing that a client does before, may touch CUDA: a context made before the workers start puts all of
them on the first GPU (dask-cuda#719). So GPUs are counted through NVML, and the workers say afterwards which they have.
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
from galbatch.cluster.checks import require_distinct_gpus
from galbatch.cluster.local import free_address, kept_by_malloc
from galbatch.cluster.pool import GPU
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError

__all__ = ["require_gpus", "started", "threads_of_worker", "visible_gpus"]

WHERE = "[cluster] kind = 'local-cuda'"


def visible_gpus() -> list[str]:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves, as it names them: numbers or UUIDs.

    Raises
    ------
    ClusterError
        They cannot be counted: dask-cuda or the driver is missing.
    """
    n_gpus = _count_gpus()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(number) for number in range(n_gpus)]

    def is_there(name: str) -> bool:
        return name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < n_gpus)

    # As CUDA reads the list: what follows the first that is none is not seen.
    return list(dict.fromkeys(takewhile(is_there, (name.strip() for name in listed.split(",")))))


def _count_gpus() -> int:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise ClusterError(
            f'{WHERE}: dask-cuda is not installed here: pip install "galbatch[cuda]"'
        ) from None
    try:
        nvml.nvmlInit()
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        raise ClusterError(
            f"{WHERE}: no GPU is found here ({error}); it needs an NVIDIA GPU and its driver; kind = 'local' runs on the cpu"
        ) from None


def require_gpus(cluster: ClusterConfig) -> list[str]:
    """The GPUs to start workers on, one each.

    Raises
    ------
    ClusterError
        dask-cuda, a GPU, as many as are asked for, or a torch that computes on them is missing here.
    """
    gpus = visible_gpus()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = "" if listed is None else f" that CUDA_VISIBLE_DEVICES={listed!r} leaves"
    if not gpus:
        raise ClusterError(f"{WHERE}: there is no GPU{seen}; kind = 'local' runs on the cpu")
    if cluster.workers and cluster.workers > len(gpus):
        raise ClusterError(
            f"{WHERE}: {cluster.workers} workers are asked for and there {'is' if len(gpus) == 1 else 'are'} {len(gpus)} "
            f"GPU{'s' if len(gpus) > 1 else ''}{seen}; each worker has one of its own: ask for {len(gpus)} at most"
        )
    if models.torch_cuda() is None:
        raise ClusterError(
            f"{WHERE}: torch is a build without CUDA here: install one with it, see https://pytorch.org/get-started/locally"
        )
    _cluster_class()
    return gpus[: cluster.workers or len(gpus)]


def _cluster_class() -> Any:
    try:
        return importlib.import_module("dask_cuda").LocalCUDACluster
    except ImportError as error:
        if error.name == "dask_cuda":
            hint = 'dask-cuda is not installed here: pip install "galbatch[cuda]"'
        else:
            release = (models.torch_cuda() or "13").partition(".")[0]
            hint = f'dask-cuda cannot be loaded here ({error}): pip install "dask-cuda[cu{release}]" brings CUDA\'s bindings'
        raise ClusterError(f"{WHERE}: {hint}") from None


def threads_of_worker(n_workers: int) -> int:
    """One thread feeds the GPU, the others cut meanwhile: as many as there are cores for, 2 to 4."""
    return min(4, max(2, (os.cpu_count() or 1) // n_workers))


@contextmanager
def started(cluster: ClusterConfig) -> Iterator[Client]:
    """Start a worker on each GPU; they end with the context.

    Raises
    ------
    ClusterError
        Something is missing, or two workers have the same GPU.
    """
    gpus = require_gpus(cluster)
    # Limits of GPU memory are left alone: dask-cuda's spilling moves what Dask holds, and torch's memory is not among it
    # (dask-cuda#755). Each thread computes with one core (Dask's nannies set OMP_NUM_THREADS=1).
    with (
        kept_by_malloc(),
        _cluster_class()(
            CUDA_VISIBLE_DEVICES=gpus,
            n_workers=len(gpus),
            threads_per_worker=threads_of_worker(len(gpus)),
            resources={GPU: 1},
            host="127.0.0.1",
            dashboard_address=free_address(cluster.dashboard_address),
            silence_logs=40,
        ) as workers,
        Client(workers) as client,
    ):
        client.wait_for_workers(len(gpus), timeout=cluster.wait_s or None)
        require_distinct_gpus(client)
        yield client
