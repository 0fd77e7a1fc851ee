"""Passes of a few objects, whose features stay where they are computed."""

import numpy as np
import pytest

from galbatch.core.types import njy_per_unit
from galbatch.models import Engine, executor
from galbatch.models.inference import GROUP_OBJECTS, Sampler, run_passes
from galbatch.models.networks import draw_keys

N_PASSES = 9
ENGINES = ["torchscript-float32", "rebuilt-float32", "rebuilt-bfloat16"]


@pytest.fixture(params=["gampen", "sfnet"])
def bundle(request):
    return request.getfixturevalue(f"{request.param}_bundle")


def inputs(bundle, make, n=6):
    images, *_ = make.galaxies(n, len(bundle.bands))
    in_unit = images / np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))
    keys = draw_keys(np.arange(n), seed=1, bundle_sha256=bundle.sha256, passes=range(N_PASSES))
    return in_unit, keys


@pytest.mark.parametrize("engine", ENGINES)
def test_rounds_of_some_objects_are_those_of_all(engine, bundle, make):
    """Objects that stop earlier, later passes, another order: the same numbers to rounding."""
    images, keys = inputs(bundle, make)
    one = executor(bundle, Engine.named(engine), "cpu")
    whole = run_passes(bundle, images, keys, batch=32, executor=one)
    atol = 1e-5 if engine.endswith("float32") else 0.02
    sampler = Sampler(one, images, batch=5)
    for rows, passes in (([0, 1, 2, 3, 4, 5], slice(0, 4)), ([5, 1], slice(4, 9)), ([3], slice(8, 9))):
        found = sampler.run(np.array(rows), keys[rows, passes])
        assert found.outputs.dtype == np.float32
        assert found.outputs.shape == (len(rows), keys[rows, passes].shape[1], whole.outputs.shape[2])
        assert found.fired.shape[:2] == found.outputs.shape[:2]
        np.testing.assert_allclose(found.outputs, whole.outputs[rows, passes], rtol=1e-4, atol=atol)
    np.testing.assert_allclose(sampler.last, whole.last, rtol=1e-4, atol=1e-5)
    if whole.crop is not None:
        np.testing.assert_array_equal(sampler.crop, whole.crop)


@pytest.mark.parametrize("engine", ENGINES)
def test_objects_of_several_groups_run_together_as_alone(engine, bundle, make):
    """A few objects of one group, joined to another group: each has its own features, and the passes of its own keys."""
    images, keys = inputs(bundle, make, n=GROUP_OBJECTS + 5)
    one = executor(bundle, Engine.named(engine), "cpu")
    whole = run_passes(bundle, images, keys, batch=32, executor=one)
    atol = 1e-5 if engine.endswith("float32") else 0.02
    first, second = (
        Sampler(one, part, batch=32) for part in (images[:GROUP_OBJECTS], images[GROUP_OBJECTS:])
    )
    joined = first.take(np.array([3, 1])).join([second])
    order = np.array([3, 1, *range(GROUP_OBJECTS, GROUP_OBJECTS + 5)])
    assert joined.n_objects == len(order)
    assert first.object_bytes == joined.object_bytes > 1000
    np.testing.assert_allclose(joined.last, whole.last[order], rtol=1e-4, atol=1e-5)
    # Old objects go on where the new ones begin.
    sets = [(np.array([0, 1]), slice(4, 9)), (np.arange(2, 7), slice(0, 4))]
    found = joined.run_together([(rows, keys[order[rows], passes]) for rows, passes in sets])
    for part, (rows, passes) in zip(found, sets, strict=True):
        np.testing.assert_allclose(part.outputs, whole.outputs[order[rows], passes], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_batches_give_equal_bits(engine, bundle, make):
    images, keys = inputs(bundle, make)
    one = executor(bundle, Engine.named(engine), "cpu")
    first, second = (run_passes(bundle, images, keys, batch=7, executor=one) for _ in range(2))
    assert np.array_equal(first.outputs, second.outputs)


def test_frequency_is_the_share_of_an_objects_own_passes(sfnet_bundle, make):
    images, keys = inputs(sfnet_bundle, make)
    sampler = Sampler(executor(sfnet_bundle, Engine("rebuilt"), "cpu"), images, batch=32)
    fired = sampler.run(np.arange(6), keys).fired
    some = fired[:, :7]
    top = sampler.top(some)
    assert top.index.shape == top.activation.shape == top.frequency.shape == (6, 4)
    for i, of_object in enumerate(some):
        for rank in range(4):
            among = [(top.index[i, rank] == of_pass).any() for of_pass in of_object]
            assert top.frequency[i, rank] == pytest.approx(np.mean(among))
    expected = np.take_along_axis(sampler.last, top.index, axis=1)
    np.testing.assert_allclose(top.activation, expected)


def test_networks_without_features_have_no_top(gampen_bundle, make):
    images, keys = inputs(gampen_bundle, make)
    sampler = Sampler(executor(gampen_bundle, Engine("rebuilt"), "cpu"), images, batch=32)
    fired = sampler.run(np.arange(6), keys).fired
    assert fired.shape == (6, N_PASSES, 0)
    assert sampler.top(fired) is None


def test_more_objects_than_a_group_are_run_group_by_group(sfnet_bundle, make):
    images, keys = inputs(sfnet_bundle, make, n=GROUP_OBJECTS + 3)
    whole = run_passes(sfnet_bundle, images, keys, batch=64)
    assert whole.outputs.shape[:2] == keys.shape
    part = run_passes(sfnet_bundle, images[-3:], keys[-3:], batch=64)
    np.testing.assert_allclose(whole.outputs[-3:], part.outputs, rtol=1e-4, atol=1e-5)
