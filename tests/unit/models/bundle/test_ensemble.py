"""Bundles of one model, and members of one bundle, pooled."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from galbatch.config import PosteriorConfig
from galbatch.core.flags import ModelFlag
from galbatch.errors import BundleError
from galbatch.models import (
    AuxiliaryInput,
    BlockInputs,
    CalibrationInfo,
    DomainInfo,
    Ensemble,
    HeadInfo,
    ParameterInfo,
    infer_block,
    load_bundle,
    load_ensemble,
    result_columns,
    save_bundle,
    script_of,
)
from galbatch.models.heads import outputs_per_pass
from galbatch.models.networks import keyed_dropout

X = ParameterInfo("x", "", "", "identity", location=2.0, scale=0.5)
Y = ParameterInfo("y", "", "", "identity", location=-1.0, scale=3.0)
GAUSSIAN = torch.tensor([0.3, -0.2, -1.0, 0.4, 0.5])  # means, log d, L


class Toy(nn.Module):
    """Outputs of fixed numbers, plus the image's center and the auxiliary inputs, with dropout on top."""

    rate: float

    def __init__(self, outputs: Tensor, rate: float, slope: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Buffer(outputs)
        self.slope = nn.Buffer(slope)
        self.rate = rate

    @torch.jit.export
    def sample(self, features: Tensor, keys: Tensor) -> Tensor:
        noise = keyed_dropout(torch.ones(features.shape[0], 8), keys, 1, self.rate).mean(dim=1, keepdim=True)
        return self.outputs + features.sum(dim=1, keepdim=True) * self.slope + (noise - 1.0)


class OfImages(Toy):
    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        return images[:, :, 24, 24] * 0.0


class OfImagesAndNumbers(Toy):
    @torch.jit.export
    def prefix(self, images: Tensor, auxiliary: Tensor) -> Tensor:
        return torch.cat([images[:, :, 24, 24] * 0.0, auxiliary], dim=1)


class WithFeatures(Toy):
    """A network whose features are those of its prefix: the image's center, and twice that."""

    @torch.jit.export
    def prefix(self, images: Tensor) -> Tensor:
        center = images[:, 0, 24, 24].unsqueeze(1)
        return torch.cat([center, 2.0 * center], dim=1)

    @torch.jit.export
    def last_features(self, features: Tensor) -> Tensor:
        return features


@pytest.fixture
def toy(tmp_path, make):
    """(outputs, **changes of the metadata) -> a loaded bundle that says these outputs."""

    def build(outputs=GAUSSIAN, *, rate=0.0, slope=None, kind=None, **changes):
        outputs = torch.as_tensor(outputs, dtype=torch.float32)
        metadata = make.gampen_metadata(dropout_rate=rate, parameters=(X, Y))
        metadata = dataclasses.replace(metadata, **changes)
        kind = kind or (OfImagesAndNumbers if metadata.input.auxiliary_inputs else OfImages)
        slope = torch.zeros(len(outputs)) if slope is None else torch.as_tensor(slope)
        path = str(tmp_path / "toy.pt")
        save_bundle(path, script_of(kind(outputs, rate, slope)), metadata)
        return load_bundle(path)

    return build


def infer(network, block, *, passes=8, auxiliary=None, **changes):
    posterior = PosteriorConfig(passes=passes, batch=64, **changes.pop("posterior", {}))
    selected = np.ones(len(block), bool)
    return infer_block(
        network, BlockInputs(block, selected, auxiliary), name="m", posterior=posterior, **changes
    )


def inputs(make, *names):
    return dataclasses.replace(
        make.gampen_metadata().input, auxiliary_inputs=tuple(AuxiliaryInput(name) for name in names)
    )


def test_two_bundles_weigh_the_same_in_the_first_ones_space(toy, make_block):
    """Each says a normal distribution in its own standardized space; physical units agree with scipy."""
    other = dataclasses.replace(X, location=1.0, scale=2.0)
    ensemble = Ensemble((toy(), toy([0.9, 0.1, 0.2, -0.3, 0.0], parameters=(other, Y))))
    found = infer(ensemble, make_block(3))
    means, stds = np.array([2.0 + 0.5 * 0.3, 1.0 + 2.0 * 0.9]), np.array([0.5, 2.0]) * np.exp([-0.5, 0.1])
    for suffix, level in (("q02275", 0.02275), ("q500", 0.5), ("q84135", 0.84135)):
        at = found[f"m_x_{suffix}"].astype(np.float64)
        np.testing.assert_allclose(norm.cdf(at[:, None], means, stds).mean(axis=1), level, atol=1e-6)
    np.testing.assert_allclose(found["m_x_mean"], means.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["m_x_epistemic_std"], means.std(), rtol=1e-5)
    np.testing.assert_allclose(found["m_x_std"] ** 2, (stds**2).mean() + means.var(), rtol=1e-5)
    assert (found["m_mc_error"] == 0).all()  # a fixed set of two, without dropout
    assert (found["m_passes"] == 1).all()


@pytest.mark.parametrize("method", ["mixture", "samples"])
def test_members_of_one_bundle_are_pooled_as_bundles_are(toy, make_block, method):
    second = torch.tensor([0.9, 0.1, 0.2, -0.3, 0.0])
    both = toy(torch.cat([GAUSSIAN, second]), members=2)
    apart = Ensemble((toy(), toy(second)))
    posterior = {"method": method}
    one, two = (infer(n, make_block(20), passes=500, posterior=posterior) for n in (both, apart))
    exact = infer(both, make_block(1), passes=500)
    for key in ("m_x_q500", "m_x_std", "m_y_q97725", "m_corr_x_y", "m_y_epistemic_std"):
        np.testing.assert_allclose(one[key].mean(), exact[key], rtol=0.06, err_msg=key)
        np.testing.assert_allclose(two[key].mean(), exact[key], rtol=0.06, err_msg=key)
    differ = np.ptp(one["m_x_q500"])  # as draws of 20 objects do; the mixture of one distribution does not
    assert differ > 0.01 if method == "samples" else differ < 1e-6


def test_passes_differ_within_each_member(toy, make_block):
    """With dropout: the error is that of the passes, whose number counts for each network."""
    ensemble = Ensemble((toy(rate=0.2), toy(GAUSSIAN + 0.1, rate=0.2)))
    found = infer(ensemble, make_block(4), passes=16)
    assert (found["m_passes"] == 16).all()
    assert ((found["m_mc_error"] > 0.001) & (found["m_mc_error"] < 0.2)).all()


def test_a_member_without_dropout_weighs_as_one_with(toy, make_block):
    far = toy(GAUSSIAN + torch.tensor([40.0, 0, 0, 0, 0]), rate=0.0)
    found = infer(Ensemble((toy(rate=0.2), far)), make_block(2), passes=16)
    between = 0.5 * 40.0 / 2
    np.testing.assert_allclose(found["m_x_epistemic_std"], between, rtol=0.02)
    np.testing.assert_allclose(found["m_x_mean"], 2.0 + 0.5 * 0.3 + between, rtol=0.02)


def test_heads_of_different_kinds_are_pooled(toy, make_block):
    edges = ((1.0, 2.0, 3.0), (-9.0, 0.0, 9.0))
    bins = toy([0.0, 0.0, 0.0, 0.0], head=HeadInfo("binned", edges=edges))
    found = infer(Ensemble((toy(), bins)), make_block(1))
    at = float(found["m_x_q500"][0])
    of_normal = norm.cdf(at, 2.0 + 0.5 * 0.3, 0.5 * np.exp(-0.5))
    assert 0.5 * (of_normal + np.clip((at - 1.0) / 2.0, 0, 1)) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("calibrated", [None, True, False])
@pytest.mark.parametrize("apply", [True, False])
def test_inflation_factors_inflate_unless_switched_off(toy, make_block, calibrated, apply):
    calibration = CalibrationInfo(inflation_factors=(2.0, 0.5), apply=apply)
    plain = infer(toy(), make_block(2))
    found = infer(Ensemble((toy(calibration=calibration),), calibrated), make_block(2))
    applied = apply if calibrated is None else calibrated
    for name, factor in (("x", 2.0), ("y", 0.5)):
        expected = plain[f"m_{name}_std"] * (factor if applied else 1.0)
        np.testing.assert_allclose(found[f"m_{name}_std"], expected, rtol=1e-5)
        np.testing.assert_allclose(found[f"m_{name}_q500"], plain[f"m_{name}_q500"], rtol=1e-5)
    np.testing.assert_allclose(found["m_corr_x_y"], plain["m_corr_x_y"], atol=1e-6)


def test_each_bundle_is_inflated_about_its_own_mean(toy, make_block):
    calibration = CalibrationInfo(inflation_factors=(3.0, 1.0))
    plain = Ensemble((toy(), toy(GAUSSIAN + 1.0)))
    inflated = Ensemble((toy(calibration=calibration), toy(GAUSSIAN + 1.0)))
    before, after = (infer(network, make_block(1)) for network in (plain, inflated))
    np.testing.assert_allclose(after["m_x_epistemic_std"], before["m_x_epistemic_std"], rtol=1e-5)
    width = 0.5 * np.exp(-0.5)
    grown = 0.5 * (9 - 1) * width**2
    np.testing.assert_allclose(after["m_x_std"] ** 2, before["m_x_std"] ** 2 + grown, rtol=1e-5)


def test_calibrated_asks_for_factors(toy):
    with pytest.raises(BundleError, match="calibrated = true, but the bundle holds no inflation factors"):
        Ensemble((toy(),), calibrated=True)


def test_what_any_member_flags_is_flagged(toy, make_block):
    block = make_block(2)
    block.sky_sigma_njy[:, 0] = [2.0, 9.0]
    strict = toy(GAUSSIAN + 0.1, domain=DomainInfo(sky_sigma_njy=((1.0, 3.0),)))
    flags = infer(Ensemble((toy(), strict)), block)["m_flags"]
    np.testing.assert_array_equal(flags, [0, ModelFlag.OUT_OF_DOMAIN])


def test_points_of_an_ensemble_have_widths_and_single_ones_none(toy, make_block):
    point = {"head": HeadInfo("point")}
    one = infer(toy([0.0, 1.0], **point), make_block(2))
    assert (one["m_flags"] == ModelFlag.NO_POSTERIOR).all()
    assert "m_corr_x_y" not in one
    three = Ensemble(tuple(toy([shift, 1.0], **point) for shift in (0.0, 1.0, 2.0)))
    found = infer(three, make_block(2))
    assert (found["m_flags"] == 0).all()
    np.testing.assert_allclose(found["m_x_q500"], 2.0 + 0.5)
    np.testing.assert_allclose(found["m_x_std"], 0.5 * np.std([0, 1, 2]), rtol=1e-6)
    np.testing.assert_array_equal(found["m_mc_error"], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": (X, dataclasses.replace(Y, unit="mag"))}, "unit of y:  against mag"),
        (
            {"parameters": (X, dataclasses.replace(Y, limits=(0.0, 1.0)))},
            r"limits of y: None against \(0.0, 1.0\)",
        ),
        ({"parameters": (X, dataclasses.replace(Y, transform="ln"))}, "transform of y: identity against ln"),
        ({"parameters": (Y, X)}, "parameters: x, y against y, x"),
    ],
)
def test_bundles_of_different_models_are_refused(toy, changes, message):
    with pytest.raises(
        BundleError, match=f"cannot be pooled, they are not of one model; they differ in {message}"
    ):
        Ensemble((toy(), toy(**changes)))


