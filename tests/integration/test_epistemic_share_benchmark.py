"""The measurement of the epistemic share, at toy size and on numbers with known answers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from galbatch import models
from galbatch.models.heads import GaussianPasses

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def epistemic():
    sys.path.insert(0, str(BENCHMARKS))
    import epistemic_share

    yield epistemic_share
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def bundle():
    return models.load_bundle(models.bundle_path("demo:gampen"))


@pytest.fixture(scope="module")
def galaxies(epistemic, bundle):
    return epistemic.draw_galaxies(bundle, 3)


def normal_passes(share, *, n_objects, n_passes, seed=0):
    """One parameter of variance 1, of which `share` is between the passes."""
    rng = np.random.default_rng(seed)
    mean = np.sqrt(share) * rng.standard_normal((n_objects, n_passes, 1))
    return GaussianPasses(mean, np.full((n_objects, n_passes, 1, 1), np.sqrt(1 - share)))


def test_the_share_is_unbiased_for_few_passes(epistemic):
    found = epistemic.statistics_of(normal_passes(0.1, n_objects=4000, n_passes=16), np.zeros((4000, 1)))
    # Exactly unbiased is the variance; the ratio's curvature takes 0.1 * 0.9 * 2 / 15 off, times 0.1.
    assert found.share.mean() == pytest.approx(0.1, abs=0.003)
    assert found.std.mean() == pytest.approx(1.0, abs=0.003)


def test_tails_are_measured(epistemic):
    passes = normal_passes(0.1, n_objects=50, n_passes=200)
    jumping = passes.mean.copy()
    jumping[:, ::100] += 5.0  # 2 passes of 200
    found = epistemic.statistics_of(GaussianPasses(jumping, passes.factor), np.zeros((50, 1)))
    assert found.far.mean() == pytest.approx(0.01)
    assert np.median(found.kurtosis) > 50
    normal = epistemic.statistics_of(passes, np.zeros((50, 1)))
    assert normal.far.mean() < 1e-3
    assert np.median(normal.kurtosis) == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_passes_needed_are_those_of_normal_means(epistemic, share):
    found = epistemic.statistics_of(normal_passes(share, n_objects=40, n_passes=2000), np.zeros((40, 1)))
    assert np.median(found.needed) == pytest.approx(epistemic.normal_needed(share), rel=0.1)


def test_that_many_passes_have_that_error(epistemic):
    """The quantiles of as many normal passes as are said to be needed scatter by TOLERANCE."""
    n = round(epistemic.normal_needed(0.1))
    marginal = normal_passes(0.1, n_objects=3000, n_passes=n, seed=1).marginal(0)
    scatter = marginal.quantiles(epistemic.LEVELS).std(axis=0)
    assert scatter.max() == pytest.approx(epistemic.TOLERANCE, rel=0.1)


def test_as_many_passes_are_as_good_as_the_draws(epistemic):
    """Scatter of the worst quantile, against 1000 draws' own: sqrt(q (1 - q) / 1000) over the density."""
    found = epistemic.statistics_of(normal_passes(0.3, n_objects=40, n_passes=2000), np.zeros((40, 1)))
    n = round(np.median(found.equal))
    assert 60 < n < 200
    marginal = normal_passes(0.3, n_objects=3000, n_passes=n, seed=1).marginal(0)
    level = np.asarray(epistemic.LEVELS)
    scatter = marginal.quantiles(level).std(axis=0)
    draws = (
        np.sqrt(level * (1 - level) / 1000) / np.exp(-0.5 * epistemic.ndtri(level) ** 2) * np.sqrt(2 * np.pi)
    )
    assert (scatter / draws).max() == pytest.approx(1.0, abs=0.1)


def test_the_rate_of_a_bundle_is_changed_and_put_back(epistemic, bundle, galaxies):
    low, high = (epistemic.outputs_at(bundle, galaxies.images, rate, n_passes=32) for rate in (5e-5, 1e-3))
    assert np.median(high.var(axis=1) / low.var(axis=1)) > 4
    assert bundle.script.dropout_rate == bundle.metadata.dropout_rate
    assert epistemic.outputs_at(bundle, galaxies.images, 0.0, n_passes=32).shape == (3, 1, 9)


def test_all_of_it_at_toy_size(epistemic, tmp_path, monkeypatch):
    monkeypatch.setattr(epistemic, "RESULTS", tmp_path)
    epistemic.main(["demo:gampen", "--galaxies", "4", "--passes", "4"])
    share = json.loads((tmp_path / "epistemic_share_of_demo_gampen.json").read_text())
    assert list(share["rates"]) == ["5e-05", "0.0002", "0.0004", "0.0007"]
    medians = [rate["rows"][0]["share_median"] for rate in share["rates"].values()]
    assert medians[0] < medians[-1]
