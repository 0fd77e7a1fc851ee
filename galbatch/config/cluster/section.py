"""The [cluster] section: where workers come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from pydantic import Field, model_validator

from galbatch.config.cluster.kubernetes import KubernetesConfig
from galbatch.config.cluster.slurm import SlurmConfig
from galbatch.config.strict import Section, nearest_hint, parse_strictly
from galbatch.errors import ConfigError

__all__ = ["ClusterConfig"]

GPU_KINDS = ("local-cuda", "scheduler", "slurm", "kubernetes")
"""Kinds whose workers may infer on a GPU; ``device = "cuda"`` is refused for all others."""

KEYS_OF_ALL_KINDS = ("workers", "wait_s", "retries", "pause_limit", "task_timeout", "dashboard_address")
"""Keys that mean the same for every kind, so that they are kept where the command line replaces the kind."""


MOST_WAIT_S = 1e8
"""Three years: nobody waits longer, and what is infinite to a timer overflows."""


class ClusterConfig(Section):
    """The [cluster] section: where workers come from."""

    # A test compares these names with the registry of cluster kinds: the config may not import it.
    kind: Literal["local", "local-cuda", "scheduler", "slurm", "kubernetes"] = Field(
        "local",
        description="local: worker processes on this machine; local-cuda: one worker process for each GPU of this machine; "
        "scheduler: the workers of a running Dask scheduler; slurm: workers in jobs that the run submits, see [cluster.slurm]; "
        "kubernetes: pods that the operator of dask-kubernetes starts for the run, see [cluster.kubernetes]",
    )
    workers: int | None = Field(
        None,
        ge=1,
        # A scheduler of Dask holds some thousand workers.
        le=100_000,
        description="number of worker processes; empty: one per two cores for local, one per GPU for local-cuda. For scheduler: "
        "the number of workers to wait for; empty: one. For kubernetes: the number of pods that infer; empty: one. Not for slurm, which counts jobs",
    )
    scheduler: str | None = Field(
        None, description="kind scheduler: the address to join, such as tcp://10.0.0.1:8786"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="kinds scheduler and kubernetes: the device that the networks run on; cuda needs workers with the Dask resource GPU. "
        "Workers of kind local use the CPU, workers of kind local-cuda a GPU each, and those of kind slurm as its gpus says",
    )
    wait_s: float = Field(
        120,
        ge=0,
        le=MOST_WAIT_S,
        description="how long (in seconds) a run waits for suitable workers, at its start and whenever none is left",
    )
    # Retries of a batch that did not fit are not counted here: each halves the batch, so they end by themselves.
    retries: int = Field(
        2,
        ge=0,
        # A partition that fails a thousand times fails always.
        le=1000,
        description="how often a partition is tried again after I/O errors and lost workers. When memory runs out it is tried "
        "again with half the batch, down to 1",
    )
    pause_limit: float = Field(
        3600,
        ge=0,
        le=MOST_WAIT_S,
        description="how long (in seconds) a run pauses in all, while a disk is full, an output read-only, an object store "
        "unavailable or a bundle gone, before it ends; 0: it ends at once",
    )
    task_timeout: float = Field(
        20,
        ge=2,
        # A task of a second may take 12 days then: no limit at all.
        le=10**6,
        description="how many times the mean time per object of the run's finished tasks a task may take, never less than 10 "
        "minutes; then its worker is started again and the partition is tried elsewhere, as often as retries says",
    )
    dashboard_address: str = Field(
        "127.0.0.1:8787", description="address of the Dask dashboard; port 0 takes a free one"
    )
    slurm: SlurmConfig | None = Field(
        None, description="the jobs of kind slurm: what each asks SLURM for, and how many there are"
    )
    kubernetes: KubernetesConfig | None = Field(
        None,
        description="the pods of kind kubernetes: their image, what each asks for, and what they are given",
    )

    # A key that the kind would ignore is an error: whoever wrote it expects that it has an effect.
    @model_validator(mode="after")
    def _kind_fits_the_rest(self) -> ClusterConfig:
        if self.kind == "scheduler" and not self.scheduler:
            raise ValueError(
                "kind = 'scheduler' joins a running one: name its address, [cluster] scheduler = \"tcp://host:8786\" or "
                "--scheduler tcp://host:8786"
            )
        if self.kind != "scheduler" and self.scheduler:
            raise ValueError(
                f"scheduler = {self.scheduler!r} is joined by kind = 'scheduler'; kind = {self.kind!r} starts its own workers: "
                "leave one of them out"
            )
        self._slurm_fits()
        self._kubernetes_fits()
        if self.kind not in GPU_KINDS and self.device == "cuda":
            raise ValueError(
                f"kind = {self.kind!r} infers on the cpu; kind = 'local-cuda' on the GPUs of this machine"
            )
        return self

    def _slurm_fits(self) -> None:
        if self.kind == "slurm" and self.slurm is None:
            raise ValueError(
                "kind = 'slurm' submits jobs: say in [cluster.slurm] what each asks for, its cores and memory at least"
            )
        if self.kind != "slurm" and self.slurm is not None:
            raise ValueError(
                f"[cluster.slurm] is of kind = 'slurm'; this kind is {self.kind!r}: leave one of them out"
            )
        if self.kind == "slurm" and self.workers is not None:
            raise ValueError(
                f"workers = {self.workers}: kind = 'slurm' counts jobs, [cluster.slurm] min_jobs and max_jobs; each has a worker "
                "process a core"
            )
        if self.slurm is not None and self.device == "cuda" and not self.slurm.gpus:
            raise ValueError(
                "device = 'cuda' and kind = 'slurm': say [cluster.slurm] gpus, how many a job has"
            )

    def _kubernetes_fits(self) -> None:
        if self.kind == "kubernetes" and self.kubernetes is None:
            raise ValueError(
                "kind = 'kubernetes' starts pods of an image: name it, [cluster.kubernetes] image = \"registry/galbatch:version\"; "
                "deploy/Dockerfile makes one"
            )
        if self.kubernetes is None:
            return
        if self.kind != "kubernetes":
            raise ValueError(
                f"[cluster.kubernetes] is of kind = 'kubernetes'; this kind is {self.kind!r}: leave one of them out"
            )
        if self.kubernetes.cpu_workers and self.device != "cuda":
            raise ValueError(
                'cpu_workers are those beside workers with GPUs, of device = "cuda"; for others, [cluster] workers is the number'
            )
        if (self.kubernetes.min_workers or 0) > (self.workers or 1):
            raise ValueError(
                f"min_workers = {self.kubernetes.min_workers} is more than workers = {self.workers or 1}, their largest number"
            )

    def resolve_paths(self, absolute: Callable[[str], str]) -> ClusterConfig:
        """Return a copy with absolute paths."""
        if self.slurm is None:
            return self
        return self.model_copy(update={"slurm": self.slurm.resolve_paths(absolute)})

    def override(
        self, *, workers: int | None = None, kind: str | None = None, scheduler: str | None = None
    ) -> ClusterConfig:
        """Return a copy of this section in which options of the command line replace the values of run.toml.

        Parameters
        ----------
        workers : int or None
            Number of worker processes. None keeps the value of run.toml, here and below.
        kind : str or None
            Kind of cluster. If it differs from the kind in run.toml, keys that only some kinds have are dropped.
        scheduler : str or None
            Address of a running Dask scheduler; implies the kind "scheduler".

        Returns
        -------
        ClusterConfig

        Raises
        ------
        ConfigError
            The kind does not exist, or the options contradict each other.
        """
        kinds = get_args(ClusterConfig.model_fields["kind"].annotation)
        if kind is not None and kind not in kinds:
            raise ConfigError(
                f"--cluster {kind}: expected {', '.join(kinds[:-1])} or {kinds[-1]}{nearest_hint(kind, kinds)}"
            )
        if scheduler is not None and kind not in (None, "scheduler"):
            raise ConfigError(
                f"--scheduler {scheduler} joins a running scheduler, --cluster {kind} starts workers: give one of them"
            )
        if scheduler is not None:
            kind = "scheduler"
        data = self.model_dump()
        if kind is not None and kind != self.kind:
            # Other keys in run.toml were written for its own kind, and the new kind would refuse them. A device is wanted of
            # a running scheduler's workers, too.
            kept = (*KEYS_OF_ALL_KINDS, *(("device",) if kind in ("scheduler", "kubernetes") else ()))
            data = {key: data[key] for key in kept}
        asked = {"workers": workers, "kind": kind, "scheduler": scheduler}
        data |= {key: value for key, value in asked.items() if value is not None}
        # model_copy would skip the validators, and options can contradict what is left of run.toml.
        return parse_strictly(ClusterConfig, data, "[cluster]")
