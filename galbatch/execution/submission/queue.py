"""The queue that submits work to Dask, a bounded number of tasks at a time, and the only place that counts retries.

A partition that was cut is inferred before another one is cut, so that partitions finish instead of all being begun.
Work that no worker can do, or that a resource hinders for too long, is given up with the reason.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distributed import Client, Future

from galbatch import cluster, dashboard, storage
from galbatch.config import RunConfig
from galbatch.errors import GpuBroken, LockLost, ShortOfMemory, TaskOverdue, WorkerRefused
from galbatch.execution import tasks
from galbatch.execution.submission.attempt import Attempt, NextAttempt
from galbatch.execution.submission.blame import FaultyGpus, FaultyWorkers
from galbatch.execution.submission.boundary import worker_of
from galbatch.execution.submission.faults import Fault, FaultKind, fault_of, reason_of
from galbatch.execution.submission.outcomes import Outcomes
from galbatch.execution.submission.pausing import HANDFUL, Pauses
from galbatch.execution.submission.sending import PackedTask, pack, send
from galbatch.execution.submission.timing import Pace, TaskTimes

if TYPE_CHECKING:
    # Workers import this module with the tasks' boundary, and need no plan.
    from galbatch.planning import Plan

__all__ = ["Attempt", "SubmissionQueue"]

# The workers are looked at once a second, also while no task finishes.
POLL_S = 1.0
# Tasks that may hang are looked for six times a minute: the shortest limit is ten minutes.
OVERDUE_LOOK_S = 10.0
# After a fault of a resource other tasks go first: if they fail alike, it was none of the partition.
RETRY_S = 2.0
# A result is a few numbers: if it has not come after so long, its worker is stopped or hangs.
RESULT_S = 30.0
# So many partitions are named where many are left; the outputs say which.
MAX_NAMED = 3

# Schedulers of jobs give two minutes between their warning and the end; a commit takes a few seconds.
COMMITS_S = 60.0


@dataclass(frozen=True)
class _Submitted:
    """A task that was submitted.

    `workers` are the addresses it may run on; empty if it may run on any. `at_s` is the time of the monotonic clock.
    """

    attempt: Attempt
    future: Future
    workers: tuple[str, ...]
    at_s: float


class SubmissionQueue:
    """Submits steps of partitions to the workers, a bounded number at a time, until each has succeeded or failed.

    Parameters
    ----------
    config : RunConfig
    plan : Plan
        It may be replaced by one with engines, before the first step that infers.
    client : distributed.Client
        Connection to the workers.
    next_attempt : callable
        Called with each step that succeeded and its result; returns the next step of the partition, if any.
    sink : ProgressSink
        Takes human-readable lines, and an event for each partition that fails.
    cuts : bool
        Whether cutouts that prove damaged as they are read are made again; else their partition fails.

    Attributes
    ----------
    failed : dict of str
        The reason why each partition failed, by its name.
    pauses : Pauses
        The waiting for resources that fail.
    """

    def __init__(
        self,
        config: RunConfig,
        plan: Plan,
        client: Client,
        *,
        next_attempt: NextAttempt,
        sink: dashboard.ProgressSink,
        cuts: bool = True,
    ) -> None:
        self._config = config
        self.plan = plan
        self._client = client
        self._next_attempt = next_attempt
        self._sink = sink
        self._note = sink.note
        self._cuts = cuts
        self._device = cluster.kind_of(config.cluster).device
        self._monitor = cluster.WorkerMonitor(client, config.cluster, sink.note)
        # Parts of each task's key: a scheduler would take equal keys, of a step that is repeated or of two runs that share it,
        # for the same task, and answer with its old result or error.
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)
        self._batch = config.posterior.batch
        # Steps to submit: those that follow or repeat a step of a partition that was begun, and those of new partitions.
        self._again: deque[Attempt] = deque()
        self._fresh: deque[Attempt] = deque()
        self._pending: dict[str, _Submitted] = {}
        self._outcomes = Outcomes(client)
        self._locks: tuple[storage.LockHandle, ...] = ()
        self.failed: dict[str, str] = {}
        self._faulty = FaultyWorkers(self._monitor, sink.note)
        self._gpus = FaultyGpus(self._monitor, sink.note)
        self.pauses = Pauses(config.cluster.pause_limit, sink.note, end_worker=self._faulty.end)
        # The step that is tried while the run pauses.
        self._probe: Attempt | None = None
        n_passes = config.posterior.most_passes * len(plan.models)
        self._times = TaskTimes(config.cluster.task_timeout, n_passes=n_passes)
        self._pace = Pace()
        self._looked_s = -POLL_S
        self._looked_overdue_s = time.monotonic()
        # When finished tasks were first seen whose results have not come, by their keys.
        self._finished_s: dict[str, float] = {}

    @property
    def is_busy(self) -> bool:
        """Whether tasks are with the workers."""
        return bool(self._pending)

    def work(
        self,
        attempts: Iterable[Attempt],
        *,
        locks: Sequence[storage.LockHandle] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Submit all attempts and what follows from them; return when nothing is left to do.

        Parameters
        ----------
        attempts : iterable of Attempt
        locks : sequence of LockHandle
            The locks of the run: tasks commit their outputs only while it holds them.
        check : callable
            Called about once a second; what it raises ends the work: no new task is submitted, commits that are underway end.

        Raises
        ------
        LockLost
            Another run took over a lock.
        SchedulerLost
            The connection was lost; partitions that are done stay.
        """
        self._fresh.extend(attempts)
        self._locks = tuple(locks)
        try:
            self._work(check)
        finally:
            if self._pending and self._client.status == "running":
                self._end()

    def _work(self, check: Callable[[], None]) -> None:
        while self._fresh or self._again or self._pending:
            check()
            if time.monotonic() - self._looked_s >= POLL_S:
                self._looked_s = time.monotonic()
                self._monitor.look()
                self._end_overdue()
                self._give_up()
            self._submit_what_fits()
            ended = self._outcomes.take(timeout_s=POLL_S)
            if not ended:
                self._cancel_unreachable()
            for future, outcome in ended:
                # Tasks that were given up are not pending any more, but their outcomes still come.
                submitted = self._pending.pop(future.key, None)
                self._finished_s.pop(future.key, None)
                further = self._collect(submitted.attempt, outcome) if submitted is not None else None
                if further is not None:
                    self._again.append(further)

    def _end_overdue(self) -> None:
        """Start the workers again on which a task takes too long; it is tried elsewhere."""
        now = time.monotonic()
        if now - self._looked_overdue_s < OVERDUE_LOOK_S or not self._monitor.is_connected:
            return
        self._looked_overdue_s = now
        self._restart_silent(now)
        limits = {
            key: self._times.limit_s(one.attempt.step, one.attempt.part.partition.n_objects)
            for key, one in self._pending.items()
        }
        # The scheduler is asked only about tasks that were submitted so long ago; most of these have waited for a worker.
        late = [key for key, one in self._pending.items() if now - one.at_s > limits[key]]
        given = self._monitor.running(late)
        started_again: set[str] = set()
        # The one that ran longest first: what else its worker had, Dask runs again elsewhere, and it is no failure.
        for key in sorted(given, key=lambda key: given[key][1], reverse=True):
            worker, running_s = given[key]
            if running_s > limits[key] and worker not in started_again:
                started_again.add(worker)
                self._end_hanging(self._pending.pop(key), worker, running_s)

    def _restart_silent(self, now: float) -> None:
        """Start the workers again that do not give the results of finished tasks; Dask runs these tasks again elsewhere."""
        # A process that is stopped keeps its connections, and Dask takes it for lost only after five minutes.
        silent = []
        for key, one in self._pending.items():
            if one.future.status == "finished" and now - self._finished_s.setdefault(key, now) > RESULT_S:
                self._finished_s[key] = now
                silent.append(key)
        for worker in self._monitor.holders(silent):
            self._note(f"worker {worker} does not answer")
            self._monitor.restart(worker)

    def _end_hanging(self, submitted: _Submitted, worker: str, running_s: float) -> None:
        """Start the worker of a task again, and count this as a failure of its partition."""
        attempt, step = submitted.attempt, submitted.attempt.step
        limit = self._times.described(step, attempt.part.partition.n_objects)
        error = TaskOverdue(
            f"hung on worker {worker}: it ran for {running_s:.0f} s, and may take {limit}", worker=worker
        )
        self._note(f"partition {attempt.part.partition.name}: {step}: {error}")
        # First, or Dask would run the task once more when its worker is gone.
        self._client.cancel([submitted.future])
        attempt.elsewhere = frozenset(self._monitor.able(self._device_of(attempt))) - {worker}
        if not self._monitor.restart(worker):
            self._monitor.refuse(worker, "a task hangs there, and nothing can start it again")
        further = self._after_failure(attempt, error)
        if further is not None:
            self._again.append(further)

    def _cancel_unreachable(self) -> None:
        """Cancel tasks whose workers are all gone or refused: Dask would wait forever for these workers."""
        # A task that is canceled has an outcome, too, and is submitted again.
        for one in self._pending.values() if self._monitor.is_connected else ():
            able = self._monitor.able(self._device_of(one.attempt))
            if one.workers and not set(one.workers) & set(able):
                self._client.cancel([one.future])

    def _end(self) -> None:
        """Take back what was submitted, and wait for the commits that workers are making."""
        with suppress(OSError):
            self._client.cancel([one.future for one in self._pending.values()])
        # In a thread, as Dask has no limit of time for it, and a worker may be stopped or hang.
        ending = threading.Thread(target=self._end_commits, daemon=True)
        ending.start()
        ending.join(COMMITS_S)

    def _end_commits(self) -> None:
        # The connection may be closed before the last worker has answered.
        with suppress(OSError, asyncio.CancelledError):
            self._client.run(storage.end_commits, self._locks, COMMITS_S, on_error="ignore")

    def _device_of(self, attempt: Attempt) -> cluster.Device:
        return self._device if attempt.step == "infer" else "cpu"

    def _submit_what_fits(self) -> None:
        """Submit waiting steps while there is room: first those of partitions that were begun, then new partitions."""
        if not self._monitor.is_connected:
            return
        if self.pauses.is_on:
            self._submit_probe()
            return
        now, room = time.monotonic(), self._room()
        chosen: list[Attempt] = []
        for attempt in list(self._again):
            # Not only the first: it may wait for a GPU while another one could be cut.
            device = self._device_of(attempt)
            if attempt.due_s <= now and room[device] > 0:
                room[device] -= 1
                self._again.remove(attempt)
                chosen.append(attempt)
        # Steps that are not due yet leave their room to others.
        n_taken = len(self._pending) + len(chosen) + sum(one.due_s <= now for one in self._again)
        # Tasks that end within moments wait for the client unless more are submitted; of longer ones no more than the workers
        # can begin, so that retries, pauses and signals take effect soon.
        limit = max(self._monitor.max_submitted, self._pace.recent(now))
        while self._fresh and n_taken < limit and room[self._device_of(self._fresh[0])] > 0:
            attempt = self._fresh.popleft()
            room[self._device_of(attempt)] -= 1
            chosen.append(attempt)
            n_taken += 1
        self._submit(chosen)

    def _submit_probe(self) -> None:
        """Submit one step when the pause is over; if it works, the run continues."""
        if self._probe is not None or not self.pauses.is_due:
            return
        # Steps that failed are tried in turn. Where it may be their own files that fail, new partitions tell more.
        room = self._room()
        in_turn = (self._again, self._fresh) if self.pauses.is_shared else (self._fresh, self._again)
        for waiting in in_turn:
            for attempt in list(waiting):
                if room[self._device_of(attempt)] > 0:
                    waiting.remove(attempt)
                    self._probe = attempt
                    self._submit([attempt])
                    return

    def _room(self) -> dict[cluster.Device, float]:
        """Return how many steps may be submitted now, by the device that they need."""
        # A step that waits here for a GPU, not in Dask's queue, still gets the smaller batch that another one found.
        room: dict[cluster.Device, float] = {"cpu": math.inf if self._monitor.able("cpu") else 0}
        if self._device == "cuda":
            n_inferring = sum(one.attempt.step == "infer" for one in self._pending.values())
            room["cuda"] = len(self._monitor.able("cuda")) - n_inferring
        return room

    def _submit(self, attempts: Iterable[Attempt]) -> None:
        """Send these steps to the workers."""
        for one, future in send(self._client, map(self._packed, attempts)):
            self._pending[one.key] = _Submitted(one.attempt, future, one.workers, time.monotonic())
            self._outcomes.watch(future)

    def _packed(self, attempt: Attempt) -> PackedTask:
        """Return the task of a step, with the batch and the workers that it gets now."""
        device = self._device_of(attempt)
        if attempt.step == "infer":
            attempt.batch = attempt.batch or self._batch
        # All workers may take it unless one was refused, or cutting is for those without a GPU: then these are named, and new
        # ones get later tasks.
        is_divided = attempt.elsewhere or self._monitor.is_divided(device)
        able = tuple(self._monitor.able(device)) if is_divided else ()
        able = tuple(one for one in able if one in attempt.elsewhere) or able
        key = f"{attempt.step}-{attempt.part.partition.name}-{next(self._numbers)}-{self._run}"
        return pack(attempt, self._config, self.plan, key=key, locks=self._locks, workers=able, device=device)

    def _collect(self, attempt: Attempt, outcome: tasks.TaskResult | BaseException) -> Attempt | None:
        """Handle the outcome of a task, and return the step that its partition needs next, if any."""
        if isinstance(outcome, BaseException):
            return self._after_failure(attempt, outcome)
        # Later steps begin with the batch that was found to fit.
        self._batch = min(self._batch, outcome.batch or self._batch)
        for note in outcome.notes:
            self._note(note)
        self._pace.add(time.monotonic())
        self._times.add(attempt.step, n_objects=outcome.n_objects, seconds=outcome.seconds)
        self.pauses.succeeded(outcome.worker)
        if attempt.step == "infer":
            self._gpus.worked(outcome.worker)
        if self._probe is attempt:
            self._probe = None
            self.pauses.end()
        return self._next_attempt(attempt, outcome)

    def _after_failure(self, attempt: Attempt, error: BaseException) -> Attempt | None:
        """Return the step if it is to be submitted again; None if its partition has failed."""
        if isinstance(error, LockLost):
            raise error
        again = self._step_again(attempt, error)
        if again is not None:
            self._sink.record(again.event("retry", reason_of(error), worker_of(error)))
        return again

    def _step_again(self, attempt: Attempt, error: BaseException) -> Attempt | None:
        fault = replace(fault_of(error), worker=worker_of(error))
        was_probe = self._probe is attempt
        if was_probe:
            self._probe = None
        # A worker that lacks the engine says nothing about the partition: this is not counted as a failure.
        if isinstance(error, WorkerRefused):
            self._monitor.refuse(error.worker, str(error))
            return attempt
        if isinstance(error, ShortOfMemory) and self._halve(attempt, error):
            return attempt
        if isinstance(error, GpuBroken) and not self._gpus.failed(attempt.part.partition.name, error):
            # Nor does a GPU that fails, unless the partition fails on another one as well.
            attempt.elsewhere = self._gpus.others(error.worker)
            return attempt
        if fault.kind is FaultKind.RESOURCE:
            return self._after_resource_fault(attempt, fault, was_probe=was_probe)
        attempt.n_failed += 1
        if attempt.n_failed <= self._config.cluster.retries:
            if fault.kind is FaultKind.PASSING:
                return attempt
            if fault.kind is FaultKind.DAMAGE and attempt.step != "ingest" and self._cuts:
                self._note(f"damaged: {fault.reason}")
                return Attempt(attempt.part, "ingest", n_failed=attempt.n_failed, repairs=True)
        self._fail(attempt, fault.reason, worker=fault.worker)
        return None

    def _fail(self, attempt: Attempt, reason: str, *, worker: str | None = None) -> None:
        """Give the partition up, and tell everybody at once."""
        self.failed[attempt.part.partition.name] = f"{attempt.step}: {reason}"
        self._sink.record(attempt.event("failed", reason, worker))

    def _halve(self, attempt: Attempt, error: ShortOfMemory) -> bool:
        """Halve the batch of a step that ran out of memory; return False if it cannot be halved any more."""
        if error.worker:
            self._monitor.restart(error.worker)
        if attempt.batch <= 1:
            return False
        # Not counted as a failure, as halving ends at a batch of 1. Later steps begin with the smaller batch.
        attempt.batch //= 2
        self._batch = min(self._batch, attempt.batch)
        self._note(f"partition {attempt.part.partition.name}: {error}; trying batch {attempt.batch}")
        return True

    def _after_resource_fault(self, attempt: Attempt, fault: Fault, *, was_probe: bool) -> Attempt | None:
        """Return the step if it is to be submitted again: always, unless one file of its own may be at fault."""
        if self.pauses.is_on:
            # Steps that were submitted before the pause began fail during it; they say nothing new.
            if was_probe:
                self.pauses.prolong(fault)
            return attempt
        attempt.n_unavailable += 1
        # It may be the worker's own disk that fails.
        attempt.elsewhere = frozenset(self._monitor.able(self._device_of(attempt))) - {str(fault.worker)}
        if self.pauses.record(attempt.part.partition.name, fault, others=bool(attempt.elsewhere)):
            self._faulty.readmit()
            return attempt
        if not fault.is_shared and attempt.n_failed + attempt.n_unavailable > self._config.cluster.retries:
            self._fail(attempt, fault.reason, worker=fault.worker)
            return None
        attempt.due_s = time.monotonic() + RETRY_S * min(attempt.n_unavailable, HANDFUL)
        return attempt

    def _give_up(self) -> None:
        """End the work if nothing can continue it: steps that wait for it fail, the rest is left for the next run."""
        if self.pauses.is_spent:
            limit = f"{self._config.cluster.pause_limit:g} s of pauses ([cluster] pause_limit)"
            self._note(f"ends after {limit}: {self._left()}")
            last = f"the last task failed with: {self.pauses.reason}"
            self._abandon(self._waiting(), f"{self.pauses.problem}, still after {limit}; {last}")
        if not self._monitor.is_connected:
            return
        for device in {self._device_of(attempt) for attempt in self._waiting()}:
            reason = self._monitor.given_up(device)
            if reason is not None:
                self._abandon([one for one in self._waiting() if self._device_of(one) == device], reason)
                return

    def _waiting(self) -> list[Attempt]:
        """Return the steps of partitions that were begun, and of the new partitions the first: all begin with the same step."""
        return [
            *self._again,
            *(one.attempt for one in self._pending.values()),
            *itertools.islice(self._fresh, 1),
        ]

    def _abandon(self, attempts: Iterable[Attempt], reason: str) -> None:
        """End the work: these steps have failed, all others are left."""
        for attempt in attempts:
            self._fail(attempt, reason)
        self._client.cancel([one.future for one in self._pending.values()])
        self._fresh.clear()
        self._again.clear()
        self._pending.clear()

    def _left(self) -> str:
        """Return a text that names the partitions that are not done, the first few of them."""
        waiting = [*self._again, *(one.attempt for one in self._pending.values()), *self._fresh]
        left = sorted({one.part.partition.name for one in waiting})
        more = f" and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else ""
        return f"{cluster.count_of(len(left), 'partition')} left: {', '.join(left[:MAX_NAMED])}{more}"
