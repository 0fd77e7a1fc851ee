"""Start or join workers as configured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from galbatch.cluster import local, local_cuda
from galbatch.cluster.checks import Tell
from galbatch.cluster.scheduler import joined
from galbatch.config import ClusterConfig
from galbatch.errors import NotInThisVersion

__all__ = ["connect", "require"]


def require(cluster: ClusterConfig) -> None:
    """Refuse what cannot be had, before anything is started.

    Raises
    ------
    NotInThisVersion
        For kinds to come.
    ClusterError
        kind = 'local-cuda', and a GPU or dask-cuda is missing.
    """
    if cluster.kind in ("slurm", "kubernetes"):
        raise NotInThisVersion(
            f"[cluster] kind = {cluster.kind!r} is not in this version; use kind = 'local' or 'local-cuda', or start workers "
            "yourself and join them with kind = 'scheduler'"
        )
    if cluster.kind == "local-cuda":
        local_cuda.require_gpus(cluster)


@contextmanager
def connect(cluster: ClusterConfig, *, tell: Tell = lambda line: None) -> Iterator[Client]:
    """Start workers as configured, or join them, and connect to them; those that were started end with the context.

    Parameters
    ----------
    tell : takes a line for people while workers are waited for

    Raises
    ------
    NotInThisVersion, ClusterError
        They cannot be had.
    """
    require(cluster)
    if cluster.kind == "scheduler":
        connected = joined(cluster, tell)
    else:
        connected = local_cuda.started(cluster) if cluster.kind == "local-cuda" else local.started(cluster)
    with connected as client:
        yield client
