import numpy as np
import pyarrow as pa
import pytest

from galbatch.errors import ConfigError
from galbatch.simulation import SKIES, Sky, draw_population, draw_stamps, training_set
from galbatch.simulation.light.noise import SKY_SIGMA_NJY

SETTINGS = {"size_px": 64, "seed": 9}


@pytest.fixture(scope="module", params=["paper", "survey"])
def drawn(request):
    return request.param, training_set(10, bands=("g", "r"), population=request.param, **SETTINGS)


def test_it_has_what_training_needs(drawn):
    _, made = drawn
    assert made.images.shape == (10, 2, 64, 64)
    assert made.images.dtype == made.psf_fwhm_arcsec.dtype == np.float32
    assert np.isfinite(made.images).all()
    assert made.psf_fwhm_arcsec.shape == (10, 2)
    np.testing.assert_allclose(
        made.psf_fwhm_arcsec[:, 1] / made.psf_fwhm_arcsec[:, 0], 0.79 / 0.85, rtol=1e-6
    )
    assert {"object_id", "bt", "re_arcsec", "flux_njy", "mag_g", "mag_r", "color_gr_mag"} <= set(
        made.truth.column_names
    )


def test_processes_other_bands_and_other_galaxies_change_nothing(drawn, monkeypatch):
    population, made = drawn
    alone = draw_stamps(made.truth.slice(6, 1), bands=("r",), sky=SKIES[population], **SETTINGS)
    np.testing.assert_array_equal(alone[0, 0], made.images[6, 1])
    if population == "survey":  # two processes of the paper's: test_stamps.py
        monkeypatch.setattr("galbatch.simulation.stamps.STAMPS_PER_TASK", 4)
        two = training_set(10, bands=("g", "r"), population="survey", processes=2, **SETTINGS)
        np.testing.assert_array_equal(two.images, made.images)
    other = training_set(10, bands=("g", "r"), population=population, size_px=64, seed=10)
    assert np.abs(other.images - made.images).max() > 1


def test_the_stated_psf_is_the_one_drawn():
    """A tiny galaxy is as wide as its PSF: the area above half of the peak grows as the width squared."""
    truth = draw_population(60, bands=("g",), population="survey", seed=3).to_pandas()
    disks = truth[truth.bt == 0].assign(disk_re_arcsec=0.02)
    light = draw_stamps(
        pa.Table.from_pandas(disks, preserve_index=False),
        bands=("g",),
        size_px=48,
        seed=3,
        sky=Sky(noise=False, pixel_scale_arcsec=0.05),
    )[:, 0]
    stated = training_set(60, bands=("g",), population="survey", size_px=8, seed=3).psf_fwhm_arcsec[
        disks.index, 0
    ]
    area = (light > light.max(axis=(1, 2), keepdims=True) / 2).sum(axis=(1, 2))
    assert len(disks) > 8
    np.testing.assert_allclose(2 * np.sqrt(area / np.pi) * 0.05, stated, rtol=0.03)


def test_survey_stamps_have_neighbors_and_the_paper_s_have_none():
    truth = draw_population(60, bands=("g",), population="survey", seed=5)
    alone, among = (
        draw_stamps(truth, bands=("g",), size_px=96, seed=5, sky=Sky(neighbors=flag, noise=False))
        for flag in (False, True)
    )
    more = among - alone
    assert more.min() > -0.3  # boxes' edges
    assert (more.max(axis=(1, 2, 3)) > 10).mean() > 0.5
    # Light of counts to 25.5 over the area, stars aside, is 100 to 400 nJy a stamp at the median.
    assert 50 < np.median(more.sum(axis=(1, 2, 3))) < 3000


def test_noise_of_a_stamp_is_correlated_with_the_sigma_stated():
    truth = draw_population(12, bands=("g",), population="survey", seed=6)
    settings = {"bands": ("g",), "size_px": 96, "seed": 6}
    light = draw_stamps(truth, sky=Sky(neighbors=True, noise=False), **settings)
    noise = (draw_stamps(truth, sky=SKIES["survey"], **settings) - light)[:, 0]
    sigma = np.sqrt(SKY_SIGMA_NJY["g"] ** 2 + np.maximum(light[:, 0], 0) / 66)
    white = noise / sigma
    assert white.std() == pytest.approx(1.0, abs=0.02)
    assert (white[:, 1:] * white[:, :-1]).mean() == pytest.approx(0.196, abs=0.02)


def test_another_population_is_refused():
    with pytest.raises(ConfigError, match="population 'hsc' is unknown; expected 'paper' or 'survey'"):
        training_set(3, bands=("g",), population="hsc", **SETTINGS)
