"""The jobs of a run in SLURM, by dask-jobqueue: submitted, watched, replaced when they are lost, canceled at the end."""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed.deploy.spec import ProcessInterface

from galbatch.cluster.base import count_of
from galbatch.cluster.kinds.slurm import commands
from galbatch.config import SlurmConfig
from galbatch.core.process import require

__all__ = ["Jobs", "SubmittedJob", "job_options", "lifetime_s"]

# The classes below derive from its classes, so this module cannot be imported without it; the kind imports it when a run starts.
_jobqueue = require("dask_jobqueue", module="dask_jobqueue.slurm")

LOOK_S = 15.0
"""Time between two looks at SLURM's queue, in seconds: all users of a site ask the same slurmctld."""

MOST_IN_VAIN = 3
"""This many jobs in a row that are refused, or end before a worker of theirs connects, are not replaced any more."""

DEATH_TIMEOUT_S = 120
"""How long a worker looks for the scheduler before it ends, in seconds: so jobs end whose run has been killed."""


class SubmittedJob(_jobqueue.SLURMJob):  # type: ignore[name-defined,misc]  # dask-jobqueue has no types
    """A job that holds workers. One that SLURM refuses is there without an id, and says why."""

    refusal = ""

    async def start(self) -> None:
        try:
            await super().start()
        except (RuntimeError, ValueError) as error:
            # Raised here, it would end in the log of the event loop, where nobody reads it. The text has a line "stderr:".
            self.refusal = commands.refusal(str(error).partition("stderr:")[2] or str(error))
            await ProcessInterface.start(self)

    async def close(self) -> None:
        await super().close()
        await ProcessInterface.close(self)


def lifetime_s(walltime_s: float) -> tuple[int, int]:
    """Return the lifetime of workers and its scatter to either side, in seconds, for a job of this time limit.

    Workers count from their own start, a minute after their job's on a busy file system; and they end at different times, so that a
    cluster is never without any. So the lifetime is three scatters and a minute below the limit, for long jobs a quarter of an hour.
    """
    scatter = min(300.0, walltime_s / 12)
    return int(walltime_s - 60 - 2 * scatter), int(scatter)


def job_options(config: SlurmConfig) -> dict[str, Any]:
    """Return dask-jobqueue's options of a job.

    Parameters
    ----------
    config : SlurmConfig
        The section [cluster.slurm].
    """
    lifetime, scatter = lifetime_s(config.walltime_s)
    directives = list(config.directives)
    if config.gpus:
        directives.append(f"--gres=gpu:{config.gpu_type + ':' if config.gpu_type else ''}{config.gpus}")
    extra = ["--lifetime", f"{lifetime}s", "--lifetime-stagger", f"{scatter}s"]
    if config.gpus:
        # The workers of such a job differ, so a program of ours starts them.
        extra += ["--gpus", str(config.gpus), "--processes", str(config.cores)]
    return {
        "cores": config.cores,
        "processes": config.cores,
        "memory": f"{config.memory}B",
        "queue": config.partition,
        "account": config.account,
        "walltime": config.walltime,
        "interface": config.interface,
        "log_directory": config.log_folder,
        "job_extra_directives": directives,
        "job_script_prologue": [*ENVIRONMENT, *config.prologue],
        "worker_extra_args": extra,
        "worker_command": "galbatch.cluster.kinds.slurm.gpu_job"
        if config.gpus
        else "distributed.cli.dask_worker",
        "death_timeout": DEATH_TIMEOUT_S,
    }


# As `kept_by_malloc` does for workers of this machine. Dask's nannies take these from their environment.
ENVIRONMENT = [
    f"export MALLOC_TRIM_THRESHOLD_={2**28} MALLOC_MMAP_THRESHOLD_={2**28} OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1"
]


