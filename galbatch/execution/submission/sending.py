"""Tasks on their way to Dask's scheduler: what runs for an attempt, and the sending of many tasks as one graph.

A graph costs client and scheduler as much time as several small tasks do, so tasks that end within moments are sent together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed import Client, Future

from galbatch import cluster, storage
from galbatch.config import RunConfig
from galbatch.execution import tasks
from galbatch.execution.submission.attempt import Attempt
from galbatch.execution.submission.boundary import packed, run_packed

if TYPE_CHECKING:
    # Workers import this module with the tasks' boundary, and need no plan.
    from galbatch.planning import Plan

__all__ = ["PackedTask", "pack", "send"]

MAX_GRAPH_BYTES = 1 << 20
"""Tasks are sent together up to this size: workers begin with the first ones while the next are made.

Dask warns of graphs of more than 10 MB, and the scheduler holds a graph until it has read all of it."""


@dataclass(frozen=True, slots=True)
class PackedTask:
    """A task that is ready to be sent.

    Attributes
    ----------
    attempt : the step that it makes
    key : its key in Dask, which no other task has
    data : the task, for `run_packed`
    workers : addresses that it may run on; empty if it may run on any
    device : the device that it needs
    priority : tasks of a higher one go first
    """

    attempt: Attempt
    key: str
    data: bytes
    workers: tuple[str, ...]
    device: cluster.Device
    priority: int


def pack(
    attempt: Attempt,
    config: RunConfig,
    plan: Plan,
    *,
    key: str,
    locks: Sequence[storage.LockHandle],
    workers: tuple[str, ...],
    device: cluster.Device,
) -> PackedTask:
    """Return the task of an attempt, made from the part of the plan that it needs.

    Parameters
    ----------
    attempt : Attempt
    config : RunConfig
    plan : Plan
    key : str
        Its key in Dask.
    locks : sequence of LockHandle
        The locks that the run must still hold when the task commits its output.
    workers : tuple of str
        Addresses that it may run on; empty if it may run on any.
    device : {"cpu", "cuda"}
        The device that it needs.
    """
    function: Callable[[Any], tasks.TaskResult]
    task: tasks.IngestTask | tasks.PhotometryTask | tasks.InferTask
    cutouts, part = config.cutouts, attempt.part
    if attempt.step == "ingest":
        function = tasks.ingest_partition
        task = tasks.ingest_task(plan, part, cutouts=cutouts, flags=config.flags)
    elif attempt.step == "photometry":
        function = tasks.photometry_partition
        task = tasks.photometry_task(plan, part, store=cutouts.store)
    else:
        function = tasks.infer_partition
        task = tasks.infer_task(
            plan,
            part,
            store=cutouts.store,
            catalog_path=config.catalog.path,
            posterior=config.posterior.model_copy(update={"batch": attempt.batch}),
            device=device,
        )
    # Cutting goes on in other threads, with the lower priority.
    priority = 0 if attempt.step == "ingest" else 1
    return PackedTask(attempt, key, packed(function, task, locks), workers, device, priority)


def send(client: Client, waiting: Iterable[PackedTask]) -> Iterator[tuple[PackedTask, Future]]:
    """Send tasks to the scheduler as they are made; yield each with its future, once it was sent."""
    for together in _graphs(waiting):
        first = together[0]
        futures = client.map(
            run_packed,
            [one.data for one in together],
            key=[one.key for one in together],
            pure=False,
            # Retries are counted by the queue alone, as Dask's own would repeat wrong inputs, too.
            retries=0,
            workers=list(first.workers) or None,
            # One inference at a time on a GPU.
            resources={cluster.GPU: 1} if first.device == "cuda" else None,
            priority=first.priority,
        )
        yield from zip(together, futures, strict=True)


def _graphs(waiting: Iterable[PackedTask]) -> Iterator[list[PackedTask]]:
    """Yield the tasks that go together: neighbors in the order that may run on the same workers, up to a size."""
    together: list[PackedTask] = []
    size = 0
    for one in waiting:
        if together and (
            _conditions(one) != _conditions(together[0]) or size + len(one.data) > MAX_GRAPH_BYTES
        ):
            yield together
            together, size = [], 0
        together.append(one)
        size += len(one.data)
    if together:
        yield together


def _conditions(one: PackedTask) -> tuple[object, ...]:
    return one.workers, one.device, one.priority
