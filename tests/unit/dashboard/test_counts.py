"""The counts of a process: what is done, and what its tasks are at."""

import asyncio
from types import SimpleNamespace

import pytest
from distributed.diagnostics import nvml

from galbatch import dashboard
from galbatch.dashboard.counts import METRIC


@pytest.fixture
def metric():
    """Return what the next heartbeat of this process would carry."""
    worker = SimpleNamespace(metrics={})
    dashboard.CountsOnWorker().setup(worker)
    return lambda: asyncio.run(worker.metrics[METRIC](worker))


def test_parts_of_a_task_are_under_way_until_it_has_finished(metric):
    before = dashboard.totals()
    with dashboard.TaskCounts() as one, dashboard.TaskCounts() as other:
        one.add(galaxies=0.1, passes=64)
        one.add(galaxies=0.2, passes=32)
        other.add(cutouts=256)
        assert metric()["under_way"] == {"cutouts": 256, "galaxies": pytest.approx(0.3), "passes": 96}
        assert dashboard.totals() == before
        one.finished(galaxies=7, passes=96)
        assert metric()["under_way"] == {"cutouts": 256, "galaxies": 0, "passes": 0}
        # The context's end counts nothing once more.
    assert metric()["under_way"] == {"cutouts": 0, "galaxies": 0, "passes": 0}
    assert dashboard.totals() == before | {
        "galaxies": before["galaxies"] + 7,
        "passes": before["passes"] + 96,
    }
    assert metric()["before"] == before


def test_the_part_of_a_task_that_fails_is_nothing(metric):
    before = dashboard.totals()

    def fail():
        with dashboard.TaskCounts() as counts:
            counts.add(cutouts=100)
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fail()
    assert metric()["under_way"] == {"cutouts": 0, "galaxies": 0, "passes": 0}
    assert dashboard.totals() == before


@pytest.mark.parametrize(
    ("visible", "n_gpus", "has_metric"), [(None, 1, True), ("1", 2, True), ("", 2, False), (None, 0, False)]
)
def test_workers_with_a_gpu_tell_its_use_and_memory(monkeypatch, visible, n_gpus, has_metric):
    used = iter([11, 12])
    monkeypatch.setattr(nvml, "device_get_count", lambda: n_gpus)
    monkeypatch.setattr(nvml, "one_time", lambda: {"memory-total": 139, "name": "made up"})
    monkeypatch.setattr(nvml, "real_time", lambda: {"utilization": 93, "memory-used": next(used)})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    worker = SimpleNamespace(metrics={})
    dashboard.GpuOnWorker().setup(worker)
    assert ("gpu" in worker.metrics) == has_metric
    if has_metric:
        asked = [asyncio.run(worker.metrics["gpu"](worker)) for _ in range(2)]
        assert [(one["utilization"], one["memory-used"], one["memory-total"]) for one in asked] == [
            (93, 11, 139),
            (93, 12, 139),
        ]
