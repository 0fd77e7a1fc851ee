"""Locks: an output is held by one run at a time, and who lives is judged by the watcher's clock alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from galbatch import storage
from galbatch.errors import LockedError, LockLost
from galbatch.storage import zarr_groups
from tests.clocks import replace_clock


@dataclass
class FakeClock:
    """A clock that sleeping moves; `during` is called with the time after each sleep, as others act meanwhile."""

    now_s: float = 0.0
    during: Callable[[float], object] = lambda now_s: None
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept.append(seconds)
        self.during(self.now_s)

    @property
    def clock(self) -> storage.Clock:
        return storage.Clock(lambda: self.now_s, self.sleep)


def foreign_lock(path: str, **changes: object) -> None:
    """A lock as a run on another machine would have left it."""
    values = {"owner": "other", "host": "elsewhere", "pid": 1, "started": "then", "beat": 5, "period_s": 30.0}
    data = (json.dumps(values | changes) + "\n").encode()
    storage.publish(path, data.ljust(512))


@pytest.fixture(params=["disk", "s3"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Path of a lock, on the disk and on S3."""
    if request.param == "disk":
        return str(tmp_path / "catalog_lock.json")
    bucket: str = request.getfixturevalue("s3")
    return f"{bucket}/catalog_lock.json"


def content(path: str) -> dict[str, object]:
    found = storage.read_json(path)
    assert found is not None
    return found


def test_the_lock_says_who_holds_it_and_goes(path: str) -> None:
    with storage.Lock(path) as lock:
        held = content(path)
        assert (held["host"], held["pid"], held["beat"]) == (socket.gethostname(), os.getpid(), 0)
        assert lock.beat()
        assert (content(path)["beat"], lock.is_lost) == (1, False)
        lock.handle.require()
    assert not storage.exists(path)
    with pytest.raises(
        LockLost, match="catalog: this run does not hold its lock any more: it was given back"
    ):
        lock.handle.require()


def test_the_lock_goes_when_the_run_fails(path: str) -> None:
    with pytest.raises(ZeroDivisionError), storage.Lock(path):
        _ = 1 / 0
    assert not storage.exists(path)


