"""Photometry of scenes with known light, by formulas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from galbatch import photometry
from galbatch.config import PhotometryConfig
from galbatch.core.columns import photometry_columns
from tests.unit.photometry.scenes import SCALE, block_of, gaussian, noise

SETTINGS = PhotometryConfig()


SIZE_PX = 96


def measured(
    images: np.ndarray, bands: tuple[str, ...] = ("r",), **settings: object
) -> dict[str, np.ndarray]:
    return photometry.measure_photometry(block_of(images, bands), PhotometryConfig(**settings))


def test_flux_size_peak_and_sky_of_a_gaussian_are_those_of_the_formula() -> None:
    scene = gaussian(97, flux=5e4, sigma_px=3.0) + noise((97, 97), 2.0) + 7.0
    found = measured(scene[None, None])
    # 2.5 Kron radii of a Gaussian hold 97 to 99.9 percent of it.
    assert found["phot_flux_njy_r"][0] == pytest.approx(5e4, rel=0.02)
    assert found["phot_half_light_radius_arcsec_r"][0] == pytest.approx(
        3.0 * np.sqrt(2 * np.log(2)) * SCALE, rel=0.02
    )
    assert found["phot_peak_njy_r"][0] == pytest.approx(5e4 / (2 * np.pi * 9.0), abs=6.0)
    assert found["phot_sky_njy_r"][0] == pytest.approx(7.0, abs=4 * float(found["phot_sky_err_njy_r"][0]))
    assert found["phot_noise_njy_r"][0] == pytest.approx(2.0, rel=0.1)
    assert found["phot_axis_ratio"][0] == pytest.approx(1.0, abs=0.03)
    assert found["phot_n_others"][0] == 0
    assert found["phot_others_share_r"][0] == 0.0


def test_errors_are_the_scatter_over_noise() -> None:
    scenes = [gaussian(65, flux=4000.0, sigma_px=2.5) + noise((65, 65), 2.0, seed) for seed in range(120)]
    found = measured(np.stack(scenes)[:, None])
    for value, error in (
        ("phot_flux_njy_r", "phot_flux_err_njy_r"),
        ("phot_half_light_radius_arcsec_r", "phot_half_light_radius_err_arcsec_r"),
        ("phot_sky_njy_r", "phot_sky_err_njy_r"),
    ):
        # The aperture follows the noise, too, which the error does not know: to 40 percent.
        ratio = np.std(found[value]) / np.median(found[error])
        assert 0.7 < ratio < 1.4, (value, ratio)


def test_a_neighbor_is_counted_and_left_out() -> None:
    alone = gaussian(97, flux=5e4, sigma_px=4.0) + noise((97, 97), 1.0)
    beside = alone + gaussian(97, flux=2e4, sigma_px=2.0, at=(59.0, 48.0))
    found = measured(np.stack([alone, beside])[:, None])
    assert found["phot_n_others"].tolist() == [0, 1]
    assert 0.1 < found["phot_others_share_r"][1] < 2e4 / 7e4 + 0.02
    assert found["phot_flux_njy_r"][1] == pytest.approx(5e4, rel=0.08)
    # The neighbor's own peak is 796 nJy.
    assert found["phot_peak_njy_r"] == pytest.approx(5e4 / (2 * np.pi * 16.0), abs=10.0)


def test_wings_of_neighbors_at_the_edge_are_not_sky() -> None:
    scene = gaussian(97, flux=5e4, sigma_px=3.0) + noise((97, 97), 1.0)
    for along in range(8, 97, 16):
        for at in ((along, 4.0), (along, 92.0), (4.0, along), (92.0, along)):
            scene += gaussian(97, flux=2e3, sigma_px=2.5, at=at)
    found = measured(scene[None, None])
    # With the pixels next to their segments it would be 1.1 nJy.
    assert found["phot_sky_njy_r"][0] == pytest.approx(0.0, abs=0.5)


def test_apertures_are_laid_out_in_the_named_band() -> None:
    # In g the source is three times as wide: its aperture would be, too.
    scene = np.stack([gaussian(97, flux=5e4, sigma_px=6.0), gaussian(97, flux=5e4, sigma_px=2.0)])
    scene += noise(scene.shape, 1.0)
    wide, small = (measured(scene[None], ("g", "r"), detect_in=band) for band in ("g", "r"))
    assert wide["phot_radius_arcsec"][0] == pytest.approx(3.0 * small["phot_radius_arcsec"][0], rel=0.1)
    assert small["phot_flux_njy_g"][0] < 0.8 * wide["phot_flux_njy_g"][0]


def test_pixels_without_data_are_left_out_of_all_bands() -> None:
    scene = np.stack([gaussian(97, flux=5e4, sigma_px=3.0), gaussian(97, flux=1e5, sigma_px=3.0)])
    scene += noise(scene.shape, 1.0) + 40.0
    scene[0, :, 50:] = np.nan
    scene[1, 20, 20] = np.inf
    found = measured(scene[None], ("g", "r"))
    # SEP takes the mean of the other pixels of the aperture for those that are missing: with the brighter half that is too much.
    color = found["phot_flux_njy_r"][0] / found["phot_flux_njy_g"][0]
    assert color == pytest.approx(2.0, rel=0.01)
    # They are 0 for SEP, and no sky.
    assert found["phot_sky_njy_g"][0] == pytest.approx(40.0, abs=4 * float(found["phot_sky_err_njy_g"][0]))
    assert all(np.isfinite(found[name][0]) for name in found)


def test_an_object_without_pixels_or_light_has_no_values_or_a_circle() -> None:
    scenes = np.stack([np.full((65, 65), np.nan), noise((65, 65), 1.0), np.zeros((65, 65))])
    found = measured(scenes[:, None])
    for column in photometry_columns(("r",)):
        for row in (0, 2):
            assert found[column.name].dtype == column.dtype
            assert np.isnan(found[column.name][row]) or found[column.name][row] == column.missing, column.name
    assert found["phot_axis_ratio"][1] == 1.0
    assert found["phot_radius_arcsec"][1] == pytest.approx(1.0)
    assert abs(found["phot_flux_njy_r"][1]) < 5 * found["phot_flux_err_njy_r"][1]


def test_a_band_without_pixels_leaves_the_others() -> None:
    scene = np.stack([np.full((65, 65), np.nan), gaussian(65, flux=5e4, sigma_px=3.0) + noise((65, 65), 1.0)])
    found = measured(scene[None], ("g", "r"))
    assert np.isnan(found["phot_flux_njy_g"][0])
    assert found["phot_flux_njy_r"][0] == pytest.approx(5e4, rel=0.02)


def test_a_flat_core_shows() -> None:
    star = gaussian(97, flux=2e5, sigma_px=2.0) + noise((97, 97), 2.0)
    cut_off = np.minimum(star, 0.4 * star.max())
    found = measured(np.stack([star, cut_off])[:, None])["phot_flat_share_r"]
    assert found[0] < 0.15
    assert found[1] > 0.5


def test_values_do_not_depend_on_the_company() -> None:
    scenes = np.stack(
        [
            gaussian(65, flux=10.0 ** (3 + k / 3), sigma_px=2 + k / 4) + noise((65, 65), 1.0, k)
            for k in range(6)
        ]
    )
    together, alone = measured(scenes[:, None]), measured(scenes[3:4, None])
    for name, values in alone.items():
        assert values[0] == together[name][3], name


def test_a_galaxy_that_fills_the_cutout_has_no_sky() -> None:
    scene = gaussian(65, flux=1e7, sigma_px=25.0) + noise((65, 65), 1.0)
    found = measured(scene[None, None])
    assert np.isnan(found["phot_sky_njy_r"][0])
    assert found["phot_flux_njy_r"][0] > 0


def test_resampled_pixels_have_larger_errors() -> None:
    scene = block_of((gaussian(65, flux=5e3, sigma_px=3.0) + noise((65, 65), 1.0))[None, None])
    twice = dataclasses.replace(scene, noise_correlation=np.full((1, 1), 2.0, np.float32))
    plain, correlated = (photometry.measure_photometry(one, SETTINGS) for one in (scene, twice))
    assert correlated["phot_flux_err_njy_r"][0] == pytest.approx(
        2 * plain["phot_flux_err_njy_r"][0], rel=1e-5
    )
    assert correlated["phot_flux_njy_r"][0] == plain["phot_flux_njy_r"][0]


def test_cutouts_larger_than_the_list_of_sep_are_measured() -> None:
    scene = gaussian(601, flux=1e7, sigma_px=80.0) + noise((601, 601), 1.0)
    assert measured(scene[None, None])["phot_flux_njy_r"][0] == pytest.approx(1e7, rel=0.05)


def test_light_on_one_side_is_asymmetric() -> None:
    """A third of an object's light, merged with it: what the other side lacks is that light, but for what overlaps."""
    center = SIZE_PX // 2
    one = gaussian(SIZE_PX, flux=3e4, sigma_px=3.0)
    near = gaussian(SIZE_PX, flux=1e4, sigma_px=3.0, at=(center + 7, center))
    halfway = gaussian(SIZE_PX, flux=3e4, sigma_px=3.0, at=(center + 0.5, center))
    images = np.stack([one, one + near, halfway, one])[:, None] + noise((4, 1, SIZE_PX, SIZE_PX), 1.0)
    images[3] = one + noise((SIZE_PX, SIZE_PX), 300.0)
    found = measured(images)["phot_asymmetric_share_r"]
    assert abs(found[0]) < 0.02
    assert abs(found[2]) < 0.03  # Turned about a half pixel.
    # Alone the neighbor would make 0.25; the center of both lies a quarter of the way to it.
    assert 0.1 < found[1] < 0.25
    assert np.isnan(found[3])


