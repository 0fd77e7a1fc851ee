import dataclasses

import numpy as np
import pytest
import torch

from galbatch.errors import FingerprintError, GalbatchError, UsageError
from galbatch.models import (
    AuxiliaryInput,
    Extras,
    ParameterInfo,
    Session,
    TrainingSettings,
    load_bundle,
    save_bundle,
    script_of,
    train,
)
from galbatch.models.heads import outputs_per_pass
from galbatch.models.heads.point import rmse_loss
from galbatch.models.training import TrainingLoop
from galbatch.models.training.loop import augmented, rate_factor

SETTINGS = TrainingSettings(
    name="toy",
    architecture="sfnet",
    bands=("g",),
    parameters=(
        ParameterInfo("flux_njy", "nJy", "total flux", "ln", magnitude="mag"),
        ParameterInfo("width_arcsec", "arcsec", "width", "ln"),
    ),
    head="gaussian",
    width=1 / 8,
    dropout_rate=1e-3,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="cosine",
    warmup_epochs=0.5,
    max_gradient_norm=5.0,
    frozen_norm_share=0.5,
    epochs=6,
    batch=32,
    seed=3,
)


def settings_with(**changes):
    return dataclasses.replace(SETTINGS, **changes)


@pytest.fixture(scope="module")
def trained():
    """A small SFNet trained on 1000 blobs, and its history as it was reported."""
    images, labels = labeled_blobs(1000, seed=1)
    reported = []
    return train(images, labels, settings=SETTINGS, session=Session(on_epoch=reported.append)), reported


def labeled_blobs(n, seed, size_px=32):
    images, flux, width = blobs(n, seed, size_px)
    return images, np.stack([flux, width], 1)


def blobs(n, seed, size_px=32):
    rng = np.random.default_rng(seed)
    flux, width_px = 10.0 ** rng.uniform(4, 5.5, n), 10.0 ** rng.uniform(0.2, 0.7, n)
    offset = np.arange(size_px) - size_px // 2
    shape = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / width_px[:, None, None] ** 2)
    light = flux[:, None, None] * shape / shape.sum(axis=(1, 2), keepdims=True)
    images = light[:, None] + rng.normal(0, 2.0, (n, 1, size_px, size_px))
    return images.astype(np.float32), flux, width_px * 0.168


def test_rate_warms_up_then_falls_to_zero():
    settings = settings_with(epochs=10, warmup_epochs=1.0)
    assert rate_factor(0.1, settings) == pytest.approx(0.1)
    assert rate_factor(1.0, settings) == pytest.approx(1.0)
    assert rate_factor(5.5, settings) == pytest.approx(0.5)
    assert rate_factor(10.0, settings) == pytest.approx(0.0)
    assert rate_factor(7.0, settings_with(schedule="constant")) == 1.0


def test_sfnets_loss_is_the_root_of_the_mean_square():
    outputs, target = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert rmse_loss(outputs, target).item() == pytest.approx(np.sqrt((4 + 16) / 4))


def test_defaults_are_the_papers():
    gampen = TrainingSettings("a", "gampen", ("g",), SETTINGS.parameters)
    assert (gampen.optimizer, gampen.learning_rate, gampen.momentum) == ("sgd", 5e-7, 0.99)
    assert (gampen.weight_decay, gampen.batch, gampen.epochs) == (1e-4, 16, 40)
    assert (gampen.validation_share, gampen.test_share) == (0.15, 0.15)
    assert (gampen.head, gampen.loss, gampen.dropout_rate) == ("gaussian", "likelihood", 7e-4)
    sfnet = TrainingSettings("a", "sfnet", ("g",), SETTINGS.parameters)
    assert (sfnet.head, sfnet.loss, sfnet.dropout_rate, sfnet.n_top_features) == ("point", "rmse", 0.0, 8)


def test_augmentation_only_turns_and_flips():
    image = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    order = np.random.default_rng(1).permutation(8)
    turned = augmented(torch.from_numpy(np.repeat(image, 16, axis=0)), order).numpy()
    forms = {part.tobytes() for part in turned}
    assert len(forms) == 8  # the eight symmetries of the square
    assert all(np.array_equal(np.sort(part.ravel()), image.ravel()) for part in turned)


def test_augmentation_keeps_the_order_of_the_objects():
    images = np.random.default_rng(0).normal(size=(20, 1, 4, 4)).astype(np.float32)
    turned = augmented(torch.from_numpy(images), np.random.default_rng(1).permutation(8)).numpy()
    np.testing.assert_allclose(turned.sum(axis=(1, 2, 3)), images.sum(axis=(1, 2, 3)), atol=1e-5)


