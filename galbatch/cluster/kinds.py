"""What follows from ``[cluster] kind`` without looking at any worker."""

from __future__ import annotations

from galbatch.cluster.local import local_workers
from galbatch.cluster.local_cuda import visible_gpus
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError

__all__ = ["device_of", "workers_planned"]


def device_of(cluster: ClusterConfig) -> str:
    """What the workers infer on: cpu or cuda."""
    return "cuda" if cluster.kind == "local-cuda" else cluster.device


def workers_planned(cluster: ClusterConfig) -> tuple[int, str]:
    """So many workers a plan counts on, and how it calls them; nothing is started or joined for it."""
    if cluster.kind == "local-cuda":
        n_workers = cluster.workers or _gpus_here() or 1
        return n_workers, f"{n_workers} GPU worker{'s' if n_workers > 1 else ''}"
    if cluster.kind == "scheduler":
        n_workers = cluster.workers or 1
        kind = "GPU worker" if cluster.device == "cuda" else "worker"
        return n_workers, f"{n_workers} {kind}{'s' if n_workers > 1 else ''} of {cluster.scheduler}"
    n_workers = local_workers(cluster)
    return n_workers, f"{n_workers} worker{'s' if n_workers > 1 else ''}"


def _gpus_here() -> int:
    try:
        return len(visible_gpus())
    except ClusterError:
        return 0  # planned here, to be run where there are some
