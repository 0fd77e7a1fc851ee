"""Calibration of posteriors whose true coverage is known."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import expit, ndtr

from galbatch.errors import BundleError, UsageError
from galbatch.models import (
    LEVELS,
    CalibrationSettings,
    Comparison,
    HeadInfo,
    HeldOut,
    ParameterInfo,
    PassSettings,
    calibrate,
    load_bundle,
    save_bundle,
)
from galbatch.models.bundle import made_up_images
from galbatch.models.calibration import (
    cdf_at,
    choose,
    inflation_factors,
    limits_reached,
    reported,
    transforms,
    with_dropout_rate,
)
from galbatch.models.heads import BinnedMarginal, BinnedPasses, GaussianPasses, MixturePasses
from galbatch.models.posterior import PointPasses

from ..conftest import with_fixed_draws

PLAIN = (ParameterInfo("a", "", "", "identity"), ParameterInfo("b", "", "", "identity"))
BULGE = ParameterInfo("bt", "", "", "logit", limits=(0.05, 0.95))


def gaussians(truth, mean, std, n_passes=1):
    """Passes that all say N(mean, std), for truths (object, parameter)."""
    shape = (len(truth), n_passes, truth.shape[1])
    factor = np.zeros((*shape, truth.shape[1]))
    factor[..., range(truth.shape[1]), range(truth.shape[1])] = std
    return GaussianPasses(np.broadcast_to(mean[:, None], shape).copy(), factor)


def miss(passes, truth, parameters):
    """(level, parameter) coverage - level."""
    transform = transforms(cdf_at(passes, truth, parameters), *limits_reached(truth, parameters), seed=9)
    return np.stack([(np.abs(transform - 0.5) <= level / 2).mean(axis=0) - level for level in LEVELS])


def test_the_factor_undoes_a_wrong_width():
    rng = np.random.default_rng(3)
    mean = rng.normal(size=(6000, 2))
    truth = mean + rng.normal(size=mean.shape)
    passes = gaussians(truth, mean, [1.5, 0.5])
    factors = inflation_factors(passes, truth, PLAIN)
    np.testing.assert_allclose(factors, [1 / 1.5, 2.0], rtol=0.035)
    assert np.abs(miss(passes.inflated(factors), truth, PLAIN)).max() < 0.015


def test_passes_that_disagree_are_drawn_together_too():
    """Means that scatter by 1 about the object's, each with a width of 1, for truths that scatter by 1 in all."""
    rng = np.random.default_rng(4)
    center = rng.normal(size=(3000, 1))
    truth = center + rng.normal(size=center.shape)
    scatter = rng.normal(size=(3000, 40, 1))
    scatter -= scatter.mean(axis=1, keepdims=True)
    passes = GaussianPasses(center[:, None] + scatter, np.ones((3000, 40, 1, 1)))
    (factor,) = inflation_factors(passes, truth, PLAIN[:1])
    assert factor == pytest.approx(1 / np.sqrt(2), rel=0.05)


def test_heavy_tails_are_weighed_at_all_levels():
    """No factor serves all three levels: the one found has a smaller largest miss than those that serve one."""
    rng = np.random.default_rng(5)
    truth = rng.standard_t(2.5, size=(10_000, 1))
    passes = gaussians(truth, np.zeros_like(truth), 1.0)
    (found,) = inflation_factors(passes, truth, PLAIN[:1])
    largest = [np.abs(miss(passes.inflated([f]), truth, PLAIN[:1])).max() for f in (found, 1.29, 2.0, 1.0)]
    assert largest[0] == min(largest)
    serving_the_center = np.quantile(
        np.abs(truth), LEVELS[0]
    )  # in standard deviations: 1 covers 68.27 % of a Gaussian
    assert found > 1.03 * serving_the_center
    widened = miss(passes.inflated([found]), truth, PLAIN[:1])[:, 0]
    assert widened[0] == pytest.approx(
        -widened[1:].min(), abs=0.003
    )  # too many at the center, too few in the tails


