"""The interface of a kind of cluster. Each kind is one file in `kinds/`, listed in `registry`."""

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
    """The things that the workers of a run must be able to do.

    Attributes
    ----------
    infers : whether networks are run, so that workers need the device
    written : folders of the outputs; they exist
    read : paths of some input files, one of each kind
    """

    infers: bool
    written: Sequence[str]
    read: Sequence[str]


class ClusterKind(ABC):
    """One value of ``[cluster] kind``: how workers are started or joined, and how they are checked.

    The methods that are not abstract are for workers that the run starts on this machine. These have the same packages
    and files as this process, so there is nothing to check, and a worker that cannot do something never will.

    Parameters
    ----------
    config : ClusterConfig
        The ``[cluster]`` section of the run.
    """

    name: ClassVar[str]
    """The value of ``[cluster] kind``."""

    starts_processes: ClassVar[bool] = False
    """Whether workers are processes that this one starts on its machine: it costs nothing to start some that are not needed."""

    only_for_runs: ClassVar[bool] = False
    """Whether workers take GPUs or wait in a queue: commands that look at a run, as status does, read headers on this machine instead."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config

    @property
    def device(self) -> Device:
        """The device on which the workers run the networks."""
        return "cpu"

    @abstractmethod
    def workers_planned(self) -> tuple[int, str]:
        """Return the number of workers that a plan assumes, and a text such as "4 workers"; no worker is started or joined."""

    def require(self) -> None:  # noqa: B027  (most kinds can be had everywhere)
        """Raise an error if this kind of cluster is not available on this machine; nothing is started.

        Raises
        ------
        ClusterError
            Something is missing; the message says what to install or to choose.
        """

    @abstractmethod
    def connect(self, notify: Notify) -> AbstractContextManager[Client]:
        """Start or join the workers, and yield a connection to them; workers that were started end with the context.

        Parameters
        ----------
        notify : callable
            Takes human-readable lines while workers are waited for.

        Raises
        ------
        ClusterError
            The workers cannot be started or joined, or do not connect within ``[cluster] wait_s``.
        """

    def check_workers(self, client: Client, needs: WorkerNeeds, notify: Notify) -> None:  # noqa: B027
        """Raise an error if connected workers cannot do what the run needs; called before work is submitted.

        Raises
        ------
        ClusterError
            A worker lacks a file, a folder or the device.
        """

    def import_ahead(self, module: str) -> None:  # noqa: B027  (most kinds cannot)
        """Begin to import a module that all tasks need, for workers that will start on this machine; returns at once."""

    def refused_workers(self, client: Client) -> dict[str, str]:
        """Return the reason for each worker that must get no work, by its address; called again when new workers connect."""
        return {}

    def replace_workers(self, client: Client) -> int:
        """Start workers again that this run had started and that nothing else brings back; return their number."""
        return 0

    def news(self, client: Client) -> str:
        """Return a line on workers that were asked for and are not there yet, such as "2 jobs pending (Resources)"; empty if none is.

        Asked every few seconds during the run; the user is notified when it changes.
        """
        return ""

    def patience_s(self, n_workers: int) -> float:
        """Return how long the run waits, in seconds, when none of the `n_workers` connected workers can do what is left."""
        # Workers of this machine that are connected but unable stay unable. If none is connected, Dask's nannies may start
        # the lost ones again.
        return 0.0 if n_workers else self.config.wait_s

    def how_to_start(self, device: Device) -> str:
        """Return the shell command that starts a worker; empty if the run starts its workers itself."""
        return ""


def count_of(n: int, noun: str) -> str:
    """Return a number with a noun, such as "1 worker" or "2 workers"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
