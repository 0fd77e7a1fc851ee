"""The workers of a run: processes on this machine, one process per GPU, or the workers of a running Dask scheduler.

`base.ClusterKind` is the interface of a kind of cluster. Each kind is one file in `kinds/`, and `registry` lists them.
"""

from galbatch.cluster.base import ClusterKind, Device, Notify, WorkerNeeds, count_of
from galbatch.cluster.checks import require_distinct_gpus, require_paths
from galbatch.cluster.kinds.gpus import Gpu, gpus_of_machine
from galbatch.cluster.kinds.local import kept_by_malloc, short_logs, threads
from galbatch.cluster.monitor import WorkerMonitor
from galbatch.cluster.pool import GPU, Pool
from galbatch.cluster.registry import KINDS, connect, kind_of, require
from galbatch.cluster.workers import Workers, on_demand, to_look

__all__ = [
    "GPU",
    "KINDS",
    "ClusterKind",
    "Device",
    "Gpu",
    "Notify",
    "Pool",
    "WorkerMonitor",
    "WorkerNeeds",
    "Workers",
    "connect",
    "count_of",
    "gpus_of_machine",
    "kept_by_malloc",
    "kind_of",
    "on_demand",
    "require",
    "require_distinct_gpus",
    "require_paths",
    "short_logs",
    "threads",
    "to_look",
]
