"""Stopping calibrations from a store without labels, and as a part of other calibrations, to the files they write."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from galbatch import ingest
from galbatch.cli.app import app
from galbatch.core.pixels import Partition
from galbatch.errors import UsageError
from galbatch.learning import DataSource, calibrate_stopping_only, prepare_stopping
from galbatch.models import StoppingSettings, load_bundle, save_bundle, split_objects
from galbatch.models.metadata import ImageInfo
from galbatch.models.networks import keyed_dropout
from tests.unit.learning.blocks import block_of
from tests.unit.learning.test_calibrate import GRID, METADATA, Sum

N = 300
RATE = 0.3


class Shaky(Sum):
    """Means that scatter over the passes by 0.08."""

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        kept = keyed_dropout(torch.ones(features.shape[0], 16), keys, 1, 0.3)
        mean = features + 0.5 * (kept.mean(dim=1, keepdim=True) - 1.0)
        return torch.cat([mean, torch.full_like(features, self.log_d)], dim=1)


class OnTwoGrids(Shaky):
    """The same, of the first of two images."""

    @torch.jit.export
    def prefix(self, images: list[torch.Tensor]) -> torch.Tensor:
        return images[0].sum(dim=[1, 2, 3], keepdim=False).unsqueeze(1).abs().add(1.0).log()

    def forward(self, images: list[torch.Tensor], keys: torch.Tensor) -> torch.Tensor:
        return self.sample(self.prefix(images), keys)


# The standard deviation of 0.5 times the mean of 16 zeros and 1 / 0.7.
SCATTER = 0.5 * np.sqrt(RATE / (1 - RATE) / 16)
# Of it in the whole variance: over small distances the CDF is a straight line.
SHARE = SCATTER**2 / (0.6**2 + SCATTER**2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of 300 galaxies in two partitions, 10 of them without pixels; bundles with dropout, and one without."""
    folder = tmp_path_factory.mktemp("stopping")
    rng = np.random.default_rng(1)
    images = np.zeros((N, 1, 16, 16), np.float32)
    images[:, 0, 7:10, 7:10] = 10.0 ** rng.uniform(4, 5.5, N)[:, None, None] / 9
    images[:10] = np.nan
    partitions = [Partition(5, 7123, 0, 200), Partition(5, 7124, 200, N)]
    store = str(folder / "cutouts.zarr")
    ingest.create_groups(store, attributes={"unit": "nJy"}, partitions=partitions, grids=[GRID])
    for partition in partitions:
        ids = np.arange(partition.start, partition.stop)
        ingest.write_partition(
            store,
            partition,
            GRID,
            [block_of(GRID, ("r",), images[ids], ids)],
            planes=("image",),
            fingerprint={"a": 1},
        )
    script = torch.jit.script(Shaky(0.6).eval())
    shaky = dataclasses.replace(METADATA, dropout_rate=RATE)
    save_bundle(str(folder / "shaky.pt"), script, shaky)
    record = {
        "store": "cutouts.zarr",
        "labels": "x.parquet",
        "seed": 4,
        "validation_share": 0.2,
        "test_share": 0.3,
    }
    save_bundle(str(folder / "trained.pt"), script, dataclasses.replace(shaky, training=record))
    save_bundle(str(folder / "still.pt"), torch.jit.script(Sum(0.6).eval()), METADATA)
    return folder


def task_of(folder, output, *, bundle="shaky.pt", source=None, **settings):
    source = source or DataSource(str(folder / "cutouts.zarr"))
    few = StoppingSettings(**{"n_objects": 60, "n_passes": 300, **settings})
    return prepare_stopping([str(folder / bundle)], output, source=source, settings=few)