def bulges(n=6000, width=1.0, seed=6):
    """Truths of B/T whose logits are N(mean, 1), those beyond the limits 0 or 1; passes of another width."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, 2.5, size=(n, 1))
    truth = expit(mean + rng.normal(size=mean.shape))
    truth[truth < 0.05], truth[truth > 0.95] = 0.0, 1.0
    return gaussians(truth, mean, width), truth


def test_point_masses_of_bulge_shares_do_not_pull_the_factor():
    passes, truth = bulges()
    assert 0.2 < ((truth == 0) | (truth == 1)).mean() < 0.4
    (factor,) = inflation_factors(passes, truth, (BULGE,))
    assert factor == pytest.approx(1.0, abs=0.05)
    passes, truth = bulges(width=2.0)
    (factor,) = inflation_factors(passes, truth, (BULGE,))
    assert factor == pytest.approx(0.5, abs=0.04)
    assert np.abs(miss(passes.inflated([factor]), truth, (BULGE,))).max() < 0.015


def test_point_passes_are_inflated_too():
    rng = np.random.default_rng(7)
    truth = rng.normal(size=(3000, 1))
    passes = PointPasses(0.5 * rng.normal(size=(3000, 200, 1)))
    (factor,) = inflation_factors(passes, truth, PLAIN[:1])
    assert factor == pytest.approx(2.0, rel=0.08)


def test_mixtures_and_bins_are_inflated_too():
    """Posteriors of N(mean, 2), as two equal components and as bins 0.25 wide, for truths of N(mean, 1)."""
    rng = np.random.default_rng(10)
    mean = rng.normal(size=(1200, 1))
    truth = mean + rng.normal(size=mean.shape)
    center = np.broadcast_to(mean[:, None, None], (1200, 1, 2, 1))
    mixture = MixturePasses(np.full((1200, 1, 2), 0.5), center, np.full_like(center, 2.0))
    offset = np.linspace(-10, 10, 81)
    share = np.diff(ndtr(offset / 2)) / np.diff(ndtr(offset / 2)).sum()
    binned = BinnedPasses((BinnedMarginal(mean + offset, np.broadcast_to(share, (1200, 1, 80))),))
    factors = [inflation_factors(passes, truth, PLAIN[:1])[0] for passes in (mixture, binned)]
    np.testing.assert_allclose(factors, 0.5, rtol=0.09)
    assert factors[0] == pytest.approx(factors[1], rel=0.01)


class Oracle(torch.nn.Module):
    """Says N(pixel 0 + rate x scatter, width) of one parameter: more dropout, more scatter between passes."""

    def __init__(self, width: float, rate: float):
        super().__init__()
        self.log_d = 2.0 * float(np.log(width))
        self.dropout_rate = rate

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, 0, :1]

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        word = (keys * 0x5851F42D4C957F2D) ^ ((keys >> 29) & 0x7FFFFFFFF)
        uniform = ((word * 0x2545F4914F6CDD1D >> 11) & 0xFFFFFFFFFFFF).double() / 281474976710656.0
        normal = torch.special.ndtri(uniform.clamp(1e-9, 1.0 - 1e-9)).float()
        mean = features + self.dropout_rate * normal[:, None]
        return torch.cat([mean, torch.full_like(mean, self.log_d)], dim=1)


UNIT_NJY = 10 ** (0.4 * (31.4 - 27.0))


@pytest.fixture(scope="module")
def oracles(gampen_bundle, tmp_path_factory):
    """width, rate -> a saved and loaded bundle of one parameter, in magnitudes."""
    folder = tmp_path_factory.mktemp("oracles")
    parameter = ParameterInfo("mag_r", "mag", "", "identity")

    def make(width=1.0, rate=0.1, **changes):
        path = str(folder / f"{width}-{rate}.pt")
        metadata = dataclasses.replace(
            gampen_bundle.metadata, parameters=(parameter,), dropout_rate=rate, **changes
        )
        save_bundle(path, torch.jit.script(Oracle(width, rate).eval()), metadata)
        return with_fixed_draws(load_bundle(path))

    return make


@pytest.fixture(scope="module")
def held_out():
    """Truths N(pixel 0, 1)."""
    rng = np.random.default_rng(8)
    mean = rng.normal(20, 1, 1600)
    images = np.zeros((1600, 1, 4, 4), np.float32)
    images[:, 0, 0, 0] = mean * UNIT_NJY
    return HeldOut(images, (mean + rng.normal(size=1600))[:, None])


SETTINGS = CalibrationSettings(passes=PassSettings(16), data="a test")


def shares(table, row=0):
    (found,) = [r for i, r in enumerate(table.rows) if i == row]
    return [found[i] for i, head in enumerate(table.columns) if head.startswith(("68", "95", "99"))]


def test_a_calibration_mends_the_test_part_and_shows_both(oracles, held_out):
    found = calibrate([oracles(width=2.0)], held_out, SETTINGS)
    info = found.metadata.calibration
    assert info.inflation_factors[0] == pytest.approx(0.5, rel=0.08)
    assert info.apply
    assert info.data == "a test"
    assert info.n_objects == found.choice.n_objects == len(held_out) - len(found.after)
    assert len(found.before) == len(found.after) == pytest.approx(800, abs=60)
    assert found.before.coverage("mag_r").value > 0.9
    assert found.after.coverage("mag_r").value == pytest.approx(0.6827, abs=0.05)
    corrected, released, raw, raw_released = info.results[:4]
    assert "; " in corrected.caption
    assert corrected.caption.startswith("Coverage of equal-tailed")
    assert shares(corrected)[0] == pytest.approx(100 * found.after.coverage("mag_r").value, abs=0.01)
    assert shares(raw)[0] == pytest.approx(100 * found.before.coverage("mag_r").value, abs=0.01)
    assert shares(released)[0] == pytest.approx(68.27, abs=6)
    assert shares(raw_released)[0] > 90
    (by_magnitude,) = [t for t in info.results if "equal-tailed intervals by true magnitude" in t.caption]
    assert by_magnitude.columns[-3:] == tuple(f"uncorrected {100 * level:.2f} %" for level in LEVELS)
    (pit,) = [t for t in info.results if "integral transform" in t.caption]
    assert sum(row[1] for row in pit.rows) == sum(row[2] for row in pit.rows) == len(found.after)
    assert pit.rows[0][1] < 0.3 * pit.rows[0][2]  # uncorrected ones leave the outer tenths empty


def test_the_test_part_chooses_nothing(oracles, held_out):
    """Other truths in the test part change what is reported, and no number that was chosen."""
    settings = dataclasses.replace(SETTINGS, dropout_rates=(0.1, 1.5))
    bundles = [oracles(width=0.7)]
    first = calibrate(bundles, held_out, settings)
    chosen_ids = set(held_out.split(seed=settings.seed, share=settings.share)[0].ids)
    test_rows = np.array([i for i in range(len(held_out)) if i not in chosen_ids])
    labels = held_out.labels.copy()
    labels[test_rows] = np.random.default_rng(1).permutation(labels[test_rows])
    second = calibrate(bundles, dataclasses.replace(held_out, labels=labels), settings)
    assert second.choice.factors == first.choice.factors
    assert second.choice.chosen == first.choice.chosen
    assert [c.miss for c in second.choice.candidates] == [c.miss for c in first.choice.candidates]
    assert second.after.coverage("mag_r").value < first.after.coverage("mag_r").value - 0.1


def test_the_parts_hang_on_ids_and_seed(oracles, held_out):
    settings = dataclasses.replace(SETTINGS, seed=2)
    a, b = (held_out.split(seed=s.seed, share=s.share)[0] for s in (SETTINGS, settings))
    assert 0.3 < len(set(a.ids) & set(b.ids)) / len(a) < 0.7


def test_the_rate_whose_coverage_is_closest_is_chosen(oracles, held_out):
    """A width of 0.6 within a pass and a scatter of 0.8 between passes add up to the truth's 1."""
    settings = dataclasses.replace(SETTINGS, dropout_rates=(0.1, 0.8, 3.0))
    choice = choose([oracles(width=0.6)], held_out, settings)
    assert [candidate.rate for candidate in choice.candidates] == [0.1, 0.8, 3.0]
    assert choice.bundle.metadata.dropout_rate == 0.8
    narrow, right, wide = (candidate.coverage[0].value for candidate in choice.candidates)
    assert narrow < 0.55 < right < 0.75 < 0.9 < wide
    assert choice.factors[0] == pytest.approx(
        1.04, abs=0.07
    )  # 16 passes scatter a little less than all would