def test_all_that_differs_is_named(toy, make):
    bands = dataclasses.replace(make.gampen_metadata().input, bands=("r",))
    point = toy([0.0, 1.0], head=HeadInfo("point"), input=bands)
    with pytest.raises(
        BundleError, match="bands: g against r; single values or distributions: distributions"
    ):
        Ensemble((toy(), point))
    with pytest.raises(BundleError, match="auxiliary inputs: none against ebv"):
        Ensemble((toy(), toy(input=inputs(make, "ebv"))))
    with pytest.raises(BundleError, match="a bundle is named twice"):
        Ensemble((toy(), toy()))


def test_loading_checks_the_identities(toy, tmp_path):
    toy()
    sha256 = toy().sha256
    path = str(tmp_path / "toy.pt")
    assert load_ensemble([path], sha256=[sha256]).sha256 == (sha256,)
    with pytest.raises(BundleError, match=r"expected 0000.*the file has changed"):
        load_ensemble([path], sha256=["0" * 64])


def test_auxiliary_inputs_reach_the_network(toy, make, make_block):
    bundle = toy(slope=[1.0, 0, 0, 0, 0], input=inputs(make, "ebv", "color"))
    auxiliary = np.array([[0.1, 0.2], [1.0, -3.0], [np.nan, 0.0], [0.0, np.inf]], np.float32)
    found = infer(bundle, make_block(4), auxiliary=auxiliary)
    expected = 2.0 + 0.5 * (0.3 + auxiliary[:2].sum(axis=1))
    np.testing.assert_allclose(found["m_x_mean"][:2], expected, rtol=1e-6)
    assert np.isnan(found["m_x_mean"][2:]).all()
    np.testing.assert_array_equal(found["m_flags"], [0, 0, *[ModelFlag.MISSING_PIXELS] * 2])
    np.testing.assert_array_equal(found["m_passes"], [1, 1, 0, 0])


