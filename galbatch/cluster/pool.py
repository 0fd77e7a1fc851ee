"""The workers that are connected at a moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from distributed import Client

__all__ = ["GPU", "Pool"]

GPU = "GPU"
"""The Dask resource that a task on a GPU takes one of: one inference at a time on each."""


@dataclass(frozen=True)
class Pool:
    """The workers that are connected at a moment, by their addresses.

    Attributes
    ----------
    threads : number of threads of each worker
    gpus : the workers with the resource GPU
    nannied : the workers that can be started again, as another process watches over them
    """

    threads: Mapping[str, int]
    gpus: frozenset[str]
    nannied: frozenset[str]

    @classmethod
    def of(cls, client: Client) -> Pool:
        """Return the workers that the scheduler knows now.

        Raises
        ------
        OSError
            It does not answer.
        """
        # Not Client.scheduler_info: it returns what the client noted last, and a timer of the client's notes no workers.
        found = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
        return cls(
            {address: worker["nthreads"] for address, worker in found.items()},
            frozenset(a for a, worker in found.items() if worker.get("resources", {}).get(GPU, 0) >= 1),
            frozenset(a for a, worker in found.items() if worker.get("nanny")),
        )

    @property
    def max_submitted(self) -> int:
        """The number of tasks to have submitted at a time: one for each thread, and one more for each worker to continue with."""
        return max(2, sum(self.threads.values()) + len(self.threads))

    def able(self, device: str, refused: Collection[str] = ()) -> list[str]:
        """Return the addresses of the workers that can compute on `device`, sorted, without those refused."""
        there = self.gpus if device == "cuda" else self.threads
        return sorted(set(there) - set(refused))

    def described(self, device: str) -> str:
        """Return the number of workers in words, and what they lack for `device`."""
        n_workers = len(self.threads)
        if not n_workers:
            return "no workers are there"
        counted = f"{n_workers} worker{'s are' if n_workers > 1 else ' is'} there"
        if device != "cuda":
            return counted
        return f"{counted}, {len(self.gpus) or 'none'} with the resource {GPU}"