def test_networks_trained_at_several_rates_are_candidates_too(oracles, held_out):
    choice = choose([oracles(width=0.3), oracles(width=1.0), oracles(width=4.0)], held_out, SETTINGS)
    assert choice.chosen == 1
    table = reported(choice, held_out.take(np.arange(200)), SETTINGS).metadata.calibration.results[-1]
    assert [row[2] for row in table.rows] == ["", "chosen", ""]
    assert table.rows[0][-1] > table.rows[1][-1] < table.rows[2][-1]


def test_a_calibrated_bundle_is_written_and_read(oracles, held_out, tmp_path):
    settings = dataclasses.replace(SETTINGS, dropout_rates=(0.8,))
    found = calibrate([oracles(width=1.2)], held_out, settings)
    path = str(tmp_path / "calibrated.pt")
    save_bundle(path, found.choice.bundle.script, found.metadata)
    loaded = load_bundle(path)
    assert loaded.metadata == found.metadata
    assert loaded.metadata.dropout_rate == loaded.script.dropout_rate == 0.8
    assert oracles(width=1.2).script.dropout_rate == 0.1  # the original is left as it was


@pytest.mark.parametrize(("asked", "applied"), [(None, False), (True, True), (False, False)])
def test_converted_networks_are_inflated_only_if_asked_for(oracles, held_out, asked, applied):
    bundle = oracles(width=2.0)
    converted = dataclasses.replace(
        bundle, metadata=dataclasses.replace(bundle.metadata, origin={"file": "x.pt"})
    )
    settings = dataclasses.replace(SETTINGS, apply=asked)
    info = calibrate([converted], held_out, settings).metadata.calibration
    assert info.apply is applied
    assert info.inflation_factors[0] == pytest.approx(0.5, rel=0.08)
    assert (shares(info.results[0])[0] < 80) is applied  # first what runs give


