"""Stopping: the stated error is the real one, and rare jumps do not fool it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from galbatch.config import PosteriorConfig
from galbatch.models import ParameterInfo
from galbatch.models.heads import GaussianPasses
from galbatch.models.inference import estimate_quantiles, schedule
from galbatch.models.posterior import PointPasses, quantities_of, summarize_mixture

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
        (64, 300, (64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 288, 300)),
        (2, 40, (2, 16, 32, 40)),
        (50, 50, (50,)),
    ],
)
def test_check_points_grow_by_an_eighth(least, most, expected):
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
    found = estimate_quantiles(passes, quantities, LEVELS)
    assert found.output.shape == found.error.shape == found.undetected_jumps.shape == (5, 3, 5)
    summaries = [summarize_mixture(passes, quantity, LEVELS) for quantity in quantities]
    of_each = np.stack([summary.mc_error for summary in summaries], axis=1)
    np.testing.assert_allclose(found.error.max(axis=2), of_each, rtol=1e-9)
    np.testing.assert_allclose(found.mc_error, of_each.max(axis=1), rtol=1e-9)
    for i, quantity in enumerate(quantities):
        np.testing.assert_allclose(quantity.value(found.output[:, i]), summaries[i].quantiles, rtol=1e-9)
    np.testing.assert_allclose(found.std[:, 0] ** 2, passes.covariance()[:, 0, 0], rtol=1e-12)


def test_a_magnitudes_numbers_are_its_fluxs_mirrored():
    levels = [0.1, 0.5, 0.6]
    found = estimate_quantiles(random_passes(), quantities_of(PARAMETERS), levels)
    both = estimate_quantiles(random_passes(), quantities_of(PARAMETERS)[1:2], [0.4, 0.5, 0.9])
    for name in ("output", "error", "undetected_jumps"):
        mirrored = getattr(both, name)[:, 0, ::-1]
        np.testing.assert_allclose(getattr(found, name)[:, 2], mirrored, rtol=1e-9)


def test_a_jump_not_yet_seen_is_allowed_for():
    """Equal passes state no error; one in n + 1 that lies 2 standard deviations aside moves a normal's quantiles."""
    quantities = quantities_of(PARAMETERS[:1])
    for n_passes in (64, 176, 192):
        found = estimate_quantiles(random_passes(1, n_passes, scatter=0.0), quantities, LEVELS)
        assert found.error.max() < 1e-12
        moved = 0.47725 / 0.053991 / (n_passes + 1)  # (Phi(0) - Phi(-2)) / phi(2)
        np.testing.assert_allclose(found.undetected_jumps[0, 0, [0, -1]], moved, rtol=1e-3)
        assert found.undetected_jumps[0, 0, 2] == pytest.approx(0.47725 / 0.398942 / (n_passes + 1), rel=1e-3)
        assert found.converged(0.05)[0] == (n_passes >= 176)


def test_draws_and_single_values_state_the_binomial_error_alone():
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(3, 400, 2))
    quantities = quantities_of(PARAMETERS)
    of_points = estimate_quantiles(PointPasses(draws), quantities, LEVELS)
    of_draws = estimate_quantiles(random_passes(3, 400), quantities, LEVELS, draws=draws)
    assert (of_points.undetected_jumps == 0).all()
    for name in ("output", "error", "undetected_jumps", "std"):
        np.testing.assert_array_equal(getattr(of_points, name), getattr(of_draws, name))
    expected = np.sqrt(0.25 / 400) / 0.398942
    np.testing.assert_allclose(of_points.error[:, :2, 2], expected, rtol=0.2)
    np.testing.assert_allclose(of_points.output[:, 0], np.quantile(draws[..., 0], LEVELS, axis=1).T)


def test_single_passes_of_members_have_no_error():
    passes = dataclasses.replace(random_passes(2, 3), n_members=3)
    found = estimate_quantiles(passes, quantities_of(PARAMETERS), LEVELS)
    assert found.error.max() == 0
    assert found.converged(1e-9).all()


SEEDS = 100
OBJECTS = 4  # of each seed
TAILS = np.array([0.00135, *LEVELS, 0.99865])


@dataclasses.dataclass(frozen=True)
class Family:
    """How passes scatter, in units of the posterior's standard deviation, about.

    Attributes
    ----------
    scatter : rng and shape -> the passes' means
    width : standard deviation of each pass
    """

    scatter: Callable
    width: float

    def passes(self, seed, n_objects, n_passes):
        mean = self.scatter(np.random.default_rng(seed), (n_objects, n_passes))
        return GaussianPasses(mean[..., None], np.full((*mean.shape, 1, 1), self.width))


def normal(share):
    return Family(lambda rng, shape: rng.normal(0, np.sqrt(share), shape), np.sqrt(1 - share))


def jumps(probability, size):
    """Of some passes, beside a normal scatter of 1 % of the variance."""
    small = normal(0.01)

    def scatter(rng, shape):
        return small.scatter(rng, shape) + size * (rng.random(shape) < probability)

    return Family(scatter, small.width)


def student(share):
    """Three degrees of freedom: variance 3."""
    return Family(lambda rng, shape: np.sqrt(share / 3) * rng.standard_t(3, shape), np.sqrt(1 - share))


@dataclasses.dataclass(frozen=True)
class Stops:
    """Objects that stopped: (object,) passes; (object, quantity, level) off and error in posterior deviations."""

    n_passes: np.ndarray
    off: np.ndarray
    error: np.ndarray

    @property
    def ratio(self):
        """(quantity, level) of the real error to the stated one."""
        real, expected = (np.sqrt(np.square(part).mean(axis=0)) for part in (self.off, self.error))
        return real / expected


