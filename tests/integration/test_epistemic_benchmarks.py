"""The measurements of the epistemic share and of fewer passes, at toy size and on numbers with known answers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from galbatch import models
from galbatch.models.heads.passes import GaussianPasses
from galbatch.models.networks.dropout import keyed_dropout

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RATE = 4e-4


@pytest.fixture(scope="module")
def epistemic():
    sys.path.insert(0, str(BENCHMARKS))
    import epistemic_share

    yield epistemic_share
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def fewer(epistemic):
    import fewer_passes

    return fewer_passes


@pytest.fixture(scope="module")
def bundle():
    return models.load_bundle(models.bundle_path("demo:gampen"))


@pytest.fixture(scope="module")
def galaxies(epistemic, bundle):
    return epistemic.draw_galaxies(bundle, 3)


@pytest.fixture(scope="module")
def features(fewer, bundle, galaxies):
    with torch.no_grad():
        return fewer.rebuilt(bundle).module.prefix(torch.from_numpy(galaxies.images))


def normal_passes(share, *, n_objects, n_passes, seed=0):
    """One parameter of variance 1, of which `share` is between the passes."""
    rng = np.random.default_rng(seed)
    mean = np.sqrt(share) * rng.standard_normal((n_objects, n_passes, 1))
    return GaussianPasses(mean, np.full((n_objects, n_passes, 1, 1), np.sqrt(1 - share)))


def test_the_share_is_unbiased_for_few_passes(epistemic):
    spread = epistemic.spread_of(normal_passes(0.1, n_objects=4000, n_passes=16), np.zeros((4000, 1)))
    # Exactly unbiased is the variance; the ratio's curvature takes 0.1 * 0.9 * 2 / 15 off, times 0.1.
    assert spread.share.mean() == pytest.approx(0.1, abs=0.003)
    assert spread.std.mean() == pytest.approx(1.0, abs=0.003)


def test_tails_are_told(epistemic):
    passes = normal_passes(0.1, n_objects=50, n_passes=200)
    jumping = passes.mean.copy()
    jumping[:, ::100] += 5.0  # 2 passes of 200
    spread = epistemic.spread_of(GaussianPasses(jumping, passes.factor), np.zeros((50, 1)))
    assert spread.far.mean() == pytest.approx(0.01)
    assert np.median(spread.kurtosis) > 50
    normal = epistemic.spread_of(passes, np.zeros((50, 1)))
    assert normal.far.mean() < 1e-3
    assert np.median(normal.kurtosis) == pytest.approx(3.0, abs=0.3)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_passes_needed_are_those_of_normal_means(epistemic, share):
    spread = epistemic.spread_of(normal_passes(share, n_objects=40, n_passes=2000), np.zeros((40, 1)))
    assert np.median(spread.needed) == pytest.approx(epistemic.normal_needed(share), rel=0.1)


def test_that_many_passes_have_that_error(epistemic):
    """The quantiles of as many normal passes as are said to be needed scatter by TOLERANCE."""
    n = round(epistemic.normal_needed(0.1))
    marginal = normal_passes(0.1, n_objects=3000, n_passes=n, seed=1).marginal(0)
    scatter = epistemic.mixture_quantiles(marginal, epistemic.LEVELS).std(axis=0)
    assert scatter.max() == pytest.approx(epistemic.TOLERANCE, rel=0.1)


def test_as_many_passes_are_as_good_as_the_draws(epistemic):
    """Scatter of the worst quantile, against 1000 draws' own: sqrt(q (1 - q) / 1000) over the density."""
    spread = epistemic.spread_of(normal_passes(0.3, n_objects=40, n_passes=2000), np.zeros((40, 1)))
    n = round(np.median(spread.equal))
    assert 60 < n < 200
    marginal = normal_passes(0.3, n_objects=3000, n_passes=n, seed=1).marginal(0)
    level = np.asarray(epistemic.LEVELS)
    scatter = epistemic.mixture_quantiles(marginal, level).std(axis=0)
    draws = (
        np.sqrt(level * (1 - level) / 1000) / np.exp(-0.5 * epistemic.ndtri(level) ** 2) * np.sqrt(2 * np.pi)
    )
    assert (scatter / draws).max() == pytest.approx(1.0, abs=0.1)


def test_the_rate_of_a_bundle_is_changed_and_put_back(epistemic, bundle, galaxies):
    low, high = (epistemic.outputs_at(bundle, galaxies.images, rate, n_passes=32) for rate in (5e-5, 1e-3))
    assert np.median(high.var(axis=1) / low.var(axis=1)) > 4
    assert bundle.script.dropout_rate == bundle.metadata.dropout_rate
    assert epistemic.outputs_at(bundle, galaxies.images, 0.0, n_passes=32).shape == (3, 1, 9)


