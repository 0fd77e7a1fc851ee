"""When a run pauses, how long, and when it has waited enough; by a clock that the test moves."""

import errno
from dataclasses import replace

import pytest

from galbatch.errors import OutputError, ResourceError
from galbatch.execution.submission import Pauses, fault_of
from tests.clocks import replace_clock

FULL = fault_of(ResourceError("cutouts: no space left", problem="No space left on device"))
SLOW_DOWN = fault_of(OSError(errno.EBUSY, "SlowDown"))


def bad_block(file):
    return fault_of(OSError(errno.EIO, "Input/output error", file))


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]

    def sleep(seconds):
        now[0] += seconds

    replace_clock(monkeypatch, "galbatch.execution.submission.pausing", monotonic=lambda: now[0], sleep=sleep)
    return now


@pytest.fixture
def notes():
    return []


@pytest.fixture
def pauses(clock, notes):
    return Pauses(3600.0, notes.append)


def test_the_fifth_failure_alike_within_a_minute_pauses(pauses, clock, notes):
    for number in range(4):
        clock[0] += 14.9
        assert not pauses.record(f"p{number}", FULL)
    assert pauses.record("p4", FULL)
    assert pauses.is_on
    assert notes == [
        "paused: No space left on device: 5 tasks failed alike, the last one of partition p4: cutouts: no space left",
        "No space left on device: waiting 5 s, then one task is tried (3595 of 3600 s of pauses are left)",
    ]


def test_failures_of_two_kinds_are_not_alike(pauses):
    for number in range(4):
        assert not pauses.record(f"p{number}", FULL)
        assert not pauses.record(f"q{number}", SLOW_DOWN)
    assert pauses.record("p4", FULL)


def test_rare_failures_count_only_while_nothing_succeeds(pauses, clock):
    """Tasks that take ten minutes and then meet a full disk never fail five times within a minute."""
    for number in range(8):
        clock[0] += 600
        pauses.succeeded()
        clock[0] += 1
        assert not pauses.record(f"p{number}", FULL)
    for number in range(3):
        clock[0] += 600
        assert not pauses.record(f"q{number}", FULL)
    clock[0] += 600
    assert pauses.record("q3", FULL)


def test_one_bad_file_does_not_pause_but_three_do(pauses):
    for number in range(20):
        assert not pauses.record(f"p{number}", bad_block("a.fits"))
    assert not pauses.record("p20", bad_block("b.fits"))
    assert pauses.record("p21", bad_block("c.fits"))


def test_bad_files_do_not_pause_while_others_can_be_read(pauses, clock):
    for number in range(20):
        assert not pauses.record(f"p{number}", bad_block(f"{number}.fits"))
        clock[0] += 0.1
        pauses.succeeded()


def test_pauses_double_and_end_with_the_limit(pauses, clock):
    for _ in range(5):
        pauses.record("p", FULL)
    lengths = []
    while not pauses.is_spent:
        began = clock[0]
        while not pauses.is_due:
            clock[0] += 0.5
        lengths.append(clock[0] - began)
        clock[0] += 100  # the task that is tried takes time; that is no pause
        pauses.prolong(FULL)
    assert lengths[:7] == [5, 10, 20, 40, 80, 160, 300]
    assert max(lengths) == 300
    assert sum(lengths) == 3600


def test_the_limit_holds_for_all_pauses_of_a_run_together(pauses, clock, notes):
    for _ in range(3):
        for _ in range(5):
            pauses.record("p", FULL)
        clock[0] += 5
        assert pauses.is_due
        pauses.end()
        assert not pauses.is_on
    assert notes[-1] == ("continues after 5 s: No space left on device is over; 3585 s of pauses are left")


def test_without_a_limit_of_time_the_run_ends_at_once(clock, notes):
    pauses = Pauses(0.0, notes.append)
    for _ in range(5):
        pauses.record("p", FULL)
    assert pauses.is_spent
    assert len(notes) == 1


def test_a_function_of_this_process_is_called_until_it_works(pauses, clock):
    called = []

    def finish():
        called.append(clock[0])
        if len(called) < 4:
            raise ResourceError("catalog: no space left", problem="No space left on device")
        return "done"

    assert pauses.until_it_works(finish) == "done"
    assert [at - 1000.0 for at in called] == pytest.approx([0, 5, 15, 35])
    assert not pauses.is_on


def test_a_function_is_not_called_again_after_other_errors_or_the_limit(pauses, clock):
    def in_the_way():
        raise OutputError("catalog: a file is in the way")

    with pytest.raises(OutputError, match="in the way"):
        pauses.until_it_works(in_the_way)
    assert clock[0] == 1000.0

    def full():
        raise ResourceError("catalog: no space left", problem="No space left on device")

    with pytest.raises(ResourceError):
        pauses.until_it_works(full)
    assert clock[0] == pytest.approx(1000.0 + 3600.0)
    assert pauses.is_spent


def on(worker, fault=FULL):
    return replace(fault, worker=worker)


@pytest.fixture
def ended():
    return []


@pytest.fixture
def watched(clock, notes, ended):
    return Pauses(
        3600.0, notes.append, end_worker=lambda worker, fault: ended.append((worker, fault.problem))
    )


def test_a_worker_that_fails_what_others_can_do_is_ended_and_nothing_pauses(watched, clock, ended, notes):
    for number in range(5):
        clock[0] += 1
        assert not watched.record(f"p{number}", on("a"), others=True)
        clock[0] += 1
        watched.succeeded("b")
    assert ended == [("a", "No space left on device")]
    # Its failures are forgotten: the next handful counts from none.
    for number in range(4):
        clock[0] += 1
        assert not watched.record(f"q{number}", on("a"), others=True)
        watched.succeeded("b")
    assert len(ended) == 1
    assert notes == []


def test_one_worker_that_fails_at_once_pauses_nothing_while_others_are_at_their_first_task(watched, clock):
    for number in range(20):
        clock[0] += 0.01
        assert not watched.record(f"p{number}", on("a"), others=True)
    assert watched.record("p20", on("b"), others=True)


def test_workers_that_also_succeed_are_not_to_blame(watched, clock, ended):
    """Small files still fit on a disk that is nearly full."""
    for number in range(4):
        clock[0] += 1
        assert not watched.record(f"p{number}", on("ab"[number % 2]), others=True)
        watched.succeeded("ab"[number % 2])
        watched.succeeded("c")
    assert watched.record("p4", on("a"), others=True)
    assert ended == []


def test_bad_tiles_under_one_worker_are_no_fault_of_it(watched, clock, ended):
    for number in range(20):
        clock[0] += 0.1
        assert not watched.record(f"p{number}", on("a", bad_block(f"{number % 2}.fits")), others=True)
        watched.succeeded("b")
    assert ended == []
    watched.record("p20", on("a", bad_block("2.fits")), others=True)
    assert ended == [("a", "Input/output error")]


def test_where_nothing_succeeds_elsewhere_the_run_pauses(watched, clock, ended):
    for number in range(4):
        assert not watched.record(f"p{number}", on("ab"[number % 2]), others=True)
    assert watched.record("p4", on("a"), others=True)
    assert ended == []
