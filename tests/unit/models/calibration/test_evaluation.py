"""Evaluations of networks whose posteriors are known."""

import dataclasses

import numpy as np
import pytest
import torch

from galbatch.config import PosteriorConfig
from galbatch.core.columns import quantile_suffix
from galbatch.errors import BundleError
from galbatch.models import (
    BlockInputs,
    CalibrationInfo,
    HeadInfo,
    HeldOut,
    LabelInfo,
    ParameterInfo,
    PassSettings,
    evaluate,
    evaluation_tables,
    infer_block,
)
from galbatch.models.calibration import run_held_out

UNIT_NJY = 10 ** (0.4 * (31.4 - 27.0))
IDENTITY = ParameterInfo("x", "", "", "identity")


class Oracle(torch.nn.Module):
    """Knows the mean of each posterior (pixel 0) and its width; nothing else of the image counts."""

    def __init__(self, log_d):
        super().__init__()
        self.log_d = log_d

    def prefix(self, images):
        return images

    def sample(self, features, keys):
        mean = features[:, 0, 0, :1]
        return torch.cat([mean, torch.full_like(mean, self.log_d)], dim=1)


def oracle_of(bundle, parameter, *, width=1.0, **metadata):
    """Says N(pixel 0, width) of one parameter."""
    changed = dataclasses.replace(bundle.metadata, parameters=(parameter,), dropout_rate=0.0, **metadata)
    return dataclasses.replace(bundle, metadata=changed, script=Oracle(2 * np.log(width)))


def images_of(mean):
    images = np.zeros((len(mean), 1, 4, 4), np.float32)
    images[:, 0, 0, 0] = mean * UNIT_NJY
    return images


def truths(n=3000, mean_std=1.0):
    """Means, and truths drawn from N(mean, 1)."""
    rng = np.random.default_rng(1)
    mean = rng.normal(0, mean_std, n)
    return mean, mean + rng.normal(size=n)


def judged(bundle, parameter, labels, mean, **options):
    return evaluate(oracle_of(bundle, parameter, **options), images_of(mean), labels[:, None])


def table(evaluation, words):
    (found,) = [t for t in evaluation_tables(evaluation) if words in t.caption]
    return found


def row(found, *start):
    (one,) = [row for row in found.rows if row[: len(start)] == start]
    return dict(zip(found.columns, one, strict=True))


@pytest.fixture(scope="module")
def right(gampen_bundle):
    mean, truth = truths()
    return judged(gampen_bundle, IDENTITY, truth, mean)


@pytest.fixture(scope="module")
def bulges(gampen_bundle):
    """Right posteriors of B/T, a truth of 0 or 1 wherever it is beyond 0.1 or 0.9; clamped at 0.2 and 0.8."""
    mean, truth = truths(mean_std=2.0)
    bt = 1 / (1 + np.exp(-truth))
    bt[bt < 0.1] = 0.0
    bt[bt > 0.9] = 1.0
    labels = (LabelInfo("bulge", at_least=0.85), LabelInfo("disk", at_most=0.25), LabelInfo("neither"))
    return judged(
        gampen_bundle, ParameterInfo("bt", "", "", "logit", limits=(0.2, 0.8), labels=labels), bt, mean
    )


def test_right_posteriors_have_right_coverage(right):
    for level, within in ((0.6827, 0.025), (0.9545, 0.012), (0.9973, 0.003)):
        share = right.coverage("x", level)
        assert share.value == pytest.approx(level, abs=within)
        assert share.error == pytest.approx(np.sqrt(level * (1 - level) / 3000), rel=0.3)
    assert right.r2("x") == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(right.covered(0.6827), right.covered_closed(0.6827))


def test_released_intervals_of_gaussians_cover_as_equal_tailed_ones(right):
    # The kernel of 1000 draws, 1000^(-1/5) of their width, widens intervals of 1 and 2 standard deviations by 3 %. The draws
    # follow from the bundle's hash, which differs between checkouts: 4 binomial standard deviations of 3000 galaxies.
    for level, widened in ((0.6827, 0.6974), (0.9545, 0.9608)):
        within = 4 * np.sqrt(level * (1 - level) / 3000)
        assert right.covered_released(level).mean() == pytest.approx(widened, abs=within)


def test_too_narrow_posteriors_are_seen(gampen_bundle):
    mean, truth = truths()
    found = judged(gampen_bundle, IDENTITY, truth, mean, width=0.5)
    assert found.coverage("x").value == pytest.approx(0.383, abs=0.02)  # within half a sigma


def test_a_correction_is_applied_as_the_bundle_says_or_is_told(gampen_bundle):
    mean, truth = truths(1500)
    info = CalibrationInfo(inflation_factors=(2.0,), apply=False)
    oracle = oracle_of(gampen_bundle, IDENTITY, width=0.5, calibration=info)
    images, labels = images_of(mean), truth[:, None]
    assert evaluate(oracle, images, labels).coverage("x").value < 0.42
    assert evaluate(oracle, images, labels, calibrated=True).coverage("x").value == pytest.approx(
        0.6827, abs=0.035
    )


