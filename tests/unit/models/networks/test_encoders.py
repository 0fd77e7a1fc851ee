"""Encoders of timm, with a made-up timm: the real one is no part of the environment, and its torchvision must be that of torch's release."""

import sys
import types
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from galbatch.cli.app import app
from galbatch.errors import ConfigError, MissingPackage, UsageError
from galbatch.models import (
    AuxiliaryInput,
    Bundle,
    Extras,
    ParameterInfo,
    Session,
    TrainingSettings,
    load_bundle,
    parse_settings,
    save_bundle,
    script_of,
    train,
)
from galbatch.models.networks import Encoded, timm_encoder

N, SIZE = 320, 16


class Tiny(nn.Module):
    """Convolutions and a mean, as an encoder without its classifier."""

    def __init__(self, n_bands: int):
        super().__init__()
        self.conv = nn.Conv2d(n_bands, 8, 5, stride=2)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3))


class Maps(Tiny):
    """An encoder that gives maps."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Unscripted(Tiny):
    """An encoder that TorchScript cannot compile."""

    def forward(self, *x):
        return super().forward(*x)


KINDS = {"tiny": Tiny, "maps": Maps, "unscripted": Unscripted}


@pytest.fixture
def timm(monkeypatch):
    """A timm that has the encoders above, and records what it was asked for."""
    asked = []

    def create_model(name, *, pretrained, in_chans, num_classes):
        asked.append((name, pretrained, in_chans, num_classes))
        if name not in KINDS:
            raise RuntimeError(f"Unknown model ({name})")
        return KINDS[name](in_chans)

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    return asked


def settings_of(**changes):
    given = {
        "name": "encoded",
        "architecture": "timm",
        "encoder": "tiny",
        "bands": ("g", "r"),
        "parameters": (ParameterInfo("color", "mag", "color", "identity"),),
        "auxiliary_inputs": (AuxiliaryInput("shift"),),
        "zero_point_mag": 31.4,
        "hidden": (16,),
        "dropout_rate": 0.1,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "batch": 32,
        "epochs": 12,
        "frozen_norm_share": 0.5,
    }
    return TrainingSettings(**{**given, **changes})


def galaxies():
    """Galaxies whose label is the color in the image plus the auxiliary input."""
    rng = np.random.default_rng(1)
    color, shift = rng.normal(size=(2, N))
    images = np.full((N, 2, SIZE, SIZE), 10.0, np.float32)
    images[:, 1] *= np.exp(color)[:, None, None]
    return images, (color + shift)[:, None], Extras(auxiliary=shift[:, None].astype(np.float32))


@pytest.fixture
def trained(timm):
    images, labels, extras = galaxies()
    return train(images, labels, settings=settings_of(), extras=extras, session=Session("cpu"))


def test_an_encoder_is_trained_stored_and_loaded(timm, trained, tmp_path):
    assert timm == [("tiny", False, 2, 0)]
    first, last = trained.history[0], min(trained.history, key=lambda one: one.validation_loss)
    # In nats: the width of the posterior is less than a third of the label's.
    assert last.validation_loss < first.validation_loss - 0.5
    assert trained.metadata.training["encoder"] == "tiny"
    path = str(tmp_path / "encoded.pt")
    save_bundle(path, script_of(trained.network), trained.metadata)
    # Loading checks that passes follow from their keys alone, and that they differ.
    bundle = load_bundle(path)
    assert isinstance(bundle, Bundle)
    images, _, extras = galaxies()
    given = (torch.from_numpy(images[:4]), torch.from_numpy(extras.auxiliary[:4]))
    keys = torch.arange(4)
    with torch.no_grad():
        features = bundle.script.prefix(*given)
        assert features.shape == (4, 9, 1, 1)
        found = bundle.script.sample(features, keys)
        expected = trained.network(given[0], keys, given[1])
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, bundle.script.sample(features, keys + 100))
    assert bundle.script.last_features(features).shape == (4, 16)


def test_an_encoder_is_fine_tuned_in_its_head_alone(trained, tmp_path):
    path = str(tmp_path / "encoded.pt")
    save_bundle(path, script_of(trained.network), trained.metadata)
    images, labels, extras = galaxies()
    again = train(
        images,
        labels,
        settings=settings_of(trainable="head", epochs=1),
        extras=extras,
        parent=load_bundle(path),
        session=Session("cpu"),
    )
    before, after = trained.network.state_dict(), again.network.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.0.weight", "classifier.0.bias", "fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("name", "size_px", "message"),
    [
        ("resnet0", SIZE, r"encoder resnet0: timm cannot make it \(Unknown model"),
        ("hf-hub:someone/some", SIZE, "expected a name of timm without a hub"),
        ("maps", SIZE, r"gives features of shape \(1, 8, 6, 6\) for one image"),
        ("tiny", 4, "does not take images of 4 px"),
        ("unscripted", SIZE, "cannot be stored as TorchScript"),
    ],
)
def test_encoders_that_cannot_be_used_are_refused_before_the_training(timm, name, size_px, message):
    with pytest.raises(ValueError, match=message):
        timm_encoder(name, 2, size_px)


def test_an_unknown_encoder_is_wrong_usage(timm):
    images, labels, extras = galaxies()
    with pytest.raises(UsageError, match="encoded: encoder resnet0"):
        train(images, labels, settings=settings_of(encoder="resnet0"), extras=extras, session=Session("cpu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ""}, "encoder: missing; it is the name of a network of timm"),
        ({"architecture": "gampen", "in_channels": 2, "hidden": ()}, "encoder: of timm only"),
        ({"n_top_features": 3}, "n_top_features: of sfnet only"),
        ({"bands": ()}, "bands: missing; timm takes images"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    settings = settings_of(**changes)
    given = {name: getattr(settings, name) for name in (one.name for one in fields(settings))}
    with pytest.raises(ConfigError, match=message):
        parse_settings(given, source="train.toml")


def test_a_timm_that_cannot_be_imported_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    """torchvision of another release than torch's raises a RuntimeError when timm imports it."""
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    done = CliRunner().invoke(app, ["models", "train", "timm", "-o", str(tmp_path / "new.pt")])
    assert done.exit_code != 0
    assert isinstance(done.exception, MissingPackage)
    assert str(done.exception) == (
        "models train timm: encoders of timm need timm, which cannot be loaded (operator torchvision::nms does not exist): "
        'pip install "galbatch[timm]"'
    )
    assert not list(tmp_path.glob("new*"))


def test_without_hidden_layers_the_features_go_to_the_outputs():
    network = Encoded(Tiny(1), 3, shape=(1, SIZE)).eval()
    images = torch.rand(2, 1, SIZE, SIZE)
    with torch.no_grad():
        features = network.prefix(images)
        torch.testing.assert_close(network.last_features(features), features.flatten(1))
        assert network(images, torch.arange(2)).shape == (2, 3)
