"""The news of a run, which its process sends to the scheduler every few seconds for the page there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from distributed import Client
from distributed.protocol import pickle

from galbatch.dashboard.events import Event, Sample, Tally, utc_now
from galbatch.dashboard.sinks import ProgressSink

__all__ = ["HANDLER", "Broadcast", "Failure", "RunNews", "StageNews", "send"]

HANDLER = "galbatch_news"
"""Name of the scheduler's handler that takes the news."""

SEND_S = 2.0
"""Time between two messages to the scheduler, each of which has up to some 100 kB."""

MAX_WAIT_S = 10.0
"""The longest time that the run waits for its first message and for its last: the scheduler may be gone."""

N_SAMPLES = 9
N_FAILURES = 50
N_NOTES = 4

SAMPLE_TALLY_S = 60.0

RUNNING = "running"


@dataclass(frozen=True)
class StageNews:
    """The progress of a stage: objects done, of all, and how many of them earlier runs had done."""

    name: str
    done: int
    total: int
    before: int


@dataclass(frozen=True)
class Failure:
    """A partition that was given up, when and why."""

    partition: str
    reason: str
    time: str


@dataclass(frozen=True)
class RunNews:
    """All that a run's own process knows and the page shows.

    Attributes
    ----------
    run : identifies the run among those of a scheduler
    name : the catalog's name in run.toml
    state : "running", "finished", or "ended: " and the reason
    started : UTC
    left_s : seconds that the rest takes at the rate of the last ten minutes; None: not known yet
    n_failed, n_retries : partitions given up, and attempts that were made again
    failures : the last ones given up, newest first
    n_inferred : objects that this run inferred, of which `flags` counts
    flags : number of objects with each flag, by column and flag
    samples : the last objects inferred, newest first
    notes : the last human-readable lines, newest first
    """

    run: str
    name: str
    state: str
    started: str
    stages: tuple[StageNews, ...] = ()
    left_s: float | None = None
    n_failed: int = 0
    n_retries: int = 0
    failures: tuple[Failure, ...] = ()
    n_inferred: int = 0
    flags: tuple[tuple[str, int], ...] = ()
    samples: tuple[Sample, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether the run has not ended, as far as it has said."""
        return self.state == RUNNING


class Broadcast:
    """A sink that passes everything on to another one, and sends what a run does to the scheduler's page.

    Use it as a context manager. A thread of its own sends, so that a slow scheduler does not hold the run up, and no fault of
    sending ends anything.

    Parameters
    ----------
    sink : ProgressSink
        Takes everything, too.
    client : distributed.Client
        Connection to the scheduler, which has the page.
    name : str
        The run's name.
    clock : callable
        Returns the time in seconds, of a monotonic clock.
    """

    def __init__(
        self,
        sink: ProgressSink,
        client: Client,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink, self._client, self._name, self._clock = sink, client, name, clock
        self._run, self._started, self._state = uuid.uuid4().hex, utc_now(), RUNNING
        self._tally = Tally()
        self._before: dict[str, int] = {}
        self._failures: deque[Failure] = deque(maxlen=N_FAILURES)
        self._samples: deque[Sample] = deque(maxlen=N_SAMPLES)
        self._notes: deque[tuple[str, str]] = deque(maxlen=N_NOTES)
        self._flags: Counter[str] = Counter()
        self._n_inferred = self._n_retries = 0
        self._lock = threading.Lock()
        self._stop, self._introduced = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send_until_stopped, name="galbatch-news", daemon=True)

    def __enter__(self) -> Broadcast:
        self._thread.start()
        # The scheduler counts a run's work from its first news on, so these go before the first task.
        self._introduced.wait(MAX_WAIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "finished" if error is None else f"ended: {error or (kind and kind.__name__)}"
        self._stop.set()
        self._thread.join(MAX_WAIT_S)

    # --- what a sink does ----------------------------------------------------------------------------------

    def start(self, stage: str, total: int, done: int) -> None:
        """Begin a stage."""
        with self._lock:
            self._tally.start(stage, total, done, now_s=self._clock())
            self._before[stage] = done
        self._sink.start(stage, total, done)

    def advance(self, stage: str, n: int) -> None:
        """Count objects as done."""
        with self._lock:
            self._tally.advance(stage, n)
        self._sink.advance(stage, n)

    def note(self, line: str) -> None:
        """Keep the last lines."""
        with self._lock:
            self._notes.appendleft((utc_now(), line))
        self._sink.note(line)

    def record(self, event: Event) -> None:
        """Count failures, retries and flags, and keep the last pictures."""
        with self._lock:
            if event.kind == "failed":
                self._tally.n_failed += 1
                reason = f"{event.numbers.get('step', '')}: {event.numbers.get('reason', event.text)}"
                self._failures.appendleft(Failure(event.partition or "", reason, utc_now()))
            elif event.kind == "retry":
                self._n_retries += 1
            elif event.kind == "infer":
                self._n_inferred += int(event.numbers.get("objects", 0))
            self._flags.update(event.flags)
            self._samples.extendleft(event.samples)
        self._sink.record(event)

    # --- what is sent --------------------------------------------------------------------------------------

    def news(self) -> RunNews:
        """Return the state of the run now."""
        with self._lock:
            stages = tuple(
                StageNews(name, one.done, one.total, self._before[name])
                for name, one in self._tally.stages.items()
            )
            return RunNews(
                run=self._run,
                name=self._name,
                state=self._state,
                started=self._started,
                stages=stages,
                left_s=self._tally.progress(self._clock()).numbers["left_s"],
                n_failed=self._tally.n_failed,
                n_retries=self._n_retries,
                failures=tuple(self._failures),
                n_inferred=self._n_inferred,
                flags=tuple(self._flags.most_common()),
                samples=tuple(self._samples),
                notes=tuple(self._notes),
            )

    def _send_until_stopped(self) -> None:
        sampled_s = self._clock()
        self._send()
        self._introduced.set()
        while True:
            stopped = self._stop.wait(SEND_S)
            if self._clock() - sampled_s >= SAMPLE_TALLY_S:
                sampled_s = self._clock()
                with self._lock:
                    self._tally.sample(sampled_s)
            self._send()
            if stopped:
                return

    def _send(self) -> None:
        # The connection may be lost at any moment, and comes back or does not: the run's own loop decides.
        with contextlib.suppress(
            OSError, RuntimeError, asyncio.CancelledError, concurrent.futures.CancelledError
        ):
            if self._client.status == "running":
                send(self._client, self.news())


def send(client: Client, news: RunNews) -> None:
    """Send news to the scheduler's page, which `watch` has put there."""
    # Dask logs a line for each call of run_on_scheduler, which would be 40,000 lines a day; a handler of one's own is silent.
    client.sync(getattr(client.scheduler, HANDLER), news=pickle.dumps(news))
