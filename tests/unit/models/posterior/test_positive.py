"""Magnitudes of fluxes near zero: moments of the positive part against numerical integrals, and where there are none."""

import numpy as np
import pytest
from scipy import integrate, stats

from galbatch.models import HeadInfo, ParameterInfo
from galbatch.models.heads import BinnedMarginal, GaussianPasses, head_of
from galbatch.models.posterior import (
    NormalMarginal,
    pooled,
    quantities_of,
    summarize_draws,
    summarize_mixture,
)
from galbatch.models.posterior.positive import MOST_NOT_POSITIVE, positive_part

LEVELS = np.array([0.02275, 0.15865, 0.5, 0.84135, 0.97725])
FLUX = ParameterInfo("flux_njy", "nJy", "", "identity", location=100.0, scale=50.0, magnitude="mag")
FLUX_QUANTITY, MAGNITUDE = quantities_of([FLUX])
MAG_PER_LN = 2.5 / np.log(10.0)


def passes_of(mean_njy, std_njy):
    """(object, pass) of normal distributions of the flux in nJy."""
    mean = (np.atleast_2d(mean_njy) - FLUX.location) / FLUX.scale
    std = np.atleast_2d(std_njy) / FLUX.scale
    return GaussianPasses(mean[..., None], std[..., None, None])


def expected(mean_njy, std_njy):
    """Share not positive, mean, std and epistemic std of the magnitude of one object, by adaptive quadrature."""
    share, mean, variance = [], [], []
    for center, width in zip(mean_njy, std_njy, strict=True):
        positive = stats.norm.sf(0, center, width)

        def integrand(t, power, center=center, width=width):
            return (31.4 - MAG_PER_LN * t) ** power * stats.norm.pdf(np.exp(t), center, width) * np.exp(t)

        ends = np.log(width) - 30, np.log(max(center, 0) + 10 * width)
        near = [np.log(at) for at in center + width * np.arange(-3, 4) if at > 0]
        first, second = (
            integrate.quad(integrand, *ends, args=(power,), limit=500, points=near, epsabs=0, epsrel=1e-11)[0]
            for power in (1, 2)
        )
        share.append(positive)
        mean.append(first / positive)
        variance.append(second / positive - (first / positive) ** 2)
    weight = np.array(share) / np.sum(share)
    middle = weight @ mean
    epistemic = weight @ np.square(np.array(mean) - middle)
    return 1 - np.mean(share), middle, np.sqrt(weight @ variance + epistemic), np.sqrt(epistemic)


@pytest.mark.parametrize(
    ("mean_njy", "std_njy"),
    [
        ([100.0], [45.0]),
        ([100.0], [12.0]),
        ([5.0], [50.0]),
        ([100.0, 125.0, 25.0], [45.0, 15.0, 20.0]),
        ([-40.0, 100.0], [30.0, 45.0]),
    ],
)
def test_moments_are_those_of_the_positive_part(mean_njy, std_njy):
    found = positive_part(passes_of(mean_njy, std_njy).marginal(0), MAGNITUDE)
    values = [found.not_positive[0], found.mean[0], found.std[0], found.epistemic_std[0]]
    np.testing.assert_allclose(values, expected(mean_njy, std_njy), rtol=1e-7, atol=1e-7)


def test_moments_of_bins_are_those_of_even_densities():
    """Half of a bin from -20 to 20 nJy, and one from 20 to 100 nJy, by the antiderivatives of ln x and ln^2 x."""
    edges = (np.array([[-20.0, 20.0, 100.0]]) - FLUX.location) / FLUX.scale
    found = positive_part(BinnedMarginal(edges, np.array([[[0.2, 0.8]]])), MAGNITUDE)
    assert found.not_positive[0] == pytest.approx(0.1)

    def first(x):
        return x * np.log(x) - x if x else 0.0

    def second(x):
        return x * np.log(x) ** 2 - 2 * first(x) if x else 0.0

    mean, square = (
        (0.1 / 20 * (f(20.0) - f(0.0)) + 0.8 / 80 * (f(100.0) - f(20.0))) / 0.9 for f in (first, second)
    )
    assert found.mean[0] == pytest.approx(31.4 - MAG_PER_LN * mean, abs=1e-3)
    assert found.std[0] == pytest.approx(MAG_PER_LN * np.sqrt(square - mean**2), rel=1e-3)


