"""The benchmark of the run loop, at toy size: both loops do all tasks, and its cluster keeps nothing of them."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def scheduling(load_benchmark):
    return load_benchmark("scheduling")


def test_both_loops_do_all_tasks_and_what_they_add_is_kept(scheduling, tmp_path):
    with scheduling.cluster(threads_per_worker=2) as client, scheduling.steps_that_return_at_once():
        config, plan = scheduling.toy_plan(str(tmp_path), 60)
        n_parts = len(plan.partitions)
        assert 50 <= n_parts <= 60
        assert scheduling.bare_loop(client, n_parts) == n_parts
        assert scheduling.run_loop(client, config, plan) == 60
        assert scheduling.run_loop(client, config, plan, most=10) == sum(
            part.partition.n_objects for part in plan.partitions[:10]
        )
        scheduling.compare_loops(client, config, plan)
        scheduling.compare_memory(client, str(tmp_path), (10, 40))
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert results["rate_of_the_run_loop"]["tasks"] == n_parts
    assert len(results["rate_of_the_run_loop"]["of_wall_time"]) == 5
    assert list(results["memory_of_the_run_loop"]["added_mib"]) == ["10", "40"]


def test_a_task_that_fails_ends_the_benchmark(scheduling, tmp_path):
    with scheduling.cluster(threads_per_worker=2) as client, scheduling.steps_that_return_at_once():
        config, plan = scheduling.toy_plan(str(tmp_path), 20)
        # Ends before the steps are put back, which would otherwise stay those of the benchmark.
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(scheduling.tasks, "ingest_partition", int)
            with pytest.raises(SystemExit, match="0 objects in"):
                scheduling.run_loop(client, config, plan)
