"""The time that a task may take, and the pace of those that end."""

import pytest

from galbatch.execution.submission.timing import MIN_LIMIT_S, RECENT_S, Pace, TaskTimes


def test_the_limit_is_a_multiple_of_the_mean_per_object():
    times = TaskTimes(20.0, n_passes=64)
    times.add("infer", n_objects=1000, seconds=300.0)
    times.add("infer", n_objects=3000, seconds=500.0)
    assert times.limit_s("infer", 5000) == pytest.approx(20 * 0.2 * 5000)
    assert times.described("infer", 5000) == (
        "20000 s for 5000 objects; finished tasks took 0.2 s per object ([cluster] task_timeout = 20)"
    )


def test_no_task_hangs_before_ten_minutes():
    times = TaskTimes(2.0, n_passes=64)
    times.add("ingest", n_objects=1000, seconds=1.0)
    assert times.limit_s("ingest", 1000) == MIN_LIMIT_S == 600.0


def test_steps_are_judged_by_their_own_kind_and_the_first_by_a_stated_time():
    times = TaskTimes(20.0, n_passes=64)
    times.add("ingest", n_objects=1000, seconds=100_000.0)
    # A second for each of 64 passes.
    assert times.limit_s("infer", 1000) == 64_000.0
    assert (
        times.described("infer", 1000) == "64000 s for 1000 objects, while no task of this step has finished"
    )
    assert TaskTimes(20.0, n_passes=64).limit_s("ingest", 1000) == 5_000.0


def test_the_pace_is_the_number_of_tasks_of_the_last_half_second():
    pace = Pace()
    for now_s in (10.0, 10.2, 10.4, 10.45):
        pace.add(now_s)
    assert [pace.recent(now_s) for now_s in (10.45, 10.5, 10.65, 10.92, 11.0)] == [4, 4, 3, 1, 0]
    assert RECENT_S == 0.5
