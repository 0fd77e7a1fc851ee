"""Cutouts of a store joined with labels, and what is trained on them."""

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from galbatch import ingest, models
from galbatch.cli.app import app
from galbatch.config import read_toml
from galbatch.core.pixels import Partition
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.learning import (
    LabeledImages,
    LabelSources,
    open_labeled,
    resolve_settings,
    train_and_save,
)
from galbatch.objects import write_table
from tests.unit.learning.blocks import block_of

GRID = Grid(32, 0.168)
BANDS = ("g", "r")
PARTITIONS = (Partition(5, 7123, 0, 300), Partition(5, 7124, 300, 340))
SETTINGS = """
bands = ["r"]
width = 0.125
head = "gaussian"
dropout_rate = 0.01
optimizer = "adam"
learning_rate = 1e-3
max_gradient_norm = 5.0
frozen_norm_share = 1.0
batch = 32
epochs = 2
[[parameters]]
name = "flux_njy"
unit = "nJy"
description = "total flux in r"
transform = "ln"
"""


def blobs(n, seed, *, blur_px=2.0, ratio=2.0):
    """Round galaxies (object, band, y, x), `ratio` times as bright in r as in g, and their flux in r."""
    rng = np.random.default_rng(seed)
    flux = 10.0 ** rng.uniform(4, 5.5, n)
    offset = np.arange(GRID.size_px) - GRID.size_px // 2
    shape = np.exp(-0.5 * (offset[:, None] ** 2 + offset[None, :] ** 2) / blur_px**2)
    light = flux[:, None, None, None] * (shape / shape.sum()) * np.array([1 / ratio, 1.0])[:, None, None]
    return (light + rng.normal(0, 2.0, light.shape)).astype(np.float32), flux


def block_with_psf(images, ids):
    """Cutouts whose PSF differs from object to object."""
    psf = np.linspace([0.7, 0.6], [0.9, 0.8], len(ids), dtype=np.float32)
    return dataclasses.replace(block_of(GRID, BANDS, images, ids), psf_fwhm_arcsec=psf)


