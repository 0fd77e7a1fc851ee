import numpy as np
import pyarrow as pa
import pytest

from galbatch.simulation import Sky, draw_population, draw_stamps
from galbatch.simulation.light.noise import add_noise


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
