"""The bundles shipped with galbatch, on freshly simulated galaxies of the population they were trained on."""

import os

import numpy as np
import pytest
import torch

from galbatch.config import PosteriorConfig
from galbatch.models import RECIPES, bundle_path, demo_bundles, evaluate, load_bundle
from galbatch.models.bundle import DEMO_FOLDER
from galbatch.simulate import draw_population, draw_stamps
from galbatch.types import Grid

N_GALAXIES = 500
CARD_GALAXIES = 4000


@pytest.fixture(scope="module")
def sky():
    torch.set_num_threads(1)
    truth = draw_population(N_GALAXIES, bands=("g", "r"), seed=77)
    return truth, draw_stamps(truth, bands=("g", "r"), size_px=96, seed=77, processes=1)


@pytest.fixture(scope="module")
def found(sky):
    """name -> evaluation, with the 64 passes of the demo."""
    truth, images = sky
    result = {}
    for name in ("gampen", "sfnet"):
        bundle = load_bundle(bundle_path(f"demo:{name}"))
        labels = np.stack([truth[p.name].to_numpy() for p in bundle.metadata.parameters], axis=1)
        stamps = np.ascontiguousarray(images[:, : len(bundle.bands)])
        result[name] = evaluate(bundle, stamps, labels, posterior=PosteriorConfig(passes=64))
    return result


def test_both_are_there_small_and_have_a_card():
    assert demo_bundles() == ["demo:gampen", "demo:sfnet"]
    assert sum(os.path.getsize(bundle_path(name)) for name in demo_bundles()) < 8e6
    for name in ("gampen", "sfnet"):
        bundle = load_bundle(bundle_path(f"demo:{name}"))
        card = (DEMO_FOLDER / f"{name}.md").read_text(encoding="utf-8")
        assert bundle.sha256 in card
        assert "not for science" in card.lower()
        assert bundle.grid == Grid(96, 0.168)
        assert bundle.bands == RECIPES[name].settings.bands
        assert bundle.metadata.input.zero_point_mag == 27.0
        assert bundle.metadata.dropout_rate == RECIPES[name].settings.dropout_rate
        assert bundle.metadata.domain.distance_limit > 0


def test_gampen_knows_flux_radius_and_bulge(found):
    assert found["gampen"].r2("flux_njy") > 0.9
    assert found["gampen"].r2("re_arcsec") > 0.7
    assert found["gampen"].r2("bt") > 0.3


@pytest.mark.parametrize("parameter", ["bt", "re_arcsec", "flux_njy"])
def test_gampens_intervals_cover(found, parameter):
    # As a user counts it: the truth within the catalog's closed interval, both clamped to the parameter's limits.
    covered = found["gampen"].covered_closed(0.6827)[:, found["gampen"].index(parameter)]
    assert 0.58 < covered.mean() < 0.78


def card_shares(name, parameter):
    """Shares covered that the bundle states: the first table of its kind is of the posteriors as runs make them."""
    tables = load_bundle(bundle_path(f"demo:{name}")).metadata.calibration.results
    table = [t for t in tables if t.caption.startswith("Coverage of equal-tailed intervals, in percent")][0]
    (row,) = [row for row in table.rows if row[0] == parameter]
    return [row[table.columns.index(head)] / 100 for head in ("68.27 %", "95.45 %")]


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("gampen", "bt"),
        ("gampen", "re_arcsec"),
        ("gampen", "flux_njy"),
        ("sfnet", "color_gr_mag"),
        ("sfnet", "mag_r"),
    ],
)
def test_the_cards_say_what_fresh_galaxies_show(found, name, parameter):
    for share, level in zip(card_shares(name, parameter), (0.6827, 0.9545), strict=True):
        measured = found[name].coverage(parameter, level).value
        error = np.sqrt(share * (1 - share) * (1 / N_GALAXIES + 1 / CARD_GALAXIES))
        assert abs(measured - share) < 3.5 * error


def test_sfnet_knows_color_and_magnitude(found):
    assert found["sfnet"].r2("color_gr_mag") > 0.8
    assert found["sfnet"].r2("mag_r") > 0.9