def test_learns_flux_and_width(trained, tmp_path):
    result, reported = trained
    assert list(result.history) == reported
    assert [epoch.epoch for epoch in reported] == list(range(1, len(reported) + 1))
    assert reported[-1].validation_loss < reported[0].validation_loss
    save_bundle(str(tmp_path / "toy.pt"), script_of(result.network), result.metadata)
    bundle = load_bundle(str(tmp_path / "toy.pt"))
    images, labels = labeled_blobs(300, seed=2)
    in_unit = torch.from_numpy(images / np.float32(10 ** (0.4 * (31.4 - 27.0))))
    means = bundle.sample(bundle.prefix(in_unit), torch.arange(300))[:, :2].detach().numpy()
    for index, parameter in enumerate(bundle.metadata.parameters):
        truth = (np.log(labels[:, index]) - parameter.location) / parameter.scale
        assert 1 - np.mean((means[:, index] - truth) ** 2) / truth.var() > 0.8


def test_metadata_holds_what_was_seen(trained):
    metadata, split = trained[0].metadata, trained[0].split
    _, labels = labeled_blobs(1000, seed=1)
    seen = labels[split.training]
    assert metadata.parameters[0].location == pytest.approx(np.log(seen[:, 0]).mean())
    assert metadata.parameters[1].scale == pytest.approx(np.log(seen[:, 1]).std())
    assert metadata.parameters[0].training_range == (seen[:, 0].min(), seen[:, 0].max())
    low, high = metadata.domain.sky_sigma_njy[0]
    assert low < 2.0 < high
    made = metadata.training
    assert (made["n_training"], made["n_test"]) == (len(split.training), len(split.test))
    assert made["best_epoch"] == min(trained[1], key=lambda e: e.validation_loss).epoch
    assert (made["optimizer"], made["schedule"], made["seed"]) == ("adam", "cosine", 3)
    assert metadata.domain.distance_limit > 0


def test_the_three_parts_are_apart_and_the_test_set_is_not_read():
    images, labels = labeled_blobs(300, seed=5)
    read = []

    class Watched:
        shape = images.shape

        def __getitem__(self, rows):
            read.extend(np.atleast_1d(rows).tolist())
            return images[rows]

    split = train(Watched(), labels, settings=settings_with(epochs=1)).split
    parts = [set(part.tolist()) for part in (split.training, split.validation, split.test)]
    assert [len(part) for part in parts] == pytest.approx([210, 45, 45], abs=20)
    assert len(parts[0] | parts[1] | parts[2]) == 300
    assert set(read[: -len(parts[0])]) <= parts[0] | parts[1] | fingerprint_rows(300)
    assert not set(read) & (parts[2] - fingerprint_rows(300))


def fingerprint_rows(n):
    """Rows whose pixels go into the fingerprint of the data, and nowhere else."""
    return set(np.linspace(0, n - 1, 32).astype(int).tolist())


