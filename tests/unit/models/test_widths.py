"""One factor a parameter mends the central interval, and nothing else."""

import numpy as np
import pytest
import torch

from galbatch.models.gampen import Gampen
from galbatch.models.heads import GaussianPasses
from galbatch.models.metadata import ParameterInfo
from galbatch.models.widths import covered_share, fold_width_factors, gaussian_passes, width_factors

PARAMETERS = (ParameterInfo("a", "", "", "identity"), ParameterInfo("b", "", "", "identity"))


def passes_of(std, n_objects=4000):
    rng = np.random.default_rng(3)
    mean = rng.normal(size=(n_objects, 1, 2))
    factor = np.broadcast_to(np.diag(std), (n_objects, 1, 2, 2)).copy()
    truth = mean[:, 0] + rng.normal(size=(n_objects, 2))
    return GaussianPasses(mean, factor), truth


def test_the_factor_undoes_a_wrong_width():
    passes, truth = passes_of([3.0, 0.5])
    assert covered_share(passes, 0, truth[:, 0], PARAMETERS[0]) > 0.99
    factors = width_factors(passes, truth, PARAMETERS)
    np.testing.assert_allclose(factors, [1 / 3, 2.0], rtol=0.05)


def test_heavy_tails_ask_for_narrower_intervals_than_their_scatter():
    passes, truth = passes_of([1.0, 1.0])
    rng = np.random.default_rng(4)
    residual = rng.standard_t(2.2, size=len(truth))
    truth[:, 0] = passes.mean[:, 0, 0] + residual / residual.std()
    first, second = width_factors(passes, truth, PARAMETERS)
    assert first < 0.8
    assert second == pytest.approx(1.0, abs=0.05)


def test_a_truth_at_the_limit_counts_when_the_clamped_interval_reaches_it():
    parameter = ParameterInfo("bt", "", "", "logit", limits=(0.02, 0.98))
    low = float(np.log(0.02 / 0.98))
    at_limit = np.array([low])
    beyond = GaussianPasses(np.full((1, 1, 1), low - 5.0), np.ones((1, 1, 1, 1)))
    far_above = GaussianPasses(np.full((1, 1, 1), low + 5.0), np.ones((1, 1, 1, 1)))
    assert covered_share(beyond, 0, at_limit, parameter) == 1.0
    assert covered_share(far_above, 0, at_limit, parameter) == 0.0


def test_folding_scales_widths_and_keeps_means_and_correlations():
    torch.manual_seed(1)
    network = Gampen(96, 9, width=1 / 16, in_channels=1, dropout_rate=0.01).eval()
    images = np.random.default_rng(5).normal(size=(3, 1, 96, 96)).astype(np.float32)
    before = gaussian_passes(network, images, n_parameters=3, seed=1)
    fold_width_factors(network, (0.5, 1.0, 3.0))
    after = gaussian_passes(network, images, n_parameters=3, seed=1)
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-6)
    np.testing.assert_allclose(after.std, before.std * [0.5, 1.0, 3.0], rtol=1e-4)
    scale = np.outer([0.5, 1.0, 3.0], [0.5, 1.0, 3.0])
    np.testing.assert_allclose(after.within(), before.within() * scale, rtol=1e-4, atol=1e-6)
