"""The [cluster] section: where workers come from."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from galbatch.config.strict import Section, nearest_hint, parse_strictly
from galbatch.errors import ConfigError

__all__ = ["ClusterConfig"]


class ClusterConfig(Section):
    """The [cluster] section: where workers come from."""

    kind: Literal["local", "local-cuda", "scheduler"] = Field(
        "local",
        description="local: worker processes on this machine; local-cuda: one for each of its GPUs; scheduler: those of a "
        "running Dask scheduler",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="worker processes; empty: local one per two cores, local-cuda one per GPU; scheduler: the number "
        "that is waited for, empty: one",
    )
    scheduler: str | None = Field(
        None, description="kind scheduler: the address to join, such as tcp://10.0.0.1:8786"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="kind scheduler: what its workers infer on; cuda asks for workers with the resource GPU. The workers of "
        "local have the cpu, those of local-cuda a GPU each",
    )
    wait_s: float = Field(
        120,
        ge=0,
        description="how long a run waits for workers that can do what is left to do, at its start and when there are none any more",
    )
    retries: int = Field(
        2,
        ge=0,
        description="how often a partition is tried again after I/O errors and lost workers; after lack of memory it is tried "
        "with half the batch, down to 1",
    )
    dashboard_address: str = Field(
        "127.0.0.1:8787", description="address of the Dask dashboard; port 0 takes a free one"
    )

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
        if self.kind == "local" and self.device == "cuda":
            raise ValueError(
                "kind = 'local' infers on the cpu; kind = 'local-cuda' on the GPUs of this machine"
            )
        return self

    def override(
        self, *, workers: int | None = None, kind: str | None = None, scheduler: str | None = None
    ) -> ClusterConfig:
        """Return the section with what the command line asks for; None keeps what run.toml says.

        Parameters
        ----------
        workers : worker processes
        kind : where they come from; what belongs to another kind of run.toml is left out
        scheduler : address of a running scheduler, which implies the kind "scheduler"

        Raises
        ------
        ConfigError
            There is no such kind, or what is asked for does not go together.
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
            # An address and a device are those of run.toml's own kind: another kind would refuse them.
            data |= {"scheduler": None, "device": data["device"] if kind == "scheduler" else "cpu"}
        asked = {"workers": workers, "kind": kind, "scheduler": scheduler}
        data |= {key: value for key, value in asked.items() if value is not None}
        return parse_strictly(ClusterConfig, data, "[cluster]")