def test_values_above_an_upper_limit_count_as_the_limit():
    """Of draws, whatever the quadrature."""
    limited = ParameterInfo(
        "flux_njy", "nJy", "", "identity", location=100.0, scale=50.0, magnitude="mag", limits=(0.0, 120.0)
    )
    magnitude = quantities_of([limited])[1]
    found = positive_part(passes_of([100.0], [45.0]).marginal(0), magnitude)
    flux = stats.norm.ppf((np.arange(2_000_000) + 0.5) / 2_000_000, 100.0, 45.0)
    values = 31.4 - 2.5 * np.log10(np.minimum(flux[flux > 0], 120.0))
    assert found.mean[0] == pytest.approx(values.mean(), abs=1e-3)
    assert found.std[0] == pytest.approx(values.std(), abs=1e-3)


def test_a_magnitude_has_values_up_to_a_share_and_the_flux_always():
    """2 sigma are the limit: at 2.02 the magnitude has values, at 1.98 and below it has none."""
    sigma = np.array([[30.0, 2.02, 1.98, 0.5, -4.0]]).T
    passes = passes_of(10.0 * sigma, np.full_like(sigma, 10.0))
    magnitude = summarize_mixture(passes, MAGNITUDE, LEVELS)
    for values in (magnitude.mean, magnitude.std, magnitude.mode, magnitude.epistemic_std):
        np.testing.assert_array_equal(np.isfinite(values), [True, True, False, False, False])
    np.testing.assert_array_equal(np.isfinite(magnitude.quantiles).all(axis=1), np.isfinite(magnitude.mean))
    assert np.isnan(magnitude.quantiles[2:]).all()
    assert np.isfinite(magnitude.mc_error).all()
    flux = summarize_mixture(passes, FLUX_QUANTITY, LEVELS)
    np.testing.assert_allclose(flux.mean, 10.0 * sigma[:, 0])
    np.testing.assert_allclose(flux.quantiles[:, 2], 10.0 * sigma[:, 0])
    np.testing.assert_allclose(flux.std, 10.0)
    # A quantile of the magnitude is that of the flux.
    np.testing.assert_allclose(magnitude.quantiles[1], 31.4 - 2.5 * np.log10(flux.quantiles[1, ::-1]))


def test_lower_levels_ask_for_a_smaller_share():
    passes = passes_of([22.0], [10.0])
    assert np.isfinite(summarize_mixture(passes, MAGNITUDE, LEVELS).mean).all()
    assert np.isnan(summarize_mixture(passes, MAGNITUDE, [0.00135, 0.5, 0.99865]).mean).all()
    # No quantile is below 0, but more than the stated share of the posterior is.
    assert np.isnan(
        summarize_mixture(passes_of([15.0], [10.0]), MAGNITUDE, [0.15865, 0.5, 0.84135]).mean
    ).all()


def test_no_other_object_changes_by_a_bit():
    rng = np.random.default_rng(3)
    mean, std = rng.uniform(300, 1e4, (40, 12)), rng.uniform(5, 60, (40, 12))
    alone = summarize_mixture(passes_of(mean, std), MAGNITUDE, LEVELS)
    mean, std = np.concatenate([mean, np.full((3, 12), 25.0)]), np.concatenate([std, np.full((3, 12), 11.0)])
    beside = summarize_mixture(passes_of(mean, std), MAGNITUDE, LEVELS)
    for name in ("quantiles", "mean", "std", "mode", "epistemic_std", "mc_error"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(beside, name)[:40])
    assert np.isfinite(beside.mean[40:]).all()


