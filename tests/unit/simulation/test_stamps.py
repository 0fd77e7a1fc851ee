import numpy as np
import pyarrow as pa
import pytest

from galbatch.errors import ConfigError
from galbatch.simulation import SKIES, Sky, draw_population, draw_stamps, training_set
from galbatch.simulation.light.noise import SKY_SIGMA_NJY, add_noise

SETTINGS = {"size_px": 64, "seed": 9}


@pytest.fixture(scope="module")
def galaxies():
    return draw_population(12, bands=("g", "r"), seed=2)


@pytest.fixture(scope="module")
def stamps(galaxies):
    return draw_stamps(galaxies, bands=("g", "r"), size_px=64, seed=9)


def test_shape_type_and_no_nan(stamps):
    assert stamps.shape == (12, 2, 64, 64)
    assert stamps.dtype == np.float32
    assert np.isfinite(stamps).all()


def test_two_processes_draw_what_one_draws(galaxies, stamps, monkeypatch):
    monkeypatch.setattr("galbatch.simulation.stamps.STAMPS_PER_TASK", 5)
    two = draw_stamps(galaxies, bands=("g", "r"), size_px=64, seed=9, processes=2)
    np.testing.assert_array_equal(two, stamps)


def test_a_stamp_depends_on_its_galaxy_alone(galaxies, stamps):
    alone = draw_stamps(galaxies.slice(7, 1), bands=("r",), size_px=64, seed=9)
    np.testing.assert_array_equal(alone[0, 0], stamps[7, 1])
    other = draw_stamps(galaxies.slice(7, 1), bands=("r",), size_px=64, seed=10)
    assert np.abs(other - alone).max() > 1


def test_light_of_compact_disks_is_their_flux():
    galaxies = draw_population(400, bands=("g", "r"), seed=2)
    compact = (galaxies["re_arcsec"].to_numpy() < 1.5) & (galaxies["bt"].to_numpy() < 0.1)
    galaxies = galaxies.filter(pa.array(compact))
    assert len(galaxies) >= 5
    light = draw_stamps(galaxies, bands=("g", "r"), size_px=96, seed=9, sky=Sky(noise=False))
    flux = np.stack([galaxies[f"flux_{band}_njy"].to_numpy() for band in "gr"], axis=1)
    np.testing.assert_allclose(light.sum(axis=(2, 3)), flux, rtol=0.02)


def test_centers_lie_within_half_a_pixel_of_the_central_one(galaxies):
    light = draw_stamps(galaxies, bands=("g",), size_px=96, seed=9, sky=Sky(noise=False))[:, 0]
    peak = np.array([np.unravel_index(stamp.argmax(), stamp.shape) for stamp in light])
    assert abs(peak - 48).max() <= 1  # a thin tilted disk may peak one pixel off


def test_noise_has_the_scatter_its_variance_says():
    light = np.linspace(0, 5000, 4)[:, None] * np.ones(40_000)
    image, variance = add_noise(light, "g", np.random.default_rng(1))
    np.testing.assert_allclose((image - light).std(axis=1), np.sqrt(variance[:, 0]), rtol=0.015)
    np.testing.assert_allclose(variance[[0, -1], 0], [4.0, 4.0 + 5000 / 66])


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
    if population == "survey":  # two processes of the paper's: above
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
