"""What a network takes, counted by hand for known shapes; the batch that fits on a GPU that is made up."""

import dataclasses

import numpy as np
import pytest
import torch

from galbatch.config import PosteriorConfig
from galbatch.models import (
    Engine,
    Ensemble,
    Execution,
    GpuMemory,
    NetworkMemory,
    executor,
    fitting_batch,
    measure_memory,
)
from galbatch.models.engines import CACHE_BYTES
from galbatch.models.inference import GROUP_OBJECTS
from galbatch.models.inference.memory import _taken
from galbatch.models.inference.sampling import places_for

GIB, MIB = 2**30, 2**20
POSTERIOR = PosteriorConfig(passes=8)

FULL = NetworkMemory(
    weights_bytes=540 * MIB,
    filters_bytes=100 * MIB,
    prepare_bytes=30 * MIB,
    features_bytes=15 * MIB,
    batch_bytes=0,
    row_bytes=82 * MIB,
    n_rows=512,
    n_groups=1,
    n_places=24,
    n_outputs=9,
    n_columns=40,
    image_bytes=4 * 239**2,
)


def test_what_is_held_is_what_the_tensors_take_and_the_peak_has_the_temporaries():
    x = torch.ones(1000, 250)  # 1 MB

    def twice_and_gone():
        return (x * 2 + (x * 3) * 4).sum()

    with torch.inference_mode():
        found = _taken(twice_and_gone, "cpu")
        kept = _taken(lambda: x + 1, "cpu")
    assert found.peak_bytes == pytest.approx(3e6, rel=0.01)  # x * 2, x * 3 and its product
    assert found.held_bytes < 1000
    assert kept.held_bytes == 1_000_000
    assert kept.peak_bytes < 1_000_100


