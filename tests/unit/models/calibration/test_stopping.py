"""Stopping calibrations: the error stated when objects stop is the real one, whatever the scatter of their passes."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

from galbatch.config import PosteriorConfig
from galbatch.errors import UsageError
from galbatch.models import ParameterInfo
from galbatch.models.calibration import fit_stopping
from galbatch.models.calibration.stopping import CHECKPOINTS, LEVELS, STARTS, cdf_errors
from galbatch.models.inference import Audit, VarianceTable, schedule
from galbatch.models.metadata import BundleMetadata, HeadInfo, InputInfo, StoppingInfo
from galbatch.models.posterior import quantities_of

METADATA = BundleMetadata(
    name="made up",
    version="1",
    architecture="none",
    input=InputInfo(("r",), 8, 0.2, "nJy", 31.4),
    head=HeadInfo("gaussian"),
    parameters=(ParameterInfo("size", "", "", "identity"),),
    dropout_rate=0.1,
)
QUANTITIES = quantities_of(METADATA.parameters)
DEFAULT = LEVELS[1:-1]
N_PASSES = 1000


@dataclasses.dataclass(frozen=True)
class Kind:
    """Objects whose passes are normal distributions of one width about means that scatter.

    Attributes
    ----------
    means : rng and shape -> means of passes
    points, weights : the distribution of the means as points with weights, for the true quantiles
    width : standard deviation of each pass
    """

    means: Callable
    points: np.ndarray
    weights: np.ndarray
    width: float

    def z(self, rng, n_objects):
        """Errors of the passes' CDFs at the true quantiles, (object, parameter, level, member, pass)."""
        quantiles = [
            brentq(lambda x, p=p: self.weights @ ndtr((x - self.points) / self.width) - p, -30, 30)
            for p in LEVELS
        ]
        at = np.array(quantiles)[:, None]
        mean = self.weights @ self.points
        std = np.sqrt(self.width**2 + self.weights @ (self.points - mean) ** 2)
        density = stats.norm.pdf((at - self.points) / self.width) @ self.weights / self.width * std
        means = self.means(rng, (n_objects, 1, N_PASSES))
        return ((ndtr((at - means) / self.width) - np.array(LEVELS)[:, None]) / density[:, None])[
            :, None, :, None, :
        ]


MIDDLES = (np.arange(2000) + 0.5) / 2000


def normal(share):
    points = np.sqrt(share) * stats.norm.ppf(MIDDLES)
    return Kind(
        lambda rng, shape: np.sqrt(share) * rng.normal(size=shape),
        points,
        np.full(2000, 1 / 2000),
        np.sqrt(1 - share),
    )


def student(freedom, share=0.05):
    scale = np.sqrt(share * (freedom - 2) / freedom)
    points = scale * stats.t.ppf(MIDDLES, freedom)
    return Kind(
        lambda rng, shape: scale * rng.standard_t(freedom, shape),
        points,
        np.full(2000, 1 / 2000),
        np.sqrt(1 - share),
    )


def jumps(probability, size):
    """Some passes are displaced, beside a normal scatter of 1 % of the variance."""
    small = normal(0.01)
    return Kind(
        lambda rng, shape: small.means(rng, shape) + size * (rng.random(shape) < probability),
        np.concatenate([small.points, small.points + size]),
        np.concatenate([(1 - probability) * small.weights, probability * small.weights]),
        small.width,
    )


# Kinds of objects, of which a population has equally many.
POPULATIONS = {
    "normal, 1 %": [normal(0.01)],
    "normal, 5 %": [normal(0.05)],
    "normal, 20 %": [normal(0.2)],
    "normal, 50 %": [normal(0.5)],
    "t of 7 degrees": [student(7)],
    "t of 3 degrees": [student(3)],
    "3 % off by 2 sigma": [jumps(0.03, 2.0)],
    "1 % off by 3 sigma": [jumps(0.01, 3.0)],
    "3 % off by 2 sigma, a tenth": [jumps(0.03, 2.0)] + [normal(0.01)] * 9,
    "1 % off by 3 sigma, a tenth": [jumps(0.01, 3.0)] + [normal(0.01)] * 9,
}


def draw(name, rng, n_objects):
    population = POPULATIONS[name]
    which = rng.permutation(np.arange(n_objects) % len(population))
    found = np.empty((n_objects, 1, len(LEVELS), 1, N_PASSES))
    for kind in range(min(len(population), 2)):
        # All kinds but the first are alike.
        rows = (which == 0) == (kind == 0)
        found[rows] = population[kind].z(rng, int(rows.sum()))
    return found