def test_truths_at_the_limits_are_judged_by_the_mass_there(bulges):
    """Clamping both truth and posterior leaves the randomized coverage right; the closed one flatters."""
    assert bulges.coverage("bt").value == pytest.approx(0.6827, abs=0.02)
    assert bulges.coverage("bt", 0.9545).value == pytest.approx(0.9545, abs=0.01)
    assert bulges.covered_closed(0.6827).mean() > bulges.coverage("bt").value + 0.05
    found = table(bulges, "equal-tailed intervals, in percent")
    all_of, pure, between = (row(found, name) for name in ("bt", "bt, truth 0 or 1", "bt, truth between"))
    assert pure["n"] + between["n"] == all_of["n"] == 3000
    weighed = pure["n"] * pure["68.27 %"] + between["n"] * between["68.27 %"]
    assert weighed / 3000 == pytest.approx(all_of["68.27 %"], abs=0.01)
    assert row(found, "bt, ends of the interval included")["68.27 %"] > all_of["68.27 %"] + 5


def test_labels_are_judged_both_ways(bulges):
    found = table(bulges, "Labels")
    median, truth = bulges.median[:, 0], bulges.labels[:, 0]
    disk = row(found, "bt", "disk")
    assert disk["n labeled"] == (median <= 0.25).sum()
    assert disk["n truly"] == (truth <= 0.25).sum()
    both = ((median <= 0.25) & (truth <= 0.25)).sum()
    assert disk["truly are"] == pytest.approx(100 * both / disk["n labeled"], abs=0.01)
    assert disk["are labeled"] == pytest.approx(100 * both / disk["n truly"], abs=0.01)
    assert sum(row(found, "bt", name)["n truly"] for name in ("bulge", "disk", "neither")) == 3000


def test_residuals_of_a_flux_are_relative_and_in_magnitudes(gampen_bundle):
    rng = np.random.default_rng(4)
    ln_flux = rng.uniform(8, 15, 2000)
    flux = np.exp(ln_flux + rng.normal(0, 0.05, 2000))
    flux[:10] *= 10.0  # far off, which the robust scatter does not see
    parameter = ParameterInfo("flux_njy", "nJy", "", "ln", magnitude="mag")
    found = judged(gampen_bundle, parameter, flux, ln_flux, width=0.05)
    residuals = table(found, "Residuals of the median, estimate")
    relative, magnitude = row(residuals, "flux_njy, relative"), row(residuals, "mag")
    assert relative["1.4826 MAD"] == pytest.approx(5.0, abs=0.3)
    assert magnitude["1.4826 MAD"] == pytest.approx(0.0543, abs=0.004)
    assert magnitude["68.27 % within"] == pytest.approx(0.0543, abs=0.004)
    assert magnitude["σ"] == pytest.approx(np.hypot(0.0543, 2.5 * np.sqrt(10 / 2000)), rel=0.05)
    assert magnitude["R²"] == pytest.approx(found.r2("mag"), abs=1e-4)
    assert row(table(found, "most probable"), "mag")["median"] == pytest.approx(0.0, abs=0.01)


def test_bins_hold_every_object_once_and_few_are_joined(gampen_bundle):
    rng = np.random.default_rng(5)
    size = np.concatenate([rng.uniform(0.1, 1, 30), rng.uniform(1, 5, 1000), rng.uniform(6, 9, 10)])
    parameter = ParameterInfo("re_arcsec", "arcsec", "", "ln")
    found = judged(gampen_bundle, parameter, size, np.log(size) + rng.normal(size=len(size)))
    for words in ("Residuals of the median by", "intervals by"):
        by_size = table(found, words)
        counts = {one[0]: one[by_size.columns.index("n")] for one in by_size.rows}
        assert list(counts) == ["0 to 2", "2 to 3", "from 3"]
        assert sum(counts.values()) == len(size)


def test_objects_that_fail_in_the_network_are_left_out_and_told(gampen_bundle):
    mean, truth = truths(300)
    mean[7] = np.inf  # as it comes out of the network; pixels themselves are cleaned

    class Breaking(Oracle):
        def sample(self, features, keys):
            out = super().sample(features, keys)
            return torch.where(out > 1e6, torch.full_like(out, torch.nan), out)

    images = images_of(np.where(np.isinf(mean), 1e7, mean))
    oracle = dataclasses.replace(oracle_of(gampen_bundle, IDENTITY), script=Breaking(0.0))
    found = evaluate(oracle, images, truth[:, None])
    assert (len(found), found.n_failed) == (299, 1)
    np.testing.assert_array_equal(found.labels[:, 0], np.delete(truth, 7))
    assert "1 more failed" in evaluation_tables(found)[0].caption