def weights_of(result):
    return {name: value.clone() for name, value in result.network.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("architecture", ["sfnet", "gampen"])
def test_same_seed_same_bits(architecture):
    images, labels = labeled_blobs(150, seed=5, size_px=40)
    settings = settings_with(architecture=architecture, width=1 / 16, epochs=1, n_top_features=None)
    settings = dataclasses.replace(settings, n_top_features=4 if architecture == "sfnet" else 0)
    one, again, other = (
        weights_of(train(images, labels, settings=dataclasses.replace(settings, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert_same(one, again)
    assert any(not torch.equal(one[name], other[name]) for name in one)


class Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd", "average_weights": 0.9}, {"optimizer": "adamw", "precision": "bf16"}],
    ids=["adam", "sgd-mean", "adamw-bf16"],
)
def test_killed_within_an_epoch_and_resumed_gives_the_same_bits(tmp_path, changes):
    images, labels = labeled_blobs(150, seed=5)
    settings = settings_with(epochs=3, batch=16, **changes)
    whole = train(images, labels, settings=settings)
    session = Session(checkpoint=tmp_path / "a.ckpt")

    def kill(done):
        if done.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train(images, labels, settings=settings, session=dataclasses.replace(session, on_batch=kill))
    resumed = train(images, labels, settings=settings, session=dataclasses.replace(session, resume=True))
    assert_same(weights_of(whole), weights_of(resumed))
    assert [e.validation_loss for e in whole.history] == [e.validation_loss for e in resumed.history]


def test_a_checkpoint_is_not_trained_over_nor_mistaken(tmp_path):
    images, labels = labeled_blobs(150, seed=5)
    settings = settings_with(epochs=1, batch=16)
    session = Session(checkpoint=tmp_path / "a.ckpt")
    train(images, labels, settings=settings, session=session)
    with pytest.raises(FingerprintError, match="add --resume to continue from it, or remove it"):
        train(images, labels, settings=settings, session=session)
    again = dataclasses.replace(session, resume=True)
    with pytest.raises(FingerprintError, match=r"\(batch: 16, now 8\); continue with its settings"):
        train(images, labels, settings=dataclasses.replace(settings, batch=8), session=again)
    with pytest.raises(FingerprintError, match=r"\(data: "):
        train(images, labels * 1.01, settings=settings, session=again)
    (tmp_path / "a.ckpt").write_bytes(b"PK no checkpoint")
    with pytest.raises(FingerprintError, match="is no checkpoint of galbatch, or is damaged"):
        train(images, labels, settings=settings, session=again)


def test_the_best_epoch_is_kept_and_training_stops_early(monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    kept = []

    def validate(self, number):
        kept.append({name: value.clone() for name, value in self.network.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(TrainingLoop, "validate", validate)
    images, labels = labeled_blobs(100, seed=5)
    result = train(images, labels, settings=settings_with(patience=2))
    assert len(result.history) == 4
    name = "resnet.conv1.weight"
    assert torch.equal(result.network.state_dict()[name], kept[1][name])
    assert not torch.equal(result.network.state_dict()[name], kept[3][name])


def test_the_mean_of_the_weights_is_kept(monkeypatch):
    raw = []
    original = TrainingLoop.validate

    def validate(self, number):
        raw.append((weights_of(self), {n: v.clone() for n, v in self.average.state_dict().items()}))
        return original(self, number)

    monkeypatch.setattr(TrainingLoop, "validate", validate)
    images, labels = labeled_blobs(100, seed=5)
    result = train(images, labels, settings=settings_with(epochs=1, average_weights=0.5))
    name = "resnet.conv1.weight"
    assert not torch.equal(raw[0][0][name], raw[0][1][name])
    torch.testing.assert_close(result.network.state_dict()[name], raw[0][1][name])


def test_a_diverging_training_says_so():
    images, labels = labeled_blobs(100, seed=5)
    wild = settings_with(optimizer="sgd", learning_rate=1e6, max_gradient_norm=None, warmup_epochs=0.0)
    with pytest.raises(GalbatchError, match=r"loss is not finite.*lower learning_rate \(1e\+06\)"):
        train(images, labels, settings=wild)


def test_gampen_is_trained_too():
    images, flux, width = blobs(64, seed=5, size_px=48)
    parameters = (ParameterInfo("bt", "", "", "logit", limits=(0.02, 0.98)), *SETTINGS.parameters)
    settings = settings_with(
        architecture="gampen", n_top_features=0, parameters=parameters, width=1 / 16, batch=16, epochs=1
    )
    labels = np.stack([np.linspace(0, 1, 64), flux, width], 1)
    metadata = train(images, labels, settings=settings).metadata
    low, high = metadata.domain.crop_limits
    assert 0 < low < high
    assert outputs_per_pass(metadata) == 9


@pytest.mark.parametrize(
    ("changes", "n_outputs"),
    [
        ({"head": "point", "loss": "likelihood"}, 1),
        ({"head": "point", "loss": "rmse"}, 1),
        ({"head": "mixture", "components": 3}, 9),
        ({"head": "binned", "edges": ((1e4, 3e4, 1e5, 3.2e5),)}, 3),
    ],
)
def test_heads(changes, n_outputs):
    images, flux, _ = blobs(100, seed=5)
    settings = settings_with(parameters=SETTINGS.parameters[:1], batch=16, epochs=2, **changes)
    result = train(images, flux[:, None], settings=settings)
    assert (result.metadata.head.kind, outputs_per_pass(result.metadata)) == (changes["head"], n_outputs)
    assert result.history[1].validation_loss < result.history[0].validation_loss


def test_classes_are_learned():
    """Bright and faint blobs: after a few epochs each has the larger probability of its own class."""
    images, flux, _ = blobs(120, seed=5)
    bright = (flux > np.median(flux)).astype(float)
    labels = np.stack([bright, 1 - bright], axis=1)
    classes = tuple(ParameterInfo(name, "", "", "identity") for name in ("p_bright", "p_faint"))
    settings = settings_with(parameters=classes, batch=16, epochs=3, head="softmax")
    result = train(images, labels, settings=settings)
    assert [(p.location, p.scale) for p in result.metadata.parameters] == [(0.0, 1.0)] * 2
    assert result.history[-1].validation_loss < min(np.log(2), result.history[0].validation_loss)
    labels[7] = 1.0
    problem = r"labels of 1 objects are no classes, the first of object 7: \[1.0, 1.0\]"
    with pytest.raises(UsageError, match=problem):
        train(images, labels, settings=settings)


@pytest.mark.parametrize("architecture", ["sfnet", "gampen"])
def test_auxiliary_inputs_are_learned_from(architecture, tmp_path):
    """Images of noise: what is to be estimated stands in the column alone."""
    rng = np.random.default_rng(1)
    images = rng.normal(0, 2.0, (300, 1, 33, 33)).astype(np.float32)
    column = rng.normal(30.0, 5.0, (300, 1)).astype(np.float32)
    settings = settings_with(
        architecture=architecture,
        parameters=(ParameterInfo("z", "", "", "identity"),),
        auxiliary_inputs=(AuxiliaryInput("color"),),
        n_top_features=0 if architecture == "gampen" else 8,
        width=1 / 16,
        learning_rate=0.01,
        batch=16,
        epochs=5,
    )
    result = train(images, column.astype(float), settings=settings, extras=Extras(auxiliary=column))
    assert result.history[-1].validation_loss < result.history[0].validation_loss - 0.3
    save_bundle(str(tmp_path / "a.pt"), script_of(result.network), result.metadata)
    bundle = load_bundle(str(tmp_path / "a.pt"))
    given = torch.from_numpy(column[:100])
    outputs = bundle.sample(
        bundle.prefix(torch.from_numpy(images[:100] / np.float32(57.544)), given), torch.arange(100)
    )
    assert np.corrcoef(outputs[:, 0].detach().numpy(), column[:100, 0])[0, 1] > 0.9


def test_a_checkpoint_that_lacks_a_later_setting_is_read_as_its_default(tmp_path):
    images, labels = labeled_blobs(150, seed=5)
    settings = settings_with(epochs=1, batch=16)
    path = tmp_path / "a.ckpt"
    train(images, labels, settings=settings, session=Session(checkpoint=path))
    content = torch.load(path, weights_only=True)
    del content["identity"]["precision"]
    torch.save(content, path)
    assert (
        len(train(images, labels, settings=settings, session=Session(checkpoint=path, resume=True)).history)
        == 1
    )


def test_non_finite_pixels_count_as_zero():
    images, labels = labeled_blobs(100, seed=5)
    holes, zeros = images.copy(), images.copy()
    holes[:, :, :2], zeros[:, :, :2] = np.nan, 0.0
    settings = settings_with(epochs=1)
    assert_same(*(weights_of(train(i, labels, settings=settings)) for i in (holes, zeros)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.ones((64, 3))}, r"labels must be \(object, parameter\) = \(64, 2\), found \(64, 3\)"),
        ({"images": np.zeros((64, 2, 8, 8), np.float32)}, r"images must be .* with 1 band and square"),
        ({"settings": settings_with(batch=64)}, "64 objects are too few: .* in batches of 64"),
        (
            {"settings": settings_with(architecture="vit")},
            "architecture: Input should be 'gampen', 'sfnet', 'mlp' or 'timm'",
        ),
        ({"settings": settings_with(size_px=40)}, "size_px is 40, and the images have 32 px"),
        (
            {"settings": settings_with(auxiliary_inputs=(AuxiliaryInput("ebv"),))},
            r"auxiliary inputs must be .* \(64, 1\), found None",
        ),
        ({"session": Session(device="tpu")}, "device must be auto, cpu or cuda, found 'tpu'"),
        ({"extras": Extras(object_id=np.arange(3))}, "3 object ids for 64 images"),
        ({"labels": np.zeros((64, 2))}, "flux_njy: .* training values have no ln"),
        (
            {"settings": settings_with(batch=16, n_top_features=65)},
            "toy: k must lie between 1 and the 64 features",
        ),
        (
            {"settings": settings_with(batch=16, architecture="gampen", n_top_features=0)},
            "toy: GaMPEN needs cutouts of 33 px or more, found 32",
        ),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    arguments = {
        "images": np.zeros((64, 1, 32, 32), np.float32),
        "labels": np.random.default_rng(0).uniform(1, 2, (64, 2)),
        "settings": settings_with(batch=16),
        **change,
    }
    images, labels = arguments.pop("images"), arguments.pop("labels")
    with pytest.raises(UsageError, match=message):
        train(images, labels, **arguments)


def test_training_leaves_no_denormal_weights_behind(trained):
    for parameter in trained[0].network.parameters():
        size = parameter.detach().abs()
        assert not ((size > 0) & (size < 1e-20)).any()
