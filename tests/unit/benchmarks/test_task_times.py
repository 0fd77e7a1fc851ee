"""The times of tasks: the fit finds what was put in, and the runs have tasks of both steps."""

import numpy as np
import pytest


@pytest.fixture
def task_times(load_benchmark):
    return load_benchmark("task_times")


def test_the_fit_finds_start_object_and_scatter(task_times):
    rng = np.random.default_rng(1)
    n_objects = rng.integers(200, 5000, 400)
    seconds = (0.8 + 0.004 * n_objects) * rng.lognormal(0.0, 0.1, 400)
    seconds[:20] *= 5
    clean = task_times.fit(n_objects[20:], seconds[20:])
    assert clean.start_s == pytest.approx(0.8, rel=0.1)
    assert clean.object_s == pytest.approx(0.004, rel=0.05)
    assert clean.scatter == pytest.approx(0.1, rel=0.15)
    assert clean.slow == 0.0
    assert 0.03 < task_times.fit(n_objects, seconds).slow < 0.06


@pytest.mark.slow
def test_runs_at_toy_size_have_tasks_of_both_steps(task_times, tmp_path):
    found = task_times.measure(tmp_path, 400, workers=2, most_objects=100)
    # So few objects take as long as the scatter of tasks: either part of the fit may be 0, not both.
    assert all(times.n_tasks >= 2 and times.start_s + 100 * times.object_s > 0.01 for times in found.values())
