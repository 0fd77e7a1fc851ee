"""The scheduler's view of what workers did: sums, rates, and their course over a run."""

import numpy as np
import pytest

from galbatch.dashboard.history import MAX_POINTS, RATE_S, Course, Workers


def heartbeat(process, cutouts, galaxies=0, *, before=0, under_way=0.0):
    return {
        "process": process,
        "cutouts": cutouts,
        "galaxies": galaxies,
        "before": {"cutouts": before, "galaxies": 0},
        "under_way": {"cutouts": under_way, "galaxies": 0.0},
    }


def test_sums_never_fall_when_a_worker_leaves_and_another_process_takes_its_place():
    workers = Workers(("cutouts", "galaxies"))
    workers.see(heartbeat("a", 100, 7), 0.0)
    workers.see(heartbeat("b", 50), 0.0)
    # The process a is gone; c is new at the same address, and begins at 0.
    workers.see(heartbeat("c", 0), 5.0)
    assert workers.totals() == {"cutouts": 150, "galaxies": 7}
    workers.see(heartbeat("c", 30), 6.0)
    assert workers.totals() == {"cutouts": 180, "galaxies": 7}


def test_a_process_that_reconnects_is_counted_once():
    workers = Workers(("cutouts", "galaxies"))
    workers.see(heartbeat("a", 100), 0.0)
    workers.see(heartbeat("b", 1), 1.0)
    # Its plugin was set up once more, so that all of its counts are now "before".
    workers.see(heartbeat("a", 120, before=100), 2.0)
    assert workers.totals()["cutouts"] == 121
    assert workers.worked == (121, 0)


def test_work_of_earlier_runs_is_in_the_sums_and_not_in_the_rates():
    workers = Workers(("cutouts", "galaxies"))
    own = workers.see(heartbeat("a", 1000, before=1000), 10.0)
    assert workers.totals()["cutouts"] == 1000
    assert workers.worked == (0, 0)
    own = workers.see(heartbeat("a", 1060, before=1000), 40.0)
    assert own.rates(40.0) == pytest.approx((2.0, 0.0))


def test_the_rate_of_a_worker_is_of_its_last_ten_minutes():
    workers = Workers(("cutouts", "galaxies"))
    for second in range(0, 3601, 10):
        own = workers.see(heartbeat("a", 5 * min(second, 3000)), float(second))
    # It stood still for the last ten minutes.
    assert own.rates(3600.0) == (0.0, 0.0)
    assert own.rates(3600.0 + 1e-9) == (0.0, 0.0)


def test_the_rate_of_a_worker_does_not_wait_for_the_end_of_its_task():
    workers = Workers(("cutouts", "galaxies"))
    workers.see(heartbeat("a", 0), 0.0)
    # Tasks of 400 cutouts, at 4 a second.
    for second in range(1, 301):
        own = workers.see(heartbeat("a", second // 100 * 400, under_way=second % 100 * 4), float(second))
        assert own.rates(float(second)) == pytest.approx((4.0, 0.0))
    assert own.worked == (1200, 0)


def test_no_rate_is_below_0_where_a_long_task_failed():
    workers = Workers(("cutouts", "galaxies"))
    # Under way since more than ten minutes, so that the oldest sample has it.
    for second in range(0, 1201, 30):
        own = workers.see(heartbeat("a", 0, under_way=100.0 * (0 < second < 1200)), float(second))
    assert own.samples[0][1] == (100.0, 0.0)
    assert own.rates(1200.0) == (0.0, 0.0)


def test_the_first_burst_is_divided_by_the_time_it_took():
    course = Course(100.0, (5000,))
    for second in range(1, 61):
        # 20 s of work, and then 600 cutouts are counted at once.
        course.add(100.0 + second, (5000 + 600 * (second >= 20),))
    time, rates = course.rates()
    assert time.tolist() == pytest.approx(list(range(1, 61)))
    assert rates[18, 0] == 0.0
    assert rates.max() == pytest.approx(600 / 20)
    assert rates[-1, 0] == pytest.approx(600 / 60)
    assert course.done() == (600,)


def test_a_long_run_is_kept_whole_in_few_points():
    course = Course(0.0, (0,))
    rate = 7
    for second in range(1, 100_001):
        course.add(float(second), (rate * second,))
    time, rates = course.rates()
    assert MAX_POINTS / 3 < len(time) <= MAX_POINTS
    assert time[-1] == 100_000
    assert time[0] <= 100_000 / MAX_POINTS * 3
    assert np.diff(time).min() > 0
    np.testing.assert_allclose(rates, rate)
    assert course.done() == (700_000,)


def test_rates_are_those_of_the_last_two_minutes():
    course = Course(0.0, (0,))
    for second in range(1, 601):
        course.add(float(second), (10 * min(second, 300) + 40 * max(0, second - 300),))
    _, rates = course.rates()
    assert rates[299, 0] == pytest.approx(10.0)
    assert rates[299 + int(RATE_S) // 2, 0] == pytest.approx(25.0)
    assert rates[-1, 0] == pytest.approx(40.0)


def test_what_is_told_after_the_end_counts_at_the_end():
    course = Course(0.0, (100,))
    course.settle((130,))
    assert course.done() == (0,)
    course.add(50.0, (140,))
    course.settle((160,))
    assert course.done() == (60,)
    assert course.elapsed_s == 50.0


def test_parts_of_tasks_make_no_steps_and_no_rate_below_zero():
    course = Course(0.0, (0.0,))
    for second in range(1, 201):
        course.add(float(second), (second / 3,))
    np.testing.assert_allclose(course.rates()[1], 1 / 3)
    # Parts add up to whole objects but for rounding.
    course.add(201.0, (66.99999999999997,))
    assert course.done() == (67,)
    # A task failed, and 50 objects of it are under way no more.
    course.add(202.0, (17.0,))
    assert course.rates()[1][-1] == 0.0


def test_a_course_that_just_began_has_no_rates():
    time, rates = Course(5.0, (1, 2, 3)).rates()
    assert time.shape == (0,)
    assert rates.shape == (0, 3)
