"""The kind of cluster "slurm": its scheduler is in the process of the run, its workers are in jobs."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client
from distributed.security import Security

from galbatch.cluster.base import ClusterKind, Device, Notify, WorkerNeeds, count_of
from galbatch.cluster.checks import require_distinct_gpus, require_paths
from galbatch.cluster.kinds.local import free_address, patient_with_workers
from galbatch.cluster.kinds.scheduler import refused_workers
from galbatch.cluster.kinds.slurm import commands
from galbatch.cluster.kinds.slurm.commands import WHERE
from galbatch.cluster.pool import Pool
from galbatch.config import SlurmConfig
from galbatch.core import process
from galbatch.errors import ClusterError

__all__ = ["Slurm"]

POLL_S = 0.5

CLOSE_S = 60.0
"""The longest time to wait for the scheduler and the jobs to end, in seconds; then all jobs of the run's name are canceled."""

SCHEDULER_FILE = "scheduler.json"
"""The file in the log folder by which `dask worker --scheduler-file` joins."""

ENDED_FILE = "ended"
"""The file beside it that tells workers of the recipes in deploy/slurm to end: they look for it."""


class Slurm(ClusterKind):
    """Workers in SLURM jobs that the run submits, replaces and cancels."""

    name = "slurm"
    only_for_runs = True

    @property
    def job(self) -> SlurmConfig:
        """The section [cluster.slurm], which this kind requires."""
        assert self.config.slurm is not None
        return self.config.slurm

    @property
    def device(self) -> Device:
        return "cuda" if self.job.gpus else "cpu"

    def workers_planned(self) -> tuple[int, str]:
        n_jobs, each = self.job.max_jobs or self.job.min_jobs, self.job.gpus or self.job.cores
        noun = "GPU worker" if self.job.gpus else "worker"
        return n_jobs * each, f"{count_of(n_jobs * each, noun)} in {count_of(n_jobs, 'SLURM job')}"

    def require(self) -> None:
        process.require("dask_jobqueue", where=WHERE)
        commands.require_commands()
        there = sorted(name for _, name in socket.if_nameindex())
        for key in ("interface", "scheduler_interface"):
            # Workers are elsewhere, where interfaces may have other names: only that of the scheduler is looked up.
            name = self.job.scheduler_interface or self.job.interface
            if getattr(self.job, key) == name is not None and name not in there:
                raise ClusterError(
                    f"[cluster.slurm] {key} = {name!r}: there is no such network interface here, only {', '.join(there)}; that of the "
                    "scheduler alone is scheduler_interface"
                )
        if re.search(r"[\s%]", self.job.log_folder):
            raise ClusterError(
                f"[cluster.slurm] log_folder: {self.job.log_folder}: a path without spaces and % is needed, as SLURM fills in the latter"
            )

    @contextmanager
    def connect(self, notify: Notify) -> Iterator[Client]:
        Path(self.job.log_folder).mkdir(parents=True, exist_ok=True)
        with patient_with_workers():
            jobs = self._submitting(notify)
            try:
                with Client(jobs) as client:
                    jobs.begin(self.job.min_jobs, self.job.max_jobs)
                    self._wait(jobs, client, notify)
                    yield client
            finally:
                self._end(jobs, notify)

    def _submitting(self, notify: Notify) -> Any:
        """Return the scheduler, which has no jobs yet; a job like them has been tried."""
        from galbatch.cluster.kinds.slurm.jobs import Jobs, SubmittedJob, job_options

        with SubmittedJob("tcp://scheduler:8786", name="try", **job_options(self.job)).job_file() as script:
            commands.try_submission(script)
        interface = self.job.scheduler_interface or self.job.interface
        options = {"dashboard_address": free_address(self.config.dashboard_address)}
        # Where Dask's configuration has certificates, only who has them may join.
        is_secure = bool(dask.config.get("distributed.comm.require-encryption", False))
        try:
            jobs = Jobs(
                self.job,
                scheduler_options=options | ({"interface": interface} if interface else {}),
                security=Security() if is_secure else None,
                silence_logs=40,
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise ClusterError(f"{WHERE}: the scheduler cannot start here: {error}") from None
        path = Path(self.job.log_folder) / SCHEDULER_FILE
        notify(
            f"scheduler {jobs.scheduler_address}: {self._count()} {jobs.job_label} submitted; their output is in {self.job.log_folder}, and "
            f"further workers join by {path}"
        )
        return jobs

    def _count(self) -> str:
        most = self.job.max_jobs
        return (
            f"{self.job.min_jobs} to {most} jobs"
            if most and most > self.job.min_jobs
            else count_of(self.job.min_jobs, "job")
        )

    def _wait(self, jobs: Any, client: Client, notify: Notify) -> None:
        """Wait for the first worker that can infer; write the file by which others join."""
        (Path(self.job.log_folder) / ENDED_FILE).unlink(missing_ok=True)
        client.write_scheduler_file(str(Path(self.job.log_folder) / SCHEDULER_FILE))
        began, told, ran = time.monotonic(), "", None
        while not Pool.of(client).able(self.device):
            jobs.look()
            pending, now = jobs.pending, time.monotonic()
            # The time that running jobs have for their workers counts while none waits in the queue.
            ran = (ran or now) if jobs.has_looked and not pending else None
            if problem := self._problem(jobs, waited_s=now - began, ran_s=now - ran if ran else 0.0):
                raise ClusterError(f"{WHERE}: {problem}")
            if jobs.news not in ("", told):
                notify(told := jobs.news)
            time.sleep(POLL_S)

    def _problem(self, jobs: Any, *, waited_s: float, ran_s: float) -> str:
        """Return why no worker is to be expected; empty while one is."""
        pending = jobs.pending
        if jobs.stopped:
            return str(jobs.stopped)
        if pending and all(job.is_hopeless for job in pending):
            return (
                f"{jobs.news}: SLURM will not start them, however long they wait; look at [cluster.slurm]: walltime, partition, "
                "account, cores, memory"
            )
        if pending and waited_s > self.job.queue_wait_s:
            return f"{jobs.news} after {self.job.queue_wait_s:g} s ([cluster.slurm] queue_wait_s); squeue tells when they may start"
        if ran_s > max(self.config.wait_s, 1.0):
            return (
                f"jobs run, and none of their workers has connected within {self.config.wait_s:g} s ([cluster] wait_s): can the nodes reach "
                f"{jobs.scheduler_address}? See [cluster.slurm] interface, scheduler_interface, and the jobs' output in {self.job.log_folder}"
            )
        return ""

    def _end(self, jobs: Any, notify: Notify) -> None:
        """Cancel the jobs and end the scheduler, also when Ctrl-C, SIGTERM or an error ended the run."""
        try:
            jobs.close(timeout=CLOSE_S)
        finally:
            # Whatever Dask knows of: by the name, those too that were submitted while it was closed.
            if problem := commands.cancel(jobs.job_label):
                notify(
                    f"the run's jobs may still be there ({problem}): scancel --name={jobs.job_label}; their workers end by themselves"
                )
            # First the news of the end: without it workers that find no scheduler wait an hour for its successor.
            (Path(self.job.log_folder) / ENDED_FILE).touch()
            (Path(self.job.log_folder) / SCHEDULER_FILE).unlink(missing_ok=True)

    def check_workers(self, client: Client, needs: WorkerNeeds, notify: Notify) -> None:
        if needs.infers and self.device == "cuda":
            require_distinct_gpus(client)
        require_paths(client, written=needs.written, read=needs.read)

    def refused_workers(self, client: Client) -> dict[str, str]:
        return refused_workers(client)

    def replace_workers(self, client: Client) -> int:
        # Jobs are replaced as they are looked at, every few seconds, whether workers are missing or not.
        return 0

    def news(self, client: Client) -> str:
        jobs: Any = client.cluster
        jobs.look()
        self._stopped = jobs.stopped
        return str(jobs.news)

    _stopped = ""

    def patience_s(self, n_workers: int) -> float:
        # Jobs may wait for days; where they are not replaced any more, only those that are there may bring workers.
        return self.config.wait_s if self._stopped else self.job.queue_wait_s
