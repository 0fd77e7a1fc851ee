"""One step of one partition, as the submission queue keeps it from attempt to attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from galbatch import dashboard
from galbatch.execution import tasks

if TYPE_CHECKING:
    # Workers import this module with the tasks' boundary, and need no plan.
    from galbatch.planning import PartitionPlan

__all__ = ["Attempt", "NextAttempt"]


@dataclass(slots=True)
class Attempt:
    """One step of one partition, which is submitted until it succeeds or has failed too often.

    Attributes
    ----------
    n_failed : how often it failed, without failures that are no fault of the partition
    n_unavailable : how often it failed because of a resource, while the run did not pause
    due_s : time of the monotonic clock before which it is not submitted again
    elsewhere : addresses of other workers than the one on which it hung or failed; empty: any worker
    batch : rows (objects times passes) in one call of the network; 0: the number that the queue uses
    repairs : whether it makes again what was counted as done when the run began
    """

    part: PartitionPlan
    step: Literal["ingest", "photometry", "infer"]
    n_failed: int = 0
    n_unavailable: int = 0
    due_s: float = 0.0
    elsewhere: frozenset[str] = frozenset()
    batch: int = 0
    repairs: bool = False

    def event(self, kind: Literal["retry", "failed"], reason: str, worker: str | None) -> dashboard.Event:
        """Return the event that the step is tried again, or that its partition was given up."""
        name, numbers = self.part.partition.name, {"step": self.step, "reason": reason}
        return dashboard.Event(kind, f"{kind}: {name}: {self.step}: {reason}", name, worker, numbers)


NextAttempt = Callable[[Attempt, tasks.TaskResult], Attempt | None]
"""Takes a step and its result, and returns the next step of its partition, if any."""