def test_a_store_without_labels_is_enough(folder, tmp_path):
    written = calibrate_stopping_only(task_of(folder, tmp_path / "out.pt"))
    bundle = load_bundle(str(tmp_path / "out.pt"), sha256=written.sha256)
    info = bundle.metadata.stopping
    assert info == written.metadata.stopping
    assert (info.n_objects, info.n_passes) == (60, 300)
    assert info.start in (32, 48, 64, 96)
    median = info.levels.index(0.5)
    assert info.expected[0][median][0][-1] == pytest.approx(SHARE, rel=0.1)
    assert info.actual_over_stated == pytest.approx(1.0, abs=0.3)
    assert info.data == "objects of cutouts.zarr"
    # The network is the same, and nothing else is said of it.
    before = load_bundle(str(folder / "shaky.pt"))
    assert dataclasses.replace(bundle.metadata, stopping=None) == before.metadata
    assert (
        f"Objects may stop from {info.start} passes on. Measured with 300 passes of 60 objects"
        in written.card.read_text()
    )


def test_of_the_store_it_was_trained_on_only_what_was_set_aside_is_used(folder, tmp_path):
    written = calibrate_stopping_only(
        task_of(folder, tmp_path / "out.pt", bundle="trained.pt", n_objects=1000)
    )
    set_aside = split_objects(np.arange(N), seed=4, validation_share=0.2, test_share=0.3).test
    assert written.metadata.stopping.n_objects == (set_aside >= 10).sum() < 120
    assert written.metadata.stopping.data.endswith("of those the training set aside")


def test_simulated_galaxies_do_as_well(folder, tmp_path):
    source = DataSource(population="paper", objects=60)
    written = calibrate_stopping_only(task_of(folder, tmp_path / "out.pt", source=source, n_passes=100))
    assert written.metadata.stopping.n_objects == 60
    assert written.metadata.stopping.data == "simulated galaxies of population paper, seed 1"


def test_too_few_objects(folder, tmp_path):
    with pytest.raises(UsageError, match="20 held-out objects with finite outputs, expected 48 or more"):
        calibrate_stopping_only(task_of(folder, tmp_path / "out.pt", n_objects=20))
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shaky.pt", "still.pt", "--store", "cutouts.zarr"], "is of one bundle, found 2"),
        (["still.pt", "--store", "cutouts.zarr"], "its passes are equal or single values"),
        (["shaky.pt"], "state where held-out objects come from"),
        (["shaky.pt", "--store", "cutouts.zarr", "--labels", "x.parquet"], "reads none"),
        (["shaky.pt", "--store", "cutouts.zarr", "--dropout", "0.1"], "mean nothing with it"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    output = tmp_path / "out.pt"
    called = ["models", "calibrate", *arguments, "--stopping-only", "-o", str(output)]
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(app, called, catch_exceptions=False)
    assert not output.exists()


def test_the_command(folder, tmp_path):
    called = [
        "models",
        "calibrate",
        str(folder / "shaky.pt"),
        "--stopping-only",
        "--store",
        str(folder / "cutouts.zarr"),
    ]
    done = CliRunner().invoke(app, [*called, "-o", str(tmp_path / "out.pt")])
    assert done.exit_code == 0, done.output
    found = re.search(
        r"may stop from (\d+) passes on; actual over stated error of 128 held-out objects: (\S+)", done.output
    )
    assert int(found[1]) in (32, 48, 64, 96)
    assert float(found[2]) == pytest.approx(1.0, abs=0.25)
    assert (tmp_path / "out.md").exists()


def test_a_network_on_several_grids_is_refused_before_anything_is_read(folder):
    more = ImageInfo(("r",), 8, 0.3, "nJy", 31.4)
    taken = dataclasses.replace(METADATA.input, more_grids=(more,))
    metadata = dataclasses.replace(METADATA, dropout_rate=RATE, input=taken)
    save_bundle(str(folder / "two.pt"), torch.jit.script(OnTwoGrids(0.6).eval()), metadata)
    with pytest.raises(UsageError, match="takes cutouts on several grids"):
        task_of(folder, folder / "out.pt", bundle="two.pt")
