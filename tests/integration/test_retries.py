"""Faults at the task boundary: what is retried, how often, and what is recorded."""

import pytest
from distributed import Client

from galbatch import config, execution, storage
from galbatch.errors import TileError
from galbatch.execution import tasks


@pytest.fixture(scope="module")
def threads():
    """Workers in this process, so that tests can put faults into tasks."""
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as client:
        yield client


@pytest.fixture
def ready(write_run, tmp_path):
    parsed = config.read_config(write_run(tmp_path, max_objects=60, passes=4))
    return parsed, execution.prepare(parsed)


class Faulty:
    """A task function that raises `error` in the first `n_faults` tries of every partition it picks."""

    def __init__(self, name, error, *, n_faults, picks=lambda partition: True):
        self.name, self.error, self.n_faults, self.picks = name, error, n_faults, picks
        self.function = getattr(tasks, name)
        self.tried = []

    def __reduce__(self):
        # By reference: Dask pickles functions even within one process, and a copy would count by itself.
        return getattr, (tasks, self.name)

    def __call__(self, task):
        self.tried.append(task)
        before = sum(t.partition == task.partition for t in self.tried)
        if self.picks(task.partition) and before <= self.n_faults:
            raise self.error
        return self.function(task)


def put(monkeypatch, name, error, **changes):
    faulty = Faulty(name, error, **changes)
    monkeypatch.setattr(tasks, name, faulty)
    return faulty


def test_io_errors_are_retried_until_they_pass(ready, threads, monkeypatch):
    parsed, plan = ready
    faulty = put(monkeypatch, "ingest_partition", OSError("connection reset"), n_faults=2)
    result = execution.execute(parsed, plan, threads)
    assert result.complete
    assert len(faulty.tried) == 3 * len(plan.partitions)


def test_io_errors_that_stay_fail_their_partition_only(ready, threads, monkeypatch):
    parsed, plan = ready
    victim = plan.partitions[1].partition
    faulty = put(
        monkeypatch, "infer_partition", OSError("disk on fire"), n_faults=99, picks=lambda p: p == victim
    )
    result = execution.execute(parsed, plan, threads)
    assert result.failed == {victim.name: "infer: OSError: disk on fire"}
    assert not result.complete
    assert sum(task.partition == victim for task in faulty.tried) == 1 + parsed.cluster.retries
    assert result.n_inferred == len(plan.objects) - victim.n_objects
    monkeypatch.undo()
    state = execution.read_progress(parsed, plan)
    assert [part.partition for part in state.left] == [victim]
    assert state.failed == {victim.name: "infer: OSError: disk on fire"}


def test_wrong_input_is_not_tried_again(ready, threads, monkeypatch):
    parsed, plan = ready
    faulty = put(monkeypatch, "ingest_partition", TileError("tile 9813/4,4: no WCS"), n_faults=99)
    result = execution.execute(parsed, plan, threads)
    assert len(faulty.tried) == len(plan.partitions) == len(result.failed)
    assert set(result.failed.values()) == {"ingest: tile 9813/4,4: no WCS"}


def test_lack_of_memory_halves_the_batch(ready, threads, monkeypatch):
    parsed, plan = ready
    faulty = put(monkeypatch, "infer_partition", MemoryError("no room"), n_faults=2)
    result = execution.execute(parsed, plan, threads)
    assert result.complete
    first = plan.partitions[0].partition
    batches = [task.posterior.batch for task in faulty.tried if task.partition == first]
    assert batches == [256, 128, 64]
    # The smaller batch is no other run: the leaf carries the fingerprint of the run's own settings.
    assert not execution.read_progress(parsed, plan).left


def test_a_bug_is_recorded_with_its_kind(ready, threads, monkeypatch):
    parsed, plan = ready
    put(monkeypatch, "infer_partition", ZeroDivisionError("division by zero"), n_faults=99)
    result = execution.execute(parsed, plan, threads)
    assert set(result.failed.values()) == {"infer: ZeroDivisionError: division by zero"}
    assert not (storage.list_files(parsed.catalog.path + "/dataset", suffix=".parquet"))