def test_a_flat_core_of_a_faint_object_is_seen() -> None:
    """Peaks of 6 sigma: cut off at 0.4 of 15 sigma."""
    star = gaussian(SIZE_PX, flux=15 * 2 * np.pi * 16, sigma_px=4.0) + noise((SIZE_PX, SIZE_PX), 1.0, seed=5)
    found = measured(np.stack([star, np.minimum(star, 6.0)])[:, None])["phot_flat_share_r"]
    assert found[0] < 0.25
    assert found[1] > 0.5


def test_a_neighbor_that_is_told_apart_makes_no_asymmetry() -> None:
    """Its pixels count on neither side: its light is in phot_others_share."""
    center = SIZE_PX // 2
    one = gaussian(SIZE_PX, flux=5e4, sigma_px=6.0)
    near = gaussian(SIZE_PX, flux=2e4, sigma_px=2.0, at=(center, center + 18))
    found = measured((one + near + noise((SIZE_PX, SIZE_PX), 1.0))[None, None])
    assert found["phot_n_others"].tolist() == [1]
    # With its pixels it would be 0.19, with those opposite to them 0.12.
    assert abs(found["phot_asymmetric_share_r"][0]) < 0.05


def test_a_flat_core_in_a_wide_halo_is_seen() -> None:
    """Of the pixels within the half-light radius a tenth are the core, all of which are flat."""
    core = gaussian(SIZE_PX, flux=3e4, sigma_px=2.0)
    halo = gaussian(SIZE_PX, flux=1e5, sigma_px=10.0)
    image = np.minimum(core, 0.4 * core.max()) + halo + noise((SIZE_PX, SIZE_PX), 1.0)
    # The flag begins at 0.3.
    assert measured(image[None, None])["phot_flat_share_r"][0] > 0.4


def test_of_sky_alone_no_core_is_flat() -> None:
    """A peak of three sigma can lie outside of a circle of half a pixel: the core has no pixel, and nothing warns."""
    scenes = np.random.default_rng(5).normal(0.0, 1.0, (300, 1, 49, 49)).astype(np.float32)
    found = measured(scenes)["phot_flat_share_r"]
    assert 0 < np.isfinite(found).sum() < 300
    assert not (found > 1).any()
