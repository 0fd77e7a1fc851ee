"""The kind "slurm": workers in SLURM jobs that the run submits.

`jobs` has the jobs and needs dask-jobqueue; `commands` asks SLURM; `gpu_job` is the program that a job with GPUs runs.
"""

from galbatch.cluster.kinds.slurm.kind import Slurm

__all__ = ["Slurm"]
