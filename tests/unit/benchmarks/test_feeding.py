"""The benchmark of feeding, at toy size: both contenders infer all objects, and the store holds galaxies."""

import json

import numpy as np
import pytest

from galbatch import ingest, models
from galbatch.execution import tasks

pytestmark = pytest.mark.slow


@pytest.fixture
def feeding(load_benchmark):
    return load_benchmark("feeding")


def test_both_infer_the_same_objects(feeding, tmp_path, monkeypatch):
    passes = {"blocks": 0, "partitions": 0}
    infer_block, infer_partition = models.infer_block, tasks.infer_partition

    def counting_block(*args, **kwargs):
        values = infer_block(*args, **kwargs)
        passes["blocks"] += int(values["net_passes"].sum())
        return values

    def counting_partition(task):
        result = infer_partition(task)
        passes["partitions"] += result.n_passes
        return result

    monkeypatch.setattr(models, "infer_block", counting_block)
    monkeypatch.setattr(tasks, "infer_partition", counting_partition)
    feeding.measure(feeding.Case("demo:sfnet", 2, 1, 1), str(tmp_path), "a folder")
    # A warm-up and a round of each, 256 objects and 2 passes; what a partition infers, it infers by blocks.
    assert passes == {"partitions": 2 * 512, "blocks": 4 * 512}
    (kept,) = (tmp_path / "results").iterdir()
    content = json.loads(kept.read_text())
    assert [row["name"] for row in content["measured"]] == ["from memory", "infer_partition"]
    assert content["items"] == 256


def test_the_store_holds_galaxies(feeding, tmp_path):
    task = feeding.task_of(feeding.Case("demo:gampen", 2, 1, 1), str(tmp_path))
    (block,) = ingest.read_blocks(task.store, task.partition, task.grids[0].grid)
    middle = block.image[:, 0, 44:53, 44:53].sum(axis=(1, 2))
    corner = block.image[:, 0, :9, :9].sum(axis=(1, 2))
    assert np.median(middle) > 10 * np.median(np.abs(corner))
