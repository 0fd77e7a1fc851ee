"""SLURM's commands: jobs are tried, listed and canceled by them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from galbatch.errors import ClusterError

__all__ = ["WHERE", "QueuedJob", "cancel", "jobs_named", "require_commands", "try_submission"]

WHERE = "[cluster] kind = 'slurm'"

ANSWER_S = 30
"""The longest time, in seconds, to wait for an answer of slurmctld, which a busy site's takes some seconds for."""

FAR_AWAY = (
    "COMPLETING",
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
)
"""States of jobs that run no more, although squeue may list them for a while."""

# Those that only a change of the job or of the site ends. Held jobs are not among them: whoever held them may release them.
HOPELESS = (
    "PartitionTimeLimit",
    "PartitionNodeLimit",
    "BadConstraints",
    "DependencyNeverSatisfied",
    "InvalidAccount",
    "InvalidQOS",
    "AccountNotAllowed",
    "QOSNotAllowed",
)


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs, as squeue lists it: its state, such as PENDING, and the reason why it waits."""

    state: str
    reason: str

    @property
    def is_pending(self) -> bool:
        """Whether it has not begun."""
        return self.state == "PENDING"

    @property
    def is_hopeless(self) -> bool:
        """Whether it waits for a reason that waiting does not change."""
        return self.is_pending and (self.reason in HOPELESS or self.reason.endswith("PerJobLimit"))


def require_commands() -> None:
    """Raise an error if SLURM's commands are not on this machine.

    Raises
    ------
    ClusterError
        Names those that are missing.
    """
    missing = [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"{WHERE}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not on PATH here: start the run on a machine of "
            "the cluster from which jobs are submitted, such as its login node; kind = 'local' runs without SLURM"
        )


def try_submission(script: str) -> None:
    """Raise an error if SLURM would refuse a job; nothing is submitted.

    Parameters
    ----------
    script : str
        Path of the job's script.

    Raises
    ------
    ClusterError
        Quotes what sbatch says.
    """
    try:
        answer = _asked("sbatch", "--test-only", script)
    except subprocess.TimeoutExpired:
        # A site may be that busy; whether it takes the jobs is seen when they are submitted.
        return
    if answer.returncode:
        raise ClusterError(
            f"{WHERE}: sbatch refuses the job: {refusal(answer.stderr)}; look at [cluster.slurm]: partition, account, walltime, cores, "
            "memory, gpus and directives; sinfo shows what there is"
        )


def refusal(text: str) -> str:
    """Return what sbatch says in its last lines, as one line without its own name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    short = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines]
    return ": ".join(short[-2:]) or "it says nothing"


def jobs_named(name: str) -> Mapping[str, QueuedJob] | None:
    """Return the jobs of a name that wait or run, by their ids; None if SLURM does not answer now."""
    try:
        answer = _asked("squeue", "--noheader", f"--name={name}", "--format=%i|%T|%r")
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode:
        return None
    rows = [line.split("|", 2) for line in answer.stdout.splitlines() if line.count("|") >= 2]
    return {number: QueuedJob(state, reason) for number, state, reason in rows if state not in FAR_AWAY}


def cancel(name: str) -> str:
    """Cancel all jobs of a name; return what is wrong if they may still be there, else an empty text."""
    try:
        answer = _asked("scancel", f"--name={name}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return answer.stderr.strip() if answer.returncode else ""


def _asked(*words: str) -> subprocess.CompletedProcess[str]:
    asked: Sequence[str] = words
    return subprocess.run(asked, capture_output=True, text=True, timeout=ANSWER_S, check=False)