def stop(family, tolerance, *, levels=LEVELS, naive=False, most=1000):
    """Run objects of 100 seeds until each has enough passes; `naive` from 16, by the stated error alone."""
    quantities = quantities_of(PARAMETERS[:1])
    many = estimate_quantiles(family.passes(10**6, 1, 100_000), quantities, levels)
    objects = [family.passes(seed, OBJECTS, most).mean for seed in range(SEEDS)]
    mean = np.concatenate(objects)
    width = np.full((*mean.shape, 1), family.width)
    output = np.full((len(mean), len(quantities), len(levels)), np.nan)
    error, n_passes = np.full_like(output, np.nan), np.zeros(len(mean), int)
    left = np.arange(len(mean))
    for n in schedule(PosteriorConfig(min_passes=16 if naive else 64, max_passes=most)):
        found = estimate_quantiles(GaussianPasses(mean[left, :n], width[left, :n]), quantities, levels)
        enough = found.mc_error <= tolerance if naive else found.converged(tolerance)
        enough |= n == most
        done = left[enough]
        output[done], error[done], n_passes[done] = found.output[enough], found.error[enough], n
        left = left[~enough]
        if not len(left):
            break
    return Stops(n_passes, (output - many.output) / many.std[..., None], error)


@pytest.mark.parametrize(
    ("family", "passes"),
    [(normal(0.01), 96), (normal(0.1), 100), (normal(0.5), 200)],
    ids=["1%", "10%", "50%"],
)
def test_the_stated_error_is_the_real_one(family, passes):
    """Over 100 seeds, for each quantile apart; and objects stop where they should."""
    found = stop(family, 0.1)
    assert (np.abs(found.ratio - 1) < 0.12).all()
    assert found.n_passes.mean() == pytest.approx(passes, rel=0.1)
    assert np.sqrt(np.square(found.off).mean(axis=0)).max() < 0.1


@pytest.mark.parametrize("size", [2.0, -2.0])
def test_rare_large_jumps_fool_naive_stopping(size):
    """3 % of the passes off by 2 sigma: stopping at 16 passes or more by the stated error alone is off by 3 times it."""
    ours, naive = (stop(jumps(0.03, size), 0.1, naive=naive) for naive in (False, True))
    assert (ours.ratio > 0.9).all()
    assert (ours.ratio < 1.45).all()  # 1.2 of more objects: some see a single jump, and state too little
    assert np.sqrt(np.square(ours.off).mean(axis=0)).max() < 0.12
    outer = 4 if size > 0 else 0
    assert naive.ratio[0, outer] > 2.5
    assert np.sqrt(np.square(naive.off).mean(axis=0))[0, outer] > 0.18
    assert np.median(naive.n_passes) == 16


def test_rarer_and_larger_jumps_are_understated_by_half():
    """1 % of the passes off by 3 sigma: beyond what the allowance is made for, and far from the naive rule's error."""
    ours, naive = (stop(jumps(0.01, 3.0), 0.1, naive=naive) for naive in (False, True))
    assert ours.ratio.max() < 1.8
    assert naive.ratio.max() > 3
    assert np.sqrt(np.square(ours.off).mean(axis=0)).max() < 0.13


@pytest.mark.parametrize("share", [0.01, 0.1])
def test_heavy_tails_of_the_passes(share):
    found = stop(student(share), 0.1)
    assert (np.abs(found.ratio - 1) < 0.15).all()
    assert np.sqrt(np.square(found.off).mean(axis=0)).max() < 0.1


@pytest.mark.parametrize(
    ("family", "within"),
    [(normal(0.1), 0.15), (normal(0.5), 0.15), (jumps(0.03, 2.0), 0.3)],
    ids=["10%", "50%", "jumps"],
)
def test_three_sigma_quantiles_hold(family, within):
    """0.135 and 99.865 % cost more passes; their stated error is real, too."""
    found = stop(family, 0.2, levels=TAILS)
    assert (np.abs(found.ratio - 1) < within).all()
    assert found.n_passes.min() >= 176  # 35.5 / n: what a jump not yet seen would do at 3 sigma
    assert np.sqrt(np.square(found.off).mean(axis=0)).max() < 0.25


def test_errors_hold_in_physical_units():
    """logit, ln and magnitudes: quantiles in their units are off by what is stated, times the slope."""
    family, quantities = normal(0.1), quantities_of(PARAMETERS)
    many = family.passes(10**6, 1, 100_000).mean
    both = np.repeat(many, 2, axis=2)
    wide = np.broadcast_to(family.width * np.eye(2), (*both.shape[:2], 2, 2))
    truth = [summarize_mixture(GaussianPasses(both, wide), q, LEVELS) for q in quantities]
    mean = np.concatenate([family.passes(seed, OBJECTS, 96).mean for seed in range(SEEDS)])
    passes = GaussianPasses(
        np.repeat(mean, 2, axis=2), np.broadcast_to(wide[:, :96], (*mean.shape[:2], 2, 2))
    )
    found = estimate_quantiles(passes, quantities, LEVELS)
    for i, quantity in enumerate(quantities):
        summary = summarize_mixture(passes, quantity, LEVELS)
        slope = np.exp(quantity.log_slope(found.output[:, i]))
        expected = found.error[:, i] * found.std[:, i, None] * slope
        off = summary.quantiles - truth[i].quantiles
        ratio = np.sqrt(np.square(off).mean(axis=0) / np.square(expected).mean(axis=0))
        np.testing.assert_allclose(ratio, 1.0, atol=0.12)