def test_the_rate_of_a_real_network_is_set(gampen_bundle):
    other = with_dropout_rate(gampen_bundle, 0.2)
    assert gampen_bundle.script.dropout_rate == 0.02
    features = gampen_bundle.prefix(made_up_images(gampen_bundle.metadata)[:1]).repeat(8, 1, 1, 1)
    keys = torch.arange(8)
    at_rate = [b.sample(features, keys) for b in (gampen_bundle, other)]
    assert not torch.equal(*at_rate)
    assert at_rate[1].std(0)[0] > 1.5 * at_rate[0].std(0)[0]
    assert with_dropout_rate(gampen_bundle, 0.02) is gampen_bundle


def test_a_script_without_a_rate_keeps_its_own(oracles):
    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    bundle = dataclasses.replace(oracles(), script=torch.jit.script(Fixed()))
    with pytest.raises(BundleError, match=r"no attribute dropout_rate.*0\.1; train a network for each rate"):
        with_dropout_rate(bundle, 0.5)


def test_what_has_no_posterior_is_refused(oracles, held_out):
    bundle = oracles()
    metadata = dataclasses.replace(bundle.metadata, head=HeadInfo("point"), dropout_rate=0.0)
    with pytest.raises(BundleError, match="nothing to calibrate"):
        calibrate([dataclasses.replace(bundle, metadata=metadata)], held_out, SETTINGS)


