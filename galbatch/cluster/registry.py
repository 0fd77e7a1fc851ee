"""The registry of the kinds of clusters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from distributed import Client

from galbatch.cluster.base import ClusterKind, Notify
from galbatch.cluster.kinds.kubernetes import Kubernetes
from galbatch.cluster.kinds.local import Local, short_logs
from galbatch.cluster.kinds.local_cuda import LocalCuda
from galbatch.cluster.kinds.scheduler import RunningScheduler
from galbatch.cluster.kinds.slurm import Slurm
from galbatch.cluster.kinds.worker_plugins import ForgetsTasks
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError

__all__ = ["KINDS", "connect", "kind_of", "require"]

KINDS: dict[str, type[ClusterKind]] = {
    kind.name: kind for kind in (Local, LocalCuda, RunningScheduler, Slurm, Kubernetes)
}
"""The kinds by their names. A new kind is a file in `kinds/`, an entry here, and its options in config/cluster/."""


def kind_of(cluster: ClusterConfig) -> ClusterKind:
    """Return the kind of cluster of a ``[cluster]`` section.

    Raises
    ------
    ClusterError
        The kind is unknown.
    """
    # Parsing refuses unknown kinds, but a section may also be made in Python.
    if cluster.kind not in KINDS:
        raise ClusterError(f"[cluster] kind = {cluster.kind!r}: not known; known are {', '.join(KINDS)}")
    return KINDS[cluster.kind](cluster)


def require(cluster: ClusterConfig) -> None:
    """Raise an error if the kind of cluster is not available on this machine; nothing is started.

    Raises
    ------
    ClusterError
        Something is missing; the message says what to install or to choose.
    """
    kind_of(cluster).require()


@contextmanager
def connect(cluster: ClusterConfig, *, notify: Notify = lambda line: None) -> Iterator[Client]:
    """Start or join the configured workers, and yield a connection; workers that were started end with the context.

    Parameters
    ----------
    cluster : ClusterConfig
        The ``[cluster]`` section of the run.
    notify : callable
        Takes human-readable lines while workers are waited for.

    Raises
    ------
    ClusterError
        The workers cannot be started or joined.
    """
    kind = kind_of(cluster)
    kind.require()
    stack = ExitStack()
    stack.enter_context(short_logs())
    client = stack.enter_context(kind.connect(notify))
    client.register_plugin(ForgetsTasks())
    try:
        yield client
    finally:
        try:
            stack.close()
        except OSError as error:
            # Dask raises TimeoutError, an OSError, when a busy worker does not end in time. The work is done by then.
            notify(
                f"the workers did not end as they were asked ({type(error).__name__}: {error}); what is done stays"
            )