def test_point_heads_are_ranked_among_their_passes(gampen_bundle):
    """Passes are draws from the right posterior: 200 of them cover as they should; few cover less, their own scatter left out."""

    class Drawn(Oracle):
        def sample(self, features, keys):
            uniform = ((keys >> 11) & 0xFFFFFFFFFFFF).double() / 2.0**48
            normal = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9)).float()
            return features[:, 0, 0, :1] + normal[:, None]

    mean, truth = truths(3000)
    metadata = dataclasses.replace(
        gampen_bundle.metadata, parameters=(IDENTITY,), dropout_rate=0.1, head=HeadInfo("point")
    )
    oracle = dataclasses.replace(gampen_bundle, metadata=metadata, script=Drawn(0.0))
    found = evaluate(oracle, images_of(mean), truth[:, None], passes=PassSettings(200))
    assert found.n_passes == 200
    assert found.coverage("x").value == pytest.approx(0.6827, abs=0.03)
    assert found.coverage("x", 0.9545).value == pytest.approx(0.9545, abs=0.03)


def test_parts_of_held_out_objects_share_none_and_keep_what_belongs_together():
    n = 1000
    images = np.zeros((n, 1, 1, 1), np.float32)
    images[:, 0, 0, 0] = np.arange(n)
    held_out = HeldOut(
        images, np.arange(n, dtype=float)[:, None], strata={"magnitude": np.arange(n, dtype=float)}
    )
    first, second = held_out.split(seed=3, share=0.4)
    assert len(first) + len(second) == n
    assert len(first) == pytest.approx(400, abs=50)
    assert not set(first.ids) & set(second.ids)
    np.testing.assert_array_equal(first.images[first.rows][:, 0, 0, 0], first.labels[:, 0])
    np.testing.assert_array_equal(second.strata["magnitude"], second.labels[:, 0])
    again = HeldOut(images[::-1], held_out.labels[::-1], object_id=np.arange(n)[::-1]).split(
        seed=3, share=0.4
    )[0]
    assert set(again.ids) == set(first.ids)  # an object's part follows from its id, not from its place


def test_what_is_judged_is_what_the_catalog_gets(gampen_bundle, make_block):
    """The same ids, seed and correction: the truth lies in the catalog's interval exactly where it is counted as covered."""
    factors = (0.5, 2.0, 1.3)
    metadata = dataclasses.replace(
        gampen_bundle.metadata, calibration=CalibrationInfo(inflation_factors=factors)
    )
    bundle = dataclasses.replace(gampen_bundle, metadata=metadata)
    block = make_block(40, 1)
    posterior = PosteriorConfig(passes=12, quantiles=(0.15865, 0.5, 0.84135))
    block = dataclasses.replace(block, object_id=np.arange(40))
    catalog = infer_block(bundle, BlockInputs(block, np.ones(40, bool)), name="net", posterior=posterior)
    low, median, high = (
        np.stack([catalog[f"net_{p.name}_{quantile_suffix(level)}"] for p in metadata.parameters], axis=1)
        for level in posterior.quantiles
    )
    place = np.random.default_rng(1).uniform(-0.5, 1.5, low.shape)
    labels = np.maximum(low + place * (high - low), 0.02 * median).astype(np.float64)
    labels[:, 0] = np.minimum(labels[:, 0], 1.0)
    found = evaluate(bundle, block.image, labels, passes=PassSettings(12))
    np.testing.assert_allclose(found.median[:, :3], median, rtol=1e-5)
    inside = (low <= labels) & (labels <= high)
    assert np.all((inside.sum(axis=0) > 5) & (inside.sum(axis=0) < 35))
    np.testing.assert_array_equal(found.covered_closed(0.6827), inside)


def test_images_are_read_by_row(gampen_bundle):
    mean, truth = truths(20)
    oracle = oracle_of(gampen_bundle, IDENTITY)
    held_out = HeldOut(images_of(mean), truth[:, None]).take(np.array([3, 11]))
    found = run_held_out(oracle, held_out, PassSettings(2))
    np.testing.assert_allclose(found.numbers[:, 0, 0], mean[[3, 11]], rtol=1e-5)


def test_a_correction_that_is_not_there_is_not_applied_silently(gampen_bundle):
    mean, truth = truths(10)
    bundle = oracle_of(gampen_bundle, IDENTITY)
    with pytest.raises(BundleError, match="holds no inflation factors"):
        evaluate(bundle, images_of(mean), truth[:, None], calibrated=True)


def test_posteriors_beyond_all_numbers_leave_the_others_alone(gampen_bundle):
    """Of ln F with a width of 1,000 some draws are infinite."""
    flux = ParameterInfo("flux_njy", "nJy", "", "ln")
    mean, truth = truths(200)
    found = judged(gampen_bundle, flux, np.exp(truth), mean, width=1000.0)
    assert np.isfinite(found.released).all()
    assert found.coverage("flux_njy", 0.6827).value == 1.0