def test_a_point_head_is_not_tried_without_dropout(oracles, held_out):
    bundle = oracles()
    point = dataclasses.replace(bundle, metadata=dataclasses.replace(bundle.metadata, head=HeadInfo("point")))
    with pytest.raises(BundleError, match="nothing to calibrate"):
        calibrate([point], held_out, dataclasses.replace(SETTINGS, dropout_rates=(0.1, 0.0)))


def test_labels_without_a_transform_are_refused(oracles, held_out):
    """A flux below 0 is no miss of the posterior's."""
    bundle = oracles()
    flux = ParameterInfo("flux_njy", "nJy", "", "ln", magnitude="mag")
    metadata = dataclasses.replace(bundle.metadata, parameters=(flux,))
    labels = np.abs(held_out.labels)
    labels[[3, 8], 0] = -2.0, np.nan
    with pytest.raises(UsageError, match=f"2 of {len(labels)} labels of flux_njy have no ln"):
        calibrate(
            [dataclasses.replace(bundle, metadata=metadata)],
            dataclasses.replace(held_out, labels=labels),
            SETTINGS,
        )


def test_a_network_that_fails_on_most_objects_is_told(oracles, held_out):
    bundle = oracles()

    class Failing(torch.nn.Module):
        dropout_rate = 0.1

        def prefix(self, images):
            return bundle.script.prefix(images) * 1e38 * 10.0

        def sample(self, features, keys):
            return bundle.script.sample(features, keys)

    with pytest.raises(BundleError, match=r"at dropout rate 0\.1: gives finite numbers for 0 of"):
        calibrate([dataclasses.replace(bundle, script=Failing())], held_out, SETTINGS)


def test_rivals_of_the_same_name_and_with_other_transforms_are_shown(oracles, held_out):
    """The rival scatters by nothing more, so its ratio is 1 in magnitudes; it has no relative residuals."""
    bundle, other = oracles(width=1.0), oracles(width=2.0)
    plain = ParameterInfo("mag_r", "mag", "", "identity")
    logarithm = dataclasses.replace(plain, transform="log10")
    first, second = (
        dataclasses.replace(of, metadata=dataclasses.replace(of.metadata, parameters=(p,)))
        for of, p in ((bundle, plain), (other, logarithm))
    )
    scaled = dataclasses.replace(held_out, labels=np.abs(held_out.labels))
    choice = choose([first], scaled, SETTINGS)
    found = reported(choice, scaled, SETTINGS, comparison=Comparison(bundles=(second, bundle)))
    table = next(t for t in found.metadata.calibration.results if "other networks" in t.caption)
    assert len(table.columns) == 5
    assert len(set(table.columns)) == 5
    assert [row[0] for row in table.rows] == ["mag_r"]
    assert table.rows[0][3] > 10  # 10**20 is no magnitude
    assert table.rows[0][4] == pytest.approx(1.0, abs=0.02)


def test_candidates_of_other_units_are_refused(oracles, held_out):
    bundle = oracles()
    metadata = dataclasses.replace(bundle.metadata, parameters=(ParameterInfo("mag_r", "", "", "identity"),))
    with pytest.raises(BundleError, match=r"parameters mag_r of .*expected .*mag_r mag"):
        calibrate([bundle, dataclasses.replace(bundle, metadata=metadata)], held_out, SETTINGS)


def test_bundles_of_other_parameters_are_no_candidates(oracles, held_out):
    bundle = oracles()
    metadata = dataclasses.replace(bundle.metadata, parameters=(PLAIN[0],))
    with pytest.raises(BundleError, match=r"parameters a of .*expected .*mag_r"):
        calibrate([bundle, dataclasses.replace(bundle, metadata=metadata)], held_out, SETTINGS)


def test_few_objects_are_refused(oracles, held_out):
    with pytest.raises(UsageError, match="expected 100 or more of both"):
        calibrate([oracles()], held_out.take(np.arange(150)), SETTINGS)