def test_a_positive_flux_is_left_to_plain_moments():
    logarithm = ParameterInfo("flux_njy", "nJy", "", "ln", magnitude="mag")
    limited = ParameterInfo("flux_njy", "nJy", "", "identity", magnitude="mag", limits=(1.0, 1e6))
    for parameter in (logarithm, limited):
        assert quantities_of([parameter])[1].zero_output is None
    assert FLUX_QUANTITY.zero_output is None
    assert MAGNITUDE.zero_output == -2.0


@pytest.mark.parametrize("with_passes", [True, False], ids=["samples", "point head"])
def test_draws_that_are_not_positive_are_left_out(with_passes):
    rng = np.random.default_rng(4)
    flux = np.stack([rng.normal(220, 100, 1000), rng.normal(150, 100, 1000), rng.normal(5000, 100, 1000)])
    flux[0] = np.where(flux[0] < 0, -flux[0], flux[0])
    flux[0, :10] = -5.0
    passes = passes_of(flux, np.full_like(flux, 1.0)) if with_passes else None
    draws = ((flux - FLUX.location) / FLUX.scale)[..., None]
    found = summarize_draws(draws, MAGNITUDE, LEVELS, passes=passes)
    positive = 31.4 - 2.5 * np.log10(flux[0, 10:])
    assert found.mean[0] == pytest.approx(positive.mean())
    assert found.std[0] == pytest.approx(positive.std())
    assert found.quantiles[0, 2] == pytest.approx(31.4 - 2.5 * np.log10(np.median(flux[0])))
    assert positive.min() < found.mode[0] < positive.max()
    assert found.epistemic_std[0] == pytest.approx(positive.std(), rel=0.05)
    # 6.7 % of the second object's draws are not positive.
    assert np.isnan([found.mean[1], found.std[1], found.mode[1], found.epistemic_std[1]]).all()
    assert np.isnan(found.quantiles[1]).all()
    assert found.mean[2] == pytest.approx((31.4 - 2.5 * np.log10(flux[2])).mean())


def test_mixtures_and_pooled_networks_have_the_same_rule():
    center, width = np.array([[[0.0, 1.0]]]), np.array([[[0.9, 0.2]]])
    mixture = positive_part(NormalMarginal(center, width, np.array([[[0.5, 0.5]]])), MAGNITUDE)
    two_passes = positive_part(passes_of([100.0, 150.0], [45.0, 10.0]).marginal(0), MAGNITUDE)
    assert mixture.not_positive[0] == pytest.approx(two_passes.not_positive[0])
    assert mixture.mean[0] == pytest.approx(two_passes.mean[0], abs=1e-4)
    assert mixture.std[0] == pytest.approx(two_passes.std[0], abs=1e-4)
    members = pooled([passes_of([100.0], [45.0]), passes_of([150.0], [10.0])])
    found = positive_part(members.marginal(0), MAGNITUDE)
    np.testing.assert_allclose(found.std, two_passes.std)
    np.testing.assert_allclose(found.epistemic_std, two_passes.epistemic_std)


def test_heads_of_bins_from_below_zero_have_magnitudes():
    info = HeadInfo("binned", edges=((-50.0, 0.0, 50.0, 100.0, 200.0, 400.0),))
    logits = np.log(np.array([[[0.004, 0.006, 0.2, 0.5, 0.29]], [[0.3, 0.3, 0.2, 0.1, 0.1]]]))
    passes = head_of(info).read(logits, info, parameters=[FLUX], n_members=1)
    found = summarize_mixture(passes, MAGNITUDE, LEVELS)
    assert np.isfinite([found.mean[0], found.std[0], found.mode[0]]).all()
    assert found.quantiles[0, 2] < found.quantiles[0, 4]
    assert np.isnan(found.mean[1])
    assert MOST_NOT_POSITIVE == 0.02275
