import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from galbatch.models import (
    ParameterInfo,
    TrainingSettings,
    evaluate,
    load_bundle,
    save_bundle,
    script_of,
    train,
)
from galbatch.models.training import _Fit, augmented, gaussian_loss, rate_factor

SETTINGS = TrainingSettings(
    name="toy",
    version="1",
    architecture="sfnet",
    bands=("g",),
    parameters=(
        ParameterInfo("flux_njy", "nJy", "total flux", "ln", magnitude="mag"),
        ParameterInfo("width_arcsec", "arcsec", "width", "ln"),
    ),
    width=1 / 8,
    n_top_features=8,
    dropout_rate=1e-3,
    epochs=6,
    batch=32,
    seed=3,
)


@pytest.fixture(scope="module")
def trained():
    """A small SFNet trained on 1000 blobs, and its history as progress told it."""
    images, flux, width = blobs(1000, seed=1)
    told = []
    result = train(images, np.stack([flux, width], 1), settings=SETTINGS, progress=told.append)
    return result, told


def blobs(n, seed, size_px=32):
    rng = np.random.default_rng(seed)
    flux, width_px = 10.0 ** rng.uniform(4, 5.5, n), 10.0 ** rng.uniform(0.2, 0.7, n)
    offset = np.arange(size_px) - size_px // 2
    shape = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / width_px[:, None, None] ** 2)
    light = flux[:, None, None] * shape / shape.sum(axis=(1, 2), keepdims=True)
    images = light[:, None] + rng.normal(0, 2.0, (n, 1, size_px, size_px))
    return images.astype(np.float32), flux, width_px * 0.168


def test_loss_is_the_negative_log_likelihood():
    rng = np.random.default_rng(1)
    outputs, target = rng.normal(size=(5, 9)), rng.normal(size=(5, 3))
    expected = []
    for row, y in zip(outputs, target, strict=True):
        lower = np.eye(3)
        lower[[1, 2, 2], [0, 0, 1]] = row[6:]
        covariance = lower @ np.diag(np.exp(row[3:6])) @ lower.T
        expected.append(-multivariate_normal(row[:3], covariance).logpdf(y) - 1.5 * np.log(2 * np.pi))
    loss = gaussian_loss(torch.from_numpy(outputs), torch.from_numpy(target))
    assert loss.item() == pytest.approx(np.mean(expected))


def test_rate_warms_up_then_falls_to_zero():
    assert rate_factor(0, 100, 10) == pytest.approx(0.1)
    assert rate_factor(10, 100, 10) == pytest.approx(1.0)
    assert rate_factor(55, 100, 10) == pytest.approx(0.5)
    assert rate_factor(100, 100, 10) == pytest.approx(0.0)


def test_augmentation_only_turns_and_flips():
    image = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    turned = augmented(np.repeat(image, 16, axis=0), np.random.default_rng(1))
    forms = {part.tobytes() for part in turned}
    assert len(forms) == 8  # the eight symmetries of the square
    assert all(np.array_equal(np.sort(part.ravel()), image.ravel()) for part in turned)


