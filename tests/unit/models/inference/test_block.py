import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import norm

from galbatch.config import DensityGrid, PosteriorConfig
from galbatch.core.flags import ModelFlag
from galbatch.core.types import ab_mag
from galbatch.errors import BundleError
from galbatch.models import (
    BlockInputs,
    Engine,
    Ensemble,
    Execution,
    ParameterInfo,
    infer_block,
    load_bundle,
    result_columns,
    save_bundle,
    script_of,
)
from galbatch.models.inference import describe_domain, run_passes
from galbatch.models.networks import draw_keys

POSTERIOR = PosteriorConfig(passes=12, batch=32)


def infer(bundle, block, *, selected=None, posterior=POSTERIOR):
    selected = np.ones(len(block), bool) if selected is None else selected
    return infer_block(bundle, BlockInputs(block, selected), name="net", posterior=posterior)


def assert_equal_to_rounding(first, second):
    assert first.keys() == second.keys()
    for key, column in first.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(column, second[key], rtol=1e-5, atol=1e-5, err_msg=key)
        else:
            np.testing.assert_array_equal(column, second[key], err_msg=key)


def take(block, index):
    names = ("object_id", "image", "sky_sigma_njy", "psf_fwhm_arcsec", "flags")
    return dataclasses.replace(
        block, **{name: getattr(block, name)[index] for name in names}, ra_deg=block.ra_deg[index]
    )


@pytest.mark.parametrize("kind", ["gampen", "sfnet"])
def test_fills_every_column_with_its_type(kind, request, make_block):
    bundle = request.getfixturevalue(f"{kind}_bundle")
    values = infer(bundle, make_block(5, len(bundle.bands)))
    columns = result_columns(bundle.metadata, name="net", quantiles=POSTERIOR.quantiles)
    assert list(values) == [column.name for column in columns]
    for column in columns:
        assert len(values[column.name]) == 5
        expected = object if column.dtype == "string" else np.dtype(column.dtype)
        assert values[column.name].dtype == expected
        if column.dtype == "float32" and "activation" not in column.name:
            assert np.isfinite(values[column.name]).all()
    assert (values["net_passes"] == 12).all()


@pytest.mark.parametrize("kind", ["gampen", "sfnet"])
@pytest.mark.parametrize("method", ["mixture", "samples"])
def test_draws_depend_on_object_and_pass_alone(kind, method, request, make_block):
    """Other batch sizes, partitions and orders give the same numbers to float32 rounding."""
    bundle = request.getfixturevalue(f"{kind}_bundle")
    block = make_block(20, len(bundle.bands))
    posterior = PosteriorConfig(passes=12, batch=32, method=method)
    whole = infer(bundle, block, posterior=posterior)
    for batch in (1, 7, 1000):
        assert_equal_to_rounding(
            infer(bundle, block, posterior=posterior.model_copy(update={"batch": batch})), whole
        )
    order = np.random.default_rng(0).permutation(20)[:9]
    part = infer(bundle, take(block, order), posterior=posterior)
    assert_equal_to_rounding(part, {key: column[order] for key, column in whole.items()})


@pytest.mark.parametrize("kind", ["gampen", "sfnet"])
def test_adaptive_passes_are_the_first_of_the_fixed_ones(kind, request, make_block):
    """Three rounds and one of as many passes; the frequencies of features are over all of them."""
    bundle = request.getfixturevalue(f"{kind}_bundle")
    block = make_block(18, len(bundle.bands))
    posterior = PosteriorConfig(passes="adaptive", min_passes=8, max_passes=40, tolerance=0.45, batch=32)
    found = infer(bundle, block, posterior=posterior)
    assert (found["net_passes"] == 32).all()
    assert_equal_to_rounding(
        found, infer(bundle, block, posterior=posterior.model_copy(update={"passes": 32}))
    )


