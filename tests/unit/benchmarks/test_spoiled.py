"""The benchmark of spoiled images at toy size: pixels are spoiled as the rows say, and moved objects are counted."""

import numpy as np
import pytest

from galbatch import models
from galbatch.core.flags import ModelFlag, PixelFlag

pytestmark = pytest.mark.slow

BANDS = ("g",)


@pytest.fixture
def scenes(load_benchmark):
    load_benchmark("harness")
    return load_benchmark("spoiled_scenes")


@pytest.fixture
def scene(scenes):
    return scenes.drawn("survey", 8, bands=BANDS, size_px=96, seed=5)


def test_each_row_does_what_it_says(scenes, scene):
    clean, light = scene.image, scene.light.sum(axis=(2, 3))
    spoiled = {name: row(scene) for name, row in scenes.ROWS.items()}
    added = (spoiled["neighbor at 2 arcsec, 30 % of the flux"] - clean).sum(axis=(2, 3))
    # Of a disk of 0.5 arcsec all light is in the cutout; of the galaxy 90 percent and more.
    assert (added / light > 0.28).all()
    assert np.median(added / light) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(spoiled["zero point off by 0.1 mag"] / clean, 1.0965, rtol=1e-4)
    np.testing.assert_allclose(spoiled["sky +5 nJy a pixel"] - clean, 5.0, rtol=1e-2)
    np.testing.assert_allclose(spoiled["noise trebled"] - scene.light, 3 * scene.noise, atol=0.1)
    wider = spoiled["PSF of 1.2 arcsec, 0.85 stated"] - clean
    assert (wider.sum(axis=(2, 3)) / light).max() < 1e-3
    assert (
        spoiled["flat core without a mask bit"] <= 0.4 * scene.light.max(axis=(2, 3), keepdims=True)
    ).all()
    assert (scene.points.max(axis=(2, 3)) > scene.light.max(axis=(2, 3))).all()


def test_half_a_cutout_of_zeros_is_no_data(scenes, scene):
    block = scenes.cutouts(scene, "half the cutout 0")
    assert ((block.flags & PixelFlag.PARTIAL_COVERAGE) != 0).all()
    assert np.isfinite(block.sky_sigma_njy).all()


def test_the_tile_says_what_was_added_to_its_sky(load_benchmark, scenes):
    """The width of stars is that of the population with stars alone; where it is unknown, the row of a wider PSF does not count."""
    tile, spoiled = load_benchmark("spoiled_tile"), load_benchmark("spoiled")
    scene = scenes.drawn("paper", 2, bands=BANDS, size_px=96, seed=5)
    found = tile.with_tile(scene, stars=False, seed=5)
    clean = scenes.cutouts(found, "clean")
    assert abs(clean.sky_level_njy[0, 0]) < 3 * clean.sky_level_err_njy[0, 0] < 0.6
    for row, offset in scenes.OFFSETS.items():
        added = scenes.cutouts(found, row).sky_level_njy - clean.sky_level_njy
        np.testing.assert_allclose(added, offset, atol=0.01)
    assert np.isnan(clean.psf_fwhm_stars_arcsec).all()
    assert set(spoiled.not_counted(found)) - set(spoiled.NOT_COUNTED) == {scenes.WIDER}
    with_stars = tile.with_tile(scene, stars=True, seed=5)
    assert spoiled.not_counted(with_stars) == spoiled.NOT_COUNTED
    assert with_stars.tiles[scenes.WIDER].stars[0] > 1.3 > with_stars.tiles["clean"].stars[0]


def assert_curves(found, spoiled):
    """At a factor of 1 the curves are the table's shares; fewer objects have a flag the laxer the thresholds."""
    curves = found["curves"]
    default = curves["factors"].index(1.0)
    assert curves["any quality flag"]["moved"][default] == pytest.approx(found["flagged_of_moved"])
    assert curves["any quality flag"]["clean"][default] == pytest.approx(found["flagged_of_clean"])
    for flag in spoiled.CURVES:
        for shares in curves[flag.name].values():
            assert len(shares) == len(spoiled.FACTORS)
            assert shares == sorted(shares, reverse=True)
    cores = curves["SATURATED_CORE"]["clean"]
    assert cores[0] > cores[-1]


def test_moved_objects_and_their_flags_are_counted(load_benchmark, scene, monkeypatch):
    spoiled = load_benchmark("spoiled")
    monkeypatch.setattr(spoiled, "PASSES", 4)
    chosen = ("clean", "sky +5 nJy a pixel", "zero point off by 0.1 mag", "stars")
    monkeypatch.setattr(spoiled, "ROWS", {name: spoiled.ROWS[name] for name in chosen})
    bundle = models.load_bundle(models.bundle_path("demo:gampen_survey"))
    found = spoiled.table_of(bundle, scene)
    rows = found["rows"]
    assert rows["clean"]["moved"] == 0
    assert rows["clean"]["shift"] == {"bt": 0, "re_arcsec": 0, "flux_njy": 0}
    row = rows["sky +5 nJy a pixel"]
    assert row["shift"]["flux_njy"] > 2
    assert 0 < row["moved_and_flagged"] <= row["moved"] == found["moved"]
    assert rows["zero point off by 0.1 mag"]["shift"]["flux_njy"] > 1
    assert found["flagged_of_moved"] == row["moved_and_flagged"] / row["moved"]
    assert_curves(found, spoiled)
    assert rows["stars"]["flags"]["POINT_LIKE"] > 0.7
    assert rows["stars"]["bright"]["n"] <= 8


def test_a_missing_set_of_passes_is_no_quality_of_the_pixels(load_benchmark):
    spoiled = load_benchmark("spoiled")
    none, few = np.zeros(2, np.int32), np.array([0, ModelFlag.NOT_CONVERGED], np.int32)
    assert not spoiled.Judged({}, none, few).flagged.any()
    assert spoiled.Judged({}, none, few | ModelFlag.OUT_OF_DOMAIN).flagged.all()
