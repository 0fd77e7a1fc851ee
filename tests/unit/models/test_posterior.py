import numpy as np
import pytest
from scipy import integrate, optimize, stats

from galbatch.models import ParameterInfo
from galbatch.models.heads import GaussianPasses, PointPasses
from galbatch.models.keys import draw_keys, normal_draws
from galbatch.models.posterior import (
    mixture_cdf,
    mixture_quantiles,
    quantities_of,
    summarize_draws,
    summarize_mixture,
)

LEVELS = np.array([0.02275, 0.15865, 0.5, 0.84135, 0.97725])
BT = ParameterInfo("bt", "", "", "logit", location=0.2, scale=1.3, limits=(0.01, 0.99))
RADIUS = ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.4, scale=0.6)
FLUX = ParameterInfo("flux_njy", "nJy", "", "ln", location=11.0, scale=1.1, magnitude="mag")


def passes_of(mean, std):
    """(object, pass) of one parameter."""
    mean, std = np.atleast_2d(mean), np.atleast_2d(std)
    return GaussianPasses(mean[..., None], std[..., None, None])


def marginal_of(mean, std):
    return passes_of(mean, std).marginal(0)


def summary_of(parameter, mean, std, index=0):
    return summarize_mixture(passes_of(mean, std), quantities_of([parameter])[index], LEVELS)


@pytest.fixture(scope="module")
def components():
    rng = np.random.default_rng(5)
    return rng.normal(0, 1, (20, 12)), np.exp(rng.normal(-0.5, 0.7, (20, 12)))


def test_quantiles_solve_the_mixtures_cdf(components):
    mean, std = components
    found = mixture_quantiles(marginal_of(mean, std), LEVELS)
    for row in range(len(mean)):
        for level, value in zip(LEVELS, found[row], strict=True):

            def excess(x, row=row, level=level):
                return stats.norm.cdf(x, mean[row], std[row]).mean() - level

            assert value == pytest.approx(optimize.brentq(excess, -20, 20, xtol=1e-12), abs=1e-8)


def test_quantiles_of_far_apart_components():
    # A flat CDF between the components, where Newton's steps alone would run away.
    found = mixture_quantiles(marginal_of([-1e3, 1e3, 1e3], [1e-3, 1e-3, 10.0]), [0.2, 1 / 3, 0.9])
    assert found[0, 0] == pytest.approx(-1e3 + 1e-3 * stats.norm.ppf(0.6), abs=1e-9)
    assert -1e3 < found[0, 1] < 1e3
    cdf = stats.norm.cdf(found[0, 2], [-1e3, 1e3, 1e3], [1e-3, 1e-3, 10.0]).mean()
    assert cdf == pytest.approx(0.9, abs=1e-10)


def test_one_component_has_the_normals_quantiles():
    found = mixture_quantiles(marginal_of([2.0], [3.0]), LEVELS)
    np.testing.assert_allclose(found[0], stats.norm.ppf(LEVELS, 2.0, 3.0), atol=1e-9)


def test_lognormal_moments_and_mode():
    summary = summary_of(RADIUS, [0.5], [0.7])
    mu, sigma = 0.4 + 0.6 * 0.5, 0.6 * 0.7
    truth = stats.lognorm(sigma, scale=np.exp(mu))
    np.testing.assert_allclose(summary.quantiles[0], truth.ppf(LEVELS), rtol=1e-7)
    assert summary.mean[0] == pytest.approx(truth.mean(), rel=1e-8)
    assert summary.std[0] == pytest.approx(truth.std(), rel=1e-8)
    assert summary.mode[0] == pytest.approx(np.exp(mu - sigma**2), rel=1e-4)
    assert summary.epistemic_std[0] == 0
    assert summary.mc_error[0] == 0


def test_logit_moments_and_mode_match_integration():
    mean, std = np.array([[-0.4, 0.1]]), np.array([[0.5, 0.9]])
    summary = summary_of(BT, mean, std)

    def density(x):
        y = (np.log(x / (1 - x)) - 0.2) / 1.3
        return stats.norm.pdf(y, mean[0], std[0]).mean() / (1.3 * x * (1 - x))

    first = integrate.quad(lambda x: x * density(x), 0, 1)[0]
    second = integrate.quad(lambda x: x * x * density(x), 0, 1)[0]
    # The limits turn what is beyond 0.01 and 0.99 into 0 and 1: below 1e-3 here.
    assert summary.mean[0] == pytest.approx(first, abs=1e-3)
    assert summary.std[0] == pytest.approx(np.sqrt(second - first**2), abs=1e-3)
    grid = np.linspace(0.01, 0.99, 20_001)
    assert summary.mode[0] == pytest.approx(grid[np.argmax([density(x) for x in grid])], abs=2e-3)


def test_std_is_aleatoric_and_epistemic_in_quadrature(components):
    mean, std = components
    summary = summary_of(RADIUS, mean, std)
    sigma = 0.6 * std
    each = np.exp(0.4 + 0.6 * mean + 0.5 * sigma**2)
    variance = np.expm1(sigma**2) * each**2
    np.testing.assert_allclose(summary.epistemic_std, each.std(axis=1), rtol=1e-6)
    np.testing.assert_allclose(summary.std**2, variance.mean(axis=1) + each.var(axis=1), rtol=1e-6)


