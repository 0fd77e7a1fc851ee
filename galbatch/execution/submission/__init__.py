"""The submission of tasks to Dask: the queue, the boundary at which tasks run, and what is done about their errors."""

from galbatch.execution.submission.queue import Attempt, SubmissionQueue

__all__ = ["Attempt", "SubmissionQueue"]