def test_a_signal_right_after_the_file_was_made_leaves_no_lock(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = storage.Lock._acquire

    def interrupted(self: storage.Lock) -> None:
        acquire(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.Lock, "_acquire", interrupted)
    with pytest.raises(KeyboardInterrupt), storage.Lock(path):
        pytest.fail("it has not begun")
    assert not storage.exists(path)


def test_a_signal_while_the_thread_starts_leaves_no_lock_and_no_second_error(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was not seen to start cannot be joined."""

    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "galbatch-lock":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), storage.Lock(path):
        pytest.fail("it has not begun")
    assert not storage.exists(path)


def test_a_lock_whose_counter_stands_still_is_taken_after_its_own_period(path: str) -> None:
    foreign_lock(path, period_s=12.0)
    time_of, told = FakeClock(now_s=1e6), list[str]()
    with storage.Lock(path, clock=time_of.clock, notify=told.append) as lock:
        assert content(path)["pid"] == os.getpid()
        lock.handle.require()
    # Twelve looks of a second: not the watcher's own period of 30 s, but the one that the lock states.
    assert time_of.now_s - 1e6 == 12
    assert told == [
        f"{path[:-10]}: the run of process 1 on elsewhere may be writing it: watching its lock, for 12 s at most",
        f"{path[:-10]}: the run of process 1 on elsewhere is dead, its lock has not beaten for 12 s; taken over",
    ]


@pytest.mark.parametrize("beats_after_s", [1, 11])
def test_a_lock_that_beats_while_it_is_watched_is_refused(path: str, beats_after_s: int) -> None:
    foreign_lock(path, period_s=12.0)
    time_of = FakeClock(during=lambda now: foreign_lock(path, beat=6) if now == beats_after_s else None)
    with pytest.raises(LockedError) as caught, storage.Lock(path, clock=time_of.clock):
        pass
    assert str(caught.value).startswith(
        f"{path[:-10]}: held by the run of process 1 on elsewhere, since then; it is alive"
    )
    assert "--wait-lock" in str(caught.value)
    assert time_of.now_s == beats_after_s
    assert content(path)["owner"] == "other"


def test_waiting_goes_on_while_it_beats_and_ends_with_the_run(path: str) -> None:
    beat = 5

    def holder(now_s: float) -> None:
        nonlocal beat
        if now_s < 300 and now_s % 10 == 0:
            beat += 1
            foreign_lock(path, beat=beat)
        if now_s == 300:
            storage.remove(path)

    foreign_lock(path)
    time_of, told = FakeClock(during=holder), list[str]()
    with storage.Lock(path, waits=True, clock=time_of.clock, notify=told.append):
        assert time_of.now_s == 300
    assert [line.rpartition(": ")[2] for line in told] == [
        "watching its lock, for 30 s at most",
        "waiting for it to end",
    ]


def test_waiting_takes_over_what_dies_meanwhile(path: str) -> None:
    foreign_lock(path)
    time_of = FakeClock(during=lambda now: foreign_lock(path, beat=int(now)) if now <= 100 else None)
    with storage.Lock(path, waits=True, clock=time_of.clock):
        # The last beat was seen at the look after it, and the period counts from there.
        assert time_of.now_s in (130, 131)


@pytest.mark.parametrize("off_s", [-130, 130, 1e9])
def test_the_clock_of_the_day_is_never_asked(
    path: str, off_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.Lock(path, beat_s=3600) as held:
        replace_clock(monkeypatch, "galbatch.storage.locks.lock", time=lambda: 1.8e9 + off_s)
        late = FakeClock(now_s=off_s, during=lambda now: held.beat())
        with pytest.raises(LockedError), storage.Lock(path, clock=late.clock):
            pass
        assert held.beat()
    foreign_lock(path)
    dead = FakeClock(now_s=off_s)
    with storage.Lock(path, clock=dead.clock):
        assert dead.now_s - off_s == 30


def test_looking_early_shortens_the_watch(path: str) -> None:
    foreign_lock(path)
    time_of = FakeClock()
    lock = storage.Lock(path, clock=time_of.clock)
    lock.look()
    time_of.now_s = 29.0
    with lock:
        assert time_of.now_s == 30


def test_a_run_whose_lock_was_taken_notices_and_leaves_the_new_one(path: str) -> None:
    with storage.Lock(path, beat_s=3600) as lock:
        foreign_lock(path)
        with pytest.raises(LockLost, match="the run of process 1 on elsewhere took it over"):
            lock.handle.require()
        assert not lock.is_lost  # the run itself knows at its next beat
        assert not lock.beat()
        assert lock.is_lost
    assert content(path)["owner"] == "other"


def test_the_thread_beats(path: str) -> None:
    with storage.Lock(path, beat_s=0.02):
        deadline = time.monotonic() + 20
        while content(path)["beat"] in (0, 1):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not storage.exists(path)


def test_an_empty_lock_counts_as_one_of_a_dead_run_after_the_usual_period(path: str) -> None:
    storage.publish(path, b"")
    time_of = FakeClock()
    with storage.Lock(path, clock=time_of.clock):
        assert time_of.now_s == 30


def test_commits_of_a_run_that_lost_its_lock_are_refused(path: str) -> None:
    with storage.Lock(path, beat_s=3600) as lock, storage.guarded([lock.handle]):
        with storage.committing():
            pass
        foreign_lock(path)
        with pytest.raises(LockLost), storage.committing():
            pytest.fail("a commit without the lock")
    with storage.committing():  # outside of a run nothing is asked
        pass


def test_writing_of_groups_looks_at_the_locks_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now_s = str(tmp_path / "catalog_lock.json"), 1000.0
    with storage.Lock(path, beat_s=3600) as lock, storage.guarded([lock.handle]):
        replace_clock(monkeypatch, "galbatch.storage.locks.commits", monotonic=lambda: now_s)
        group = zarr_groups.GroupWriter(str(tmp_path / "group"))
        group.write({"a": [b"1"]})
        foreign_lock(path)
        group.write({"b": [b"2"]})
        now_s += 1.0
        with pytest.raises(LockLost):
            group.write({"c": [b"3"]})
        with pytest.raises(LockLost):  # before what is there is removed
            zarr_groups.GroupWriter(str(tmp_path / "group"))
    assert sorted(os.listdir(tmp_path / "group")) == ["a", "b"]


def test_commits_underway_are_waited_for_and_none_begins_after(tmp_path: Path) -> None:
    with storage.Lock(str(tmp_path / "catalog_lock.json")) as lock:
        inside, leave = threading.Event(), threading.Event()

        def commit() -> None:
            with storage.guarded([lock.handle]), storage.committing():
                inside.set()
                leave.wait(60)

        thread = threading.Thread(target=commit)
        thread.start()
        assert inside.wait(60)
        assert not storage.end_commits([lock.handle], timeout_s=0.01)
        leave.set()
        assert storage.end_commits([lock.handle], timeout_s=60)
        thread.join()
        with storage.guarded([lock.handle]), pytest.raises(LockLost, match="stopped"), storage.committing():
            pytest.fail("a commit of a run that has ended")


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_process_id_proves_nothing(tmp_path: Path) -> None:
    """A lock of a dead process of this host is watched like any other; one of a living process is taken if it is silent."""
    dead = run_python("pass")
    dead.communicate()
    for pid in (dead.pid, os.getpid(), 1):
        path, time_of = str(tmp_path / f"{pid}_lock.json"), FakeClock()
        foreign_lock(path, host=socket.gethostname(), pid=pid)
        with storage.Lock(path, clock=time_of.clock):
            assert time_of.now_s == 30


def test_of_many_that_find_a_dead_lock_one_wins(tmp_path: Path) -> None:
    path = str(tmp_path / "catalog_lock.json")
    foreign_lock(path, period_s=0.5)
    code = """
        import sys, time
        from galbatch import errors, storage
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            with storage.Lock(sys.argv[1], beat_s=0.1) as lock:
                time.sleep(2)
                lock.handle.require()
                print("won" if not lock.is_lost else "lost")
        except errors.LockedError:
            print("refused")
    """
    runs = [run_python(code, path) for _ in range(4)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    said = sorted(run.communicate(timeout=60)[0].strip() for run in runs)
    assert said == ["refused", "refused", "refused", "won"]


def test_a_local_beat_never_brings_back_a_lock_that_was_moved_away(tmp_path: Path) -> None:
    """The holder is stopped between reading its lock and writing it, while another run takes the lock over."""
    system, path = storage.file_system(str(tmp_path)), str(tmp_path / "lock")
    old, new, theirs = b"a" * 8, b"b" * 8, b"c" * 8
    assert system.create(path, old)
    with open(path, "r+b", buffering=0) as file:  # what renewing does, step by step
        assert file.read() == old
        assert system.take_over(path, theirs, content=old, version=system.identity(path).version)
        file.seek(0)
        file.write(new)
    assert storage.read_bytes(path) == theirs
    assert not system.renew(path, new, content=old, version="")
    assert os.listdir(tmp_path) == ["lock"]


def test_a_conditional_write_on_s3_loses_to_a_faster_one(s3: str) -> None:
    path, system = f"{s3}/catalog_lock.json", storage.file_system(s3)
    foreign_lock(path)
    found, version = storage.read_bytes(path), storage.identity(path).version
    assert system.take_over(path, b"first", content=found, version=version)
    assert not system.take_over(path, b"late", content=found, version=version)
    assert not system.renew(path, b"late", content=found, version=version)
    assert storage.read_bytes(path) == b"first"