def test_mass_beyond_a_limit_is_exactly_0_or_1():
    summary = summary_of(BT, [[-6.0], [6.0]], [[0.3], [0.3]])
    np.testing.assert_array_equal(summary.quantiles, [[0.0] * 5, [1.0] * 5])
    np.testing.assert_array_equal(summary.mode, [0.0, 1.0])
    np.testing.assert_allclose(summary.mean, [0.0, 1.0], atol=1e-12)


def test_magnitude_is_the_flux_upside_down():
    flux, mag = (summary_of(FLUX, [[0.3, 0.5]], [[0.4, 0.2]], index) for index in (0, 1))
    np.testing.assert_allclose(mag.quantiles[0], (31.4 - 2.5 * np.log10(flux.quantiles[0]))[::-1], atol=1e-6)
    assert (np.diff(mag.quantiles[0]) > 0).all()
    # The magnitude is linear in the standardized parameter: its mean is exact.
    slope = -2.5 / np.log(10)
    assert mag.mean[0] == pytest.approx(31.4 + slope * (11.0 + 1.1 * 0.4), abs=1e-9)
    total = np.sqrt((0.4**2 + 0.2**2) / 2 + 0.1**2)
    assert mag.std[0] == pytest.approx(-slope * 1.1 * total, rel=1e-9)
    assert mag.epistemic_std[0] == pytest.approx(-slope * 1.1 * 0.1, rel=1e-9)


def test_asymmetric_levels_of_a_magnitude():
    quantity = quantities_of([FLUX])[1]
    summary = summarize_mixture(passes_of([0.0], [1.0]), quantity, [0.1, 0.5, 0.6])
    flux = np.exp(11.0 + 1.1 * stats.norm.ppf([0.9, 0.5, 0.4]))
    np.testing.assert_allclose(summary.quantiles[0], 31.4 - 2.5 * np.log10(flux), rtol=1e-9)


def test_monte_carlo_error_is_the_scatter_of_the_quantiles():
    """Stated against actual: the median's scatter over many independent sets of passes."""
    rng = np.random.default_rng(2)
    mean, std = rng.normal(0, 0.5, (800, 64)), np.full((800, 64), 1.0)
    summary = summarize_mixture(
        passes_of(mean, std), quantities_of([ParameterInfo("x", "", "", "identity")])[0], [0.5]
    )
    actual = summary.quantiles[:, 0].std() / np.sqrt(1.25)
    assert np.median(summary.mc_error) == pytest.approx(actual, rel=0.1)


def test_many_rows_are_summarized_in_parts(components):
    mean, std = np.tile(components[0], (100, 1)), np.tile(components[1], (100, 1))
    summary = summary_of(BT, mean, std)
    once = summary_of(BT, *components)
    np.testing.assert_allclose(summary.quantiles, np.tile(once.quantiles, (100, 1)), atol=1e-9)
    np.testing.assert_allclose(summary.mode, np.tile(once.mode, 100), atol=1e-9)


def test_cdf_at_a_quantile_is_its_level(components):
    mean, std = components
    output = mixture_quantiles(marginal_of(mean, std), [0.3])[:, 0]
    np.testing.assert_allclose(mixture_cdf(marginal_of(mean, std), output), 0.3, atol=1e-9)


def test_draws_agree_with_the_mixture(components):
    mean, std = (np.repeat(part, 400, axis=1) for part in components)
    passes = passes_of(mean, std)
    keys = draw_keys(np.arange(20), seed=1, bundle_sha256="", passes=np.arange(mean.shape[1]))
    draws = passes.mean + passes.factor[..., 0] * normal_draws(keys, 1)
    quantity = quantities_of([RADIUS])[0]
    exact = summarize_mixture(passes, quantity, LEVELS)
    drawn = summarize_draws(draws, quantity, LEVELS, passes=passes)
    np.testing.assert_allclose(drawn.quantiles, exact.quantiles, rtol=0.12)
    np.testing.assert_allclose(drawn.mean, exact.mean, rtol=0.05)
    np.testing.assert_allclose(drawn.epistemic_std, exact.epistemic_std)
    assert np.median(np.abs(drawn.mode - exact.mode) / exact.std) < 0.15
    # The error each states covers what it is off by: 4 sigma over 20 objects and 5 quantiles.
    y = (np.log(drawn.quantiles) - 0.4) / 0.6
    off = (
        np.abs(y - mixture_quantiles(marginal_of(mean, std), LEVELS))
        / np.sqrt((std**2).mean(1) + mean.var(1))[:, None]
    )
    assert (off.max(axis=1) < 4 * drawn.mc_error).all()


def test_draws_of_a_point_head_are_the_posterior():
    draws = np.arange(101.0)[None, :, None]
    quantity = quantities_of([ParameterInfo("x", "", "", "identity")])[0]
    summary = summarize_draws(draws, quantity, [0.1, 0.5, 0.9], passes=PointPasses(draws))
    np.testing.assert_allclose(summary.quantiles[0], [10, 50, 90])
    assert summary.std[0] == pytest.approx(np.arange(101).std())
    assert summary.epistemic_std[0] == summary.std[0]
