"""Passes that stay on the device that computed them: the columns are those of the host, and nothing that is per pass comes back."""

import numpy as np
import pytest
import torch

from galbatch.config import DensityGrid, PosteriorConfig
from galbatch.models import BlockInputs, BlockReceivers, Ensemble, infer_block
from galbatch.models.inference import Sampler, block, schedule
from galbatch.models.inference.sampling import PassOutputs
from galbatch.models.inference.summaries import summarizes_on_device
from tests.unit.models.made_up_device import FarTensor, MadeUpDevice

N = 37
POSTERIOR = PosteriorConfig(tolerance=0.1, max_passes=208, batch=64)


@pytest.fixture
def far(monkeypatch):
    """Outputs of passes lie on a made-up device, of which the block is told."""
    device = MadeUpDevice()

    def infer(*args, **kwargs):
        run = Sampler.run_together

        def far_outputs(sampler, wanted):
            found = run(sampler, wanted)
            return [
                PassOutputs(FarTensor(one.outputs.clone()), FarTensor(one.fired.clone())) for one in found
            ]

        with monkeypatch.context() as patches, device:
            patches.setattr(block, "summarizes_on_device", lambda *_, **__: True)
            patches.setattr(Sampler, "run_together", far_outputs)
            # Subclasses of tensors cannot be indexed in torch's inference mode.
            patches.setattr(Sampler, "top", Sampler.top.__wrapped__)
            return infer_block(*args, **kwargs)

    return device, infer


@pytest.mark.parametrize("kind", ["gampen", "sfnet"])
@pytest.mark.parametrize("passes", ["adaptive", 24])
def test_columns_are_the_same_and_nothing_per_pass_comes_back(kind, passes, far, request, make_block):
    bundle = request.getfixturevalue(f"{kind}_bundle")
    device, infer = far
    names = [parameter.name for parameter in bundle.metadata.parameters]
    network = Ensemble((bundle,), densities=(DensityGrid(parameter=names[-1], low=0.0, high=30.0, bins=64),))
    inputs = BlockInputs(make_block(N, len(bundle.bands)), np.ones(N, bool))
    posterior = POSTERIOR.model_copy(update={"passes": passes})
    expected = infer_block(network, inputs, name="net", posterior=posterior)
    found = infer(network, inputs, name="net", posterior=posterior)
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(found[name], column, rtol=2e-6, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], column, err_msg=name)
    # No axis of what came back is as long as the passes of an object. Axes of objects, points and parameters have other lengths.
    checkpoints = {24} if passes == 24 else set(schedule(posterior))
    assert set(expected["net_passes"]) <= checkpoints
    assert device.came_back
    assert [shape for shape in device.came_back if set(shape) & checkpoints] == []


def test_outputs_that_are_kept_come_back_once(far, gampen_bundle, make_block):
    device, infer = far
    inputs = BlockInputs(make_block(5, 1), np.ones(5, bool))
    kept = {}
    receivers = BlockReceivers(keep=lambda row, outputs: kept.update({row: outputs}))
    posterior = PosteriorConfig(passes=20)
    infer(gampen_bundle, inputs, name="net", posterior=posterior, receivers=receivers)
    assert [shape for shape in device.came_back if 20 in shape] == [(5, 20, 9)]
    expected = {}
    infer_block(
        gampen_bundle,
        inputs,
        name="net",
        posterior=posterior,
        receivers=BlockReceivers(keep=lambda row, outputs: expected.update({row: outputs})),
    )
    for row, (outputs,) in expected.items():
        np.testing.assert_array_equal(kept[row][0], outputs)


def test_outputs_that_are_not_finite_fail_their_object_alone(far, gampen_bundle, make_block, monkeypatch):
    _, infer = far
    run = Sampler.run_together

    def spoiled(sampler, wanted):
        found = run(sampler, wanted)
        with torch.inference_mode():
            for one in found:
                one.outputs[2, 3, 0] = torch.nan
        return found

    monkeypatch.setattr(Sampler, "run_together", spoiled)
    inputs = BlockInputs(make_block(5, 1), np.ones(5, bool))
    posterior = PosteriorConfig(passes=20)
    values = infer(gampen_bundle, inputs, name="net", posterior=posterior)
    assert np.isnan(values["net_bt_mean"]).tolist() == [False, False, True, False, False]


def test_draws_other_heads_and_cpus_are_summarized_on_the_host(gampen_bundle):
    network = Ensemble((gampen_bundle,))
    assert summarizes_on_device(network, device="cuda", method="mixture")
    assert not summarizes_on_device(network, device="cuda", method="samples")
    assert not summarizes_on_device(network, device="cpu", method="mixture")
