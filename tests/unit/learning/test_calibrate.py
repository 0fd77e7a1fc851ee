"""Calibrations from a store with labels and from the simulation, to the files they write."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from galbatch import ingest
from galbatch.cli.app import app
from galbatch.core.pixels import Partition
from galbatch.core.types import Grid
from galbatch.errors import BundleError, UsageError
from galbatch.learning import (
    DataSource,
    FurtherColumns,
    calibrate,
    calibrate_bundle,
    prepare_calibration,
)
from galbatch.models import (
    BundleMetadata,
    CalibrationSettings,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    PassSettings,
    load_bundle,
    save_bundle,
    split_objects,
)
from galbatch.objects import read_table, write_table
from tests.unit.learning.blocks import block_of

GRID = Grid(16, 0.168)
N = 700
METADATA = BundleMetadata(
    name="sum",
    version="1",
    architecture="sum",
    input=InputInfo(("r",), GRID.size_px, GRID.pixel_scale_arcsec, "nJy", 31.4),
    head=HeadInfo("gaussian"),
    parameters=(ParameterInfo("flux_njy", "nJy", "total flux in r", "ln", magnitude="mag"),),
    dropout_rate=0.0,
)


class Sum(torch.nn.Module):
    """The logarithm of the light in the image, with a given width."""

    def __init__(self, width: float):
        super().__init__()
        self.log_d = 2.0 * float(np.log(width))

    def forward(self, images: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: torch.Tensor) -> torch.Tensor:
        return images.sum(dim=(1, 2, 3))[:, None].clamp(min=1.0).log()

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return torch.cat([features, torch.full_like(features, self.log_d)], dim=1)


class Half(Sum):
    """Half of that."""

    @torch.jit.export
    def prefix(self, images: torch.Tensor) -> torch.Tensor:
        return (0.5 * images.sum(dim=(1, 2, 3))[:, None]).clamp(min=1.0).log()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of galaxies, labels that differ from their light by a factor exp(N(0, 0.3)), bundles that say 0.6."""
    folder = tmp_path_factory.mktemp("calibrate")
    rng = np.random.default_rng(1)
    light = 10.0 ** rng.uniform(4, 5.5, N)
    images = np.zeros((N, 1, 16, 16), np.float32)
    images[:, 0, 7:10, 7:10] = light[:, None, None] / 9
    ids = np.arange(N)
    partition = Partition(5, 7123, 0, N)
    ingest.create_groups(
        str(folder / "cutouts.zarr"), attributes={"unit": "nJy"}, partitions=[partition], grids=[GRID]
    )
    blocks = [block_of(GRID, ("r",), images[part], ids[part]) for part in np.array_split(ids, [256, 512])]
    ingest.write_partition(
        str(folder / "cutouts.zarr"), partition, GRID, blocks, planes=("image",), fingerprint={"a": 1}
    )
    flux = light * np.exp(rng.normal(0, 0.3, N))
    write_table(str(folder / "labels.parquet"), pa.table({"object_id": ids, "flux_njy": flux}))
    script = torch.jit.script(Sum(0.6).eval())
    save_bundle(str(folder / "sum.pt"), script, METADATA)
    record = {"store": "cutouts.zarr", "labels": "labels.parquet"}
    record |= {"seed": 4, "validation_share": 0.2, "test_share": 0.5}
    save_bundle(str(folder / "trained.pt"), script, dataclasses.replace(METADATA, training=record))
    record = {"population": "paper", "simulation_seed": 303}
    save_bundle(str(folder / "simulated.pt"), script, dataclasses.replace(METADATA, training=record))
    record = {"store": "other.zarr", "labels": "labels.parquet", "seed": 5, "parent_training": record}
    save_bundle(str(folder / "tuned.pt"), script, dataclasses.replace(METADATA, training=record))
    return folder


def source_of(folder):
    return DataSource(str(folder / "cutouts.zarr"), (str(folder / "labels.parquet"),))


