import numpy as np
import pytest

from galbatch.models import ParameterInfo
from galbatch.models.posterior import fitted, from_output, log_slope, output_limits, to_output

BT = ParameterInfo("bt", "", "", "logit", location=0.3, scale=1.7, limits=(0.02, 0.98))
RADIUS = ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.5, scale=0.8)
OTHERS = (
    RADIUS,
    ParameterInfo("x", "", "", "log10", location=2.0, scale=0.5),
    ParameterInfo("y", "", "", "identity", location=-1.0, scale=3.0),
)


@pytest.mark.parametrize("parameter", [BT, *OTHERS], ids=lambda p: p.transform)
def test_inverse_undoes_the_transform(parameter):
    values = np.array([0.03, 0.4, 0.97])
    np.testing.assert_allclose(from_output(to_output(values, parameter), parameter), values)


@pytest.mark.parametrize("parameter", [BT, *OTHERS], ids=lambda p: p.transform)
def test_slope_is_the_derivative(parameter):
    output, step = np.array([-0.7, 0.0, 0.9]), 1e-6
    numerical = (from_output(output + step, parameter) - from_output(output - step, parameter)) / (2 * step)
    np.testing.assert_allclose(np.exp(log_slope(output, parameter)), numerical, rtol=1e-6)


def test_known_values():
    assert to_output(np.e, RADIUS) == pytest.approx((1 - 0.5) / 0.8)
    assert to_output(0.5, BT) == pytest.approx(-0.3 / 1.7)


def test_logit_is_exactly_0_and_1_at_and_beyond_its_limits():
    low, high = output_limits(BT)
    np.testing.assert_array_equal(from_output([low - 1, low, high, high + 5], BT), [0, 0, 1, 1])
    assert to_output(0.0, BT) == low
    assert to_output(1.0, BT) == high


def test_other_limits_clamp():
    clamped = ParameterInfo("y", "", "", "identity", limits=(0.0, 2.0))
    np.testing.assert_array_equal(from_output([-1.0, 1.0, 3.0], clamped), [0.0, 1.0, 2.0])


def test_fitted_standardizes():
    values = np.exp(np.random.default_rng(1).normal(2.0, 0.5, 5000))
    location, scale, seen = fitted(RADIUS, values)
    assert location == pytest.approx(2.0, abs=0.03)
    assert scale == pytest.approx(0.5, abs=0.02)
    assert seen == (values.min(), values.max())


def test_fitted_refuses_what_has_no_transform():
    with pytest.raises(ValueError, match=r"re_arcsec: 1 training values have no ln"):
        fitted(RADIUS, [1.0, -2.0, 3.0])
    with pytest.raises(ValueError, match="nothing to learn"):
        fitted(RADIUS, [2.0, 2.0])