def test_networks_are_refused_other_columns_than_they_take(toy, make, make_block):
    with pytest.raises(BundleError, match=r"takes 1 auxiliary inputs \(ebv\), given 0"):
        infer(toy(input=inputs(make, "ebv")), make_block(1))
    with pytest.raises(BundleError, match=r"takes 0 auxiliary inputs \(none\), given 1"):
        infer(toy(), make_block(1), auxiliary=np.zeros((1, 1), np.float32))


@pytest.mark.parametrize("method", ["mixture", "samples"])
@pytest.mark.parametrize("kind", ["mixture", "binned", "point"])
def test_every_head_fills_every_column(toy, make_block, kind, method):
    heads = {
        "mixture": HeadInfo("mixture", components=2),
        "binned": HeadInfo("binned", edges=((0.0, 1.5, 2.0, 4.0), (-9.0, -1.0, 9.0))),
        "point": HeadInfo("point"),
    }
    n_outputs = {"mixture": 10, "binned": 5, "point": 2}[kind]
    bundle = toy(
        torch.linspace(-0.5, 0.5, n_outputs), rate=0.3, head=heads[kind], slope=torch.ones(n_outputs)
    )
    found = infer(bundle, make_block(3), passes=50, posterior={"method": method})
    columns = result_columns(bundle.metadata, name="m", quantiles=PosteriorConfig().quantiles)
    assert list(found) == [column.name for column in columns]
    for column in columns:
        if column.dtype == "float32":
            assert np.isfinite(found[column.name]).all(), column.name
    quantiles = np.stack([found[f"m_x_{q}"] for q in ("q02275", "q15865", "q500", "q84135", "q97725")])
    assert (np.diff(quantiles, axis=0) >= 0).all()
    assert (found["m_x_std"] > 0).all()
    if kind == "point":
        np.testing.assert_allclose(found["m_corr_x_y"], 1.0, atol=1e-5)  # one dropout moves both


