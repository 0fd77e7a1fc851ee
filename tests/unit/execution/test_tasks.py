"""A partition's inference: what it reads ahead, what it does when reading or computing fails, which batch it takes."""

import dataclasses
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from galbatch import catalog, dashboard, ingest, models
from galbatch.config import PosteriorConfig
from galbatch.core.flags import ModelFlag
from galbatch.core.types import BLOCK_OBJECTS
from galbatch.errors import DamagedError
from galbatch.execution import tasks
from galbatch.execution.networks import load_network
from galbatch.models.bundle import files as bundle
from galbatch.models.engines import choice as engine

GIB = 2**30


def reading_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("galbatch-prefetch")]


@pytest.fixture(scope="module")
def task(noise_task, tmp_path_factory):
    """Three blocks, of which the first two objects each are inferred."""
    folder = tmp_path_factory.mktemp("noise")
    path = models.bundle_path("demo:sfnet")
    return noise_task(folder, path, n_blocks=3, n_selected=2, posterior=PosteriorConfig(passes=4))


@pytest.fixture
def into(task, tmp_path):
    """The task with a catalog of its own."""
    return dataclasses.replace(task, catalog=str(tmp_path / "catalog"))


def from_memory(task):
    """Passes and medians of all blocks, each read and inferred by itself."""
    network, selected = task.models[0].network, task.models[0].selected
    found = []
    for number, block in enumerate(ingest.read_blocks(task.store, task.partition, network.grid)):
        rows = slice(number * BLOCK_OBJECTS, (number + 1) * BLOCK_OBJECTS)
        values = models.infer_block(
            load_network(network),
            models.BlockInputs(block, selected[rows]),
            name="net",
            posterior=task.posterior,
        )
        found.append((values["net_passes"], values["net_mag_r_q500"], values["net_flags"]))
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def test_blocks_read_ahead_give_what_blocks_in_memory_give(into):
    result = tasks.infer_partition(into)
    leaf = pq.read_table(f"{into.catalog}/dataset/{into.partition.path}.parquet").to_pandas()
    passes, medians, flags = from_memory(into)
    assert result.n_passes == passes.sum() == 3 * 2 * 4
    assert result.batch == PosteriorConfig().batch
    np.testing.assert_array_equal(leaf["net_passes"], passes)
    np.testing.assert_array_equal(leaf["net_mag_r_q500"], medians.astype(np.float32))
    np.testing.assert_array_equal(leaf["net_flags"], flags)
    assert (flags[2:BLOCK_OBJECTS] == ModelFlag.NOT_SELECTED).all()
    assert reading_threads() == []


def test_what_is_inferred_is_under_way_group_by_group(into, monkeypatch):
    parts = []
    monkeypatch.setattr(
        dashboard.TaskCounts, "add", lambda self, **part: parts.append((part["galaxies"], part["passes"]))
    )
    before = dashboard.totals()
    result = tasks.infer_partition(into)
    # A group of each block, with the two objects that stand for a 256th of all each: those that nobody infers take no time.
    assert parts == [(len(into.objects) / 3, 2 * 4)] * 3
    new = {name: n - before[name] for name, n in dashboard.totals().items()}
    assert new == {"cutouts": 0, "galaxies": len(into.objects), "passes": result.n_passes}


def test_reading_happens_in_another_thread_while_passes_run(into, monkeypatch):
    where = {"reading": set(), "computing": set()}
    read, infer = ingest.read_blocks, models.infer_block
    second_is_read, waited = threading.Event(), []

    def reading(*args, **kwargs):
        for number, block in enumerate(read(*args, **kwargs)):
            where["reading"].add(threading.get_ident())
            assert reading_threads() == [threading.current_thread().name]
            if number == 1:
                second_is_read.set()
            yield block

    def computing(*args, **kwargs):
        where["computing"].add(threading.get_ident())
        waited.append(second_is_read.wait(20.0))  # the second block comes while the first is worked on
        return infer(*args, **kwargs)

    monkeypatch.setattr(ingest, "read_blocks", reading)
    monkeypatch.setattr(models, "infer_block", computing)
    tasks.infer_partition(into)
    assert waited == [True, True, True]
    assert len(where["reading"]) == len(where["computing"]) == 1
    assert where["reading"] != where["computing"]