def test_gampen_by_hand(gampen_bundle):
    """4 maps of 48 x 48 px: a row takes them, scaled, and again while zeros are written."""
    found = measure_memory(Ensemble((gampen_bundle,)), Execution(), POSTERIOR)
    maps = 4 * 4 * 48**2
    assert found.weights_bytes == sum(value.nbytes for value in gampen_bundle.script.parameters())
    assert found.row_bytes == pytest.approx(3 * maps, rel=0.03)
    assert found.features_bytes == pytest.approx(maps, rel=0.01)
    assert found.image_bytes == 4 * 48**2
    assert found.n_outputs == 9
    assert (found.n_rows, found.n_groups) == (CACHE_BYTES // maps, 1)


@pytest.mark.parametrize("name", ["gampen_bundle", "sfnet_bundle"])
@pytest.mark.parametrize("engine", [Engine(), Engine("rebuilt"), Engine("rebuilt", "bfloat16")])
def test_a_whole_batch_takes_what_a_few_rows_tell(name, engine, request):
    bundle = request.getfixturevalue(name)
    execution = Execution(engine)
    found = measure_memory(Ensemble((bundle,)), execution, POSTERIOR)
    runner = executor(bundle, engine, "cpu")
    images = torch.randn(GROUP_OBJECTS, len(bundle.bands), 48, 48)
    with torch.inference_mode():
        prepared = runner.prepare(images, None)
        rows = torch.arange(found.n_rows) % GROUP_OBJECTS
        batch = _taken(lambda: prepared.passes(rows, torch.arange(len(rows))), "cpu").peak_bytes
        prepare = _taken(lambda: runner.prepare(images, None), "cpu").peak_bytes
    assert found.batch_bytes + found.n_rows * found.row_bytes == pytest.approx(batch, rel=0.15)
    # 0.3 MB, by the made-up object, do not grow with the objects.
    assert prepare <= GROUP_OBJECTS * found.prepare_bytes < prepare + 3 * MIB


def test_an_ensemble_keeps_all_weights_and_features_and_runs_one_at_a_time(gampen_bundle):
    other = dataclasses.replace(gampen_bundle, sha256="another")
    one = measure_memory(Ensemble((gampen_bundle,)), Execution(), POSTERIOR)
    two = measure_memory(Ensemble((gampen_bundle, other)), Execution(), POSTERIOR)
    assert two.weights_bytes == 2 * one.weights_bytes
    assert two.features_bytes == 2 * one.features_bytes
    assert two.n_outputs == 2 * one.n_outputs
    assert (two.row_bytes, two.prepare_bytes) == (one.row_bytes, one.prepare_bytes)


def test_working_bytes_are_features_and_the_largest_of_preparing_joining_and_passes():
    passes = 24 * 15 * MIB + 512 * 82 * MIB
    assert FULL.working_bytes == passes
    assert dataclasses.replace(FULL, n_groups=2).working_bytes == passes + 24 * 15 * MIB
    few = dataclasses.replace(FULL, n_rows=1)
    assert few.working_bytes == (24 * 15 + GROUP_OBJECTS * 30) * MIB
    assert dataclasses.replace(few, n_places=48).working_bytes == 2 * 48 * 15 * MIB


def test_the_host_holds_outputs_and_what_summaries_make_of_them():
    few, many = (FULL.host_bytes(n_passes, keeps_outputs=False) for n_passes in (100, 1100))
    # An object and pass of 9 outputs: twice in float32, 12 times in float64.
    assert many - few == 24 * 1000 * 9 * (2 * 4 + 12 * 8)
    kept = FULL.host_bytes(100, keeps_outputs=True)
    assert kept - few == 4 * 256 * 100 * 9  # of a block


def test_objects_run_together_as_far_as_they_take_little_memory():
    """From 24, where an object takes 15 MB and more, to a block of 256; on a GPU 16 times as much memory is used."""
    assert [places_for(size, "cpu") for size in (15 * MIB, 2 * MIB, MIB, 300 * 1024, 1)] == [
        24,
        32,
        64,
        208,
        256,
    ]
    assert [places_for(size, "cuda") for size in (100 * MIB, 15 * MIB)] == [24, 64]
    posterior = PosteriorConfig(passes="adaptive", batch=1024)
    found = FULL.on_gpu(posterior)
    assert (found.n_rows, found.n_groups, found.n_places) == (1024, 2, 64)


def test_many_outputs_leave_few_places(gampen_bundle):
    """A thousand passes of 9 outputs are 72 kB an object; a hundred times as many are more than 24 may take."""
    few, many = (
        measure_memory(Ensemble((gampen_bundle,)), Execution(), PosteriorConfig(passes=n))
        for n in (1000, 100_000)
    )
    assert (few.n_places, many.n_places) == (256, 24)


def test_a_batch_that_does_not_fit_is_halved_and_told():
    messages = []
    gpu = GpuMemory(total_bytes=24 * GIB, free_bytes=int(23.7 * GIB))
    assert fitting_batch(FULL, gpu, batch=512, notify=messages.append) == 256
    assert messages == ["41.4 GiB needed on the GPU (batch 512 x 82 MiB), 23.7 GiB there; trying batch 256"]


def test_it_is_halved_until_it_fits_and_no_further_than_one_row():
    messages = []
    small = GpuMemory(total_bytes=4 * GIB, free_bytes=3 * GIB)
    assert fitting_batch(FULL, small, batch=512, notify=messages.append) == 32
    assert len(messages) == 4
    assert fitting_batch(FULL, GpuMemory(GIB, 0), batch=512, notify=messages.append) == 1
    messages.clear()
    assert fitting_batch(FULL, small, batch=32, notify=messages.append) == 32
    assert messages == []


def test_a_small_batch_is_measured_with_no_more_rows(gampen_bundle):
    seen = []
    runner = executor(gampen_bundle, Engine(), "cpu")
    prepared = type(runner.prepare(torch.zeros(2, 1, 48, 48), None))
    original = prepared.passes

    def recording(self, rows, keys):
        seen.append(len(rows))
        return original(self, rows, keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "passes", recording)
        measure_memory(Ensemble((gampen_bundle,)), Execution(), PosteriorConfig(passes=8, batch=6))
    assert max(seen) == 6
    assert np.all(np.array(seen) > 0)


def test_outputs_that_stay_on_a_gpu_are_counted_there():
    posterior = PosteriorConfig(max_passes=500)
    plain, kept = (
        dataclasses.replace(FULL, is_summarized_on_gpu=stay).on_gpu(posterior) for stay in (False, True)
    )
    # Float32 that exists twice while passes are joined, and a dozen arrays of 8 MB for summaries, for each thread.
    outputs = kept.n_places * 2 * 4 * 500 * FULL.n_outputs
    assert kept.working_bytes - plain.working_bytes == kept.n_groups * (outputs + 12 * 8 * MIB)