def test_the_rebuilt_network_in_pieces_is_the_bundles(epistemic, fewer, bundle, features):
    network = fewer.rebuilt(bundle)
    keys = torch.arange(8) * 1_000_003
    rows = features[:1].expand(8, -1, -1, -1)
    own, bundle.script.dropout_rate = bundle.script.dropout_rate, RATE
    with torch.no_grad():
        expected = bundle.script.sample(rows, keys)
        bundle.script.dropout_rate = own
        found = network.until_stages(rows, [4, 12], keys, RATE)
        torch.testing.assert_close(found[len(network.stages)], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            network.from_stage(found[4], 4, keys, RATE), expected, rtol=1e-4, atol=1e-5
        )
    assert [stage.layer for stage in network.stages][-3:] == [39, 102, 105]


def test_first_order_is_exact_where_the_network_is_linear(fewer, bundle, features):
    """Behind the last dropout only a linear layer is left."""
    network, keys = fewer.rebuilt(bundle), torch.arange(400) * 1_000_003
    rate = 5e-3  # 1.3 zeros of 256
    plain, effects = fewer.sensitivities(network, features[:1])
    shifts = fewer.linear_shifts(network, [effect[0] for effect in effects], keys, rate)
    with torch.no_grad():
        last = network.until_stages(features[:1], [13], keys[:1], 0.0)[13]
        stage = network.stages[13]
        true = stage.apply(keyed_dropout(last.expand(400, -1), keys, stage.layer, rate)) - plain
    exact = torch.isclose(shifts[:, 13], true, rtol=1e-3, atol=1e-4).all(dim=1)
    assert exact.float().mean() > 0.98  # but for positions drawn twice, 1 pass in 300
    assert true.std() > 10 * (shifts[:, 13] - true)[exact].std()


def test_first_order_is_that_of_small_changes(fewer, bundle, features):
    network = fewer.rebuilt(bundle)
    plain, effects = fewer.sensitivities(network, features[:1])
    with torch.no_grad():
        maps = network.until_stages(features[:1], [9], torch.zeros(1, dtype=torch.int64), 0.0)[9]
        smaller = network.from_stage(0.999 * maps, 9, torch.zeros(1, dtype=torch.int64), 0.0)
    torch.testing.assert_close((plain - smaller) / 0.001, effects[9].sum(dim=1), rtol=0.02, atol=0.01)


def test_what_a_control_leaves(fewer):
    rng = np.random.default_rng(3)
    control = rng.standard_normal((4000, 2))
    other = rng.standard_normal((4000, 2))
    plain = np.sqrt([0.75, 0.0]) * control + np.sqrt([0.25, 1.0]) * other
    np.testing.assert_allclose(fewer.left_beside(plain, control), [0.25, 1.0], atol=0.03)


def test_what_early_masks_have_in_common(fewer):
    rng = np.random.default_rng(4)
    early, late, again = rng.standard_normal((3, 4000))
    found = fewer.early_share(
        np.sqrt(0.3) * early + np.sqrt(0.7) * late, np.sqrt(0.3) * early + np.sqrt(0.7) * again
    )
    assert found == pytest.approx(0.3, abs=0.04)


def test_one_zero_reaches_nine_pixels_behind_one_convolution(fewer, bundle, features):
    network = fewer.rebuilt(bundle)
    rate = 3e-5  # a zero in a pass, in 36,864 activations
    keys = torch.arange(500) * 1_000_003
    found = fewer.touched(network, features, keys, rate)
    n = 36_864 * rate
    assert found[0] == pytest.approx(n * 9 / 96**2, rel=0.15)
    assert (np.diff(found[:-2]) > 0).all()
    assert list(found[-2:]) == [1.0, 1.0]


def test_splitting_wins_where_the_late_part_is_cheap_and_matters(fewer):
    """Known optimum: parts n = sqrt(late variance x early cost / (early variance x late cost)) = 3 for one early part."""
    costs = fewer.Costs(np.array([0.9, 0.1]), 10.0, 1e-3)
    one = fewer.Found(
        np.ones((1, 1)), np.ones(1), {}, {1: np.full((1, 1), 0.5)}, np.ones((2, 1)), np.ones(1), np.ones(1)
    )
    n_late, (gain, low, high) = fewer.split_gain([one], costs, 1)
    assert n_late == 3
    assert gain == low == high == pytest.approx(1.0 / ((0.5 + 0.5 / 3) * (0.9 + 0.3)))


def test_all_of_it_at_toy_size(epistemic, fewer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(epistemic, "RESULTS", tmp_path)
    monkeypatch.setattr(fewer, "RESULTS", tmp_path)
    epistemic.main(["demo:gampen", "--galaxies", "4", "--passes", "4"])
    fewer.main(["demo:gampen", "--galaxies", "2", "--passes", "8", "--rates", "4e-4"])
    share = json.loads((tmp_path / "epistemic_share_of_demo_gampen.json").read_text())
    assert list(share["rates"]) == ["5e-05", "0.0002", "0.0004", "0.0007"]
    medians = [rate["rows"][0]["share_median"] for rate in share["rates"].values()]
    assert medians[0] < medians[-1]
    row = json.loads((tmp_path / "fewer_passes_of_demo_gampen.json").read_text())["rates"]["0.0004"]
    assert sum(row["cost_of_stages"]) == pytest.approx(1.0)
    assert len(row["control_gain"]["177"]) == 14
    assert "sparse recomputation" in capsys.readouterr().out
