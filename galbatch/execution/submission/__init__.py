"""The submission of tasks to Dask: the queue, the boundary at which tasks run, and what is done about their errors."""

from galbatch.execution.submission.attempt import Attempt
from galbatch.execution.submission.blame import FaultyGpus, FaultyWorkers
from galbatch.execution.submission.faults import Fault, FaultKind, fault_of, reason_of
from galbatch.execution.submission.pausing import Pauses
from galbatch.execution.submission.queue import SubmissionQueue

__all__ = [
    "Attempt",
    "Fault",
    "FaultKind",
    "FaultyGpus",
    "FaultyWorkers",
    "Pauses",
    "SubmissionQueue",
    "fault_of",
    "reason_of",
]
