import numpy as np
import pytest
from scipy import stats

from galbatch.models import ParameterInfo
from galbatch.models.heads import BinnedMarginal
from galbatch.models.posterior import PointPasses, gridded_mass, quantities_of

from .test_scores import LINEAR, LOG, gaussians, of


def test_the_mass_of_a_bin_is_the_difference_of_the_cdf():
    edges = np.linspace(0, 2, 41)
    normal, lognormal = stats.norm(0.75, 0.24), stats.lognorm(0.28, scale=np.exp(0.4 * 0.2 - 0.7))
    found = gridded_mass(gaussians([0.5], [0.8]).marginal(0), of(LINEAR), edges)
    np.testing.assert_allclose(found, np.broadcast_to(np.diff(normal.cdf(edges)), (3, 40)), atol=1e-12)
    # Of a logarithm nothing lies below 0, and the grid may begin below it.
    wider = np.linspace(-0.5, 2, 51)
    found = gridded_mass(gaussians([0.2], [0.7]).marginal(0), of(LOG), wider)
    np.testing.assert_allclose(found[0], np.diff(lognormal.cdf(wider)), atol=1e-12)


def test_the_networks_own_bins_keep_their_probabilities():
    edges = np.linspace(0, 1.6, 401)
    probability = np.random.default_rng(1).dirichlet(np.ones(400), (2, 3))
    marginal = BinnedMarginal(np.broadcast_to((edges - 0.6) / 0.3, (2, 401)), probability)
    found = gridded_mass(marginal, of(LINEAR), edges)
    np.testing.assert_allclose(found, probability.mean(axis=1), atol=1e-12)


def test_what_is_clamped_lies_in_the_bin_at_the_limit():
    limited = ParameterInfo("z", "", "", "identity", location=0.6, scale=0.3, limits=(0.0, 2.0))
    edges = np.array([-0.5, 0.0, 0.5, 2.0, 2.5])
    (quantity,) = quantities_of([limited])
    found = gridded_mass(gaussians([-1.5], [1.0], n=1).marginal(0), quantity, edges)[0]
    normal = stats.norm(0.15, 0.3)
    np.testing.assert_allclose(found, [0, normal.cdf(0.5), normal.sf(0.5), 0], atol=1e-9)


def test_draws_are_counted():
    values = (np.array([0.1, 0.1, 0.3, 0.9]) - 0.6) / 0.3
    found = gridded_mass(PointPasses(values[None, :, None]).marginal(0), of(LINEAR), np.array([0, 0.2, 0.5]))
    assert found[0].tolist() == [pytest.approx(0.5), pytest.approx(0.25)]
