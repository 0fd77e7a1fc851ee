"""Settings and outputs that a training refuses, before a galaxy is drawn."""

import dataclasses

import numpy as np
import pytest

from galbatch import models, simulation
from galbatch.errors import ConfigError, UsageError
from galbatch.learning import DataSource, prepare_training, simulate_labeled

RECIPE = models.RECIPES["sfnet"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"parameters": (models.ParameterInfo("mass", "", "", "ln"),)},
            "parameters: mass: not in the simulation, which has object_id, bt",
        ),
        (
            {"auxiliary_inputs": (models.AuxiliaryInput("ebv"),)},
            "auxiliary_inputs: ebv: the simulation has none",
        ),
        ({"pixel_scale_arcsec": 0.262}, "pixel_scale_arcsec: is 0.262, and simulated stamps have 0.168"),
    ],
)
def test_what_the_simulation_does_not_have_is_told_first(monkeypatch, changes, message):
    monkeypatch.setattr(simulation, "training_set", lambda *_, **__: pytest.fail("galaxies were drawn"))
    with pytest.raises(UsageError, match=message):
        simulate_labeled(RECIPE, dataclasses.replace(RECIPE.settings, **changes))


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("psf_fwhm_arcsec = [[0.7, 0.9]]", "psf_fwhm_arcsec: 1 ranges for 2 bands"),
        ("psf_fwhm_arcsec = [[0.7, 0.9], [0.9, 0.7]]", r"psf_fwhm_arcsec: a range rises, found \[0.9, 0.7\]"),
        ("width = 0.001", "width: 0.001 of the published 64 channels leaves none"),
        ("seed = 9223372036854775808", "seed: Input should be less than 9223372036854775808"),
    ],
)
def test_settings_that_would_fail_later_are_refused_at_once(tmp_path, toml, message):
    path = tmp_path / "train.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError, match=message):
        prepare_training("sfnet", tmp_path / "a.pt", source=DataSource(), settings=path)


def test_a_folder_is_no_bundle_to_write(tmp_path):
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(UsageError, match=r"a\.pt: is a folder; name the file to write"):
        prepare_training("sfnet", tmp_path / "a.pt", source=DataSource())


def test_cutouts_with_labels_are_not_spoiled_by_augment(tmp_path):
    source = DataSource("cutouts.zarr", ("labels.parquet",), spoiled=True)
    with pytest.raises(UsageError, match="--augment: spoils simulated galaxies"):
        prepare_training("sfnet", tmp_path / "a.pt", source=source)


def test_augment_spoils_the_galaxies_that_are_drawn_and_is_recorded(tmp_path):
    source = DataSource(objects=40, population="survey", spoiled=True)
    task = prepare_training("sfnet", tmp_path / "a.pt", source=source)
    clean = dataclasses.replace(task.recipe, spoiled=False)
    lines = []
    spoiled = simulate_labeled(task.recipe, task.settings, notify=lines.append)
    of_clean = simulate_labeled(clean, task.settings)
    assert lines == ["simulating 40 galaxies of population survey, part of them spoiled"]
    assert spoiled.origin == {**of_clean.origin, "augmented": True}
    np.testing.assert_array_equal(spoiled.labels, of_clean.labels)
    changed = (spoiled.images != of_clean.images).any(axis=(1, 2, 3))
    assert 15 < changed.sum() < 38
