"""A bounded queue of submitted work, and the one place where retries are counted.

A partition is inferred before another one is cut: partitions finish rather than all start. Nothing waits silently:
what no worker can do is given up after a while, with the reason.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

from distributed import Client, Future, KilledWorker

from galbatch import cluster
from galbatch.config import RunConfig
from galbatch.errors import ShortOfMemory, WorkerRefused
from galbatch.execution import tasks
from galbatch.execution.boundary import is_retriable, reason_of, run_task
from galbatch.planning import PartitionPlan, Plan

__all__ = ["Attempt", "SubmissionQueue"]

RESULT_S = 10.0  # for the few numbers that a task gives back
POLL_S = 1.0


@dataclass
class Attempt:
    """One step of one partition.

    Attributes
    ----------
    n_submitted, n_failed : how often it was submitted, and how often that failed
    batch : objects in a forward pass; 0 is the run's
    """

    part: PartitionPlan
    step: Literal["ingest", "infer"]
    n_submitted: int = 0
    n_failed: int = 0
    batch: int = 0


Then = Callable[[Attempt, tasks.TaskResult], Attempt | None]
"""Takes the result of a step and returns the attempt that the partition needs next, if any."""


@dataclass(frozen=True)
class _Submitted:
    attempt: Attempt
    future: Future
    workers: tuple[str, ...]  # that it may run on; none: any


class SubmissionQueue:
    """Submits attempts to the workers, a bounded number at a time, until each has succeeded or failed.

    Attributes
    ----------
    failed : reasons of the partitions that failed, by name
    """

    def __init__(
        self, config: RunConfig, plan: Plan, client: Client, *, then: Then, note: Callable[[str], None]
    ) -> None:
        self._config = config
        self._plan = plan
        self._client = client
        self._then = then
        self._note = note
        self._device = cluster.kind_of(config.cluster).device
        self._monitor = cluster.WorkerMonitor(client, config.cluster, note)
        # Of this run alone: a scheduler that several runs share would take equal keys for the same task.
        self._run = uuid.uuid4().hex[:8]
        self._batch = config.posterior.batch
        self._again: deque[Attempt] = deque()
        self._fresh: deque[Attempt] = deque()
        self._pending: dict[str, _Submitted] = {}
        self._finished: SimpleQueue[Future] = SimpleQueue()
        self.failed: dict[str, str] = {}

    def work(self, attempts: Iterable[Attempt]) -> None:
        """Do all attempts.

        Raises
        ------
        SchedulerLost
            What is done stays.
        """
        self._fresh.extend(attempts)
        while self._fresh or self._again or self._pending:
            self._monitor.look()
            self._give_up()
            self._submit_what_fits()
            try:
                future = self._finished.get(timeout=POLL_S)
            except Empty:
                self._free_stranded()
                continue
            further = self._collect(future)
            if further is not None:
                self._again.append(further)

    def _device_of(self, attempt: Attempt) -> cluster.Device:
        return self._device if attempt.step == "infer" else "cpu"

    def _submit_what_fits(self) -> None:
        if not self._monitor.is_connected:
            return
        for attempt in list(self._again):
            if self._has_worker(attempt):
                self._again.remove(attempt)
                self._submit(attempt)
        while self._fresh and len(self._pending) + len(self._again) < self._monitor.max_submitted:
            if not self._has_worker(self._fresh[0]):
                return
            self._submit(self._fresh.popleft())

    def _has_worker(self, attempt: Attempt) -> bool:
        """Return whether a worker can take it; on GPUs, now: an attempt that waits here still gets a smaller batch."""
        device = self._device_of(attempt)
        able = self._monitor.able(device)
        if device == "cpu":
            return bool(able)
        return sum(self._device_of(one.attempt) == device for one in self._pending.values()) < len(able)

    def _submit(self, attempt: Attempt) -> None:
        attempt.n_submitted += 1
        function, task = self._task(attempt)
        device = self._device_of(attempt)
        able = tuple(self._monitor.able(device)) if self._monitor.refused else ()
        future = self._client.submit(
            run_task,
            function,
            task,
            key=f"{attempt.step}-{attempt.part.partition.name}-{attempt.n_submitted}-{self._run}",
            pure=False,
            retries=0,  # they are counted here alone
            workers=able or None,
            # One inference at a time on a GPU; cutting continues beside it, and gives way to it.
            resources={cluster.GPU: 1} if device == "cuda" else None,
            priority=1 if attempt.step == "infer" else 0,
        )
        self._watch(_Submitted(attempt, future, able))

    def _watch(self, submitted: _Submitted) -> None:
        self._pending[submitted.future.key] = submitted
        submitted.future.add_done_callback(self._finished.put)

    def _task(self, attempt: Attempt) -> tuple[Callable[[Any], tasks.TaskResult], Any]:
        config = self._config
        if attempt.step == "ingest":
            return tasks.ingest_partition, tasks.ingest_task(
                self._plan,
                attempt.part,
                store=config.cutouts.store,
                planes=config.cutouts.planes,
                flags=config.flags,
            )
        attempt.batch = attempt.batch or self._batch
        return tasks.infer_partition, tasks.infer_task(
            self._plan,
            attempt.part,
            store=config.cutouts.store,
            catalog_path=config.catalog.path,
            posterior=config.posterior.model_copy(update={"batch": attempt.batch}),
            device=self._device,
        )

    def _collect(self, future: Future) -> Attempt | None:
        """Handle a finished task; return the attempt that its partition needs next, if any."""
        submitted = self._pending.pop(future.key, None)
        if submitted is None:  # given up
            return None
        attempt = submitted.attempt
        error = future.exception() if future.status == "error" else None
        if future.status == "cancelled":
            error = KilledWorker(future.key, None, 0)
        if error is not None:
            return self._after_failure(attempt, error)
        try:
            result = future.result(timeout=RESULT_S)
        except TimeoutError:
            # Its worker left before the result was fetched: Dask does the task again, once a worker can.
            self._watch(submitted)
            return None
        # Later attempts begin with the batch that was found to fit.
        self._batch = min(self._batch, result.batch or self._batch)
        for note in result.notes:
            self._note(note)
        return self._then(attempt, result)

    def _after_failure(self, attempt: Attempt, error: BaseException) -> Attempt | None:
        """Return the attempt to be submitted again; None if its partition has failed for good."""
        if isinstance(error, WorkerRefused):
            self._monitor.refuse(error.worker, str(error))
            return attempt
        if isinstance(error, ShortOfMemory):
            if error.worker:
                self._monitor.restart(error.worker)
            if attempt.batch > 1:
                # Not counted as a failure, as it ends at a batch of 1. Later attempts begin with the smaller batch.
                attempt.batch //= 2
                self._batch = min(self._batch, attempt.batch)
                self._note(f"partition {attempt.part.partition.name}: {error}; trying batch {attempt.batch}")
                return attempt
        attempt.n_failed += 1
        if is_retriable(error) and attempt.n_failed <= self._config.cluster.retries:
            return attempt
        self.failed[attempt.part.partition.name] = f"{attempt.step}: {reason_of(error)}"
        return None

    def _free_stranded(self) -> None:
        """Cancel tasks that were only for workers that are gone, or are refused now; they are submitted again."""
        if not self._monitor.is_connected:
            return
        for one in self._pending.values():
            if one.workers and not set(one.workers) & set(self._monitor.able(self._device_of(one.attempt))):
                self._client.cancel([one.future])

    def _give_up(self) -> None:
        """End the run where no worker can do what is left: attempts that wait for one have failed, the rest is left for the next run."""
        if not self._monitor.is_connected:
            return
        waiting = [*self._again, *(one.attempt for one in self._pending.values()), *list(self._fresh)[:1]]
        for device in {self._device_of(attempt) for attempt in waiting}:
            reason = self._monitor.given_up(device)
            if reason is None:
                continue
            for attempt in waiting:
                if self._device_of(attempt) == device:
                    self.failed[attempt.part.partition.name] = f"{attempt.step}: {reason}"
            self._client.cancel([one.future for one in self._pending.values()])
            self._fresh.clear()
            self._again.clear()
            self._pending.clear()
            return
