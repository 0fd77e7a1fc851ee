"""The [cluster.slurm] section: what a job that holds workers asks SLURM for, and how many jobs there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from galbatch.config.strict import Section
from galbatch.config.values import Bytes

__all__ = ["SlurmConfig"]

# days-hours:minutes:seconds, hours:minutes:seconds, or one of sbatch's shorter forms with days.
WALLTIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]?\d):([0-5]?\d)")

# A worker needs a minute to start, and must end before its job does.
SHORTEST_S = 180

SECRET = re.compile(r"(?i)\b\w*(secret|token|passw(or)?d|access_key|credential|private_key)\w*\s*=")


def _no_directive_lines(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if not word.startswith("-"):
            raise ValueError(f'{word!r}: write an option of sbatch, such as "--qos=long", without #SBATCH')
    return words


def _no_secrets(lines: tuple[str, ...]) -> tuple[str, ...]:
    for line in lines:
        if found := SECRET.search(line):
            raise ValueError(
                f"{found[0].rstrip(' =')} does not belong into a job script, which others can read: set it in the environment of "
                "galbatch run, which sbatch passes on, or in the file that its library reads"
            )
    return lines


Words = Annotated[tuple[str, ...], AfterValidator(_no_secrets)]


class SlurmConfig(Section):
    """The [cluster.slurm] section: what a job that holds workers asks SLURM for, and how many jobs there are."""

    partition: str | None = Field(None, description="partition of the jobs; empty: the site's default")
    account: str | None = Field(
        None, description="account that the jobs are charged to; empty: the user's default"
    )
    walltime: str = Field(
        "04:00:00",
        description="time limit of a job, `hours:minutes:seconds` or `days-hours:minutes:seconds`. Workers end by themselves before "
        "it, not all at the same time, and the job is replaced",
    )
    # The largest nodes have some hundred cores.
    cores: int = Field(
        ge=1,
        le=4096,
        description="cores of a job. Without GPUs each has a worker process that cuts and infers; with GPUs each GPU has one, and "
        "the other cores have processes that cut",
    )
    memory: Bytes = Field(
        description='memory of a job, such as "64 GiB", without GPUs shared equally by its worker processes'
    )
    gpus: int = Field(
        0, ge=0, le=64, description="GPUs of a job; networks run on them, and on the cpu if it is 0"
    )
    gpu_type: str | None = Field(
        None, description="type of the GPUs, as the site calls it in `--gres=gpu:TYPE:n`; empty: any"
    )
    # slurmctld holds 10,000 jobs by default, of all users.
    min_jobs: int = Field(1, ge=1, le=10_000, description="number of jobs at the start, and at least")
    max_jobs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="the largest number of jobs: as many as the work that is left can use; empty: always `min_jobs`",
    )
    directives: Annotated[Words, AfterValidator(_no_directive_lines)] = Field(
        (), description='further options of sbatch, such as `["--qos=long", "--constraint=a100"]`'
    )
    prologue: Words = Field(
        (),
        description='lines of shell that a job runs before its workers, such as `["module load cuda"]`; no credentials: sbatch passes '
        "the environment of galbatch run on",
    )
    interface: str | None = Field(
        None,
        description="network interface of the workers and of the scheduler, such as `ib0`; empty: that of the machine's own name",
    )
    scheduler_interface: str | None = Field(
        None,
        description="network interface of the scheduler, where the machine of the run names it otherwise",
    )
    log_folder: str = Field(
        "slurm_logs",
        description="folder of the jobs' output, and of `scheduler.json`, by which further workers join; all nodes must see it",
    )
    queue_wait_s: float = Field(
        604_800,
        ge=0,
        le=1e8,
        description="how long (in seconds) jobs may wait in SLURM's queue while none of the run's workers is there; a week",
    )

    @field_validator("partition", "account", "gpu_type", "interface", "scheduler_interface", "log_folder")
    @classmethod
    def _is_one_word(cls, value: str | None) -> str | None:
        # They stand unquoted in the job's script.
        if value is not None and not re.fullmatch(r"[^\s'\"`$;&|<>#%\\]+", value):
            raise ValueError(
                f"{value!r}: expected one word without quotes, $, # or %, as it stands in a job script"
            )
        return value

    @field_validator("directives", "prologue")
    @classmethod
    def _are_lines(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if broken := [line for line in lines if "\n" in line or "\r" in line]:
            raise ValueError(f"{broken[0]!r}: expected one line; write several as a list")
        return lines

    @model_validator(mode="after")
    def _adds_up(self) -> SlurmConfig:
        if self.walltime_s < SHORTEST_S:
            raise ValueError(
                f"walltime = {self.walltime!r}: a job needs {SHORTEST_S} s at least, as its workers start and end within it"
            )
        if self.gpus > self.cores:
            raise ValueError(
                f"cores = {self.cores}, gpus = {self.gpus}: each GPU needs a core, and others that cut for it; 4 to 16 a GPU are usual"
            )
        if self.gpu_type and not self.gpus:
            raise ValueError(f"gpu_type = {self.gpu_type!r}, gpus = 0: say how many, or leave the type out")
        if self.max_jobs is not None and self.max_jobs < self.min_jobs:
            raise ValueError(f"max_jobs = {self.max_jobs} is below min_jobs = {self.min_jobs}")
        return self

    @property
    def walltime_s(self) -> int:
        """The time limit of a job, in seconds."""
        match = WALLTIME.fullmatch(self.walltime)
        if match is None:
            raise ValueError(
                f"walltime = {self.walltime!r}: write hours:minutes:seconds, such as 04:00:00, or days before it, 2-00:00:00"
            )
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return 86_400 * days + 3600 * hours + 60 * minutes + seconds

    def resolve_paths(self, absolute: Callable[[str], str]) -> SlurmConfig:
        """Return a copy in which the folder of the logs is absolute."""
        return self.model_copy(update={"log_folder": absolute(self.log_folder)})
