"""The work of all workers as the scheduler has seen it: totals that never fall, rates, and their course over a run."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.dashboard.events import RATE_MINUTES

__all__ = ["RATE_S", "Course", "WorkerCounts", "Workers"]

RATE_S = 120.0
"""Rates are means over this time, or since the run began if that is shorter: steps of some objects would make shorter ones jump."""

MAX_POINTS = 720
"""Points of a course. When there are more, every second one is dropped, so that a run of weeks is kept whole."""

# The rate of one worker is its mean over the last ten minutes, as one partition may take minutes.
OWN_SAMPLE_S = 30.0
OWN_SAMPLES = int(RATE_MINUTES * 60 / OWN_SAMPLE_S) + 1

MAX_PROCESSES = 10_000
"""Processes that are kept apart; of more, those that were seen last long ago are only in the sums."""

Floats = npt.NDArray[np.float64]


@dataclass
class WorkerCounts:
    """The counts of one worker process, in the order of `names`, and those at some times of the last ten minutes.

    Attributes
    ----------
    total : counts since the process began
    worked : counts since it joined this scheduler
    under_way : parts of tasks that are not done yet; they are in `worked` when these are
    samples : (time in s, worked and under way) at intervals of 30 s
    """

    total: tuple[int, ...]
    worked: tuple[int, ...]
    under_way: tuple[float, ...]
    samples: deque[tuple[float, tuple[float, ...]]] = field(default_factory=lambda: deque(maxlen=OWN_SAMPLES))

    @property
    def so_far(self) -> tuple[float, ...]:
        """The counts since it joined this scheduler, with those of tasks that are not done yet."""
        return tuple(n + part for n, part in zip(self.worked, self.under_way, strict=True))

    def rates(self, now_s: float) -> tuple[float, ...]:
        """Return the counts per second over the last ten minutes, or since the process joined."""
        since_s, before = self.samples[0]
        if now_s <= since_s:
            return (0.0,) * len(before)
        # Less than before where a task failed, whose part is not under way any more.
        return tuple(max(0.0, n - m) / (now_s - since_s) for n, m in zip(self.so_far, before, strict=True))


class Workers:
    """The counts of all worker processes that a scheduler has ever had.

    A process that is gone stays in the sums, so these never fall, and one that reconnects is not counted twice.

    Parameters
    ----------
    names : tuple of str
        Names of the counts.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._of_process: dict[str, WorkerCounts] = {}
        self._total = self._worked = (0,) * len(names)

    def see(self, metric: Mapping[str, Any], now_s: float) -> WorkerCounts:
        """Take the counts that a heartbeat brought, and return those of its process."""
        total = tuple(int(metric[name]) for name in self._names)
        before = tuple(int(metric["before"][name]) for name in self._names)
        under_way = tuple(float(metric["under_way"][name]) for name in self._names)
        # Taken out and put in again: the order is that in which processes were seen last.
        own = self._of_process.pop(metric["process"], None)
        if own is None:
            own = WorkerCounts(before, (0,) * len(self._names), under_way)
            self._total = _plus(self._total, before)
        new = _minus(total, own.total)
        own.total, own.worked, own.under_way = total, _plus(own.worked, new), under_way
        self._total, self._worked = _plus(self._total, new), _plus(self._worked, new)
        if not own.samples:
            own.samples.append((now_s, _minus(own.worked, new)))
        elif now_s - own.samples[-1][0] >= OWN_SAMPLE_S:
            own.samples.append((now_s, own.so_far))
        self._of_process[metric["process"]] = own
        if len(self._of_process) > MAX_PROCESSES:
            del self._of_process[next(iter(self._of_process))]
        return own

    def totals(self) -> dict[str, int]:
        """Return the counts of all processes since they began, by name."""
        return dict(zip(self._names, self._total, strict=True))

    @property
    def worked(self) -> tuple[int, ...]:
        """The counts since each process joined this scheduler, in the order of the names."""
        return self._worked


class Course:
    """Counts against time since a run began, from which rates follow at any time of it.

    Parameters
    ----------
    now_s : float
        When the run began, by a monotonic clock.
    counts : tuple of float
        The counts at that time, with those of tasks that are not done yet.
    """

    def __init__(self, now_s: float, counts: tuple[float, ...]) -> None:
        self._points: list[tuple[float, ...]] = [(now_s, *counts)]
        self._interval_s = 1.0

    def add(self, now_s: float, counts: tuple[float, ...]) -> None:
        """Take the counts of now; the last point is always the newest, older ones have the course's interval."""
        if len(self._points) > 2 and now_s - self._points[-2][0] < self._interval_s:
            self._points.pop()
        self._points.append((now_s, *counts))
        if len(self._points) > MAX_POINTS:
            # The first stays, as rates of the beginning count from it, and so does the last.
            self._points = [*self._points[:-1:2], self._points[-1]]
            self._interval_s *= 2

    def settle(self, counts: tuple[float, ...]) -> None:
        """Take counts of the time before the last point that were told after it: heartbeats come later than the end of a run."""
        if len(self._points) > 1:
            self._points[-1] = (self._points[-1][0], *counts)

    @property
    def elapsed_s(self) -> float:
        """Seconds from the beginning to the last point."""
        return self._points[-1][0] - self._points[0][0]

    def done(self) -> tuple[int, ...]:
        """Return the counts since the beginning."""
        return tuple(
            round(last - first) for first, last in zip(self._points[0][1:], self._points[-1][1:], strict=True)
        )

    def mean_rates(self, window_s: float) -> Floats:
        """Return the counts (count,) float64 per second over the last `window_s` seconds, or since the run began; 0 at its beginning."""
        points = np.asarray(self._points, np.float64)
        since_s = max(points[-1, 0] - window_s, points[0, 0])
        if points[-1, 0] <= since_s:
            return np.zeros(points.shape[1] - 1)
        before = [np.interp(since_s, points[:, 0], column) for column in points[:, 1:].T]
        return np.maximum(points[-1, 1:] - before, 0.0) / (points[-1, 0] - since_s)

    def rates(self) -> tuple[Floats, Floats]:
        """Return the course of the rates.

        Returns
        -------
        time : ndarray, (point,) float64
            Seconds since the run began, beginning with the second point.
        rates : ndarray, (point, count) float64
            Counts per second over `RATE_S`, or since the run began; 0 where less is under way than before, as a task failed.
        """
        points = np.asarray(self._points, np.float64)  # (point, time and counts)
        time, counts = points[:, 0] - points[0, 0], points[:, 1:]
        later = time > 0
        start = np.maximum(time[later] - RATE_S, 0.0)
        before = np.stack([np.interp(start, time, column) for column in counts.T], axis=-1)
        new = np.maximum(counts[later] - before, 0.0)
        return time[later], new / (time[later] - start)[:, None]


def _plus(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _minus(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(left, right, strict=True))
