"""Pauses of a run: when many tasks fail alike because a resource does, the run waits for it instead of failing its partitions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from galbatch.errors import MissingBundleError, OutputError
from galbatch.execution.submission.faults import Fault, FaultKind, fault_of

__all__ = ["Pauses"]

T = TypeVar("T")

HANDFUL = 5
"""So many failures alike pause the run: within `WITHIN_S`, or since any task succeeded, as long tasks fail rarely."""

WITHIN_S = 60.0

# A fault that may be of a single file pauses the run once it has met this number of files: one bad tile lies under a few
# partitions, and these fail alike without anything being wrong with the disk.
FILES = 3

FIRST_PAUSE_S = 5.0
"""Length of the first pause, in seconds; each that follows is twice as long, up to `LONGEST_PAUSE_S`."""

LONGEST_PAUSE_S = 300.0

# While the client itself waits, signals are heeded once a second.
SLICE_S = 1.0


class Pauses:
    """Decides when a run pauses, for how long, and when it has waited enough.

    Failures are recorded until a handful of them are alike. Then the run waits, tries one task, and waits again, each
    time longer, until that task works. Only the waiting counts towards the limit, over the whole run.

    Parameters
    ----------
    limit_s : float
        How long the run may wait in all, in seconds.
    note : callable
        Takes human-readable lines.
    end_worker : callable
        Takes the address of a worker that fails what others can do, and its last fault.

    Attributes
    ----------
    problem : str
        What is wrong with the resource that is waited for; "" while the run does not pause.
    reason : str
        The message of the last failure that it caused.
    is_shared : bool
        Whether all partitions use the resource.
    """

    def __init__(
        self,
        limit_s: float,
        note: Callable[[str], None],
        *,
        end_worker: Callable[[str, Fault], None] = lambda worker, fault: None,
    ) -> None:
        self._limit_s = limit_s
        self._left_s = limit_s
        self._note = note
        self._end_worker = end_worker
        # Time, partition and fault of each failure that counts.
        self._recent: deque[tuple[float, str, Fault]] = deque()
        self._succeeded_s = time.monotonic()
        # When a task last succeeded on each worker.
        self._worked_s: dict[str, float] = {}
        self._pause_s = 0.0
        self._due_s = 0.0
        self._began_s = 0.0
        self.problem = ""
        self.reason = ""
        self.is_shared = True

    @property
    def is_on(self) -> bool:
        """Whether the run pauses."""
        return bool(self.problem)

    @property
    def is_due(self) -> bool:
        """Whether a task is to be tried now."""
        return self.is_on and time.monotonic() >= self._due_s

    @property
    def is_spent(self) -> bool:
        """Whether the run has waited as long as it may, and the resource still fails."""
        return self.is_on and self.is_due and self._pause_s <= 0.0

    def succeeded(self, worker: str | None = None) -> None:
        """Note that a task has worked just now, on this worker."""
        self._succeeded_s = time.monotonic()
        if worker is not None:
            self._worked_s[worker] = self._succeeded_s

    def record(self, partition: str, fault: Fault, *, others: bool = False) -> bool:
        """Record a failure that a resource caused; return whether the run pauses from now on because of it.

        Where a few workers alone fail alike while others succeed, the resource is their own: they are ended instead.

        Parameters
        ----------
        others : bool
            Whether other workers than the one of this failure can do the task. Then the failures of one worker alone pause
            nothing: a worker whose own disk is full fails a handful of tasks before another one has ended its first.
        """
        if self.is_on:
            return False
        now = time.monotonic()
        self._recent.append((now, partition, fault))
        while self._recent[0][0] < min(now - WITHIN_S, self._succeeded_s):
            self._recent.popleft()
        culprits = self._culprits(fault)
        if culprits:
            self._recent = deque(one for one in self._recent if one[2].worker not in culprits)
            for worker, last in culprits.items():
                self._end_worker(worker, last)
            return False
        # Where other tasks succeed in between, it is files that fail, not the disk or server that has them.
        since_s = 0.0 if fault.is_shared else self._succeeded_s
        alike = [
            (name, one)
            for at_s, name, one in self._recent
            if one.problem == fault.problem and at_s >= since_s
        ]
        places = {one.file or name for name, one in alike}
        if len(alike) < HANDFUL or (not fault.is_shared and len(places) < FILES):
            return False
        if others and len({one.worker for _, one in alike}) == 1:
            return False
        self._recent.clear()
        self._note(
            f"paused: {fault.problem}: {len(alike)} tasks failed alike, the last one of partition {partition}: {fault.reason}"
        )
        self._begin(fault)
        return True

    def _culprits(self, fault: Fault) -> dict[str, Fault]:
        """Return the workers that alone failed a handful of times like this while others succeeded, each with its last fault."""
        alike = [(at_s, one) for at_s, _, one in self._recent if one.problem == fault.problem]
        if len(alike) < HANDFUL or not all(one.worker for _, one in alike):
            return {}
        # A fault that may be of a single file must have met several: one bad tile is no fault of a worker.
        if not fault.is_shared and len({one.file for _, one in alike}) < FILES:
            return {}
        last = {str(one.worker): one for _, one in alike}
        began_s = alike[0][0]
        worked = {worker for worker, at_s in self._worked_s.items() if at_s > began_s}
        return last if worked and not worked & last.keys() else {}

    def prolong(self, fault: Fault) -> None:
        """Wait again, longer than before: the task that was tried failed as well."""
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._wait(fault)

    def end(self) -> None:
        """Go on: the task that was tried has worked."""
        self._note(
            f"continues after {time.monotonic() - self._began_s:.0f} s: {self.problem} is over; "
            f"{self._left_s:.0f} s of pauses are left"
        )
        self.problem = ""

    def until_it_works(
        self, function: Callable[[], T], *, sleep: Callable[[float], object] | None = None
    ) -> T:
        """Call a function of this process, again after each pause while a resource fails.

        Parameters
        ----------
        sleep : callable or None
            Takes the seconds to wait, one at most; an error that it raises ends the waiting. None is ``time.sleep``.

        Raises
        ------
        OutputError, MissingBundleError, OSError
            The function failed for another reason, or the run has waited as long as it may.
        """
        if self.is_spent:
            return function()
        while True:
            try:
                result = function()
            except (OutputError, MissingBundleError, OSError) as error:
                fault = fault_of(error)
                if fault.kind is not FaultKind.RESOURCE or self.is_spent:
                    raise
                if self.is_on:
                    self.prolong(fault)
                else:
                    self._begin(fault)
            else:
                if self.is_on:
                    self.end()
                return result
            while not self.is_due:
                (sleep or time.sleep)(min(SLICE_S, max(0.0, self._due_s - time.monotonic())))

    def _begin(self, fault: Fault) -> None:
        self._began_s = time.monotonic()
        self._pause_s = FIRST_PAUSE_S
        self._wait(fault)

    def _wait(self, fault: Fault) -> None:
        self.problem, self.reason, self.is_shared = fault.problem, fault.reason, fault.is_shared
        self._pause_s = min(self._pause_s, self._left_s)
        self._left_s -= self._pause_s
        self._due_s = time.monotonic() + self._pause_s
        if self._pause_s > 0:
            self._note(
                f"{fault.problem}: waiting {self._pause_s:.0f} s, then one task is tried "
                f"({self._left_s:.0f} of {self._limit_s:.0f} s of pauses are left)"
            )
