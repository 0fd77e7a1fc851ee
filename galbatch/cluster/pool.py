"""The workers that are connected to a scheduler at one moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from distributed import Client

__all__ = ["GPU", "Pool"]

GPU = "GPU"
"""Name of the Dask resource of a worker's GPU. Each inference takes one, so that a GPU runs one at a time."""


@dataclass(frozen=True)
class Pool:
    """The workers that are connected at one moment, by their addresses.

    Attributes
    ----------
    threads : number of threads of each worker
    gpus : addresses of the workers with the resource GPU
    nannies : address of the Dask nanny, a process that can restart the worker, of each worker that has one
    """

    threads: Mapping[str, int]
    gpus: frozenset[str]
    nannies: Mapping[str, str]

    @classmethod
    def of(cls, client: Client) -> Pool:
        """Return the workers that the scheduler knows now.

        Raises
        ------
        OSError
            The scheduler does not answer.
        """
        # Client.scheduler_info returns what the client has stored, and its periodic update leaves the workers out.
        # n_workers=-1 asks for all workers.
        found = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
        return cls(
            {address: worker["nthreads"] for address, worker in found.items()},
            frozenset(a for a, worker in found.items() if worker.get("resources", {}).get(GPU, 0) >= 1),
            {a: worker["nanny"] for a, worker in found.items() if worker.get("nanny")},
        )

    @property
    def max_submitted(self) -> int:
        """The number of tasks that should be submitted at a time: one for each thread, and another for each worker."""
        # With the additional one a worker need not wait for the client when a task ends.
        return max(2, sum(self.threads.values()) + len(self.threads))

    def able(self, device: str, refused: Collection[str] = ()) -> list[str]:
        """Return the sorted addresses of the workers that can compute on `device`, without those in `refused`."""
        # Workers with a GPU cut as well, so they count for the CPU.
        there = self.gpus if device == "cuda" else self.threads
        return sorted(set(there) - set(refused))

    def described(self, device: str) -> str:
        """Return a text with the number of workers and, for cuda, of those with a GPU."""
        n_workers = len(self.threads)
        if not n_workers:
            return "no workers are there"
        counted = f"{n_workers} worker{'s are' if n_workers > 1 else ' is'} there"
        if device != "cuda":
            return counted
        return f"{counted}, {len(self.gpus) or 'none'} with the resource {GPU}"