def task_of(folder, output, *, bundle="sum.pt", **settings):
    changed = CalibrationSettings(passes=PassSettings(2), **settings)
    return prepare_calibration([str(folder / bundle)], output, source=source_of(folder), settings=changed)


def test_a_calibration_from_a_store_is_written_with_card_and_figure(folder, tmp_path):
    output = tmp_path / "out.pt"
    done = CliRunner().invoke(
        app,
        [
            *("models", "calibrate", str(folder / "sum.pt"), "-o", str(output)),
            *("--store", str(folder / "cutouts.zarr"), "--labels", str(folder / "labels.parquet")),
        ],
    )
    assert done.exit_code == 0, done.output
    info = load_bundle(str(output)).metadata.calibration
    assert info.inflation_factors[0] == pytest.approx(0.5, rel=0.12)
    assert info.apply
    assert info.data == "objects of cutouts.zarr with labels of labels.parquet"
    assert f"{info.inflation_factors[0]:g}" in done.output
    for table in (*info.results[:4], info.results[-1]):
        assert table.caption in done.output
        assert table.caption in output.with_suffix(".md").read_text()
    assert "without the correction" in done.output
    assert (tmp_path / "out_calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "Found on" in output.with_suffix(".md").read_text()


def test_of_the_store_it_was_trained_on_only_what_was_set_aside_is_used(folder, tmp_path):
    written = calibrate_bundle(task_of(folder, tmp_path / "out.pt", bundle="trained.pt"))
    set_aside = split_objects(np.arange(N), seed=4, validation_share=0.2, test_share=0.5).test
    found = written.calibration
    assert found.choice.n_objects + len(found.after) == len(set_aside) < 0.6 * N
    all_flux = read_table(str(folder / "labels.parquet"))["flux_njy"].to_numpy()
    assert set(found.after.labels[:, 0]) <= set(all_flux[set_aside])
    assert found.metadata.calibration.data.endswith("of those the training set aside")


def test_other_labels_of_the_store_it_was_trained_on_are_no_way_around(folder, tmp_path):
    """Nor is a training before: objects that the parent, or a compared bundle, was trained on are left out as well."""
    labels = read_table(str(folder / "labels.parquet"))
    write_table(str(tmp_path / "better.parquet"), labels)
    source = DataSource(str(folder / "cutouts.zarr"), (str(tmp_path / "better.parquet"),))
    settings = CalibrationSettings(passes=PassSettings(2))
    record = {"store": "cutouts.zarr", "labels": "labels.parquet", "validation_share": 0.1}
    parent = record | {"seed": 4, "test_share": 0.8}
    child = record | {"seed": 5, "test_share": 0.8, "parent_training": parent}
    path = str(tmp_path / "tuned.pt")
    script = torch.jit.script(Sum(0.6).eval())
    save_bundle(path, script, dataclasses.replace(METADATA, training=child))
    task = prepare_calibration([path], tmp_path / "out.pt", source=source, settings=settings)
    found = calibrate_bundle(task).calibration
    tests = [
        split_objects(np.arange(N), seed=seed, validation_share=0.1, test_share=0.8).test for seed in (4, 5)
    ]
    both = np.intersect1d(*tests)
    assert found.choice.n_objects + len(found.after) == len(both) < 0.75 * N


def test_galaxies_are_simulated_as_the_bundle_takes_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # starting processes takes longer than so few small stamps
    settings = CalibrationSettings(passes=PassSettings(2), seed=7)
    source = DataSource(objects=230, population="paper")
    task = prepare_calibration(
        [str(folder / "sum.pt")], tmp_path / "out.pt", source=source, settings=settings
    )
    found = calibrate_bundle(task).calibration
    assert found.choice.n_objects + len(found.after) == 230
    assert found.metadata.calibration.data == "simulated galaxies of population paper, seed 7"
    assert 14 < np.median(found.after.strata["magnitude"]) < 17
    assert 1 < np.median(found.after.strata["size_arcsec"]) < 4  # which is none of the bundle's parameters
    captions = [table.caption for table in found.metadata.calibration.results]
    assert sum("by true size" in caption for caption in captions) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sum.pt", "-o", "out.bin", "--simulate", "paper"], "-o out.bin: a bundle's name ends in .pt"),
        (["sum.pt", "-o", "out.pt"], "state where held-out objects come from"),
        (["sum.pt", "-o", "out.pt", "--store", "a"], "--store and --labels go together"),
        (["sum.pt", "-o", "out.pt", "--store", "a", "--labels", "b", "--simulate", "paper"], "state where"),
        (["sum.pt", "-o", "out.pt", "--store", "a", "--labels", "b", "--objects", "300"], "--objects is of"),
        (["sum.pt", "-o", "out.pt", "--simulate", "paper", "--dropout", "1"], "a rate lies in [0, 1)"),
        (["sum.pt", "-o", "out.pt", "--simulate", "paper", "--dropout", "a"], "separated by commas"),
        (["simulated.pt", "-o", "out.pt", "--simulate", "paper"], "--seed 303: sum was trained on galaxies"),
        (
            ["simulated.pt", "-o", "out.pt", "--simulate", "survey", "--also", "paper"],
            "--seed 303: sum was trained",
        ),
        (
            ["sum.pt", "-o", "out.pt", "--simulate", "paper", "--compare-with", "simulated.pt"],
            "--seed 303: sum was trained",
        ),
        (["tuned.pt", "-o", "out.pt", "--simulate", "paper"], "--seed 303: sum was trained on galaxies"),
        (
            ["sum.pt", "-o", "out.pt", "--simulate", "paper", "--also", "paper"],
            "--also paper: is the population of",
        ),
        (
            [
                "trained.pt",
                "-o",
                "out.pt",
                "--store",
                "cutouts.zarr",
                "--labels",
                "labels.parquet",
                "--seed",
                "4",
            ],
            "--seed 4: the training of sum divided cutouts.zarr with this seed",
        ),
        (["none.pt", "-o", "out.pt", "--simulate", "paper"], "none.pt: there is no such bundle"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(app, ["models", "calibrate", *arguments])
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert not (folder / "out.pt").exists()


def test_a_point_head_without_dropout_is_refused(folder, tmp_path):
    class Point(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

        @torch.jit.export
        def prefix(self, images: torch.Tensor) -> torch.Tensor:
            return images.sum(dim=(2, 3))

        @torch.jit.export
        def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
            return features

    path = str(tmp_path / "point.pt")
    metadata = dataclasses.replace(METADATA, head=HeadInfo("point"))
    save_bundle(path, torch.jit.script(Point().eval()), metadata)
    with pytest.raises(BundleError, match="a point head without dropout has no posterior"):
        prepare_calibration(
            [path], tmp_path / "out.pt", source=source_of(folder), settings=CalibrationSettings()
        )


def test_rates_that_the_script_does_not_know_are_refused(folder, tmp_path):
    with pytest.raises(BundleError, match="train a network for each rate"):
        calibrate_bundle(task_of(folder, tmp_path / "out.pt", dropout_rates=(0.1,)))


def test_other_networks_and_populations_are_shown_and_choose_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "DEFAULT_OBJECTS", 400)
    torch.manual_seed(1)
    save_bundle(
        str(folder / "half.pt"),
        torch.jit.script(Half(0.6).eval()),
        dataclasses.replace(METADATA, name="half"),
    )
    plain = calibrate_bundle(task_of(folder, tmp_path / "plain.pt"))
    task = dataclasses.replace(
        task_of(folder, tmp_path / "out.pt"),
        compared=(load_bundle(str(folder / "half.pt")),),
        also=("paper",),
    )
    shown = calibrate_bundle(task)
    assert shown.calibration.choice.factors == plain.calibration.choice.factors
    before, after = plain.calibration.metadata.calibration, shown.calibration.metadata.calibration
    assert after.results[: len(before.results)] == before.results
    compared, *others = after.results[len(before.results) :]
    assert compared.columns[-1] == "half, times that"
    # Half the light: residuals of medians light / 2 - light e^N(0, 0.3) beside light - light e^N(0, 0.3).
    relative = next(row for row in compared.rows if row[0] == "flux_njy, relative")
    residual = 1 / np.exp(np.random.default_rng(0).normal(0, 0.3, 10**6))
    assert relative[-1] == pytest.approx((0.5 * residual).std() / residual.std(), rel=0.01)
    assert others
    assert all(table.caption.startswith("Galaxies of population paper. ") for table in others)
    assert "(corrected; 200 objects, 1 pass each)" in others[0].caption


def test_a_population_that_is_none_is_refused(folder, tmp_path):
    settings = CalibrationSettings(passes=PassSettings(2))
    with pytest.raises(UsageError, match="'elliptical' is unknown; expected 'paper' or 'survey'"):
        prepare_calibration(
            [str(folder / "sum.pt")],
            tmp_path / "out.pt",
            source=source_of(folder),
            settings=settings,
            also=["elliptical"],
        )


def test_redshifts_are_reported_in_bins_of_a_magnitude_and_weighted_to_a_target(folder, tmp_path):
    """The light of the image stands for 1 + z, whose labels scatter about it by 0.3, as the bundle says after calibration."""
    labels = read_table(str(folder / "labels.parquet"))
    z = np.log(labels["flux_njy"].to_numpy())
    magnitude = np.random.default_rng(2).uniform(18, 24, N)
    table = {"object_id": np.arange(N), "z": z, "mag_i": magnitude, "g_r": 0.1 * magnitude}
    write_table(str(tmp_path / "labels.parquet"), pa.table(table))
    faint = np.linspace(22, 24, 300)
    write_table(str(tmp_path / "target.parquet"), pa.table({"mag_i": faint, "g_r": 0.1 * faint}))
    redshift = ParameterInfo("z", "", "", "identity")
    path = str(tmp_path / "z.pt")
    metadata = dataclasses.replace(METADATA, parameters=(redshift,))
    save_bundle(path, torch.jit.script(Sum(0.3).eval()), metadata)
    done = CliRunner().invoke(
        app,
        [
            *("models", "calibrate", path, "-o", str(tmp_path / "out.pt"), "--passes", "2"),
            *("--store", str(folder / "cutouts.zarr"), "--labels", str(tmp_path / "labels.parquet")),
            *("--magnitude", "mag_i", "--target", str(tmp_path / "target.parquet")),
            *("--target-columns", "mag_i,g_r"),
        ],
    )
    assert done.exit_code == 0, done.output
    results = load_bundle(str(tmp_path / "out.pt")).metadata.calibration.results
    (found,) = [one for one in results if one.caption.startswith("Photometric redshift z")]
    assert found.caption in (tmp_path / "out.md").read_text()
    rows = {row[0]: dict(zip(found.columns, row, strict=True)) for row in found.rows}
    n_test = rows["all"]["n"]
    # A third of the magnitudes are those of the target, and these alone count.
    assert rows["all, weighted to the target"]["n effective"] == pytest.approx(n_test / 3, rel=0.25)
    assert sum(row["n"] for name, row in rows.items() if name.startswith("true magnitude")) == n_test
    assert rows["all"]["CRPS"] == pytest.approx(0.3 / np.sqrt(np.pi), rel=0.15)


def test_a_target_needs_its_columns_and_labels(folder, tmp_path):
    store, labels = str(folder / "cutouts.zarr"), str(folder / "labels.parquet")
    for source, message in (
        (
            DataSource(store, (labels,), further=FurtherColumns(target="t.parquet")),
            "--target and --target-columns",
        ),
        (DataSource(population="paper", further=FurtherColumns(magnitude="mag_i")), "those of --labels"),
    ):
        with pytest.raises(UsageError, match=message):
            prepare_calibration(
                [str(folder / "sum.pt")], tmp_path / "o.pt", source=source, settings=CalibrationSettings()
            )
