import numpy as np
import pytest
from scipy import stats

from galbatch.models import ParameterInfo
from galbatch.models.heads import BinnedMarginal, BinnedPasses, GaussianPasses, MixturePasses
from galbatch.models.posterior import PointPasses, density_scores, quantities_of

LINEAR = ParameterInfo("z", "", "", "identity", location=0.6, scale=0.3)
LOG = ParameterInfo("z", "", "", "ln", location=-0.7, scale=0.4)
TRUTH = np.array([0.45, 0.6, 0.81])


def of(parameter):
    return quantities_of([parameter])[0]


def gaussians(mean, std, n=3):
    """The same passes of every object."""
    shape = (n, len(mean))
    return GaussianPasses(
        np.broadcast_to(mean, shape)[..., None].copy(), np.broadcast_to(std, shape)[..., None, None].copy()
    )


def test_a_normal_posterior_has_the_closed_forms():
    found = density_scores(gaussians([0.5], [0.8]), of(LINEAR), TRUTH)
    normal = stats.norm(0.75, 0.24)
    np.testing.assert_allclose(found.log_density, normal.logpdf(TRUTH), rtol=1e-9)
    np.testing.assert_allclose(found.square_integral, 1 / (2 * 0.24 * np.sqrt(np.pi)), rtol=1e-4)
    w = (TRUTH - 0.75) / 0.24
    crps = 0.24 * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(found.crps, crps, rtol=1e-3)


def test_the_density_is_that_of_the_redshift_not_of_its_logarithm():
    found = density_scores(gaussians([0.2], [0.7]), of(LOG), TRUTH)
    lognormal = stats.lognorm(0.28, scale=np.exp(0.4 * 0.2 - 0.7))
    np.testing.assert_allclose(found.log_density, lognormal.logpdf(TRUTH), rtol=1e-9)
    square = lognormal.expect(lambda z: lognormal.pdf(z))
    np.testing.assert_allclose(found.square_integral, square, rtol=1e-3)


def test_passes_are_one_mixture():
    """The integral of the squared sum of two normal densities has the overlap of each pair."""
    found = density_scores(gaussians([-0.5, 0.5], [0.4, 0.8]), of(LINEAR), TRUTH)
    pairs = [(0.45, 0.12), (0.75, 0.24)]
    expected = sum(0.25 * stats.norm(a, np.hypot(s, t)).pdf(b) for a, s in pairs for b, t in pairs)
    np.testing.assert_allclose(found.square_integral, expected, rtol=1e-3)
    mixed = np.mean([stats.norm(*pair).pdf(TRUTH) for pair in pairs], axis=0)
    np.testing.assert_allclose(found.log_density, np.log(mixed), rtol=1e-9)


def test_components_of_a_mixture_head_are_scored_alike():
    shape = (3, 1, 2)
    passes = MixturePasses(
        np.full(shape, 0.5),
        np.broadcast_to([-0.5, 0.5], shape)[..., None].copy(),
        np.broadcast_to([0.4, 0.8], shape)[..., None].copy(),
    )
    as_passes = density_scores(gaussians([-0.5, 0.5], [0.4, 0.8]), of(LINEAR), TRUTH)
    found = density_scores(passes, of(LINEAR), TRUTH)
    for name in ("log_density", "square_integral", "crps"):
        np.testing.assert_allclose(getattr(found, name), getattr(as_passes, name), rtol=1e-6)


def test_a_histogram_has_the_closed_forms_of_its_bins():
    edges = (np.array([0.0, 0.2, 0.5, 0.7, 1.4]) - 0.6) / 0.3
    probability = np.array([0.1, 0.4, 0.3, 0.2])
    marginal = BinnedMarginal(np.broadcast_to(edges, (3, 5)), np.broadcast_to(probability, (3, 1, 4)))
    found = density_scores(BinnedPasses((marginal,)), of(LINEAR), TRUTH)
    widths = np.array([0.2, 0.3, 0.2, 0.7])
    np.testing.assert_allclose(found.square_integral, (probability**2 / widths).sum(), rtol=4e-3)
    np.testing.assert_allclose(np.exp(found.log_density), (probability / widths)[[1, 2, 3]], rtol=1e-9)


def test_single_values_have_a_crps_but_no_density():
    values = np.random.default_rng(1).normal(size=(3, 4001, 1))
    found = density_scores(PointPasses(values), of(LINEAR), TRUTH)
    assert np.isnan(found.log_density).all()
    assert np.isnan(found.square_integral).all()
    w = (TRUTH - 0.6) / 0.3
    crps = 0.3 * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(found.crps, crps, rtol=0.05)


def test_where_a_histogram_has_nothing_the_logarithm_is_minus_infinity():
    marginal = BinnedMarginal(np.array([[-1.0, 0.0, 1.0]]), np.array([[[1.0, 0.0]]]))
    found = density_scores(BinnedPasses((marginal,)), of(LINEAR), np.array([0.75]))
    assert found.log_density[0] == -np.inf
    # Of a uniform distribution: the mean distance from the truth, less half the mean distance of two draws, a third of the width.
    assert found.crps[0] == pytest.approx((0.75 - 0.45) - 0.5 * 0.3 / 3, rel=1e-3)
