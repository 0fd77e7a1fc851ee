"""Events of a run, for everybody who follows it, and the counts and rates that they add up to."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["RATE_MINUTES", "Event", "Sample", "StageCount", "Tally", "duration", "utc_now"]

Kind = Literal["note", "start", "ingest", "photometry", "infer", "retry", "failed", "progress", "end"]

# Rates are those of the last ten minutes: a run of weeks has slow and fast days.
RATE_MINUTES = 10


@dataclass(frozen=True)
class Sample:
    """An object that was just inferred, as the dashboard shows it.

    Attributes
    ----------
    object_id : the id as text
    png : the cutout as a color picture
    values : name and human-readable value of each parameter, such as ("gampen bt", "0.42 ± 0.05")
    flags : names of its flags
    """

    object_id: str
    png: bytes
    values: tuple[tuple[str, str], ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run.

    Attributes
    ----------
    kind : "ingest", "photometry" and "infer" are steps of a partition that were done, "retry" one that is tried again, "failed" one that was given up
    text : a human-readable line
    partition : name of the partition; None if it is about the run
    worker : address of the worker; None if it is about none, or is not known
    numbers : of the event, by names with their units
    flags : number of objects that have a flag, by column and flag, such as "gampen_flags EXTRAPOLATED"; not in the log
    samples : some objects of the partition, the newest last; not in the log
    """

    kind: Kind
    text: str
    partition: str | None = None
    worker: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()

    def as_json(self, time: str) -> dict[str, Any]:
        """Return the event as one line of a log, with the time when it happened."""
        return {
            "time": time,
            "event": self.kind,
            "text": self.text,
            "partition": self.partition,
            "worker": self.worker,
            **self.numbers,
        }


def utc_now() -> str:
    """Return the time of the day in UTC, such as ``2026-11-28T20:15:00Z``."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class StageCount:
    """Objects of one stage: all, those done, and at some recent times those done then."""

    total: int
    done: int
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RATE_MINUTES + 1))

    def rate_per_s(self, now_s: float) -> float:
        """Return the objects done per second since the oldest sample."""
        since_s, before = self.samples[0] if self.samples else (now_s, self.done)
        return (self.done - before) / (now_s - since_s) if now_s > since_s else 0.0

    def left_s(self, now_s: float) -> float | None:
        """Return the seconds that the rest takes at this rate; None without a rate."""
        rate = self.rate_per_s(now_s)
        return (self.total - self.done) / rate if rate > 0 else None


class Tally:
    """The counts of a run by stage, and its failed partitions. Times are those of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.stages: dict[str, StageCount] = {}
        self.n_failed = 0

    def start(self, stage: str, total: int, done: int, *, now_s: float) -> None:
        """Begin a stage of `total` objects, of which `done` were done by earlier runs."""
        self.stages[stage] = StageCount(total, done)
        self.stages[stage].samples.append((now_s, done))

    def advance(self, stage: str, n: int) -> None:
        """Count `n` further objects of the stage as done."""
        self.stages[stage].done += n

    def sample(self, now_s: float) -> None:
        """Remember the counts for the rates; called once a minute."""
        for stage in self.stages.values():
            stage.samples.append((now_s, stage.done))

    def progress(self, now_s: float) -> Event:
        """Return the event that tells how far the run is: done, failed, rates, and time left."""
        parts, numbers = [], dict[str, Any]()
        left = []
        for name, stage in self.stages.items():
            rate, left_s = stage.rate_per_s(now_s), stage.left_s(now_s)
            parts.append(f"{name} {stage.done} of {stage.total} objects, {rate:.1f}/s")
            numbers[f"{name}_done"], numbers[f"{name}_total"] = stage.done, stage.total
            numbers[f"{name}_per_s"] = round(rate, 3)
            left.append(left_s if stage.done < stage.total else 0.0)
        # The stages overlap, so the slower one says when all is done.
        known = [seconds for seconds in left if seconds is not None]
        left_s = max(known) if known and len(known) == len(left) else None
        numbers |= {"failed_partitions": self.n_failed, "left_s": None if left_s is None else round(left_s)}
        parts.append(f"{self.n_failed} partition{'' if self.n_failed == 1 else 's'} failed")
        parts.append("time left unknown" if left_s is None else f"{duration(left_s)} left")
        return Event("progress", "; ".join(parts), numbers=numbers)


def duration(seconds: float) -> str:
    """Return a time in the two largest of its units, such as ``2 d 3 h``, ``5 min`` or ``12 s``."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 1:
        return f"{int(days)} d {int(hours % 24)} h"
    if hours >= 1:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{round(minutes)} min" if minutes >= 1 else f"{round(seconds)} s"
