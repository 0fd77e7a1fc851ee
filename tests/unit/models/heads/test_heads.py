import numpy as np
import pytest

from galbatch.models import BundleMetadata, HeadInfo, InputInfo, ParameterInfo, correlation_of
from galbatch.models.heads import read_gaussian, read_passes


def test_covariance_is_l_d_l_transposed():
    outputs = np.array([0.1, 0.2, 0.3, np.log(4.0), np.log(9.0), np.log(16.0), 0.5, -0.25, 2.0])
    lower = np.array([[1, 0, 0], [0.5, 1, 0], [-0.25, 2.0, 1]])
    expected = lower @ np.diag([4.0, 9.0, 16.0]) @ lower.T
    passes = read_gaussian(outputs[None, None], 3)
    np.testing.assert_allclose(passes.covariance()[0], expected)
    np.testing.assert_allclose(passes.mean[0, 0], [0.1, 0.2, 0.3])
    # The log d_i are not the log marginal variances: only the first is.
    np.testing.assert_allclose(passes.std[0, 0], np.sqrt(np.diag(expected)))
    assert passes.std[0, 0, 2] == pytest.approx(np.sqrt(16 + 36 + 0.25))


def test_total_correlation_holds_the_scatter_of_the_means():
    # Unit covariances whose means scatter along (1, 1) by +-1: total [[2, 1], [1, 2]].
    outputs = np.array([[[1.0, 1.0, 0, 0, 0], [-1.0, -1.0, 0, 0, 0]]])
    assert correlation_of(read_gaussian(outputs, 2).covariance())[0, 0, 1] == pytest.approx(0.5)


def test_one_parameter_has_two_outputs():
    passes = read_gaussian(np.array([[[0.5, np.log(0.25)]]]), 1)
    assert passes.std[0, 0, 0] == pytest.approx(0.5)


PARAMETERS = (
    ParameterInfo("z", "", "", "identity", location=0.4, scale=0.3),
    ParameterInfo("re_arcsec", "arcsec", "", "ln", location=0.2, scale=0.7),
)


def metadata_of(head, parameters=PARAMETERS, **changes):
    grid = InputInfo(("g",), 4, 0.2, "nJy", 31.4)
    return BundleMetadata("n", "1", "x", grid, head, parameters, 0.1, **changes)


def test_layout_of_a_mixtures_outputs():
    """Logits of the weights, then the means of each component, then the log sigmas of each."""
    outputs = [np.log(3.0), 0.0, 1.0, 2.0, 3.0, 4.0, *np.log([0.1, 0.2, 0.3, 0.4])]
    passes = read_passes(np.array([[outputs]]), metadata_of(HeadInfo("mixture", components=2)))
    np.testing.assert_allclose(passes.weight[0, 0], [0.75, 0.25])
    np.testing.assert_allclose(passes.center[0, 0], [[1, 2], [3, 4]])
    np.testing.assert_allclose(passes.width[0, 0], [[0.1, 0.2], [0.3, 0.4]])
    # Total covariance: within the components and between them.
    between = 0.75 * 0.25 * 2 * 2
    np.testing.assert_allclose(passes.covariance()[0, 0, 0], 0.75 * 0.01 + 0.25 * 0.09 + between)
    np.testing.assert_allclose(passes.covariance()[0, 0, 1], between)
    variances = 0.75 + 0.03, 0.75 + 0.75 * 0.04 + 0.25 * 0.16
    expected = between / np.sqrt(np.prod(variances))
    assert correlation_of(passes.covariance())[0, 0, 1] == pytest.approx(expected)


def test_layout_of_binned_outputs():
    """For each parameter in turn the logits of its bins; edges standardized: (z - 0.4) / 0.3."""
    head = HeadInfo("binned", edges=((0.1, 0.4, 1.0), (0.5, 1.0, 2.0, 4.0)))
    passes = read_passes(np.log([[[1.0, 3.0, 1.0, 1.0, 2.0]]]), metadata_of(head))
    first, second = passes.marginal(0), passes.marginal(1)
    np.testing.assert_allclose(first.edges[0], [-1, 0, 2])
    np.testing.assert_allclose(first.probability[0, 0], [0.25, 0.75])
    np.testing.assert_allclose(second.probability[0, 0], [0.25, 0.25, 0.5])
    assert first.mean[0, 0] == pytest.approx(0.25 * -0.5 + 0.75 * 1.0)
    np.testing.assert_array_equal(correlation_of(passes.covariance())[0, 0, 1], 0.0)


def test_members_come_one_after_another():
    """Outputs of a pass hold one member after another; the passes of the first member come first."""
    outputs = np.arange(2 * 3 * 4, dtype=np.float64).reshape(2, 3, 4)  # two members of two values
    passes = read_passes(outputs, metadata_of(HeadInfo("point"), members=2))
    assert passes.n_members == 2
    np.testing.assert_array_equal(passes.mean[:, :3], outputs[..., :2])
    np.testing.assert_array_equal(passes.mean[:, 3:], outputs[..., 2:])


def test_values_that_do_not_vary_have_no_correlation():
    passes = read_passes(np.ones((1, 4, 2)), metadata_of(HeadInfo("point")))
    np.testing.assert_array_equal(correlation_of(passes.covariance())[0], np.zeros((2, 2)))


def test_overflowing_widths_are_held():
    outputs = np.zeros((1, 1, 5))
    outputs[..., 2] = 1e4
    assert np.isfinite(read_passes(outputs, metadata_of(HeadInfo("gaussian"))).covariance()).all()
