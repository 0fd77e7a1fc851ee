"""The average of weights over the steps of a training, against its formula."""

import copy

import pytest
import torch
from torch import nn

from galbatch.models.training.averaging import follow


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_of_the_steps_done_and_not_of_the_first_weights(decay):
    network = nn.BatchNorm1d(2)
    average, n_steps = copy.deepcopy(network), 6
    weights = torch.arange(1.0, n_steps + 1) ** 2
    for step, value in enumerate(weights.tolist(), 1):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(-value)
            network.num_batches_tracked.fill_(step)
        follow(average, network, decay, n_steps=step)
    shares = decay ** torch.arange(n_steps - 1.0, -1, -1)
    expected = (shares * weights).sum() / shares.sum()
    # BatchNorm's weights begin at 1, which has no share in them.
    torch.testing.assert_close(average.weight, expected.repeat(2))
    torch.testing.assert_close(average.running_mean, -expected.repeat(2))
    assert average.num_batches_tracked == n_steps