def write_store(path, images, ids):
    ingest.create_groups(path, attributes={"unit": "nJy"}, partitions=PARTITIONS, grids=[GRID])
    for partition in PARTITIONS:
        rows = range(partition.start, partition.stop)
        parts = [np.array(rows[start : start + 256]) for start in range(0, len(rows), 256)]
        blocks = [block_with_psf(images[part], ids[part]) for part in parts]
        ingest.write_partition(path, partition, GRID, blocks, planes=("image",), fingerprint={"a": 1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of 340 galaxies, one without light at its center, and labels: all but 20 of them, 2 of them missing."""
    folder = tmp_path_factory.mktemp("labeled")
    images, flux = blobs(340, seed=1)
    images[7, 1, 15:18, 15:18] = np.nan
    images[8, :, :4] = np.nan
    ids = np.arange(340) * 3 + 2**53
    write_store(str(folder / "cutouts.zarr"), images, ids)
    flux[[100, 320]] = np.nan
    shuffled = np.random.default_rng(2).permutation(320)
    table = {"object_id": ids[shuffled], "flux_njy": flux[shuffled], "ebv": np.linspace(0, 1, 320)[shuffled]}
    write_table(str(folder / "labels.parquet"), pa.table(table))
    (folder / "train.toml").write_text(SETTINGS)
    np.savez(folder / "truth.npz", images=images, flux=flux, ids=ids)
    return folder


def settings_of(folder, **changes):
    given = {**read_toml(folder / "train.toml"), **changes}
    return resolve_settings("sfnet", given, base=None, name="a", source="train.toml")


def opened(folder, *, labels="labels.parquet", id_column="object_id", **changes):
    return open_labeled(
        str(folder / "cutouts.zarr"),
        LabelSources((str(folder / labels),), id_column),
        settings=settings_of(folder, **changes),
    )


@pytest.mark.parametrize("memory_gib", [1.0, 1e-6], ids=["memory", "stream"])
def test_joins_by_id_and_counts_what_is_left_out(folder, memory_gib):
    truth = np.load(folder / "truth.npz")
    good = [row for row in range(320) if row not in (7, 100)]
    data = opened(folder, auxiliary_inputs=[{"name": "ebv"}], memory_gib=memory_gib)
    assert isinstance(data.images, models.BlockImages) == (memory_gib < 1)
    assert data.images.shape == (318, 1, 32, 32)
    np.testing.assert_array_equal(data.images[np.arange(318)], truth["images"][good][:, [1]])
    np.testing.assert_array_equal(data.labels[:, 0], truth["flux"][good])
    np.testing.assert_array_equal(data.extras.object_id, truth["ids"][good])
    np.testing.assert_allclose(data.extras.auxiliary[:, 0], np.linspace(0, 1, 320)[good], rtol=1e-6)
    assert data.extras.psf_fwhm_arcsec.shape == (318, 1)
    assert data.extras.psf_fwhm_arcsec.min() == pytest.approx(0.6)
    counts = (
        "318 of 320 objects with labels; left out: 1 with a missing label, 1 without light at their center"
    )
    streams = (
        "0.0 GiB of cutouts stream from the store: the order of an epoch mixes 2 of 2 blocks at a time; 0.0 GiB of "
        "them are in memory"
    )
    # Shards of cutouts of 32 px hold more than a block: each partition of 300 and of 40 objects is read at once.
    assert data.notes == ((counts,) if memory_gib == 1 else (counts, streams))


def write_labels(folder, name, **columns):
    write_table(str(folder / name), pa.table(columns))
    return name


def test_refuses_what_does_not_join(folder):
    ids = np.load(folder / "truth.npz")["ids"][:4]
    ones = np.ones(4)
    other = write_labels(folder, "other.parquet", object_id=ids + 1, flux_njy=ones)
    texts = write_labels(folder, "texts.parquet", object_id=[str(i) for i in ids], flux_njy=ones)
    twice = write_labels(folder, "twice.parquet", object_id=[*ids[:3], ids[0]], flux_njy=ones)
    for arguments, message in (
        ({"labels": other}, r"none of its 4 objects with labels has a cutout in .* on 32px_0.168arcsec"),
        ({"labels": texts}, "none of its 4 objects"),
        ({"labels": twice}, "1 of the ids in column object_id occur again"),
        ({"id_column": "id"}, "no column id; there are object_id, flux_njy, ebv"),
        ({"bands": ["i"]}, "bands: i: not in the store, which has g, r"),
        (
            {"size_px": 96},
            r"no grids fit pixel_scale_arcsec 0.168 and size_px 96; there are 32px_0.168arcsec",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            opened(folder, **arguments)


def command(folder, output, *more):
    return [
        "models", "train", "sfnet", "-o", str(output), "--store", str(folder / "cutouts.zarr"), "--labels",
        str(folder / "labels.parquet"), "--settings", str(folder / "train.toml"), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def parent(folder):
    """A bundle trained on the store by the command."""
    result = CliRunner().invoke(app, command(folder, folder / "parent.pt"), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder / "parent.pt", result.output


def test_the_command_trains_on_a_store(folder, parent):
    path, output = parent
    assert "318 of 320 objects with labels; left out: 1 with a missing label" in output
    assert "epoch 2 of 2: loss" in output
    counts = re.search(r"(\d+) objects to train on, (\d+) to validate, (\d+) left for a test", output)
    assert sum(map(int, counts.groups())) == 318
    metadata = models.load_bundle(str(path)).metadata
    assert (metadata.name, metadata.input.bands, metadata.input.size_px) == ("parent", ("r",), 32)
    made = metadata.training
    assert (made["store"], made["labels"], made["optimizer"]) == ("cutouts.zarr", "labels.parquet", "adam")
    assert made["n_training"] + made["n_validation"] + made["n_test"] == 318
    low, high = metadata.domain.psf_fwhm_arcsec[0]
    assert 0.55 < low < 0.7
    assert 0.7 < high < 0.85
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".md").read_text().startswith("# parent 1")
    assert not (folder / "parent.pt.ckpt").exists()


def test_fine_tuning_learns_a_shifted_population(folder, parent, tmp_path):
    """Galaxies blurred twice as much and read as fainter by the parent: a few labels mend it."""
    before = models.load_bundle(str(parent[0]))
    images, flux = blobs(200, seed=9, blur_px=4.0)
    settings = resolve_settings(
        "sfnet", {"epochs": 4, "learning_rate": 3e-4}, base=before, name="tuned", source="settings"
    )
    assert (settings.width, settings.optimizer, settings.size_px) == (0.125, "adam", 32)
    data = LabeledImages(images[:, 1:], flux[:, None])
    outcome = train_and_save(data, tmp_path / "tuned.pt", settings=settings, parent=before)
    made = outcome.trained.metadata.training
    assert made["parent_sha256"] == before.sha256
    assert made["validation_loss"] < made["parent_validation_loss"] - 0.3
    kept, new = before.metadata.parameters[0], outcome.trained.metadata.parameters[0]
    assert (new.location, new.scale) == (kept.location, kept.scale)
    assert new.training_range == pytest.approx((flux.min(), flux.max()), rel=0.05)


def tuned(before, **given):
    images, flux = blobs(100, seed=9)
    given = {"epochs": 1, "learning_rate": 1e-3, "batch": 16, **given}
    settings = resolve_settings("sfnet", given, base=before, name="tuned", source="settings")
    return models.train(images[:, 1:], flux[:, None], settings=settings, parent=before)


def test_only_the_head_is_trained(parent):
    before = models.load_bundle(str(parent[0]))
    after = tuned(before, trainable="head").network.state_dict()
    for name, value in before.script.state_dict().items():
        assert np.array_equal(value, after[name]) != name.startswith("resnet.fc."), name


def test_another_parameter_gets_a_new_last_layer(parent):
    before = models.load_bundle(str(parent[0]))
    other = [{"name": "z", "unit": "", "description": "", "transform": "identity"}]
    result = tuned(before, parameters=other, learning_rate=1e-12)
    assert result.metadata.parameters[0].location > 1e4  # of the labels, not of the parent's ln
    same = before.script.state_dict()["resnet.conv1.weight"]
    np.testing.assert_allclose(result.network.state_dict()["resnet.conv1.weight"], same, atol=1e-6)
    assert not np.allclose(
        result.network.state_dict()["resnet.fc.weight"], before.script.state_dict()["resnet.fc.weight"]
    )


def test_scaling_is_fitted_again_when_asked(parent):
    before = models.load_bundle(str(parent[0]))
    after = tuned(before, refit_scaling=True).metadata.parameters[0]
    assert after.location != before.metadata.parameters[0].location


def test_a_parent_that_does_not_fit_is_refused(parent):
    before = models.load_bundle(str(parent[0]))
    with pytest.raises(UsageError, match=r"its weights do not fit the network of the settings.*leave out"):
        tuned(before, width=0.25)
    two = dataclasses.replace(before, metadata=dataclasses.replace(before.metadata, members=2))
    with pytest.raises(UsageError, match=r"is sfnet with 2 member\(s\)"):
        tuned(two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet", "-o", "a.pt"], "models train resnet: expected one of gampen, sfnet"),
        (["sfnet", "-o", "a.bin"], "a bundle's name ends in .pt"),
        (["sfnet", "-o", "a.pt", "--store", "s.zarr"], "--store and --labels go together"),
        (["sfnet", "-o", "a.pt", "--store", "s", "--labels", "l", "--epochs", "2"], "--store without --settings"),
        (["sfnet", "-o", "a.pt", "--store", "s", "--labels", "l", "--objects", "300"], "are of the simulation"),
        (["sfnet", "-o", "a.pt", "--settings", "none.toml"], "none.toml: cannot be read"),
        (["sfnet", "-o", "a.pt", "--settings", "bad.toml"], "bad.toml: learnin_rate: unknown key; did you mean learning_rate"),
        (["gampen", "-o", "a.pt", "--from", "demo:sfnet"], "architecture is sfnet, and gampen is to be trained"),
        (["sfnet", "-o", "a.pt", "--from", "nothing.pt"], "there is no such bundle"),
        (["sfnet", "-o", "a.pt", "--device", "tpu"], "device must be auto, cpu or cuda"),
        (["sfnet", "-o", "a.pt", "--population", "real"], "real"),
    ],
)  # fmt: skip
def test_wrong_arguments_say_what_is_wrong(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("learnin_rate = 1e-3\n")
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(app, ["models", "train", *arguments], catch_exceptions=False)
    assert not (tmp_path / "a.pt").exists()


def test_a_run_that_was_stopped_is_resumed_by_the_command(folder, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole.pt", tmp_path / "stopped.pt"
    more = ["--epochs", "3"]
    named = (folder / "train.toml").read_text()
    settings = tmp_path / "named.toml"
    settings.write_text('name = "a"\n' + named)
    arguments = {
        path: [*command(folder, path, *more), "--settings", str(settings)] for path in (whole, stopped)
    }
    assert CliRunner().invoke(app, arguments[whole], catch_exceptions=False).exit_code == 0

    from galbatch.learning.progress import TrainingProgress

    original = TrainingProgress.batch

    def stop(self, done):
        original(self, done)
        if done.epoch == 2 and done.batch > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingProgress, "batch", stop)
    result = CliRunner().invoke(app, arguments[stopped])
    assert result.exit_code == 75
    assert "add --resume to continue from" in " ".join(result.output.split())
    monkeypatch.setattr(TrainingProgress, "batch", original)
    with pytest.raises(UsageError, match="a checkpoint of an earlier run is there; add --resume"):
        CliRunner().invoke(app, arguments[stopped], catch_exceptions=False)
    result = CliRunner().invoke(
        app, [*arguments[stopped], "--resume", "--keep-checkpoint"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "epoch 1 of" not in result.output
    assert (tmp_path / "stopped.pt.ckpt").exists()
    one, other = (models.load_bundle(str(path)).script.state_dict() for path in (whole, stopped))
    assert all(np.array_equal(value, other[name]) for name, value in one.items())
