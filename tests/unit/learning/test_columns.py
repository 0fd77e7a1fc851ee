"""Networks on columns alone: tables of labels, trainings, weights of several tables, refinement, calibration."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from galbatch import models
from galbatch.config import read_toml
from galbatch.errors import ConfigError, ObjectListError, UsageError
from galbatch.learning import (
    DataSource,
    FurtherColumns,
    LabelSources,
    calibrate_bundle,
    open_columns,
    prepare_calibration,
    prepare_training,
    resolve_settings,
    train_bundle,
)
from galbatch.learning.held_out import held_out_objects

SETTINGS = """
hidden = [32, 32]
dropout_rate = 0.05
epochs = 40
batch = 32
learning_rate = 3e-3
test_share = 0.35
[[parameters]]
name = "z"
unit = ""
description = "redshift"
transform = "identity"
[[auxiliary_inputs]]
name = "color"
[[auxiliary_inputs]]
name = "mag"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables of 900 objects: two columns, labels that follow from them, and a second table of labels for every third object."""
    made = tmp_path_factory.mktemp("columns")
    rng = np.random.default_rng(5)
    z, mag = rng.uniform(0.1, 1.5, 900), rng.uniform(19.0, 23.0, 900)
    color = 1.2 * z + 0.1 * (mag - 21.0) + rng.normal(0.0, 0.02, 900)
    ids = np.arange(900) + 5000
    columns = {"object_id": ids, "color": color, "mag": mag}
    pq.write_table(pa.table(columns), made / "columns.parquet")
    noisy = z + rng.normal(0.0, 0.1, 900)
    noisy[4] = np.nan
    pq.write_table(pa.table({"object_id": ids, "z": noisy}), made / "photo.parquet")
    pq.write_table(pa.table({"object_id": ids[::3], "z": z[::3]}), made / "spec.parquet")
    pq.write_table(pa.table({**columns, "z": z}), made / "both.parquet")
    (made / "train.toml").write_text(SETTINGS)
    return made


def settings_of(folder, **changes):
    given = {**read_toml(folder / "train.toml"), **changes}
    return resolve_settings("mlp", given, base=None, name="a", source="train.toml")


def source_of(folder, *tables, **changes):
    return DataSource(labels=tuple(str(folder / table) for table in tables), **changes)


@pytest.fixture(scope="module")
def trained(folder):
    """A trained network, and what was written."""
    task = prepare_training(
        "mlp", folder / "mlp.pt", source=source_of(folder, "both.parquet"), settings=folder / "train.toml"
    )
    return train_bundle(task, device="cpu")


class TestTables:
    def test_labels_and_columns_of_one_table(self, folder):
        labels = LabelSources((str(folder / "both.parquet"),))
        data = open_columns(labels, settings=settings_of(folder))
        assert data.images.shape == (900, 0, 0, 0)
        assert data.extras.auxiliary.shape == (900, 2)
        assert data.extras.weight is None
        assert data.notes == ("900 of 900 objects with labels",)

    def test_two_tables_with_weights_and_columns_of_a_third(self, folder):
        paths = tuple(str(folder / name) for name in ("photo.parquet", "spec.parquet"))
        labels = LabelSources(paths, weights=(0.25, 1.0), columns=str(folder / "columns.parquet"))
        data = open_columns(labels, settings=settings_of(folder))
        # 899 with a noisy label, 300 with a good one; an object of both is there twice.
        assert data.notes == (
            "1199 of 1200 objects with labels in 2 tables; left out: 1 with a missing label or column",
        )
        ids, weight = data.extras.object_id, data.extras.weight
        assert (weight == 0.25).sum() == 899
        first = np.flatnonzero(ids == 5000)
        assert weight[first].tolist() == [0.25, 1.0]
        assert data.extras.auxiliary[first[0]].tolist() == data.extras.auxiliary[first[1]].tolist()
        assert data.labels[first[0], 0] != data.labels[first[1], 0]
        # Both rows of an object are in the same part of the split.
        split = models.split_objects(ids, seed=1, validation_share=0.2, test_share=0.3)
        assert not set(ids[split.training].tolist()) & set(ids[split.test].tolist())

    def test_a_table_of_columns_without_rows_gives_no_object(self, folder, tmp_path):
        empty = pq.read_table(folder / "columns.parquet").slice(0, 0)
        pq.write_table(empty, tmp_path / "empty.parquet")
        labels = LabelSources((str(folder / "photo.parquet"),), columns=str(tmp_path / "empty.parquet"))
        with pytest.raises(UsageError, match="no object has all its labels and columns"):
            open_columns(labels, settings=settings_of(folder))

    def test_an_id_twice_in_one_table_is_refused(self, folder, tmp_path):
        table = pa.table({"object_id": [1, 1], "z": [0.5, 0.6], "color": [0.1, 0.1], "mag": [20.0, 20.0]})
        pq.write_table(table, tmp_path / "twice.parquet")
        with pytest.raises(UsageError, match=r"twice.parquet: 1 of the ids in column object_id occur again"):
            open_columns(LabelSources((str(tmp_path / "twice.parquet"),)), settings=settings_of(folder))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"weights": (1.0, 2.0)}, "--weights: 2 for 1 tables"),
            ({"weights": (0.0,)}, "--weights: 0: a weight is above 0"),
            ({"store": "cutouts.zarr"}, "--store: a network that takes columns alone reads no cutouts"),
            ({"labels": ()}, "--labels: missing"),
            ({"objects": 300}, "--objects and --population are of the simulation"),
        ],
    )
    def test_arguments_that_contradict_each_other(self, folder, changes, message):
        source = dataclasses.replace(source_of(folder, "both.parquet"), **changes)
        with pytest.raises(UsageError, match=message):
            prepare_training("mlp", folder / "a.pt", source=source, settings=folder / "train.toml")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"bands": ["g"]}, "bands: an mlp takes no images"),
            ({"auxiliary_inputs": []}, "auxiliary_inputs: missing"),
            ({"n_top_features": 4}, "n_top_features: of sfnet only"),
            ({"hidden": [0]}, "hidden"),
        ],
    )
    def test_settings_of_another_network_are_refused(self, folder, changes, message):
        with pytest.raises(ConfigError, match=message):
            settings_of(folder, **changes)

    def test_networks_on_images_need_bands_and_have_no_hidden_layers(self, folder):
        given = {**read_toml(folder / "train.toml"), "name": "a", "architecture": "sfnet"}
        with pytest.raises(
            ConfigError, match=r"(?s)bands: missing; sfnet takes images.*hidden: of mlp and timm only"
        ):
            models.parse_settings(given, source="train.toml")


class TestTraining:
    def test_it_learns_what_the_columns_say(self, folder, trained):
        metadata = trained.trained.metadata
        assert metadata.input.grid is None
        assert [one.name for one in metadata.input.auxiliary_inputs] == ["color", "mag"]
        assert metadata.domain.sky_sigma_njy is None
        assert metadata.domain.flux_njy is None
        assert metadata.domain.distance_limit > 0
        # A redshift of all objects alike would miss by 0.4; the columns tell it to 0.02.
        data = open_columns(LabelSources((str(folder / "both.parquet"),)), settings=settings_of(folder))
        held_out, notes = held_out_objects(data, (models.load_bundle(str(folder / "mlp.pt")),))
        assert "both.parquet" in notes[0]
        assert 250 < len(held_out) < 380
        found = models.evaluate(
            models.load_bundle(str(folder / "mlp.pt")),
            data.images[held_out.rows],
            held_out.labels,
            auxiliary=held_out.auxiliary,
        )
        assert np.sqrt(np.mean((found.median[:, 0] - held_out.labels[:, 0]) ** 2)) < 0.12
        assert "from color, mag" in trained.card.read_text()

    def test_the_card_and_the_summary_speak_of_columns(self, trained):
        metadata = trained.trained.metadata
        assert "- no pixels: numbers per object alone" in models.card_text(metadata, "0" * 64)
        assert ("takes", "color, mag") in models.card_summary(metadata, "0" * 64)

    def test_weights_change_the_result_as_a_weighted_mean_does(self, folder):
        # Two labels for every object: with weights 3 and 1 the network comes to lie at their weighted mean.
        rng = np.random.default_rng(2)
        auxiliary = rng.normal(size=(400, 2)).astype(np.float32)
        labels = np.repeat([0.0, 1.0], 200)[:, None] + rng.normal(0, 1e-3, (400, 1))
        settings = settings_of(
            folder,
            epochs=60,
            hidden=[8],
            dropout_rate=0.0,
            head="point",
            test_share=0.0,
            batch=40,
            learning_rate=1e-2,
        )
        means, priors = [], []
        for weight in (None, np.repeat([3.0, 1.0], 200).astype(np.float32)):
            extras = models.Extras(object_id=np.tile(np.arange(200), 2), auxiliary=auxiliary, weight=weight)
            made = models.train(
                models.no_pixels(400), labels, settings=settings, extras=extras, session=models.Session("cpu")
            )
            parameter = made.metadata.parameters[0]
            with torch.no_grad():
                outputs = made.network(torch.from_numpy(auxiliary), torch.zeros(400, dtype=torch.int64))
            means.append(parameter.location + parameter.scale * outputs.mean().item())
            of_labels = np.asarray(made.metadata.prior.weights) @ np.asarray(made.metadata.prior.means)
            priors.append(parameter.location + parameter.scale * of_labels[0])
        assert means[0] == pytest.approx(0.5, abs=0.07)
        assert means[1] == pytest.approx(0.25, abs=0.07)
        # What it learned is under the labels with their weights, and its prior says so.
        assert priors == pytest.approx([0.5, 0.25], abs=0.03)

    def test_a_batch_that_several_processes_cannot_divide_is_refused_before_anything_is_read(
        self, folder, tmp_path, monkeypatch
    ):
        source = source_of(folder, "both.parquet")
        task = prepare_training("mlp", tmp_path / "a.pt", source=source, settings=folder / "train.toml")
        several = nullcontext(models.Processes(rank=0, n=7))
        monkeypatch.setattr(models, "join_processes", lambda device: several)
        monkeypatch.setattr("galbatch.learning.train.open_source", None)
        with pytest.raises(UsageError, match="cannot be divided evenly among 7 processes"):
            train_bundle(task, device="cpu")

    def test_refining_starts_from_the_parents_weights(self, folder, trained):
        source = source_of(folder, "spec.parquet", columns=str(folder / "columns.parquet"))
        task = prepare_training("mlp", folder / "refined.pt", source=source, parent=str(folder / "mlp.pt"))
        # Settings, hidden layers and columns are the parent's, with a tenth of its learning rate.
        assert task.settings.hidden == (32, 32)
        assert task.settings.learning_rate == pytest.approx(3e-4)
        refined = train_bundle(
            dataclasses.replace(task, settings=dataclasses.replace(task.settings, epochs=1)), device="cpu"
        )
        before = trained.trained.network.state_dict()
        change = max(
            (value - before[name]).abs().max().item()
            for name, value in refined.trained.network.state_dict().items()
        )
        assert 0 < change < 0.01
        record = refined.trained.metadata.training
        assert record["parent_training"]["tables"] == ["both.parquet"]
        assert record["tables"] == ["spec.parquet", "columns.parquet"]

    def test_a_parent_that_does_not_fit_is_told(self, folder, trained):
        source = source_of(folder, "both.parquet")
        (folder / "wider.toml").write_text("hidden = [64, 32]\n")
        task = prepare_training(
            "mlp",
            folder / "b.pt",
            source=source,
            parent=str(folder / "mlp.pt"),
            settings=folder / "wider.toml",
        )
        with pytest.raises(UsageError, match=r"do not fit .* leave out hidden and auxiliary_inputs"):
            train_bundle(task, device="cpu")
        with pytest.raises(ConfigError, match="architecture is sfnet, and mlp is to be trained"):
            prepare_training("mlp", folder / "b.pt", source=source, parent="demo:sfnet")


def test_calibration_takes_what_the_training_set_aside(folder, trained):
    source = source_of(folder, "both.parquet")
    settings = models.CalibrationSettings(passes=models.PassSettings(8), seed=303)
    task = prepare_calibration(
        [str(folder / "mlp.pt")], folder / "calibrated.pt", source=source, settings=settings
    )
    made = calibrate_bundle(task)
    calibration = made.calibration.metadata.calibration
    assert calibration.data == "objects of both.parquet, of those the training set aside"
    assert len(calibration.inflation_factors) == 1
    with pytest.raises(UsageError, match=r"divided both.parquet with this seed"):
        prepare_calibration(
            [str(folder / "mlp.pt")],
            folder / "c.pt",
            source=source,
            settings=dataclasses.replace(settings, seed=1),
        )
    with pytest.raises(UsageError, match="--labels"):
        prepare_calibration([str(folder / "mlp.pt")], folder / "c.pt", source=DataSource(), settings=settings)


def test_results_in_bins_of_a_column_that_only_the_table_of_columns_has(folder, trained, tmp_path):
    """The network has seen both.parquet; the labels alone have no magnitude, and the other table stands in another order."""
    both = pq.read_table(folder / "both.parquet")
    pq.write_table(both.select(["object_id", "z"]), tmp_path / "both.parquet")
    others = both.select(["object_id", "color", "mag"]).take(np.arange(900)[::-1])
    pq.write_table(others, tmp_path / "columns.parquet")
    settings = models.CalibrationSettings(passes=models.PassSettings(8), seed=303)

    def results(labels, columns, magnitude="mag"):
        further = FurtherColumns(magnitude, str(folder / "both.parquet"), ("color",))
        source = DataSource(labels=(str(labels),), columns=columns, further=further)
        task = prepare_calibration(
            [str(folder / "mlp.pt")], tmp_path / "out.pt", source=source, settings=settings
        )
        return [
            one
            for one in calibrate_bundle(task).calibration.metadata.calibration.results
            if "Photometric redshift" in one.caption
        ]

    columns = str(tmp_path / "columns.parquet")
    (found,) = results(tmp_path / "both.parquet", columns)
    assert sum(str(row[0]).startswith("true magnitude") for row in found.rows) > 1
    (expected,) = results(folder / "both.parquet", None)
    assert found == expected
    with pytest.raises(ObjectListError, match=r"columns\.parquet: no column mag_i;"):
        results(tmp_path / "both.parquet", columns, "mag_i")
