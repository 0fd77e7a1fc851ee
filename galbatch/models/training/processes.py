"""A training by several processes at a time (torch's DistributedDataParallel): each computes the gradients of its part of a batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from galbatch.errors import UsageError
from galbatch.models.networks import prefix_arguments

__all__ = ["ONE_PROCESS", "Pass", "Processes", "join_processes"]


@dataclass(frozen=True)
class Processes:
    """The processes of a training, and which one this is.

    Attributes
    ----------
    rank : number of this process, from 0
    n : number of processes
    local_rank : number of this process on its machine, which is that of its GPU
    """

    rank: int = 0
    n: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and shows the progress."""
        return self.rank == 0

    def part(self, n_rows: int) -> slice:
        """Return this process's part of a batch of `n_rows`."""
        return slice(n_rows * self.rank // self.n, n_rows * (self.rank + 1) // self.n)

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a number over all processes."""
        if self.n > 1:
            distributed.all_reduce(value)
        return value

    def synchronized(self, network: nn.Module) -> nn.Module:
        """Return the pass of a network whose gradients are averaged over all processes in its backward."""
        own = Pass(network)
        return nn.parallel.DistributedDataParallel(own) if self.n > 1 else own

    def check_batch(self, batch: int) -> None:
        """Raise a UsageError if the batch cannot be divided evenly, as the mean of unequal parts is not that of the batch."""
        if batch % self.n:
            raise UsageError(f"batch: {batch} galaxies cannot be divided evenly among {self.n} processes")


ONE_PROCESS = Processes()


class Pass(nn.Module):
    """One pass of a network, as a single forward, which is what torch synchronizes.

    Parameters
    ----------
    network : network with `prefix` and `sample`
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor, auxiliary: Tensor | None, keys: Tensor, is_bf16: bool) -> Tensor:
        """Return the outputs (row, output) float32 of images (row, band, y, x) with dropout masks drawn from keys (row,)."""
        features = self.network.prefix(*prefix_arguments(images, auxiliary))
        # The prefix, outside of this block, stays in float32, and with it the scale of the crop.
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=is_bf16):
            outputs: Tensor = self.network.sample(features, keys)
        return outputs.float()


@contextlib.contextmanager
def join_processes(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Join the other processes of a training that ``torchrun`` started, while the context lasts; alone without it.

    Parameters
    ----------
    device : cpu (gloo) or cuda (NCCL, one GPU a process)
    environment : environment variables; torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and the address where the processes meet

    Raises
    ------
    UsageError
        The variables are not those that torchrun sets.
    """
    if "RANK" not in environment:
        yield ONE_PROCESS
        return
    try:
        rank, n, local = (int(environment.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        found = Processes(rank, max(1, n), local)
        if found.n > 1:
            _meet(found, device)
    except ValueError as error:
        raise UsageError(
            f"the environment has RANK={environment['RANK']}, and the processes of a training cannot meet: {error}; start it with torchrun, "
            "or unset RANK"
        ) from None
    if found.n == 1:
        yield ONE_PROCESS
        return
    try:
        yield found
        # All processes leave together: one that is gone could not answer the last messages of the others.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _meet(own: Processes, device: str) -> None:
    """Wait until all processes are there."""
    if device == "cuda":
        torch.cuda.set_device(own.local_rank)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
