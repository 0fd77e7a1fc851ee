"""Stopping: the stated error is the real one, and rare jumps do not fool it."""

import dataclasses

import numpy as np
import pytest

from galbatch.config import PosteriorConfig
from galbatch.models import ParameterInfo
from galbatch.models.heads import GaussianPasses, PointPasses
from galbatch.models.posterior import quantities_of, summarize_mixture
from galbatch.models.stopping import schedule, stated

LEVELS = np.array([0.02275, 0.15865, 0.5, 0.84135, 0.97725])
PARAMETERS = (
    ParameterInfo("bt", "", "", "logit", scale=1.5, limits=(0.02, 0.98)),
    ParameterInfo("flux_njy", "nJy", "", "ln", location=10.0, scale=1.2, magnitude="mag"),
)


def random_passes(n_objects=5, n_passes=64, *, seed=1, scatter=0.3):
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, scatter, (n_objects, n_passes, 2))
    return GaussianPasses(mean, np.broadcast_to(np.eye(2), (n_objects, n_passes, 2, 2)))


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (64, 1000, (64, 80, 96, 128, 160, 192, 240, 304, 384, 480, 608, 768, 960, 1000)),
        (2, 40, (2, 16, 32, 40)),
        (50, 50, (50,)),
    ],
)
def test_check_points_grow_by_a_quarter(least, most, expected):
    posterior = PosteriorConfig(min_passes=least, max_passes=most)
    found = schedule(posterior)
    assert found[0] == least
    assert found[-1] == most
    assert found == expected


def test_a_number_of_passes_is_its_own_schedule_and_equal_passes_are_one():
    assert schedule(PosteriorConfig(passes=77)) == (77,)
    assert schedule(PosteriorConfig(), has_dropout=False) == (1,)
    samples = PosteriorConfig(method="samples")
    assert schedule(samples, has_dropout=False, is_point=True) == (1,)
    assert schedule(samples, has_dropout=False)[0] == 64


def test_what_is_stated_is_what_the_summaries_say():
    passes, quantities = random_passes(), quantities_of(PARAMETERS)
    found = stated(passes, quantities, LEVELS)
    assert found.output.shape == found.error.shape == found.unseen.shape == (5, 3, 5)
    summaries = [summarize_mixture(passes, quantity, LEVELS) for quantity in quantities]
    of_each = np.stack([summary.mc_error for summary in summaries], axis=1)
    np.testing.assert_allclose(found.error.max(axis=2), of_each, rtol=1e-9)
    np.testing.assert_allclose(found.mc_error, of_each.max(axis=1), rtol=1e-9)
    for i, quantity in enumerate(quantities):
        np.testing.assert_allclose(quantity.value(found.output[:, i]), summaries[i].quantiles, rtol=1e-9)
    np.testing.assert_allclose(found.spread[:, 0] ** 2, passes.covariance()[:, 0, 0], rtol=1e-12)


def test_a_magnitudes_numbers_are_its_fluxs_mirrored():
    levels = [0.1, 0.5, 0.6]
    found = stated(random_passes(), quantities_of(PARAMETERS), levels)
    both = stated(random_passes(), quantities_of(PARAMETERS)[1:2], [0.4, 0.5, 0.9])
    for name in ("output", "error", "unseen"):
        mirrored = getattr(both, name)[:, 0, ::-1]
        np.testing.assert_allclose(getattr(found, name)[:, 2], mirrored, rtol=1e-9)


def test_a_jump_not_yet_seen_is_allowed_for():
    """Equal passes state no error; one in n + 1 that lies 2 standard deviations aside moves a normal's quantiles."""
    quantities = quantities_of(PARAMETERS[:1])
    for n_passes in (64, 176, 192):
        found = stated(random_passes(1, n_passes, scatter=0.0), quantities, LEVELS)
        assert found.error.max() < 1e-12
        moved = 0.47725 / 0.053991 / (n_passes + 1)  # (Phi(0) - Phi(-2)) / phi(2)
        np.testing.assert_allclose(found.unseen[0, 0, [0, -1]], moved, rtol=1e-3)
        assert found.unseen[0, 0, 2] == pytest.approx(0.47725 / 0.398942 / (n_passes + 1), rel=1e-3)
        assert found.converged(0.05)[0] == (n_passes >= 176)


def test_draws_and_single_values_state_the_binomial_error_alone():
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(3, 400, 2))
    quantities = quantities_of(PARAMETERS)
    of_points = stated(PointPasses(draws), quantities, LEVELS)
    of_draws = stated(random_passes(3, 400), quantities, LEVELS, draws=draws)
    assert (of_points.unseen == 0).all()
    for name in ("output", "error", "unseen", "spread"):
        np.testing.assert_array_equal(getattr(of_points, name), getattr(of_draws, name))
    expected = np.sqrt(0.25 / 400) / 0.398942
    np.testing.assert_allclose(of_points.error[:, :2, 2], expected, rtol=0.2)
    np.testing.assert_allclose(of_points.output[:, 0], np.quantile(draws[..., 0], LEVELS, axis=1).T)


def test_single_passes_of_members_have_no_error():
    passes = dataclasses.replace(random_passes(2, 3), n_members=3)
    found = stated(passes, quantities_of(PARAMETERS), LEVELS)
    assert found.error.max() == 0
    assert found.converged(1e-9).all()
