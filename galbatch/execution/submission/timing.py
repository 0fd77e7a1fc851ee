"""The time that a task may take, and the number to submit, judged by what the finished tasks of the same run took."""

from __future__ import annotations

from collections import defaultdict, deque

__all__ = ["Pace", "TaskTimes"]

RECENT_S = 0.5
"""Tasks count as recent for this time, in seconds: what is submitted beyond the workers' threads ends within as much."""

MIN_LIMIT_S = 600.0
"""No task is taken for hanging before this time, in seconds: a busy disk or a first compilation takes minutes."""

CUT_S_PER_OBJECT = 5.0
"""While no task that cuts or measures has finished, this number of seconds per object is allowed.

A cutout takes milliseconds on a disk and up to a second from an object store; whole files that are fetched first are few, and
covered by the ten minutes."""

INFER_S_PER_PASS = 1.0
"""While no task that infers has finished, this number of seconds per object, network and pass is allowed.

The slowest network known here, GaMPEN at 239 px, has 33.7 GFLOP a pass: 0.34 s on one core. A task that only takes its time must
never be ended: it would be ended wherever it is tried, and its partition fail."""


class TaskTimes:
    """Counts the seconds and objects of finished tasks, by their step, and limits the time of others.

    Parameters
    ----------
    multiple : float
        How many times the mean time per object a task may take.
    n_passes : int
        The most passes that an object gets of all networks together.
    """

    def __init__(self, multiple: float, *, n_passes: int) -> None:
        self._multiple = multiple
        self._n_passes = n_passes
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._n_objects: defaultdict[str, int] = defaultdict(int)

    def add(self, step: str, *, n_objects: int, seconds: float) -> None:
        """Count a task that has finished."""
        self._seconds[step] += seconds
        self._n_objects[step] += n_objects

    def limit_s(self, step: str, n_objects: int) -> float:
        """Return the seconds that a task with `n_objects` objects may take."""
        finished = self._n_objects[step]
        if finished:
            s_per_object = self._multiple * self._seconds[step] / finished
        else:
            s_per_object = INFER_S_PER_PASS * self._n_passes if step == "infer" else CUT_S_PER_OBJECT
        return max(MIN_LIMIT_S, s_per_object * n_objects)

    def described(self, step: str, n_objects: int) -> str:
        """Return the limit as text, for the reason of a failure."""
        limit = f"{self.limit_s(step, n_objects):.0f} s for {n_objects} objects"
        if not self._n_objects[step]:
            return f"{limit}, while no task of this step has finished"
        mean_s = self._seconds[step] / self._n_objects[step]
        return f"{limit}; finished tasks took {mean_s:.3g} s per object ([cluster] task_timeout = {self._multiple:g})"


class Pace:
    """Counts the tasks that succeeded in the last half second."""

    def __init__(self) -> None:
        self._ended_s: deque[float] = deque()

    def add(self, now_s: float) -> None:
        """Count a task that succeeded at this time of a monotonic clock."""
        self._ended_s.append(now_s)

    def recent(self, now_s: float) -> int:
        """Return the number of tasks that succeeded within half a second before this time."""
        while self._ended_s and self._ended_s[0] < now_s - RECENT_S:
            self._ended_s.popleft()
        return len(self._ended_s)
