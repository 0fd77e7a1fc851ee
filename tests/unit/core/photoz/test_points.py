import numpy as np
import pytest
from scipy import stats

from galbatch.core.photoz import POINT_STATISTICS, point_statistics, scaled_errors


def named(dz, weights=None):
    return dict(zip(POINT_STATISTICS, point_statistics(dz, weights), strict=True))


def test_the_error_is_divided_by_one_plus_the_true_redshift():
    dz = scaled_errors(np.array([1.2, 0.0, 0.5]), np.array([1.0, 1.0, -1.0]))
    np.testing.assert_allclose(dz[:2], [0.1, -0.5])
    assert np.isnan(dz[2])


def test_statistics_of_a_hand_made_sample():
    dz = np.array([-0.2, -0.05, -0.01, 0.0, 0.01, 0.02, 0.06, 0.16, 0.3])
    found = named(dz)
    assert found["bias"] == pytest.approx(0.01)
    assert found["sigma_nmad"] == pytest.approx(1.4826 * np.median(np.abs(dz - 0.01)))
    # Beyond 0.15 lie -0.2, 0.16, 0.3; beyond 0.05 also 0.06, and not -0.05 itself.
    assert found["outliers_15"] == pytest.approx(3 / 9)
    assert found["outliers_05"] == pytest.approx(4 / 9)
    first, third = np.quantile(dz, [0.25, 0.75], method="hazen")
    assert found["sigma_iqr"] == pytest.approx((third - first) / (2 * stats.norm.ppf(0.75)))


def test_normal_errors_have_the_widths_and_tails_of_their_distribution():
    found = named(np.random.default_rng(1).normal(0.02, 0.06, 200_000))
    assert found["bias"] == pytest.approx(0.02, abs=1e-3)
    assert found["sigma_nmad"] == pytest.approx(0.06, rel=0.01)
    assert found["sigma_iqr"] == pytest.approx(0.06, rel=0.01)
    normal = stats.norm(0.02, 0.06)
    for name, limit in (("outliers_15", 0.15), ("outliers_05", 0.05)):
        assert found[name] == pytest.approx(normal.sf(limit) + normal.cdf(-limit), abs=3e-3)


def test_weights_count():
    found = named(np.array([0.0, 0.2]), np.array([3.0, 1.0]))
    assert found["outliers_15"] == pytest.approx(0.25)
    assert np.isnan(point_statistics(np.empty(0))).all()
