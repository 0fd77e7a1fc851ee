import numpy as np
import pytest

from galbatch.models.heads import correlation_of, read_gaussian


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