def test_augmentation_keeps_the_order_of_the_objects():
    images = np.random.default_rng(0).normal(size=(20, 1, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(
        augmented(images, np.random.default_rng(1)).sum(axis=(1, 2, 3)), images.sum(axis=(1, 2, 3)), rtol=1e-4
    )


def test_learns_flux_and_width(trained, tmp_path):
    result, told = trained
    assert list(result.history) == told
    assert [epoch.epoch for epoch in told] == list(range(1, len(told) + 1))
    assert told[-1].validation_loss < told[0].validation_loss
    save_bundle(str(tmp_path / "toy.pt"), script_of(result.network), result.metadata)
    images, flux, width = blobs(400, seed=2)
    found = evaluate(load_bundle(str(tmp_path / "toy.pt")), images, np.stack([flux, width], 1))
    assert found["flux_njy"]["r2_of"] == "ln flux_njy"
    assert found["flux_njy"]["r2"] > 0.8
    assert found["width_arcsec"]["r2"] > 0.8
    for parameter in found.values():
        assert 0.4 < parameter["coverage_68"] < 0.98
        assert parameter["coverage_68"] < parameter["coverage_95"]


def test_metadata_holds_what_was_seen(trained):
    metadata = trained[0].metadata
    _, flux, width = blobs(1000, seed=1)
    assert metadata.parameters[0].location == pytest.approx(np.log(flux).mean())
    assert metadata.parameters[1].scale == pytest.approx(np.log(width).std())
    assert metadata.parameters[0].training_range == (flux.min(), flux.max())
    low, high = metadata.domain.sky_sigma_njy[0]
    assert low < 2.0 < high
    assert metadata.training["n_objects"] == 1000
    assert metadata.training["best_epoch"] == min(trained[1], key=lambda e: e.validation_loss).epoch
    assert metadata.domain.distance_limit > 0


def test_same_seed_same_weights():
    images, flux, width = blobs(200, seed=5)
    settings = dataclasses.replace(SETTINGS, epochs=1)
    weights = [
        train(images, np.stack([flux, width], 1), settings=settings).network.state_dict()["resnet.fc.weight"]
        for _ in range(2)
    ]
    assert torch.equal(*weights)


def test_the_best_epoch_is_kept_and_training_stops_early(monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    kept = []

    def validate(self, rows):
        kept.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(_Fit, "validate", validate)
    images, flux, width = blobs(100, seed=5)
    settings = dataclasses.replace(SETTINGS, epochs=6, patience=2)
    result = train(images, np.stack([flux, width], 1), settings=settings)
    assert len(result.history) == 4
    assert torch.equal(result.network.state_dict()["conv1.weight"], kept[1]["conv1.weight"])
    assert not torch.equal(result.network.state_dict()["conv1.weight"], kept[3]["conv1.weight"])


def test_gampen_is_trained_too():
    images, flux, width = blobs(64, seed=5, size_px=48)
    parameters = (ParameterInfo("bt", "", "", "logit", limits=(0.02, 0.98)), *SETTINGS.parameters)
    settings = dataclasses.replace(
        SETTINGS, architecture="gampen", parameters=parameters, width=1 / 16, batch=16, epochs=1
    )
    labels = np.stack([np.linspace(0, 1, 64), flux, width], 1)
    metadata = train(images, labels, settings=settings).metadata
    low, high = metadata.domain.crop_limits
    assert 0 < low < high
    assert metadata.n_outputs == 9


def test_point_head():
    images, flux, _ = blobs(64, seed=5)
    settings = dataclasses.replace(
        SETTINGS, head="point", parameters=SETTINGS.parameters[:1], batch=16, epochs=1
    )
    metadata = train(images, flux[:, None], settings=settings).metadata
    assert (metadata.head.kind, metadata.n_outputs) == ("point", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.ones((64, 3))}, r"labels must be \(object, parameter\) = \(64, 2\), found \(64, 3\)"),
        ({"images": np.zeros((64, 2, 8, 8), np.float32)}, r"images must be .* with 1 bands"),
        ({"settings": dataclasses.replace(SETTINGS, batch=64)}, "too few for batches of 64"),
        (
            {"settings": dataclasses.replace(SETTINGS, architecture="vit")},
            "architecture must be gampen or sfnet",
        ),
        ({"labels": np.zeros((64, 2))}, "flux_njy: 64 training values have no ln"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    arguments = {
        "images": np.zeros((64, 1, 32, 32), np.float32),
        "labels": np.random.default_rng(0).uniform(1, 2, (64, 2)),
        "settings": SETTINGS,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        train(arguments["images"], arguments["labels"], settings=arguments["settings"])


def test_training_leaves_no_denormal_weights_behind(trained):
    for parameter in trained[0].network.parameters():
        size = parameter.detach().abs()
        assert not ((size > 0) & (size < 1e-20)).any()
