"""The exponential average of a network's weights over the steps of a training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["follow"]


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, *, n_steps: int) -> None:
    """Update the exponential average of weights and buffers after step `n_steps` of the training, counted from 1.

    The average is ``sum(decay ** (n - i) * weights[i]) / sum(decay ** (n - i))`` over the steps i = 1 .. n: the first weights, which are
    random, have no share in it (the correction of Kingma and Ba 2015, section 3, for averages that begin at 0).
    """
    rate = (1.0 - decay) / (1.0 - decay**n_steps)
    # Not by state dict, which lists modules with two parents twice, so that they would be updated twice.
    pairs = [*zip(average.parameters(), network.parameters(), strict=True)]
    move: Any = get_ema_multi_avg_fn(1.0 - rate)  # type: ignore[no-untyped-call]
    move([mine for mine, _ in pairs], [theirs for _, theirs in pairs], None)
    for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, rate)
        else:
            mine.copy_(theirs)