class Jobs(_jobqueue.SLURMCluster):  # type: ignore[name-defined,misc]
    """The jobs of a run, and its scheduler, which is in this process.

    Attributes
    ----------
    job_label : name of the run's jobs in SLURM
    has_looked : whether SLURM's queue has been read
    stopped : the reason why lost jobs are not replaced any more; empty while they are
    """

    job_cls = SubmittedJob

    def __init__(self, config: SlurmConfig, **options: Any) -> None:
        # No other run has this name: its jobs are listed and canceled by it, in one request each.
        self.job_label = f"galbatch-{uuid.uuid4().hex[:8]}"
        self.stopped = ""
        self._log_folder = config.log_folder
        self._looked_s = -math.inf
        self.has_looked = False
        self._queued: Mapping[str, commands.QueuedJob] = {}
        # Jobs of which a worker has connected, by the names of their specifications.
        self._served: set[str] = set()
        self._n_in_vain = 0
        super().__init__(name="job", job_name=self.job_label, **job_options(config), **options)

    def begin(self, min_jobs: int, max_jobs: int | None) -> None:
        """Submit the first jobs; if `max_jobs` is larger, their number follows the work that is left."""
        if max_jobs is None or max_jobs == min_jobs:
            self.scale(jobs=min_jobs)
        else:
            # A job ends only as a whole, so its workers are counted together.
            self.adapt(minimum_jobs=min_jobs, maximum_jobs=max_jobs, worker_key=job_of_worker)

    def look(self) -> None:
        """Compare the jobs that there should be with SLURM's queue, every 15 s at most, and replace those that are gone."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        # Before the queue is read: what is submitted meanwhile is not gone.
        known = {
            name: job.job_id or "" for name, job in list(self.workers.items()) if job.job_id or job.refusal
        }
        queued = commands.jobs_named(self.job_label)
        if queued is None:
            return
        self._queued, self.has_looked = queued, True
        gone = [name for name, number in known.items() if number not in queued]
        self.sync(self._replace, gone)

    async def _replace(self, gone: list[str]) -> None:
        """Forget jobs that are gone, so that others are submitted for them, unless too many were in vain."""
        connected = {_job_of(str(worker.name)) for worker in self.scheduler.workers.values()}
        if connected - self._served:
            self._n_in_vain = 0
        self._served |= connected
        for name in gone:
            job = self.workers.pop(name, None)
            if job is None:
                continue
            if name not in self._served:
                self._n_in_vain += 1
                if self._n_in_vain >= MOST_IN_VAIN:
                    self.stopped = self.stopped or self._why_in_vain(job)
            if self.stopped:
                self.worker_spec.pop(name, None)
        if len(self.worker_spec) > len(self.workers):
            # The number stays: this makes Dask compare the jobs that there should be with those that there are.
            self.scale(jobs=len(self.worker_spec))

    def _why_in_vain(self, job: SubmittedJob) -> str:
        if job.refusal:
            return f"sbatch refuses the run's jobs: {job.refusal}"
        path = Path(self._log_folder) / f"{self.job_label}-{job.job_id}.err"
        said = [line for line in _text_of(path).splitlines() if line.strip()]
        last = f", whose last line is: {said[-1].strip()[:300]}" if said else ""
        return f"{count_of(MOST_IN_VAIN, 'job')} in a row ended before a worker of theirs connected; see {path}{last}"

    @property
    def pending(self) -> list[commands.QueuedJob]:
        """The jobs that waited in the queue at the last look."""
        return [job for job in self._queued.values() if job.is_pending]

    @property
    def news(self) -> str:
        """A line such as "2 jobs pending (Resources)"; empty if no job waits."""
        if self.stopped:
            return self.stopped
        if not self.pending:
            return ""
        reasons = Counter(job.reason for job in self.pending)
        told = ", ".join(
            reason if len(reasons) == 1 else f"{n} {reason}" for reason, n in reasons.most_common()
        )
        return f"{count_of(len(self.pending), 'job')} pending ({told})"


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def job_of_worker(worker: Any) -> str:
    """Return the name of a worker's job; `worker` is Dask's state of it, in the scheduler."""
    return _job_of(str(worker.name))


def _job_of(worker_name: str) -> str:
    """Return the name of a worker's job: "job-3" of the worker "job-3-0", where jobs have several, and of "job-3" elsewhere."""
    return "-".join(worker_name.split("-")[:2])
