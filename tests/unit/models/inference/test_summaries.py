"""Values of result columns against numbers that are known, from passes and from draws."""

import numpy as np
import pytest
from scipy import stats

from galbatch.core.columns import ColumnKey, Statistic
from galbatch.models import ParameterInfo
from galbatch.models.heads import GaussianPasses
from galbatch.models.inference.summaries import all_finite, quantity_values, without_overflow
from galbatch.models.posterior import quantities_of

LEVELS = (0.15865, 0.5, 0.84135)
RADIUS = ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.4, scale=0.6)
LOGNORMAL = stats.lognorm(0.6 * 0.7, scale=np.exp(0.4 + 0.6 * 0.5))
"""What one pass with mean 0.5 and standard deviation 0.7 says of the radius."""


def values_of(mean, std, draws=None, parameter=RADIUS):
    """The columns of one object, by statistic; of its quantiles the last. Mean and std (pass,), draws (draw,)."""
    passes = GaussianPasses(np.reshape(mean, (1, -1, 1)), np.reshape(std, (1, -1, 1, 1)))
    drawn = None if draws is None else np.reshape(draws, (1, -1, 1))
    (quantity,) = quantities_of([parameter])
    found = quantity_values(passes, drawn, quantity=quantity, levels=LEVELS)
    return {key.statistic: column[0] for key, column in found.items()}


def test_columns_of_one_pass_are_those_of_the_lognormal():
    found = values_of([0.5], [0.7])
    assert found[Statistic.MEAN] == pytest.approx(LOGNORMAL.mean(), rel=1e-8)
    assert found[Statistic.STD] == pytest.approx(LOGNORMAL.std(), rel=1e-8)
    assert found[Statistic.QUANTILE] == pytest.approx(LOGNORMAL.ppf(LEVELS[-1]), rel=1e-7)


def test_columns_of_draws_are_those_of_the_lognormal():
    draws = np.random.default_rng(1).normal(0.5, 0.7, 40_000)
    found = values_of([0.5], [0.7], draws)
    assert found[Statistic.MEAN] == pytest.approx(LOGNORMAL.mean(), rel=0.02)
    assert found[Statistic.STD] == pytest.approx(LOGNORMAL.std(), rel=0.03)


@pytest.mark.parametrize("draws", [None, np.zeros(5)])
def test_columns_are_finite_where_nothing_varies(draws):
    """Else the object would fail."""
    constant = ParameterInfo("z", "", "", "identity", location=0.4, scale=0.3)
    found = values_of([0.0, 0.0], [1e-30, 1e-30], draws, constant)
    assert all(np.isfinite(column) for column in found.values())


def test_columns_are_named_by_their_statistic_and_quantity():
    (quantity,) = quantities_of([RADIUS])
    passes = GaussianPasses(np.zeros((3, 2, 1)), np.ones((3, 2, 1, 1)))
    found = quantity_values(passes, None, quantity=quantity, levels=LEVELS)
    assert found[ColumnKey(Statistic.QUANTILE, "re_arcsec", level=0.5)].shape == (3,)


def test_moments_too_large_for_the_catalog_leave_the_quantiles():
    """Of a very wide lognormal, 24 in ln, the mean is exp(288): the median is as good as any."""
    passes = GaussianPasses(np.zeros((2, 1, 1)), np.reshape([0.3, 40.0], (2, 1, 1, 1)))
    columns = quantity_values(passes, None, quantity=quantities_of([RADIUS])[0], levels=LEVELS)
    found, overflows = without_overflow(columns)
    assert overflows.tolist() == [False, True]
    for statistic in (Statistic.MEAN, Statistic.STD):
        column = found[ColumnKey(statistic, RADIUS.name)]
        assert np.isfinite(column[0])
        assert np.isnan(column[1])
    assert all_finite(found).tolist() == [True, True]
    assert all_finite(columns).tolist() == [True, False]
