import numpy as np
import pytest
from scipy import stats

from galbatch.core.statistics import ROBUST_SIGMA, bootstrap_errors, normalized_mad, weighted_quantiles


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_equal_weights_give_numpys_quantiles(n):
    values = np.random.default_rng(1).normal(size=n)
    levels = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]
    expected = np.quantile(values, levels, method="hazen")
    np.testing.assert_allclose(weighted_quantiles(values, levels), expected, rtol=1e-12)
    np.testing.assert_allclose(weighted_quantiles(values, levels, np.full(n, 3.7)), expected, rtol=1e-12)
    assert weighted_quantiles(values, [0.5])[0] == pytest.approx(np.median(values), rel=1e-12)


def test_a_weight_of_two_is_an_object_that_occurs_twice():
    # In the interior: the outermost half weights are no point of the interpolation.
    rng = np.random.default_rng(2)
    values, counts = rng.normal(size=4000), rng.integers(0, 4, 4000)
    levels = np.linspace(0.05, 0.95, 19)
    repeated = np.quantile(np.repeat(values, counts), levels, method="hazen")
    np.testing.assert_allclose(weighted_quantiles(values, levels, counts.astype(float)), repeated, atol=5e-3)
    mad = stats.median_abs_deviation(np.repeat(values, counts))
    assert normalized_mad(values, counts.astype(float)) == pytest.approx(ROBUST_SIGMA * mad, rel=5e-3)


def test_without_values_or_weights_there_is_no_quantile():
    assert np.isnan(weighted_quantiles(np.empty(0), [0.5])).all()
    assert np.isnan(weighted_quantiles(np.ones(3), [0.1, 0.5], np.zeros(3))).all()
    assert np.isnan(normalized_mad(np.empty(0)))


def test_the_nmad_is_scipys():
    values = np.random.default_rng(3).standard_t(3, 999)
    assert normalized_mad(values) == pytest.approx(stats.median_abs_deviation(values, scale=1 / 1.4826))


def test_the_bootstrap_error_of_a_mean_is_that_of_the_formula():
    values = np.random.default_rng(4).normal(2, 3, 500)
    (error,) = bootstrap_errors(lambda v: np.array([v.mean()]), (values,), n_bootstrap=2000, seed=5)
    # The standard deviation of 2,000 samples is known to 1 / sqrt(2 * 2000) = 1.6 %.
    assert error == pytest.approx(values.std() / np.sqrt(500), rel=0.06)
    assert np.isnan(bootstrap_errors(lambda v: np.array([v.mean()]), (values[:1],), n_bootstrap=9, seed=0)[0])


def test_a_statistic_that_is_infinite_in_a_sample_has_no_error():
    values = np.array([0.0, 1.0, 2.0, -np.inf])
    (error,) = bootstrap_errors(lambda v: np.array([v.mean()]), (values,), n_bootstrap=50, seed=5)
    assert np.isnan(error)