def test_a_store_that_fails_in_the_middle_fails_the_task_and_writes_no_leaf(into, monkeypatch):
    read = ingest.read_blocks

    def reading(*args, **kwargs):
        for number, block in enumerate(read(*args, **kwargs)):
            if number == 1:
                raise OSError("connection reset by peer")
            yield block

    monkeypatch.setattr(ingest, "read_blocks", reading)
    with pytest.raises(OSError, match="connection reset by peer"):
        tasks.infer_partition(into)
    assert reading_threads() == []
    assert catalog.list_leaves(into.catalog) == []


def test_a_shard_that_is_gone_fails_the_task(noise_task, tmp_path):
    path = models.bundle_path("demo:sfnet")
    task = noise_task(tmp_path, path, n_blocks=2, n_selected=1, posterior=PosteriorConfig(passes=2))
    group = tmp_path / "cutouts.zarr" / task.partition.path / task.grids[0].grid.label
    (group / "image" / "c" / "1" / "0" / "0" / "0").unlink()
    with pytest.raises(DamagedError, match="image/c/1/0/0/0: is gone"):
        tasks.infer_partition(task)
    assert reading_threads() == []


def test_passes_that_run_out_of_memory_leave_no_thread(into, monkeypatch):
    def computing(*args, **kwargs):
        raise MemoryError("cannot allocate 41.2 GiB")

    monkeypatch.setattr(models, "infer_block", computing)
    with pytest.raises(MemoryError) as caught:
        tasks.infer_partition(into)
    assert caught.tb is not None  # its frames are kept, as Dask keeps them
    assert reading_threads() == []


@pytest.fixture
def made_up_gpu(monkeypatch):
    """A GPU with 23.7 GiB free, on which a row takes 82 MiB."""
    memory = models.NetworkMemory(
        weights_bytes=0,
        filters_bytes=0,
        prepare_bytes=0,
        features_bytes=15 * 2**20,
        batch_bytes=0,
        row_bytes=82 * 2**20,
        n_rows=512,
        n_groups=1,
        n_places=24,
        n_outputs=5,
        n_columns=30,
        image_bytes=0,
    )
    seen = []

    def measure(ensemble, execution, posterior):
        seen.append(execution.device)
        return memory

    def infer(*args, posterior, execution, **kwargs):
        seen.append((execution.device, posterior.batch))
        return {}

    monkeypatch.setattr(models, "measure_memory", measure)
    monkeypatch.setattr(models, "gpu_memory", lambda: models.GpuMemory(24 * GIB, int(23.7 * GIB)))
    monkeypatch.setattr(models, "infer_block", infer)
    return seen


def test_on_a_gpu_the_batch_is_halved_before_the_passes_and_told(into, made_up_gpu):
    posterior = into.posterior.model_copy(update={"batch": 512})
    result = tasks.infer_partition(dataclasses.replace(into, device="cuda", posterior=posterior))
    assert made_up_gpu == ["cuda", *[("cuda", 256)] * 3]
    assert result.batch == 256
    assert result.notes == (
        f"partition {into.partition.name}: 41.4 GiB needed on the GPU (batch 512 x 82 MiB), 23.7 GiB there; "
        "trying batch 256",
    )


def test_a_batch_that_fits_is_taken_as_it_is(into, made_up_gpu):
    result = tasks.infer_partition(dataclasses.replace(into, device="cuda"))
    assert (result.batch, result.notes) == (256, ())
    assert made_up_gpu[1:] == [("cuda", 256)] * 3


def test_on_a_processor_nothing_is_measured(into, made_up_gpu):
    result = tasks.infer_partition(into)
    assert (result.batch, result.notes) == (256, ())
    assert made_up_gpu == [("cpu", 256)] * 3


def test_networks_are_read_and_made_once_for_all_partitions_of_a_process(into, monkeypatch):
    tasks.infer_partition(into)

    def again(*args, **kwargs):
        raise AssertionError("read, hashed or made again")

    monkeypatch.setattr(torch.jit, "load", again)
    monkeypatch.setattr(bundle.storage, "sha256_of", again)
    monkeypatch.setattr(bundle, "check_behavior", again)
    monkeypatch.setattr(engine, "_make", again)
    assert tasks.infer_partition(into).n_passes == 24
