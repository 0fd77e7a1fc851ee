"""The loop's own pieces; what it does as a whole is in test_training.py."""

from __future__ import annotations

import numpy as np
import torch

from galbatch.models.training_loop import beyond_limits


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
