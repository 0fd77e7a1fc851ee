import numpy as np
import pytest
from scipy import stats

from galbatch.core.photoz import RedshiftSample, equal_bins, measured_in_bins


def sample_of(n=4000, seed=1, width=0.05):
    """Right normal posteriors: all their statistics are known."""
    rng = np.random.default_rng(seed)
    z_phot = rng.uniform(0.1, 0.9, n)
    z_spec = rng.normal(z_phot, width)
    normal = stats.norm(z_phot, width)
    w = (z_spec - z_phot) / width
    return RedshiftSample.of_points(
        z_phot,
        z_spec,
        transform=normal.cdf(z_spec),
        square_integral=np.full(n, 1 / (2 * width * np.sqrt(np.pi))),
        log_density=normal.logpdf(z_spec),
        crps=width * (w * (2 * stats.norm.cdf(w) - 1) + 2 * stats.norm.pdf(w) - 1 / np.sqrt(np.pi)),
    )


def test_right_densities_have_the_statistics_of_the_formulas():
    found = sample_of().measured(n_bootstrap=100, seed=0).named()
    expected = {
        "pit_mean": 0.5,
        "pit_std": 1 / np.sqrt(12),
        # E[p(z)] of the right density is the integral of its square.
        "cde_loss": -1 / (2 * 0.05 * np.sqrt(np.pi)),
        "crps": 0.05 / np.sqrt(np.pi),
        "log_score": -0.5 * np.log(2 * np.pi * np.e * 0.05**2),
    }
    for name, value in expected.items():
        measured, error = found[name]
        assert 0 < error < 0.2 * abs(value)
        assert measured == pytest.approx(value, abs=4 * error)
    error = found["pit_mean"][1]
    assert error == pytest.approx(1 / np.sqrt(12 * 4000), rel=0.3)


def test_bins_hold_each_object_once():
    sample = sample_of()
    bins = list(measured_in_bins(sample, {"z_phot": equal_bins(sample.z_phot, 5)}, n_bootstrap=2))
    assert [one.name for one in bins] == ["", *["z_phot"] * 5]
    assert bins[0].measured.n == sum(one.measured.n for one in bins[1:]) == 4000
    assert [one.measured.n for one in bins[1:]] == [800] * 5


def test_bins_of_the_true_redshift_show_a_bias_where_bins_of_the_estimate_show_none():
    """The estimates are right (z_spec given z_phot is centered); chosen by z_spec they are not, at the ends."""
    rng = np.random.default_rng(4)
    z_phot = rng.uniform(0.2, 0.8, 20_000)
    sample = RedshiftSample.of_points(z_phot, rng.normal(z_phot, 0.1))
    by_estimate = list(measured_in_bins(sample, {"z_phot": [0.2, 0.3, 0.7, 0.8]}, n_bootstrap=2))[1:]
    by_truth = list(measured_in_bins(sample, {"z_spec": [0.0, 0.15, 0.85, 1.0]}, n_bootstrap=2))[1:]
    assert max(abs(one.measured.named()["bias"][0]) for one in by_estimate) < 0.01
    assert by_truth[0].measured.named()["bias"][0] > 0.08
    assert by_truth[-1].measured.named()["bias"][0] < -0.06


def test_what_is_not_known_is_not_measured():
    measured = RedshiftSample.of_points(np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.25, 0.3])).measured(
        n_bootstrap=20, seed=0
    )
    named = measured.named()
    assert np.isfinite(named["bias"][0])
    assert np.isnan([named[name][0] for name in ("pit_mean", "cde_loss", "crps", "log_score")]).all()
    assert measured.n_effective == pytest.approx(3)
