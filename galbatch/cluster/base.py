"""The protocol that a kind of cluster plays; each kind is one file beside this one, named in `registry`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal

from distributed import Client

from galbatch.config import ClusterConfig

__all__ = ["ClusterKind", "Device", "Notify", "WorkerNeeds", "count_of"]

Device = Literal["cpu", "cuda"]

Notify = Callable[[str], None]
"""Takes one human-readable line."""


@dataclass(frozen=True)
class WorkerNeeds:
    """The requirements of a run on its workers.

    Attributes
    ----------
    infers : whether networks are run, which needs the device
    written : folders of the outputs, which exist
    read : some files of the inputs, one of each sort
    """

    infers: bool
    written: Sequence[str]
    read: Sequence[str]


class ClusterKind(ABC):
    """One value of ``[cluster] kind``: where workers come from and what follows from that.

    The methods that are not abstract hold for kinds whose workers are processes of this machine, started for the run:
    they are like this process and see the same files, so there is nothing to check, and one that cannot do something
    will never be able to.

    Parameters
    ----------
    config : the ``[cluster]`` section of the run
    """

    name: ClassVar[str]
    """The value of ``[cluster] kind``."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config

    @property
    def device(self) -> Device:
        """The device that the workers infer on."""
        return "cpu"

    @abstractmethod
    def workers_planned(self) -> tuple[int, str]:
        """Return the number of workers that a plan assumes, and that number in words; no worker is started or joined."""

    def require(self) -> None:  # noqa: B027  (most kinds can be had everywhere)
        """Refuse to continue where this kind is not available, before anything is started.

        Raises
        ------
        ClusterError
            Something is missing on this machine; the message says what to install or to choose.
        """

    @abstractmethod
    def connect(self, notify: Notify) -> AbstractContextManager[Client]:
        """Start or join the workers and connect to them; workers that were started end with the context.

        Parameters
        ----------
        notify : takes a human-readable line while workers are waited for

        Raises
        ------
        ClusterError
            The workers cannot be had, or do not come within ``[cluster] wait_s``.
        """

    def check_workers(self, client: Client, needs: WorkerNeeds, notify: Notify) -> None:  # noqa: B027
        """Refuse workers that cannot do what the run needs, before work is given to them.

        Raises
        ------
        ClusterError
            A worker misses a file, a folder or the device.
        """

    def refused_workers(self, client: Client) -> dict[str, str]:
        """Return the workers that must get no work, by address, with the reason; asked again when new ones have come."""
        return {}

    def patience_s(self, n_workers: int) -> float:
        """Return how long the run waits, in seconds, when none of `n_workers` connected workers can do what is left.

        Workers that are connected but unable stay so. One that was lost is started again by its nanny within
        ``[cluster] wait_s``.
        """
        return 0.0 if n_workers else self.config.wait_s

    def how_to_start(self, device: Device) -> str:
        """Return the shell command with which the user starts a worker; empty where the run starts them itself."""
        return ""


def count_of(n: int, noun: str) -> str:
    """Return "1 worker" or "2 workers"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
