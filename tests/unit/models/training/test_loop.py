"""The loop's own pieces; what it does as a whole is in test_session.py."""

from __future__ import annotations

import numpy as np
import torch

from galbatch.models import ParameterInfo, Split, TrainingSettings
from galbatch.models.training import TrainingLoop, TrainingTensors
from galbatch.models.training.loop import beyond_limits


def test_targets_at_a_limit_go_beyond_it_and_others_stay():
    rng = np.random.default_rng(1)
    target = torch.from_numpy(rng.normal(size=(6000, 2)).astype(np.float32))
    target[:2000, 0], target[2000:4000, 0] = -2.5, 2.5
    limits = torch.tensor([[-2.5, -np.inf], [2.5, np.inf]], dtype=torch.float32)
    drawn = beyond_limits(target, limits, 0.3, rng)
    inside = (target > -2.4999) & (target < 2.4999)
    inside[:, 1] = True
    assert torch.equal(drawn[inside], target[inside])
    low, high = -2.5 - drawn[:2000, 0].numpy(), drawn[2000:4000, 0].numpy() - 2.5
    for tail in (low, high):
        assert tail.min() > -1e-5
        assert abs(tail.mean() - 0.3) < 4 * 0.3 / np.sqrt(2000)
    assert len(np.unique(low)) > 1990


def test_with_bf16_the_last_layer_of_network_and_mean_stays_in_float32():
    settings = TrainingSettings(
        name="a",
        architecture="sfnet",
        bands=("g",),
        parameters=(ParameterInfo("x", "", "", "identity"),),
        precision="bf16",
        average_weights=0.9,
    )
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 1))
    data = TrainingTensors(
        np.zeros((2, 1, 8, 8), np.float32), 1.0, torch.zeros(2, 1), torch.full((2, 1), torch.inf)
    )
    rows = np.arange(1)
    loop = TrainingLoop(network, settings, data, Split(rows, rows, rows), torch.nn.functional.mse_loss)
    x = torch.ones(3, 4)

    def precisions():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return [net(x).dtype for net in (loop.network, loop.average)]

    with loop.last_layers_in_float32():
        assert precisions() == [torch.float32, torch.float32]
    assert precisions() == [torch.bfloat16, torch.bfloat16]
