"""Calling a function in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

__all__ = ["map_in_processes"]


def map_in_processes(
    work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[Any]:
    """Yield the result of `work` for the arguments of each task, in order. One process or one task runs in this process."""
    processes = min(len(tasks), processes)
    if processes <= 1:
        yield from (work(*task) for task in tasks)
        return
    # Processes are spawned: a forked one has copies of the locks that threads of the parent (BLAS, Arrow) may hold.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, *zip(*tasks, strict=True))
