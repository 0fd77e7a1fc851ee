import math

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from galbatch.models.networks import draw_keys, keyed_dropout
from galbatch.models.networks.dropout import mix, poisson_counts, zeroed_positions


def keys_of(n):
    keys = draw_keys(np.arange(n), seed=7, bundle_sha256="ab", passes=[0])
    return torch.from_numpy(keys[:, 0].copy())


@pytest.mark.parametrize("rate", [7e-4, 0.02, 0.2])
def test_zeroes_with_exactly_the_rate(rate):
    dropped = keyed_dropout(torch.ones(400, 4, 20, 20), keys_of(400), 3, rate) == 0
    n = dropped.numel()
    assert abs(dropped.double().mean().item() - rate) < 4 * math.sqrt(rate * (1 - rate) / n)


def test_every_position_is_hit_alike():
    rate = 0.1
    per_position = (keyed_dropout(torch.ones(4000, 50), keys_of(4000), 1, rate) == 0).double().mean(0)
    assert (per_position - rate).abs().max() < 4.5 * math.sqrt(rate * (1 - rate) / 4000)


def test_number_of_zeros_is_binomial():
    rate, n = 0.05, 200
    zeros = (keyed_dropout(torch.ones(5000, n), keys_of(5000), 1, rate) == 0).sum(1).double()
    assert zeros.mean().item() == pytest.approx(n * rate, abs=0.15)
    assert zeros.var().item() == pytest.approx(n * rate * (1 - rate), rel=0.08)


def test_keeps_the_mean():
    kept = keyed_dropout(torch.ones(200, 1000), keys_of(200), 1, 0.2)
    assert kept.max().item() == pytest.approx(1.25)
    assert kept.mean().item() == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize("shape", [(6, 3, 8, 10), (6, 40)])
def test_mask_depends_on_the_key_alone(shape):
    x, keys = torch.rand(shape) + 0.5, keys_of(6)
    whole = keyed_dropout(x, keys, 2, 0.3)
    order = torch.tensor([4, 1, 5])
    assert torch.equal(keyed_dropout(x[order], keys[order], 2, 0.3), whole[order])
    assert torch.equal(keyed_dropout(x[3:4], keys[3:4], 2, 0.3), whole[3:4])


def test_mask_does_not_depend_on_the_memory_format():
    x, keys = torch.rand(4, 5, 6, 7), keys_of(4)
    other = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(keyed_dropout(x, keys, 2, 0.3), keyed_dropout(other, keys, 2, 0.3))


def test_keys_and_layers_give_unlike_masks():
    keys = keys_of(2)
    mask = [keyed_dropout(torch.ones(2, 4000), keys, layer, 0.5) == 0 for layer in (1, 2)]
    for first, second in ((mask[0][0], mask[0][1]), (mask[0][0], mask[1][0])):
        agreement = (first == second).double().mean().item()
        assert abs(agreement - 0.5) < 0.04


def test_rate_zero_returns_the_input():
    x = torch.rand(2, 3)
    assert keyed_dropout(x, keys_of(2), 1, 0.0) is x


def test_does_not_change_its_input_and_passes_gradients():
    x = torch.rand(3, 50, requires_grad=True)
    before = x.detach().clone()
    out = keyed_dropout(x, keys_of(3), 1, 0.2)
    out.sum().backward()
    assert torch.equal(x.detach(), before)
    assert torch.equal(x.grad == 0, out == 0)
    assert x.grad.max().item() == pytest.approx(1.25)


def test_script_gives_the_same_masks():
    scripted = torch.jit.script(keyed_dropout)
    x, keys = torch.rand(5, 4, 9, 9), keys_of(5)
    assert torch.equal(scripted(x, keys, 4, 0.1), keyed_dropout(x, keys, 4, 0.1))


def test_poisson_counts_are_the_inverse_cdf():
    uniform = torch.linspace(0, 0.9999, 501, dtype=torch.float64)
    for mean in (0.05, 3.7, 250.0):
        expected = poisson.ppf(uniform.numpy(), mean)
        expected[0] = 0
        assert np.abs(poisson_counts(uniform, mean).numpy() - expected).max() == 0


def test_rows_without_zeros_are_told():
    positions, any_zeroed = zeroed_positions(keys_of(2000), 1, 10, 0.01)
    assert any_zeroed.double().mean().item() == pytest.approx(1 - 0.99**10, abs=0.03)
    assert positions.min() >= 0
    assert positions.max() < 10


def test_hash_is_splitmix64():
    # First output of splitmix64 seeded with 0 (reference implementation of Vigna): mix of the golden gamma.
    golden = torch.tensor([0x9E3779B97F4A7C15 - 2**64])
    assert mix(golden).item() == 0xE220A8397B1DCDAF - 2**64
