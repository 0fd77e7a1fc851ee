"""Where workers come from: processes on this machine, one for each of its GPUs, or those of a running scheduler."""

from galbatch.cluster.checks import require_device, require_paths
from galbatch.cluster.connecting import connect, require
from galbatch.cluster.kinds import device_of, workers_planned
from galbatch.cluster.monitor import Crew
from galbatch.cluster.pool import GPU, Pool
from galbatch.cluster.workers import Workers, on_demand

__all__ = [
    "GPU",
    "Crew",
    "Pool",
    "Workers",
    "connect",
    "device_of",
    "on_demand",
    "require",
    "require_device",
    "require_paths",
    "workers_planned",
]
