"""Intervals and shares, against loops and known distributions."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from galbatch.models import LEVELS, share_of
from galbatch.models.calibration import (
    closed_cover,
    equal_tailed_cover,
    randomized_transform,
    released_intervals,
)

NONE = np.zeros(4000, dtype=bool)


def walked_out(draws, level, n_points=1000):
    """The released definition, one object and one step at a time."""
    density = gaussian_kde(draws)
    x = np.linspace(draws.min(), draws.max(), n_points)
    below = np.array([density.integrate_box_1d(-np.inf, point) for point in x])
    below[0], below[-1] = 0.0, 1.0
    left = right = int(np.argmax(density(x)))
    closest, ends = np.inf, None
    while left > 0 or right < n_points - 1:
        left, right = max(left - 1, 0), min(right + 1, n_points - 1)
        miss = abs(below[right] - below[left] - level)
        if miss < closest:
            closest, ends = miss, (x[left], x[right])
    return ends


def shapes():
    """(object, draw): even, skewed, with point masses at both ends, heavy-tailed, two-peaked."""
    rng = np.random.default_rng(1)
    return np.stack(
        [
            rng.normal(3, 2, 1000),
            np.exp(rng.normal(0, 1, 1000)),
            np.clip(rng.normal(0.4, 0.5, 1000), 0, 1),
            rng.standard_t(2, 1000),
            np.where(rng.uniform(size=1000) < 0.3, rng.normal(-4, 0.5, 1000), rng.normal(2, 1, 1000)),
        ]
    )


def test_released_intervals_equal_a_walk_outwards():
    draws = shapes()
    found = released_intervals(draws)
    step = (draws.max(axis=1) - draws.min(axis=1)) / 999
    for i, level in enumerate(LEVELS):
        expected = np.array([walked_out(row, level) for row in draws])
        assert np.all(np.abs(found[:, i] - expected) <= 0.01 * step[:, None])


def test_released_intervals_are_neither_equal_tailed_nor_beyond_the_draws():
    draws = shapes()[1:2]
    low, high = released_intervals(draws)[0, 1]
    assert low == draws.min()  # the skewed one's mode is near its lower end
    assert high > np.quantile(draws, 0.95)
    assert released_intervals(draws)[0, 2, 1] <= draws.max()


def test_equal_draws_have_an_interval_of_one_point():
    draws = np.zeros((2, 100))
    draws[1] = np.linspace(0, 1, 100)
    np.testing.assert_array_equal(released_intervals(draws)[0], 0.0)
    assert released_intervals(draws)[1, 0, 1] > 0.5


def test_released_intervals_do_not_hang_on_the_objects_beside():
    draws = np.concatenate([shapes()] * 60)  # 300: more than are worked on at once
    np.testing.assert_array_equal(released_intervals(draws)[-5:], released_intervals(draws[-5:]))


def test_a_share_has_a_binomial_error_even_where_all_hit():
    half = share_of(np.arange(400) % 2 == 0)
    assert (half.value, half.n) == (0.5, 400)
    assert half.error == pytest.approx(0.025, rel=1e-3)
    assert 0 < share_of(np.ones(400, bool)).error < 0.002
    assert np.isnan(share_of(np.ones(0, bool)).value)


def test_hits_averaged_over_parameters_carry_their_correlation():
    rng = np.random.default_rng(2)
    hit = rng.uniform(size=20_000) < 0.7
    same = share_of(np.stack([hit] * 3, axis=1).mean(axis=1))
    apart = share_of((rng.uniform(size=(20_000, 3)) < 0.7).mean(axis=1))
    assert same.error == pytest.approx(share_of(hit).error, rel=0.01)
    assert apart.error == pytest.approx(share_of(hit).error / np.sqrt(3), rel=0.03)


def test_transforms_are_drawn_within_point_masses():
    rng = np.random.default_rng(3)
    cdf = np.full(4000, 0.4)
    all_low, all_high = (randomized_transform(cdf, *at, rng) for at in ((~NONE, NONE), (NONE, ~NONE)))
    assert all_low.max() <= 0.4
    assert all_low.mean() == pytest.approx(0.2, abs=0.01)
    assert all_high.min() >= 0.4
    assert all_high.mean() == pytest.approx(0.7, abs=0.02)
    np.testing.assert_array_equal(randomized_transform(cdf, NONE, NONE, rng), cdf)


def test_equal_tailed_intervals_of_uniform_transforms_cover_what_they_say():
    transform = (np.arange(100_000) + 0.5) / 100_000
    for level in LEVELS:
        assert equal_tailed_cover(transform, level).mean() == pytest.approx(level, abs=2e-5)


def test_closed_intervals_reach_a_truth_at_the_limit():
    cdf = np.array([0.9, 0.9, 0.05, 0.05])
    low, high = np.array([True, False, False, True]), np.array([False, False, True, False])
    np.testing.assert_array_equal(closed_cover(cdf, low, high, 0.6827), [True, False, True, False])
