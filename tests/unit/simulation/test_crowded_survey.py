"""The population `survey` on disk: random places, overlaps, saturated stars, correlated noise."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from galbatch.simulation import simulate_survey
from galbatch.simulation.counts import GALAXY_COUNTS

PATCHES = ("4,4", "5,4")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crowded")
    made = simulate_survey(
        str(folder), n_objects=90, patches=2, bands=("r",), population="survey", seed=3, processes=1
    )
    tiles = {}
    for name in PATCHES:
        with fits.open(
            folder / f"deepCoadd-results/HSC-R/9813/{name}/calexp-HSC-R-9813-{name}.fits", memmap=False
        ) as hdus:
            bits = {key[3:]: value for key, value in hdus["MASK"].header.items() if key.startswith("MP_")}
            tiles[name] = [hdus[plane].data for plane in ("IMAGE", "MASK", "VARIANCE")]
    return made, tiles, bits


def test_overlapping_patches_agree_pixel_by_pixel(crowded):
    _, tiles, _ = crowded
    for left, right in zip(tiles["4,4"], tiles["5,4"], strict=True):
        np.testing.assert_array_equal(left[:, -100:], right[:, :100])


def test_the_field_is_as_large_as_the_counts_say(crowded):
    made, tiles, _ = crowded
    height, width = (n for n in tiles["4,4"][0].shape)
    area = height * (2 * width - 100) * (0.168 / 60) ** 2
    truth = pq.read_table(made.truth)
    assert made.n_objects == len(truth) == 92
    # Room for borders makes it up to half larger.
    assert 1.0 <= area / (90 / GALAXY_COUNTS.per_arcmin2(16, 23)) < 1.5


def test_the_background_scatters_more_than_the_variance_plane_says_and_is_correlated(crowded):
    _, tiles, bits = crowded
    image, mask, variance = tiles["4,4"]
    sky = (mask & (1 << bits["DETECTED"]) == 0) & np.isfinite(image)
    scaled = np.where(sky, image / np.sqrt(variance), np.nan)
    robust = 1.4826 * np.nanmedian(np.abs(scaled - np.nanmedian(scaled)))
    assert robust == pytest.approx(1.12, abs=0.025)
    both = sky[:, 1:] & sky[:, :-1] & (np.abs(scaled[:, 1:]) < 3) & (np.abs(scaled[:, :-1]) < 3)
    pairs = np.corrcoef(scaled[:, 1:][both], scaled[:, :-1][both])[0, 1]
    assert 0.18 < pairs < 0.32  # 0.196 of the noise, more with faint galaxies


def test_stars_saturate_and_are_masked(crowded):
    _, tiles, bits = crowded
    saturated = [mask >> bits["SAT"] & 1 == 1 for _, mask, _ in tiles.values()]
    assert sum(plane.sum() for plane in saturated) > 20
    for (image, _, _), plane in zip(tiles.values(), saturated, strict=True):
        assert np.nanmax(image[plane], initial=0) * 57.544 < 2.1e4


def test_written_again_it_is_the_same(crowded, tmp_path):
    made, tiles, _ = crowded
    again = simulate_survey(
        str(tmp_path), n_objects=90, patches=2, bands=("r",), population="survey", seed=3, processes=1
    )
    assert pq.read_table(again.truth).equals(pq.read_table(made.truth))
    path = tmp_path / "deepCoadd-results/HSC-R/9813/5,4/calexp-HSC-R-9813-5,4.fits"
    np.testing.assert_array_equal(fits.getdata(path, "IMAGE"), tiles["5,4"][0])