@dataclasses.dataclass(frozen=True)
class Stopped:
    """Sums over the objects that stopped: squares of the real and of the stated errors, objects, passes."""

    real: float = 0.0
    stated: float = 0.0
    n: int = 0
    n_passes: int = 0

    def __add__(self, other):
        return Stopped(
            *(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True))
        )

    @property
    def ratio(self):
        return np.sqrt(self.real / self.stated)


def stop(info, z, tolerance=0.05, levels=DEFAULT):
    """Let objects stop by the calibration; their quantiles are off by the mean of `z` so far."""
    table = VarianceTable(info, QUANTITIES, levels)
    z = z[:, :, [LEVELS.index(level) for level in levels], 0]
    found, left = Stopped(), z
    for n in schedule(PosteriorConfig(), start=info.start)[:-1]:
        squared = table.expected(left[..., :n].var(axis=-1, ddof=1), n) / n
        stops = (squared <= tolerance**2).all(axis=(1, 2))
        off = left[stops][..., :n].mean(axis=-1)
        found += Stopped(np.square(off).sum(), squared[stops].sum(), int(stops.sum()), n * int(stops.sum()))
        left = left[~stops]
    return found


def over_seeds(name, calibrations, *, objects_a_calibration=100, **options):
    """Stop objects by several calibrations, each of 128 other objects of the population."""
    total = Stopped()
    for seed in range(calibrations):
        rng = np.random.default_rng(seed)
        info = fit_stopping(draw(name, rng, 128), METADATA)
        total += stop(info, draw(name, rng, objects_a_calibration), **options)
    return total


ALIKE = [name for name in POPULATIONS if "tenth" not in name]
# With jumps in all objects 1000 passes reach 0.05 hardly or not at all, which is the right answer.
TOLERANCES = {"3 % off by 2 sigma": 0.1, "1 % off by 3 sigma": 0.1}


@pytest.mark.parametrize("name", ALIKE)
def test_the_stated_error_is_the_real_one(name):
    """100 objects each of 3 calibrations; the long test has 100."""
    found = over_seeds(name, 3, tolerance=TOLERANCES.get(name, 0.05))
    assert found.n > 280
    assert 0.85 < found.ratio < 1.15


def test_no_object_stops_where_none_converges():
    assert over_seeds("1 % off by 3 sigma", 2).n == 0


@pytest.mark.parametrize("name", [name for name in POPULATIONS if "tenth" in name])
def test_a_few_objects_with_jumps_among_quiet_ones(name):
    found = over_seeds(name, 4)
    assert found.n > 300
    assert found.ratio < 1.25


@pytest.mark.parametrize("name", ["normal, 1 %", "normal, 5 %", "normal, 20 %", "t of 7 degrees"])
def test_three_sigma_quantiles_hold(name):
    found = over_seeds(name, 3, levels=LEVELS)
    assert found.n > 250
    assert 0.85 < found.ratio < 1.15


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", POPULATIONS)
def test_the_stated_error_is_the_real_one_over_100_calibrations(name):
    found = over_seeds(name, 100, objects_a_calibration=50, tolerance=TOLERANCES.get(name, 0.05))
    assert 0.85 < found.ratio < (1.25 if "tenth" in name else 1.15)


def test_quiet_networks_stop_early_and_those_that_scatter_late():
    n_passes = {name: over_seeds(name, 1) for name in ("normal, 1 %", "normal, 5 %", "normal, 50 %")}
    means = {name: found.n_passes / found.n for name, found in n_passes.items()}
    assert means["normal, 1 %"] == means["normal, 5 %"] == 32
    # The variance of a pass is known for normal scatter: at 2 sigma it is the largest.
    z = normal(0.5).z(np.random.default_rng(5), 200)
    needed = z[:, :, 1].var() / 0.05**2
    assert means["normal, 50 %"] == pytest.approx(needed, rel=0.15)


def test_the_start_is_late_where_few_objects_have_jumps():
    rng = np.random.default_rng(2)
    quiet = fit_stopping(draw("normal, 5 %", rng, 128), METADATA)
    jumpy = fit_stopping(draw("3 % off by 2 sigma, a tenth", rng, 128), METADATA)
    assert quiet.start == 32
    assert jumpy.start > 32
    assert {quiet.start, jumpy.start} <= set(STARTS)
    assert quiet.actual_over_stated == pytest.approx(1.0, abs=0.1)