def test_seed_changes_the_draws_a_little(gampen_bundle, make_block):
    block = make_block(6)
    first, second = (
        infer(gampen_bundle, block, posterior=PosteriorConfig(passes=12, seed=s)) for s in (1, 2)
    )
    difference = np.abs(first["net_mag_q500"] - second["net_mag_q500"])
    assert difference.max() > 0
    assert (difference < first["net_mag_std"]).all()


def test_more_passes_keep_the_first_ones(gampen_bundle, make_block):
    keys = [
        draw_keys(np.arange(3), seed=1, bundle_sha256=gampen_bundle.sha256, passes=np.arange(n))
        for n in (4, 9)
    ]
    images = make_block(3).image / np.float32(57.544)
    few, many = (run_passes(gampen_bundle, images, key, batch=16).outputs for key in keys)
    np.testing.assert_allclose(many[:, :4], few, atol=1e-5)
    assert np.abs(np.diff(many, axis=1)).max() > 1e-3


def test_columns_agree_with_the_passes(gampen_bundle, make_block):
    """Against the mixture built by hand from the script's own outputs."""
    block = make_block(3)
    values = infer(gampen_bundle, block)
    keys = draw_keys(block.object_id, seed=1, bundle_sha256=gampen_bundle.sha256, passes=np.arange(12))
    unit = 10 ** (0.4 * (31.4 - 27.0))
    with torch.inference_mode():
        features = gampen_bundle.prefix(torch.from_numpy(block.image / np.float32(unit)))
        rows = features.repeat_interleave(12, dim=0)
        outputs = (
            gampen_bundle.sample(rows, torch.from_numpy(keys.reshape(-1))).reshape(3, 12, 9).double().numpy()
        )
    # Flux: marginal variance of L D L^T; its ln is location 10, scale 1.2.
    mean, d, low = outputs[..., 2], np.exp(outputs[..., 3:6]), outputs[..., 6:9]
    std = np.sqrt(d[..., 2] + low[..., 1] ** 2 * d[..., 0] + low[..., 2] ** 2 * d[..., 1])
    for suffix, level in (("q500", 0.5), ("q97725", 0.97725)):
        at = (np.log(values[f"net_flux_njy_{suffix}"].astype(np.float64)) - 10) / 1.2
        np.testing.assert_allclose(norm.cdf(at[:, None], mean, std).mean(axis=1), level, atol=1e-5)
    flux_mean = np.exp(10 + 1.2 * mean + 0.5 * (1.2 * std) ** 2)
    np.testing.assert_allclose(values["net_flux_njy_mean"], flux_mean.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(values["net_flux_njy_epistemic_std"], flux_mean.std(axis=1), rtol=1e-4)
    np.testing.assert_allclose(values["net_mag_q500"], ab_mag(values["net_flux_njy_q500"]), rtol=1e-6)
    np.testing.assert_allclose(values["net_mag_q15865"], ab_mag(values["net_flux_njy_q84135"]), rtol=1e-6)


def test_labels_follow_the_median(gampen_bundle, make_block):
    values = infer(gampen_bundle, make_block(30, seed=3))
    median, label = values["net_bt_q500"], values["net_bt_label"]
    expected = np.select(
        [median >= 0.85, median <= 0.1], ["highly bulge-dominated", "highly disk-dominated"], "intermediate"
    )
    np.testing.assert_array_equal(label, expected)


def test_nan_pixels_count_as_zero_and_are_told(gampen_bundle, make_block):
    block = make_block(3)
    block.image[1, 0, 2:6, 40:] = np.nan
    values = infer(gampen_bundle, block)
    block.image[1, 0, 2:6, 40:] = 0.0
    clean = infer(gampen_bundle, block)
    assert values["net_flags"][1] & ModelFlag.MISSING_PIXELS
    assert not (values["net_flags"][[0, 2]] & ModelFlag.MISSING_PIXELS).any()
    np.testing.assert_array_equal(values["net_mag_q500"], clean["net_mag_q500"])


def test_no_center_or_no_band_gives_no_values(sfnet_bundle, make_block):
    block = make_block(4, 2)
    block.image[0, 1, 25, 25] = np.inf  # beside the center (24, 24)
    block.image[1, 0] = np.nan
    block.image[2, 0, 0, 0] = np.nan
    values = infer(sfnet_bundle, block)
    np.testing.assert_array_equal(np.isnan(values["net_mag_r_q500"]), [True, True, False, False])
    np.testing.assert_array_equal(
        (values["net_flags"] & ModelFlag.MISSING_PIXELS) > 0, [True, True, True, False]
    )
    np.testing.assert_array_equal(values["net_passes"], [0, 0, 12, 12])
    np.testing.assert_array_equal(values["net_feature_0"][:2], [-1, -1])


def test_above_a_share_of_missing_pixels_there_are_no_values(gampen_bundle, make_block):
    block = make_block(4, 1)
    size = block.image.shape[-1]
    for row, n_missing in enumerate((0, size // 2 - 2, size // 2 + 1)):
        block.image[row, 0, : n_missing if n_missing <= size // 2 else size // 2 - 1] = np.nan
        if n_missing > size // 2:
            # The lower rows too, without the center: more than half of the pixels.
            block.image[row, 0, size // 2 + 2 :] = np.nan
    share = np.isnan(block.image).mean(axis=(1, 2, 3))
    assert share[0] == 0 < share[1] < 0.5 < share[2] < 1
    selected = np.ones(4, bool)
    for limit, has_values in ((1.0, [1, 1, 1, 1]), (0.5, [1, 1, 0, 1]), (share[1] / 2, [1, 0, 0, 1])):
        values = infer_block(
            gampen_bundle,
            BlockInputs(block, selected, max_missing_share=limit),
            name="net",
            posterior=POSTERIOR,
        )
        np.testing.assert_array_equal(np.isfinite(values["net_bt_q500"]), np.array(has_values, bool))
        np.testing.assert_array_equal(values["net_passes"] > 0, np.array(has_values, bool))
        # Those with a gap say so, with values or without.
        told = (values["net_flags"] & int(ModelFlag.MISSING_PIXELS)) != 0
        np.testing.assert_array_equal(told, share > 0)


def test_unselected_objects_get_no_values(gampen_bundle, make_block):
    selected = np.array([True, False, True])
    values = infer(gampen_bundle, make_block(3), selected=selected)
    assert values["net_flags"][1] == ModelFlag.NOT_SELECTED
    assert np.isnan(values["net_bt_mean"][1])
    assert values["net_bt_label"][1] == ""
    assert np.isfinite(values["net_bt_mean"][[0, 2]]).all()
    none = infer(gampen_bundle, make_block(3), selected=np.zeros(3, bool))
    assert (none["net_flags"] == ModelFlag.NOT_SELECTED).all()


def test_an_empty_block_gives_empty_columns(gampen_bundle, make):
    values = infer(gampen_bundle, make.block(np.empty((0, 1, 48, 48), np.float32)))
    assert {len(column) for column in values.values()} == {0}


def test_non_finite_outputs_are_told(gampen_bundle, make_block):
    block = make_block(3)
    block.image[1] = 3e38  # finite, but its arsinh is not: in float32 the square overflows
    values = infer(gampen_bundle, block)
    failed = values["net_flags"] & ModelFlag.MODEL_FAILED
    np.testing.assert_array_equal(failed, [0, ModelFlag.MODEL_FAILED, 0])
    np.testing.assert_array_equal(np.isnan(values["net_bt_mean"]), [False, True, False])
    assert values["net_bt_label"][1] == ""


def test_extrapolation_is_told(gampen_bundle, make_block):
    block = make_block(8)
    median = infer(gampen_bundle, block)["net_flux_njy_q500"].astype(np.float64)
    low, high = np.quantile(median, [0.3, 0.7])
    bt, radius, flux = gampen_bundle.metadata.parameters
    metadata = dataclasses.replace(
        gampen_bundle.metadata, parameters=(bt, radius, dataclasses.replace(flux, training_range=(low, high)))
    )
    flags = infer(dataclasses.replace(gampen_bundle, metadata=metadata), block)["net_flags"]
    np.testing.assert_array_equal((flags & ModelFlag.EXTRAPOLATED) > 0, (median < low) | (median > high))


def test_noise_and_seeing_outside_the_domain_are_told(gampen_bundle, make, make_block):
    block = make_block(4)
    block.sky_sigma_njy[:, 0] = [2.0, 9.0, np.nan, 2.0]
    block.psf_fwhm_arcsec[:, 0] = [0.8, 0.8, np.nan, 1.4]
    bundle = make.with_domain(gampen_bundle, sky_sigma_njy=((1.0, 3.0),), psf_fwhm_arcsec=((0.7, 1.0),))
    flags = infer(bundle, block)["net_flags"]
    np.testing.assert_array_equal((flags & ModelFlag.OUT_OF_DOMAIN) > 0, [False, True, False, True])
    np.testing.assert_array_equal((flags & ModelFlag.DOMAIN_UNKNOWN) > 0, [False, False, True, False])


def test_images_unlike_the_training_set_are_told(gampen_bundle, make):
    images, _, _ = make.galaxies(600, 1, seed=1)
    domain = describe_domain(gampen_bundle.script, images, unit_njy=57.544)
    bundle = dataclasses.replace(
        gampen_bundle, metadata=dataclasses.replace(gampen_bundle.metadata, domain=domain)
    )
    alike, _, _ = make.galaxies(60, 1, seed=2)
    strange = np.random.default_rng(3).normal(0, 1e6, (3, 1, 48, 48)).astype(np.float32)
    flags = infer(bundle, make.block(np.concatenate([alike, strange])))["net_flags"]
    outside = (flags & ModelFlag.OUT_OF_DOMAIN) > 0
    assert outside[-3:].all()
    assert outside[:60].mean() < 0.1


def test_crop_at_limit_is_told(gampen_bundle, make, make_block):
    # The untrained transformer's scale is 1 for every image.
    for limits, expected in (((0.4, 1.0), True), ((0.4, 1.1), False)):
        flags = infer(make.with_domain(gampen_bundle, crop_limits=limits), make_block(3))["net_flags"]
        assert ((flags & ModelFlag.CROP_AT_LIMIT > 0) == expected).all()


def test_too_few_passes_are_told(gampen_bundle, make_block):
    block = make_block(6)
    values = infer(gampen_bundle, block, posterior=PosteriorConfig(passes=4, tolerance=1e-6))
    assert (values["net_mc_error"] > 1e-6).all()
    assert ((values["net_flags"] & ModelFlag.NOT_CONVERGED) > 0).all()
    assert not (
        infer(gampen_bundle, block, posterior=PosteriorConfig(passes=4, tolerance=50))["net_flags"]
        & ModelFlag.NOT_CONVERGED
    ).any()


@pytest.fixture
def point_bundle(tmp_path, make):
    def build(rate):
        metadata = make.sfnet_metadata(dropout_rate=rate)
        metadata = dataclasses.replace(metadata, head=dataclasses.replace(metadata.head, kind="point"))
        save_bundle(str(tmp_path / "p.pt"), script_of(make.sfnet(n_out=2, dropout_rate=rate)), metadata)
        return load_bundle(str(tmp_path / "p.pt"))

    return build


def test_a_point_network_without_dropout_has_no_posterior(point_bundle, make_block):
    values = infer(point_bundle(0.0), make_block(4, 2))
    assert ((values["net_flags"] & ModelFlag.NO_POSTERIOR) > 0).all()
    assert (values["net_passes"] == 1).all()
    for name in ("q15865", "std", "epistemic_std"):
        assert np.isnan(values[f"net_mag_r_{name}"]).all()
    assert np.isfinite(values["net_mag_r_q500"]).all()
    np.testing.assert_array_equal(values["net_mag_r_q500"], values["net_mag_r_mean"])
    assert (values["net_feature_0"] >= 0).all()


def test_a_point_network_with_dropout_has_the_scatter_of_its_passes(point_bundle, make_block):
    values = infer(point_bundle(0.05), make_block(4, 2))
    assert not (values["net_flags"] & ModelFlag.NO_POSTERIOR).any()
    assert (values["net_mag_r_std"] > 0).all()
    np.testing.assert_array_equal(values["net_mag_r_std"], values["net_mag_r_epistemic_std"])


def test_a_gaussian_network_without_dropout_needs_one_pass(tmp_path, make, make_block):
    save_bundle(
        str(tmp_path / "g.pt"),
        script_of(make.gampen(dropout_rate=0.0)),
        make.gampen_metadata(dropout_rate=0.0),
    )
    values = infer(load_bundle(str(tmp_path / "g.pt")), make_block(3))
    assert (values["net_passes"] == 1).all()
    assert (values["net_bt_epistemic_std"] == 0).all()
    assert (values["net_bt_std"] > 0).all()
    assert (values["net_mc_error"] == 0).all()


def test_features_are_those_without_dropout(sfnet_bundle, make_block):
    block = make_block(5, 2)
    few, many = (infer(sfnet_bundle, block, posterior=PosteriorConfig(passes=n)) for n in (2, 20))
    for rank in range(4):
        np.testing.assert_array_equal(few[f"net_feature_{rank}"], many[f"net_feature_{rank}"])
    activation = np.stack([many[f"net_activation_{rank}"] for rank in range(4)], axis=1)
    assert (np.diff(activation, axis=1) <= 0).all()


def test_refuses_other_cutouts(gampen_bundle, make, make_block):
    with pytest.raises(BundleError, match=r"takes cutouts of 48px_0\.168arcsec, given 40px_0\.168arcsec"):
        infer(gampen_bundle, make.block(np.zeros((1, 1, 40, 40), np.float32)))
    with pytest.raises(BundleError, match=r"takes 1 bands \(g\), given g, r"):
        infer(gampen_bundle, make_block(1, 2))


@pytest.mark.parametrize("method", ["mixture", "samples"])
def test_a_flux_near_zero_loses_its_magnitude_alone(tmp_path, make, make_block, method):
    """The third output is a flux with transform identity: some objects lie at 0 nJy, others far above."""
    flux = ParameterInfo("flux_njy", "nJy", "flux", "identity", location=0.0, scale=100.0, magnitude="mag")
    others = make.gampen_metadata().parameters[:2]
    path = str(tmp_path / "a.pt")
    save_bundle(path, script_of(make.gampen()), make.gampen_metadata(parameters=(*others, flux)))
    posterior = POSTERIOR.model_copy(update={"method": method, "passes": 64})
    near = infer(load_bundle(path), make_block(5), posterior=posterior)
    flags = near["net_flags"]
    assert ((flags & ModelFlag.NO_MAGNITUDE) > 0).all()
    assert ((flags & ModelFlag.MODEL_FAILED) == 0).all()
    for name, column in near.items():
        if column.dtype.kind == "f":
            assert np.isnan(column).all() if "_mag_" in name else np.isfinite(column).all(), name
    bright = dataclasses.replace(flux, location=1e5)
    save_bundle(path, script_of(make.gampen()), make.gampen_metadata(parameters=(*others, bright)))
    values = infer(load_bundle(path), make_block(5), posterior=posterior)
    assert ((values["net_flags"] & ModelFlag.NO_MAGNITUDE) == 0).all()
    assert np.isfinite(values["net_mag_mean"]).all()


@pytest.mark.parametrize("kind", ["gampen", "sfnet"])
@pytest.mark.parametrize("engine", ["torchscript", "rebuilt"])
def test_an_embedding_is_the_last_features_without_dropout(kind, engine, request, make_block):
    bundle = request.getfixturevalue(f"{kind}_bundle")
    block = make_block(18, len(bundle.bands))
    inputs = BlockInputs(block, np.arange(18) != 3)
    values = infer_block(
        Ensemble((bundle,), embedding_dtype="float32"),
        inputs,
        name="net",
        posterior=POSTERIOR,
        execution=Execution(Engine(engine)),
    )
    images = torch.from_numpy(block.image / np.float32(57.544))
    with torch.inference_mode():
        expected = bundle.script.last_features(bundle.prefix(images)).numpy()
    assert expected.shape == (18, bundle.n_features)
    found = values["net_embedding"]
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    assert np.isnan(found[3]).all()  # not selected
    left = inputs.selected
    np.testing.assert_allclose(found[left], expected[left], rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    # All other columns are those of a run without it.
    plain = infer(bundle, block, selected=inputs.selected)
    if engine == "torchscript":
        assert_equal_to_rounding({k: v for k, v in values.items() if k != "net_embedding"}, plain)


@pytest.mark.parametrize("method", ["mixture", "samples"])
def test_a_density_is_the_posterior_on_its_grid(method, gampen_bundle, make_block):
    block = make_block(9)
    inputs = BlockInputs(block, np.arange(9) != 3)
    grids = (
        DensityGrid(parameter="re_arcsec", low=0.0, high=200.0, bins=4000),
        DensityGrid(parameter="bt", low=0.0, high=0.2, bins=10),
    )
    posterior = POSTERIOR.model_copy(update={"method": method})
    values = infer_block(Ensemble((gampen_bundle,), densities=grids), inputs, name="net", posterior=posterior)
    density = values["net_re_arcsec_density"]
    assert (density.shape, density.dtype) == ((9, 4000), np.float32)
    assert np.isnan(density[3]).all()
    assert np.isnan(values["net_re_arcsec_hpd68_low"][3])
    assert values["net_re_arcsec_peaks"][3] == -1
    left = inputs.selected
    # The grid holds all of the posterior, whose quantiles are those of the density.
    cdf = np.cumsum(density[left].astype(np.float64), axis=1) * 0.05
    np.testing.assert_allclose(cdf[:, -1], 1.0, atol=1e-4)
    # Twelve draws are too few to compare interpolated quantiles.
    for row, of_row in enumerate(np.flatnonzero(left)) if method == "mixture" else ():
        medians = np.interp(0.5, cdf[row], np.linspace(0.05, 200, 4000))
        assert medians == pytest.approx(values["net_re_arcsec_q500"][of_row], abs=0.06)
        low, high = values["net_re_arcsec_hpd68_low"][of_row], values["net_re_arcsec_hpd68_high"][of_row]
        inside = np.interp([low, high], np.linspace(0, 200, 4001), np.concatenate([[0], cdf[row]]))
        assert np.diff(inside)[0] == pytest.approx(0.6827, abs=1e-3)
        equal_tailed = values["net_re_arcsec_q84135"][of_row] - values["net_re_arcsec_q15865"][of_row]
        assert high - low < equal_tailed + 0.06
    assert (values["net_re_arcsec_peaks"][left] >= 1).all()
    # A grid that holds too little gives no interval, and spoils nothing else.
    lacks = np.nansum(values["net_bt_density"] * 0.02, axis=1) < 0.68
    assert np.isnan(values["net_bt_hpd68_low"][lacks]).all()
    assert np.isfinite(values["net_bt_q500"][left]).all()
    plain = infer_block(gampen_bundle, inputs, name="net", posterior=posterior)
    assert_equal_to_rounding({name: values[name] for name in plain}, plain)


def test_a_density_of_what_is_no_parameter_is_refused(gampen_bundle):
    def grid(name):
        return DensityGrid(parameter=name, low=0.0, high=1.0, bins=10)

    with pytest.raises(
        BundleError, match=r"densities: z is no parameter of .*; it has bt, re_arcsec, flux_njy"
    ):
        Ensemble((gampen_bundle,), densities=(grid("z"),))
    with pytest.raises(BundleError, match="densities: bt occurs twice"):
        Ensemble((gampen_bundle,), densities=(grid("bt"), grid("bt")))
