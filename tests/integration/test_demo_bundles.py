"""The bundles shipped with galbatch: what their cards say, and that fresh galaxies bear it out."""

import os
import tomllib

import numpy as np
import pytest
import torch

from galbatch.config import PhotometryConfig, PosteriorConfig
from galbatch.core.types import CutoutBlock, Grid
from galbatch.models import (
    RECIPES,
    BlockInputs,
    PassSettings,
    bundle_path,
    demo_bundles,
    disagreement,
    disagreement_limit,
    evaluate,
    infer_block,
    load_bundle,
)
from galbatch.models.bundle import DEMO_FOLDER
from galbatch.photometry import PHOTOMETRY_VERSION, measure_photometry
from galbatch.simulation import training_set

N_GALAXIES = 400
CARD_GALAXIES = 2000
PASSES = 64
LEVELS = (0.6827, 0.9545, 0.9973)
NAMES = {"gampen": "paper", "gampen_survey": "survey", "sfnet": "paper"}
EQUAL_TAILED = "Coverage of equal-tailed intervals, in percent"
RESIDUALS = "Residuals of the median, estimate minus truth"


def loaded(name):
    return load_bundle(bundle_path(f"demo:{name}"))


def table_of(name, caption):
    """The first table of the card whose caption begins so: of the posteriors as runs make them."""
    return next(t for t in loaded(name).metadata.calibration.results if t.caption.startswith(caption))


def cell(table, row, column):
    (found,) = [cells for cells in table.rows if cells[0] == row]
    return found[table.columns.index(column)]


@pytest.fixture(scope="module")
def found():
    """name -> evaluation on galaxies that neither training nor calibration drew."""
    torch.set_num_threads(1)
    result = {}
    for name, population in NAMES.items():
        bundle = loaded(name)
        sky = training_set(N_GALAXIES, bands=bundle.bands, size_px=96, population=population, seed=77)
        labels = np.stack([sky.truth[p.name].to_numpy() for p in bundle.metadata.parameters], axis=1)
        result[name] = evaluate(bundle, sky.images, labels, passes=PassSettings(PASSES))
    return result


def test_they_are_small_and_have_cards():
    assert demo_bundles() == sorted(f"demo:{name}" for name in NAMES)
    assert sum(os.path.getsize(bundle_path(name)) for name in demo_bundles()) < 8e6
    for name, population in NAMES.items():
        bundle = loaded(name)
        card = (DEMO_FOLDER / f"{name}.md").read_text(encoding="utf-8")
        assert bundle.sha256 in card
        assert "not for science" in card.lower()
        assert bundle.grid == Grid(96, 0.168)
        assert bundle.metadata.training["population"] == population
        assert bundle.metadata.input.zero_point_mag == 27.0


@pytest.mark.parametrize("name", NAMES)
def test_their_settings_are_the_recipes(name):
    metadata, settings = loaded(name).metadata, RECIPES[name.split("_")[0]].settings
    assert metadata.input.bands == settings.bands
    assert metadata.dropout_rate == settings.dropout_rate
    assert metadata.n_top_features == settings.n_top_features
    toml = DEMO_FOLDER / f"{name}.toml"
    given = tomllib.loads(toml.read_text(encoding="utf-8")) if toml.exists() else {}
    for key in ("epochs", "batch", "learning_rate", "limit_tail", "average_weights", "seed", "width"):
        assert metadata.training[key] == given.get(key, getattr(settings, key)), key


@pytest.mark.parametrize("name", NAMES)
def test_intervals_cover_what_they_say_within_4_points(name):
    table = table_of(name, EQUAL_TAILED)
    for level in LEVELS:
        assert abs(cell(table, "mean", f"{100 * level:.2f} %") - 100 * level) < 4


def test_gampens_typical_errors():
    table = table_of("gampen", RESIDUALS)
    assert cell(table, "bt", "σ") <= 0.15
    # The paper's 7 % is its 0.17 arcsec over the typical size; smallest galaxies have relative errors of their own.
    assert cell(table, "re_arcsec, relative", "68.27 % within") <= 12
    assert cell(table, "re_arcsec", "σ") <= 0.17
    assert cell(table, "mag", "σ") <= 0.1


def test_sfnets_top_features_cost_at_most_a_tenth():
    table = table_of("sfnet", "Residuals of the median beside those of other networks")
    assert table.columns[-1] == "demo-sfnet-dense, times that"
    for row in table.rows:
        assert row[-1] >= 1 / 1.1, row


@pytest.mark.parametrize("name", NAMES)
def test_cards_tell_of_both_populations(name):
    captions = [table.caption for table in loaded(name).metadata.calibration.results]
    (other,) = {"paper", "survey"} - {NAMES[name]}
    assert any(caption.startswith(f"Galaxies of population {other}. {EQUAL_TAILED}") for caption in captions)
    assert any(caption.startswith(f"Galaxies of population {other}. {RESIDUALS}") for caption in captions)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_fresh_galaxies_bear_the_card_out(found, name):
    table = table_of(name, EQUAL_TAILED)
    for parameter in loaded(name).metadata.parameters:
        for level in LEVELS[:2]:
            share = cell(table, parameter.name, f"{100 * level:.2f} %") / 100
            measured = found[name].coverage(parameter.name, level).value
            error = np.sqrt(share * (1 - share) * (1 / N_GALAXIES + 1 / CARD_GALAXIES))
            assert abs(measured - share) < 4 * error, (parameter.name, level)


@pytest.mark.slow
def test_medians_follow_the_truth(found):
    assert found["gampen"].r2("flux_njy") > 0.98
    assert found["gampen"].r2("re_arcsec") > 0.95
    assert found["gampen"].r2("bt") > 0.75
    assert found["sfnet"].r2("color_gr_mag") > 0.95
    assert found["sfnet"].r2("mag_r") > 0.98
    assert found["gampen_survey"].r2("flux_njy") > 0.9
    assert found["gampen_survey"].r2("re_arcsec") > 0.4


@pytest.mark.parametrize("name", ["gampen", "gampen_survey"])
@pytest.mark.slow
def test_the_second_opinion_raises_as_many_false_alarms_as_it_states(name):
    """On fresh galaxies: limits that were found with the objects that were fitted would be exceeded more often."""
    bundle = loaded(name)
    torch.set_num_threads(1)
    sky = training_set(N_GALAXIES, bands=bundle.bands, size_px=96, population=NAMES[name], seed=78)
    block = CutoutBlock.of_images(sky.images, bundle.bands, bundle.grid)
    inputs = BlockInputs(block, np.ones(len(block), np.bool_))
    found = infer_block(bundle, inputs, name="net", posterior=PosteriorConfig(passes=32))
    info = bundle.metadata.disagreement
    off = disagreement(
        info,
        bundle.metadata.parameters,
        measure_photometry(block, PhotometryConfig()),
        found,
        model="net",
        bands=bundle.bands,
        photometry_version=PHOTOMETRY_VERSION,
    )
    assert np.isfinite(off).mean() > 0.98
    for rate in (0.5, 0.1, 0.02):
        share = np.mean(off > disagreement_limit(info, rate))
        assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / N_GALAXIES), rate
