import numpy as np
import pytest

from galbatch.core.photoz import target_weights
from galbatch.errors import UsageError


def test_the_weighted_sample_has_the_distribution_of_the_target():
    rng = np.random.default_rng(1)
    sample = np.stack([rng.uniform(18, 24, 6000), rng.uniform(0, 2, 6000)], axis=1)
    target = np.stack([rng.normal(22, 0.5, 9000), rng.normal(0.8, 0.2, 9000)], axis=1)
    weights = target_weights(sample, target)
    assert weights.mean() == pytest.approx(1)
    mean = np.average(sample, axis=0, weights=weights)
    std = np.sqrt(np.average((sample - mean) ** 2, axis=0, weights=weights))
    assert mean[0] == pytest.approx(22, abs=0.05)
    assert mean[1] == pytest.approx(0.8, abs=0.02)
    np.testing.assert_allclose(std, [0.5, 0.2], rtol=0.12)
    # The ratio of densities, known here but for the neighbors' noise.
    ratio = np.exp(-0.5 * (((sample - [22, 0.8]) / [0.5, 0.2]) ** 2).sum(axis=1))
    assert np.corrcoef(weights, ratio)[0, 1] > 0.9


def test_equal_distributions_have_weights_of_one():
    rng = np.random.default_rng(2)
    weights = target_weights(rng.normal(size=(4000, 1)), rng.normal(size=(4000, 1)))
    assert np.median(weights) == pytest.approx(1, abs=0.1)


def test_a_target_somewhere_else_is_refused():
    elsewhere = np.full((50, 1), 3000.0) + 1e-3 * np.arange(50)[:, None]
    with pytest.raises(UsageError, match="no object of the target lies near"):
        target_weights(np.random.default_rng(0).normal(20, 1, (50, 1)), elsewhere)
    with pytest.raises(UsageError, match="1 objects and 5 of the target"):
        target_weights(np.ones((1, 2)), np.ones((5, 2)))
