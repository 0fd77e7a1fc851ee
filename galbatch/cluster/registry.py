"""The kinds of clusters that exist; whoever needs one asks here, so that an unknown one fails by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client

from galbatch.cluster.base import ClusterKind, Notify
from galbatch.cluster.local import Local
from galbatch.cluster.local_cuda import LocalCuda
from galbatch.cluster.scheduler import RunningScheduler
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError

__all__ = ["KINDS", "connect", "kind_of", "require"]

KINDS: dict[str, type[ClusterKind]] = {kind.name: kind for kind in (Local, LocalCuda, RunningScheduler)}
"""The kinds by name. A new kind is a file in this folder, one entry here, and its options in config/cluster.py."""


def kind_of(cluster: ClusterConfig) -> ClusterKind:
    """Return the kind of cluster that a run asks for.

    Raises
    ------
    ClusterError
        It is not known.
    """
    if cluster.kind not in KINDS:
        raise ClusterError(f"[cluster] kind = {cluster.kind!r}: not known; known are {', '.join(KINDS)}")
    return KINDS[cluster.kind](cluster)


def require(cluster: ClusterConfig) -> None:
    """Refuse a kind that is not available here, before anything is started.

    Raises
    ------
    ClusterError
        Something is missing; the message says what to install or to choose.
    """
    kind_of(cluster).require()


@contextmanager
def connect(cluster: ClusterConfig, *, notify: Notify = lambda line: None) -> Iterator[Client]:
    """Start workers as configured, or join them, and connect to them; those that were started end with the context.

    Parameters
    ----------
    notify : takes a human-readable line while workers are waited for

    Raises
    ------
    ClusterError
        The workers cannot be had.
    """
    kind = kind_of(cluster)
    kind.require()
    with kind.connect(notify) as client:
        yield client
