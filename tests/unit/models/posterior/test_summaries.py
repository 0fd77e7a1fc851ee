import dataclasses

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from galbatch.config import PosteriorConfig
from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo, correlation_of
from galbatch.models.heads import (
    BinnedMarginal,
    BinnedPasses,
    GaussianPasses,
    head_problems,
    outputs_per_pass,
    read_passes,
)
from galbatch.models.inference import estimate_quantiles, schedule
from galbatch.models.networks import draw_keys, member_keys, normal_draws
from galbatch.models.posterior import (
    NormalMarginal,
    PassStatistics,
    PointPasses,
    mixture_cdf,
    quantities_of,
    summarize_draws,
    summarize_mixture,
    to_output,
)
from galbatch.models.posterior.marginal import GRID_POINTS

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
    found = marginal_of(mean, std).quantiles(np.asarray(LEVELS))
    for row in range(len(mean)):
        for level, value in zip(LEVELS, found[row], strict=True):

            def excess(x, row=row, level=level):
                return stats.norm.cdf(x, mean[row], std[row]).mean() - level

            assert value == pytest.approx(optimize.brentq(excess, -20, 20, xtol=1e-12), abs=1e-8)


def test_quantiles_of_far_apart_components():
    # A flat CDF between the components, where Newton's steps alone would run away.
    found = marginal_of([-1e3, 1e3, 1e3], [1e-3, 1e-3, 10.0]).quantiles(np.asarray([0.2, 1 / 3, 0.9]))
    assert found[0, 0] == pytest.approx(-1e3 + 1e-3 * stats.norm.ppf(0.6), abs=1e-9)
    assert -1e3 < found[0, 1] < 1e3
    cdf = stats.norm.cdf(found[0, 2], [-1e3, 1e3, 1e3], [1e-3, 1e-3, 10.0]).mean()
    assert cdf == pytest.approx(0.9, abs=1e-10)


def test_one_component_has_the_normals_quantiles():
    found = marginal_of([2.0], [3.0]).quantiles(np.asarray(LEVELS))
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
    output = marginal_of(mean, std).quantiles(np.asarray([0.3]))[:, 0]
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
        np.abs(y - marginal_of(mean, std).quantiles(np.asarray(LEVELS)))
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


N_DRAWS = 600
HEADS = {
    "gaussian": HeadInfo("gaussian"),
    "mixture": HeadInfo("mixture", components=3),
    "binned": HeadInfo(
        "binned", edges=(tuple(np.exp(np.linspace(-2, 3, 41))), (1e3, 1e4, 4e4, 6e4, 1e5, 1e6, 1e7))
    ),
    "point": HeadInfo("point"),
}


def parameters_of(kind):
    """A radius and a flux; with limits for heads whose tails need them, so that moments exist."""
    if not head_problems(HEADS[kind], (RADIUS, FLUX)):
        return RADIUS, FLUX
    return dataclasses.replace(RADIUS, limits=(0.2, 10.0)), dataclasses.replace(FLUX, limits=(3e3, 1e6))


def passes_of_head(kind, n_passes, *, n_objects=20, members=1, scatter=0.3):
    """Passes that differ by about the width of each; fewer passes are the first of more."""
    grid = InputInfo(("g",), 4, 0.2, "nJy", 31.4)
    metadata = BundleMetadata("n", "1", "x", grid, HEADS[kind], parameters_of(kind), 0.1, members=members)
    rng = np.random.default_rng(1)
    shape = (n_passes, n_objects, outputs_per_pass(metadata))
    outputs = 0.4 * rng.normal(size=(1, *shape[1:])) + scatter * rng.normal(size=shape)
    return read_passes(np.swapaxes(outputs, 0, 1), metadata)


def outputs_of(values, quantity):
    """Standardized, of values in the quantity's unit."""
    return to_output(10 ** (0.4 * (31.4 - values)) if quantity.is_magnitude else values, quantity.parameter)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", HEADS)
