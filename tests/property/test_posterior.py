"""Whatever the passes say: quantiles rise, lie where the CDF says, and stay within the parameter's bounds."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import example, given, settings
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from galbatch.models import ParameterInfo
from galbatch.models.heads import GaussianPasses
from galbatch.models.posterior import mixture_quantiles, quantities_of, summarize_mixture

PARAMETERS = [
    ParameterInfo("bt", "", "", "logit", scale=1.5, limits=(0.02, 0.98)),
    ParameterInfo("flux_njy", "nJy", "", "ln", location=10.0, scale=1.2, magnitude="mag"),
]
SHAPE = st.tuples(st.integers(1, 4), st.integers(1, 9))
LEVELS = st.lists(st.floats(1e-3, 1 - 1e-3), min_size=1, max_size=6, unique=True).map(sorted)


@st.composite
def mixtures(draw):
    shape = draw(SHAPE)
    mean = draw(arrays(np.float64, shape, elements=st.floats(-8, 8)))
    log_std = draw(arrays(np.float64, shape, elements=st.floats(-5, 1)))
    return mean, np.exp(log_std)


# A narrow pass aside from six wide ones: Newton's steps alone jump to and fro.
NARROW = np.array([[1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]]), np.exp([[-5.0, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0]])


@given(mixtures(), LEVELS)
@example(NARROW, [0.59375])
@settings(max_examples=60, deadline=None)
def test_cdf_at_the_quantiles_is_the_level(mixture, levels):
    mean, std = mixture
    found = mixture_quantiles(GaussianPasses(mean[..., None], std[..., None, None]).marginal(0), levels)
    cdf = norm.cdf(found[:, :, None], mean[:, None, :], std[:, None, :]).mean(axis=2)
    np.testing.assert_allclose(cdf, np.broadcast_to(levels, cdf.shape), atol=1e-6)


@given(mixtures(), LEVELS)
@settings(max_examples=60, deadline=None)
def test_summaries_are_monotone_bounded_and_finite(mixture, levels):
    mean, std = (np.stack([part, part], axis=-1) for part in mixture)
    factor = std[..., None] * np.eye(2)
    for quantity in quantities_of(PARAMETERS):
        summary = summarize_mixture(GaussianPasses(mean, factor), quantity, levels)
        assert (np.diff(summary.quantiles.astype(np.float32), axis=1) >= 0).all()
        for column in (summary.mean, summary.std, summary.mode, summary.epistemic_std, summary.mc_error):
            assert np.isfinite(column).all()
        assert (summary.epistemic_std <= summary.std * (1 + 1e-9) + 1e-12).all()
        if quantity.name == "bt":
            inside = (
                (summary.quantiles == 0) | (summary.quantiles == 1) | (np.abs(summary.quantiles - 0.5) < 0.48)
            )
            assert inside.all()
            assert ((summary.mean >= 0) & (summary.mean <= 1)).all()