def test_a_wrong_calibration_is_caught_by_the_audit():
    """Of an easy population, for one with jumps: objects stop at once, and the audit finds what they state too small."""
    rng = np.random.default_rng(3)
    easy = fit_stopping(draw("normal, 1 %", rng, 128), METADATA)
    own = fit_stopping(draw("3 % off by 2 sigma", rng, 128), METADATA)
    z = draw("3 % off by 2 sigma", rng, 300)
    for info, is_doubted in ((easy, True), (own, False)):
        found = stop(info, z, tolerance=0.1)
        audit = Audit((0.5,), found.n, 0, found.n, (found.stated,), (found.real,))
        assert bool(audit.doubt) == is_doubted
        assert found.n > 100
    assert stop(easy, z, tolerance=0.1).ratio > 1.5


def test_errors_of_cdfs_are_those_of_a_normal_distribution():
    """Means 0 and d of two equal halves of the passes: F differs by what the normal distribution says."""
    d, n = 0.4, 1000
    outputs = np.zeros((3, n, 2), np.float32)
    outputs[:, ::2, 0] = d
    z = cdf_errors(outputs, METADATA)
    assert z.shape == (3, 1, len(LEVELS), 1, n)
    np.testing.assert_allclose(z.mean(axis=-1), 0, atol=1e-9)
    median = LEVELS.index(0.5)
    sigma = np.sqrt(1 + d**2 / 4)
    expected = (ndtr(d / 2) - 0.5) / (stats.norm.pdf(d / 2) * sigma)
    np.testing.assert_allclose(z[:, 0, median, 0, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(z[:, 0, median, 0, 0], -expected, rtol=1e-6)


def test_two_members_halve_the_variance():
    rng = np.random.default_rng(4)
    one, two = draw("normal, 20 %", rng, 64), draw("normal, 20 %", rng, 64)
    single = fit_stopping(one, METADATA)
    both = fit_stopping(np.concatenate([one, two], axis=3), METADATA)
    for level in range(len(LEVELS)):
        assert both.expected[0][level][2][-1] == pytest.approx(single.expected[0][level][2][-1] / 2, rel=0.1)


def test_too_few_objects_are_refused():
    with pytest.raises(UsageError, match="20 held-out objects with finite outputs, expected 48 or more"):
        fit_stopping(np.zeros((20, 1, len(LEVELS), 1, N_PASSES)), METADATA)


def test_few_passes_have_fewer_checkpoints():
    info = fit_stopping(normal(0.05).z(np.random.default_rng(1), 48)[..., :200], METADATA)
    assert info.checkpoints == tuple(n for n in CHECKPOINTS if n <= 100)
    assert info.problems(1) == []


def info_of(upper, expected, *, levels=(0.5,), checkpoints=(32,)):
    return StoppingInfo(32, levels, checkpoints, upper, expected, 128, 1000)


def test_a_table_is_read_bin_by_bin_and_beyond_the_last_the_object_speaks():
    table = VarianceTable(info_of(((((1.0, 2.0),),),), ((((5.0, 6.0),),),)), QUANTITIES, (0.5,))
    shown = np.array([0.0, 1.0, 1.5, 2.0, 4.0, 7.0])[:, None, None]
    np.testing.assert_allclose(table.expected(shown, 32).ravel(), [5, 5, 6, 6, 6, 7])


def test_tables_are_interpolated_between_checkpoints_and_levels():
    low, high = (((1.0,), (3.0,)), ((10.0,), (30.0,)))  # at each level the two checkpoints
    edges = ((((99.0,), (99.0,)), ((99.0,), (99.0,))),)
    info = info_of(edges, ((low, high),), levels=(0.5, 0.84135), checkpoints=(32, 128))
    table = VarianceTable(info, QUANTITIES, (0.5, stats.norm.cdf(0.5), 0.84135))
    shown = np.zeros((1, 1, 3))
    np.testing.assert_allclose(table.expected(shown, 32)[0, 0], [1.0, 5.5, 10.0], rtol=1e-4)
    np.testing.assert_allclose(table.expected(shown, 64)[0, 0], [2.0, 11.0, 20.0], rtol=1e-4)
    np.testing.assert_allclose(table.expected(shown, 500)[0, 0], [3.0, 16.5, 30.0], rtol=1e-4)
    np.testing.assert_allclose(table.expected(shown, 8)[0, 0], [1.0, 5.5, 10.0], rtol=1e-4)