def test_samples_agree_with_the_mixture_for_every_head(kind, members):
    """Within the Monte Carlo error that `samples` states, and both with brute force on many draws."""
    passes = passes_of_head(kind, N_DRAWS // members, n_objects=8, members=members)
    n_passes = passes.mean.shape[1] // members
    keys = draw_keys(np.arange(8), seed=1, bundle_sha256="", passes=np.arange(n_passes))
    draws = passes.draws(member_keys(keys, members))
    for quantity in quantities_of(parameters_of(kind)):
        exact = summarize_mixture(passes, quantity, LEVELS)
        drawn = summarize_draws(draws, quantity, LEVELS, passes=passes)
        if kind != "point":  # whose quantiles are those of the draws
            off = outputs_of(drawn.quantiles, quantity) - outputs_of(exact.quantiles, quantity)
            std = np.sqrt(passes.covariance()[:, quantity.index, quantity.index])
            assert (np.abs(off).max(axis=1) < 5 * drawn.mc_error * std).all()
        if quantity.is_magnitude:  # fluxes of 1.1 x 2 in ln have no useful standard deviation
            assert (np.abs(drawn.mean - exact.mean) < 5 * exact.std / np.sqrt(N_DRAWS)).all()
            np.testing.assert_allclose(drawn.std, exact.std, rtol=0.15)
        np.testing.assert_allclose(drawn.epistemic_std, exact.epistemic_std)
        if kind == "point":
            np.testing.assert_allclose(drawn.quantiles, exact.quantiles, rtol=2e-3)
    correlation = correlation_of(passes.covariance())[:, 0, 1]
    by_hand = np.array([np.corrcoef(rows.T)[0, 1] for rows in draws])
    np.testing.assert_allclose(by_hand, correlation, atol=5 / np.sqrt(N_DRAWS))


def drawn_from(passes):
    n_objects, n_passes, _ = passes.mean.shape
    return passes.draws(draw_keys(np.arange(n_objects), seed=1, bundle_sha256="", passes=np.arange(n_passes)))


@pytest.mark.parametrize("n_draws", [1000, 20_000])
@pytest.mark.parametrize("kind", HEADS)
def test_adaptive_passes_agree_with_the_papers_draws(kind, n_draws):
    """1000 draws, one a pass, against the mixture of as many passes as a tolerance of 0.1 asks for; and far more draws.

    Within 5 standard errors of both, for everything in the catalog.
    """
    reference = passes_of_head(kind, n_draws, n_objects=5, scatter=0.2)
    quantities = quantities_of(parameters_of(kind))
    draws = drawn_from(reference)
    for n_passes in schedule(PosteriorConfig()):
        passes = passes_of_head(kind, n_passes, n_objects=5, scatter=0.2)
        found = estimate_quantiles(passes, quantities, LEVELS)
        if found.converged(0.1).all():
            break
    assert n_passes == 1000 if kind == "point" else n_passes < 400
    errors = np.hypot(found.error, estimate_quantiles(reference, quantities, LEVELS, draws=draws).error)
    for i, quantity in enumerate(quantities):
        drawn = summarize_draws(draws, quantity, LEVELS, passes=reference)
        if kind == "point":
            here = summarize_draws(passes.mean, quantity, LEVELS)
        else:
            here = summarize_mixture(passes, quantity, LEVELS)
        off = np.abs(outputs_of(here.quantiles, quantity) - outputs_of(drawn.quantiles, quantity))
        assert (off < 5 * errors[:, i] * found.std[:, i, None]).all()
        if quantity.name != "flux_njy":  # 1.1 x 1.4 in ln: its moments hang on a few draws
            assert (np.abs(here.mean - drawn.mean) < 5 * drawn.std / np.sqrt(n_passes)).all()
            np.testing.assert_allclose(here.std, drawn.std, rtol=7 / np.sqrt(n_passes))
            np.testing.assert_allclose(here.epistemic_std, drawn.epistemic_std, rtol=7 / np.sqrt(n_passes))
    by_hand = np.array([np.corrcoef(rows.T)[0, 1] for rows in draws])
    correlation = correlation_of(passes.covariance())[:, 0, 1]
    np.testing.assert_allclose(by_hand, correlation, atol=5 / np.sqrt(n_passes))


def binned(edges, probability):
    edges, probability = np.atleast_2d(edges), np.asarray(probability, dtype=np.float64)
    return BinnedPasses((BinnedMarginal(np.asarray(edges, dtype=np.float64), probability),))


def test_moments_of_bins_are_exact():
    """ln: the mean of exp(a y + b) over a bin is a difference of exponentials."""
    edges, probability = np.array([-1.0, 0.5, 0.7, 3.0]), np.array([[[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]]])
    summary = summarize_mixture(binned(edges, probability), quantities_of([RADIUS])[0], LEVELS)

    def moment(power):
        a = 0.6 * power
        return np.exp(0.4 * power) * np.diff(np.exp(a * edges)) / (a * np.diff(edges))

    each = probability[0] @ moment(1)
    second = (probability[0] @ moment(2)).mean()
    assert summary.mean[0] == pytest.approx(each.mean(), rel=1e-12)
    assert summary.std[0] == pytest.approx(np.sqrt(second - each.mean() ** 2), rel=1e-10)
    assert summary.epistemic_std[0] == pytest.approx(abs(each[0] - each[1]) / 2, rel=1e-10)


def test_quantiles_of_bins_are_linear_between_the_edges():
    summary = summarize_mixture(
        binned([0.0, 1.0, 1.5, 4.0], [[[0.2, 0.0, 0.8]]]),
        quantities_of([ParameterInfo("x", "", "", "identity")])[0],
        [0.1, 0.5, 0.9],
    )
    np.testing.assert_allclose(summary.quantiles[0], [0.5, 1.5 + 2.5 * 0.3 / 0.8, 1.5 + 2.5 * 0.7 / 0.8])


def test_the_mode_of_bins_is_the_middle_of_the_densest_in_physical_units():
    edges, probability = [-1.0, 0.0, 1.0, 2.0], [[[0.3, 0.36, 0.34]]]
    flat = summarize_mixture(
        binned(edges, probability), quantities_of([ParameterInfo("x", "", "", "identity")])[0], [0.5]
    )
    assert flat.mode[0] == 0.5
    # In arcsec the first bin is narrower than the second by exp(0.6).
    radius = summarize_mixture(binned(edges, probability), quantities_of([RADIUS])[0], [0.5])
    assert radius.mode[0] == pytest.approx(np.exp(0.4 - 0.5 * 0.6))


def test_the_mode_of_far_apart_narrow_components():
    """Peaks of 1e-3 standard deviations lie between the points of an even grid."""
    mean, std = [[-1000.0, 17.3, 1000.0]], [[10.0, 1e-3, 10.0]]
    summary = summary_of(ParameterInfo("x", "", "", "identity"), mean, std)
    assert summary.mode[0] == pytest.approx(17.3, abs=1e-4)


def test_monte_carlo_error_of_members_is_that_of_their_passes():
    """Two networks that differ by 4 sigma: only the passes within each are draws."""
    rng = np.random.default_rng(7)
    mean = rng.normal(0, 0.3, (500, 128)) + np.repeat([-2.0, 2.0], 64)
    passes = dataclasses.replace(passes_of(mean, np.ones_like(mean)), n_members=2)
    quantity = quantities_of([ParameterInfo("x", "", "", "identity")])[0]
    for level in (0.15865, 0.5):
        summary = summarize_mixture(passes, quantity, [level])
        actual = summary.quantiles[:, 0].std() / np.sqrt(1 + 4 + 0.09)
        assert np.median(summary.mc_error) == pytest.approx(actual, rel=0.1)
    as_if_draws = summarize_mixture(dataclasses.replace(passes, n_members=1), quantity, [0.5])
    assert np.median(as_if_draws.mc_error) > 5 * np.median(summary.mc_error)


def test_single_passes_of_members_have_no_monte_carlo_error():
    passes = dataclasses.replace(passes_of([[-1.0, 0.0, 2.0]], [[1.0, 1.0, 1.0]]), n_members=3)
    summary = summarize_mixture(passes, quantities_of([RADIUS])[0], LEVELS)
    assert summary.mc_error[0] == 0
    assert summary.epistemic_std[0] > 0


def test_no_chunk_is_larger_than_stated(monkeypatch):
    """Temporary arrays of (object, point, pass x component) stay below the limit, and change nothing."""
    passes = passes_of_head("mixture", 40, n_objects=60)
    quantity = quantities_of([RADIUS, FLUX])[0]
    whole = summarize_mixture(passes, quantity, LEVELS)
    seen = []
    scores = NormalMarginal._scores

    def watched(self, x):
        found = scores(self, x)
        seen.append(found.size)
        return found

    monkeypatch.setattr(NormalMarginal, "_scores", watched)
    limit = 5 * 40 * 3 * 2 * GRID_POINTS  # the largest grid of 5 objects
    monkeypatch.setattr(PassStatistics, "elements_at_once", limit)
    parts = summarize_mixture(passes, quantity, LEVELS)
    assert 0.5 * limit < max(seen) <= limit
    for name in ("quantiles", "mean", "std", "mode", "epistemic_std", "mc_error"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)


@pytest.mark.parametrize(
    ("parameter", "centers", "widths"),
    [
        (BT, [-2.5, -1.0, 2.0, 3.9], [1.0, 2.0, 3.0, 0.3]),
        (ParameterInfo("q", "", "", "identity", limits=(0.0, 1.0)), [-0.2, 0.5, 0.98], [0.1, 0.7, 0.01]),
        (
            ParameterInfo("f", "nJy", "", "ln", location=6.0, scale=1.2, limits=(10.0, 1e5)),
            [-3.0, 2.0],
            [0.5, 2.0],
        ),
    ],
)
def test_moments_of_a_posterior_that_a_limit_cuts_are_those_of_integration(parameter, centers, widths):
    """A sum over 400,000 steps; the plain quadrature ran across the jump, and was off by 4 percent of the posterior's width."""
    passes = passes_of(np.array(centers)[:, None], np.array(widths)[:, None])
    (quantity,) = quantities_of([parameter])
    found = summarize_mixture(passes, quantity, [0.5])
    z = np.linspace(-10.0, 10.0, 400_001)
    density = stats.norm.pdf(z)
    for row, (center, width) in enumerate(zip(centers, widths, strict=True)):
        values = quantity.value(center + width * z)
        mean = np.trapezoid(values * density, z)
        std = np.sqrt(np.trapezoid((values - mean) ** 2 * density, z))
        assert found.mean[row] == pytest.approx(mean, abs=1e-5 * std)
        assert found.std[row] == pytest.approx(std, rel=1e-5)
        assert found.epistemic_std[row] == pytest.approx(0.0, abs=1e-6 * std)
