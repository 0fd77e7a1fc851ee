"""While a task that cuts waits for the disk, its worker cuts the next partition; what it holds of memory is of one block."""

import os
import threading

import pytest
from distributed import Client

from galbatch import config, execution, ingest
from galbatch.execution import tasks
from galbatch.storage import files

PATIENCE_S = 120.0


@pytest.fixture
def one_thread():
    """A worker in this process with one thread for tasks."""
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as client:
        yield client


def test_the_next_partition_is_cut_while_one_waits_for_the_disk(write_run, one_thread, tmp_path, monkeypatch):
    parsed = config.read_config(write_run(tmp_path, max_objects=12, passes=4))
    plan = execution.prepare(parsed)
    assert len(plan.partitions) >= 2
    both_wait = threading.Barrier(2, timeout=PATIENCE_S)
    left = threading.Semaphore(2)
    sync_files = files.sync_files

    def wait_for_another(folder, names):
        # With one task at a time nobody would come, and the barrier would break.
        if left.acquire(blocking=False):
            both_wait.wait()
        sync_files(folder, names)

    monkeypatch.setattr(files, "sync_files", wait_for_another)
    result = execution.execute(parsed, plan, one_thread, stage="ingest")
    assert result.failed == {}
    assert len(ingest.list_done(parsed.cutouts.store)) == len(plan.partitions) * len(plan.grids)
    assert not both_wait.broken


def test_a_task_keeps_its_thread_until_its_last_grid_is_written(write_run, tmp_path, monkeypatch):
    """Two tasks that cut at a time would take twice the memory that the plan projects."""
    grids = "".join(
        f"[[cutouts.grids]]\nsize_px = {size_px}\npixel_scale_arcsec = 0.5\n" for size_px in (11, 21)
    )
    parsed = config.read_config(write_run(tmp_path, passes=4, replace=[("[plan]", f"{grids}[plan]")]))
    plan = execution.prepare(parsed)
    assert len(plan.grids) == 3
    part = plan.partitions[0]
    events = []
    monkeypatch.setattr("galbatch.execution.tasks.cutting.secede", lambda: events.append("leaves"))
    monkeypatch.setattr(files, "sync_files", lambda folder, names: events.append(os.path.basename(folder)))
    task = execution.ingest_task(plan, part, cutouts=parsed.cutouts, flags=parsed.flags)
    assert tasks.ingest_partition(task).n_cutouts == 3 * part.partition.n_objects
    labels = [grid.grid.label for grid in plan.grids]
    assert events == [*labels[:2], "leaves", labels[2]]