@pytest.mark.parametrize("method", ["mixture", "samples"])
def test_summaries_do_not_depend_on_how_many_objects_are_made_at_once(toy, make_block, method, monkeypatch):
    edges = (tuple(np.linspace(1.0, 3.0, 31)), tuple(np.linspace(-9.0, 9.0, 31)))
    ramp = torch.linspace(0.0, 1.0, 60)
    bins = toy(ramp, head=HeadInfo("binned", edges=edges), rate=0.3, slope=torch.linspace(-0.1, 0.2, 60))
    ensemble = Ensemble((toy(rate=0.2), bins))
    whole = infer(ensemble, make_block(7), posterior={"method": method})
    n_together = []
    read = Ensemble.passes
    monkeypatch.setattr(Ensemble, "passes", lambda *a: n_together.append(len(a[1][0])) or read(*a))
    monkeypatch.setattr("galbatch.models.inference.summaries.NUMBERS_AT_ONCE", 8 * 65 * 2)
    parts = infer(ensemble, make_block(7), posterior={"method": method})
    assert n_together == [2, 2, 2, 1]
    assert whole.keys() == parts.keys()
    for name, column in whole.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(parts[name], column, rtol=1e-6, atol=1e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(parts[name], column, err_msg=name)


def test_the_embedding_is_that_of_the_first_bundle_and_null_beyond_its_type(toy, make_block):
    block = make_block(3)
    unit_njy = 57.54399  # of zero point 27.0
    block.image[:, 0, 24, 24] = np.array([1.5, 32000.0, 33000.0]) * unit_njy
    bundles = (toy(kind=WithFeatures), toy(GAUSSIAN + 1.0))
    found = infer(Ensemble(bundles, embedding_dtype="float16"), block)["m_embedding"]
    assert found.dtype == np.float16
    # The largest number of float16 is 65504.
    np.testing.assert_allclose(found, [[1.5, 3.0], [32000, 64000], [np.nan, np.nan]], rtol=1e-3)
    found = infer(Ensemble(bundles, embedding_dtype="float32"), block)["m_embedding"]
    np.testing.assert_allclose(found[2], [33000, 66000], rtol=1e-5)


def test_an_embedding_needs_a_script_with_features(toy):
    assert (toy().n_features, toy(kind=WithFeatures).n_features) == (0, 2)
    with pytest.raises(
        BundleError, match="embedding = true, but the bundle's script has no method last_features"
    ):
        Ensemble((toy(),), embedding_dtype="float32")


def test_weighted_members_are_the_weighted_mixture_of_their_distributions(toy, make_block):
    """Three members, the first with three of five shares: quantiles from scipy, mean and epistemic scatter by hand."""
    outputs = [m for shift in (0.0, 1.0, 4.0) for m in (shift, shift, -1.0, 0.4, 0.0)]
    bundle = toy(outputs, members=3, member_weights=(3, 1, 1))
    assert (bundle.metadata.n_shares, outputs_per_pass(bundle.metadata)) == (5, 15)
    values = infer(bundle, make_block(2))
    shares, centers, width = np.array([0.6, 0.2, 0.2]), np.array([0.0, 1.0, 4.0]), np.exp(-0.5)
    q500 = (values["m_x_q500"][0] - X.location) / X.scale
    assert shares @ norm.cdf(q500, centers, width) == pytest.approx(0.5, abs=1e-6)
    mean, between = shares @ centers, shares @ np.square(centers) - (shares @ centers) ** 2
    assert values["m_x_mean"][0] == pytest.approx(X.location + X.scale * mean, rel=1e-6)
    assert values["m_x_epistemic_std"][0] == pytest.approx(X.scale * np.sqrt(between), rel=1e-5)
    assert values["m_x_std"][0] == pytest.approx(X.scale * np.sqrt(between + width**2), rel=1e-5)
    # As if the first member were there three times.
    thrice = infer(toy(outputs[:5] * 3 + outputs[5:], members=5), make_block(2))
    for name in thrice.keys() - {"m_identity"}:
        np.testing.assert_array_equal(values[name], thrice[name], err_msg=name)
    assert (values["m_mc_error"] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"member_weights": (1, 2)},
            "a whole number above 0 for each of 3 members, 100 in all at most, found",
        ),
        ({"member_weights": (0, 1, 1)}, "a whole number above 0"),
        ({"member_weights": (99, 1, 1)}, "100 in all at most"),
        ({"member_weights": (1, 1, 2), "rate": 0.2}, "only for members whose passes do not differ"),
    ],
)
def test_weights_that_do_not_fit_the_members_are_told(toy, changes, message):
    with pytest.raises(BundleError, match=message):
        toy(torch.cat([GAUSSIAN] * 3), members=3, **changes)
