"""Ways in which the stamps of a training with --augment are spoiled, and what stays as it was."""

import dataclasses

import numpy as np
import pytest

from galbatch.simulation import Sky, draw_population, draw_stamps, training_set
from galbatch.simulation.light.camera import BANDS, draw_psfs
from galbatch.simulation.light.noise import SKY_SIGMA_NJY
from galbatch.simulation.light.spoiling import (
    FLAT_AT,
    NEIGHBOR_ARCSEC,
    NEIGHBOR_FLUX,
    NOT_SPOILED,
    SPOILED_SHARE,
    Spoiling,
    draw_spoiling,
)

SCALE = 0.168
N = 2000


@pytest.fixture(scope="module")
def drawn():
    return [draw_spoiling(np.random.default_rng([3, number])) for number in range(N)]


def test_each_of_the_four_spoils_a_quarter(drawn):
    each = np.array(
        [
            (
                one.psf_factor != 1,
                one.neighbor is not None,
                any(one.sky_sigmas),
                np.isfinite(one.flat_at),
            )
            for one in drawn
        ]
    )
    # The error of a share of 2,000 is 0.01.
    np.testing.assert_allclose(each.mean(axis=0), SPOILED_SHARE, atol=0.04)
    assert (~each.any(axis=1)).mean() == pytest.approx((1 - SPOILED_SHARE) ** 4, abs=0.04)


def test_what_is_drawn_lies_in_the_stated_ranges(drawn):
    neighbors = [one.neighbor for one in drawn if one.neighbor is not None]
    distance = np.array([one.distance_arcsec for one in neighbors])
    assert NEIGHBOR_ARCSEC[0] <= distance.min() < 1.0
    assert 4.8 < distance.max() <= NEIGHBOR_ARCSEC[1]
    share = np.array([one.flux_share for one in neighbors])
    assert np.median(share) == pytest.approx(np.sqrt(np.prod(NEIGHBOR_FLUX)), rel=0.2)
    sky = np.array([one.sky_sigmas for one in drawn if any(one.sky_sigmas)])
    assert (sky > 0).all(axis=1).mean() == pytest.approx(0.5, abs=0.08)
    assert (sky < 0).all(axis=1).mean() == pytest.approx(0.5, abs=0.08)
    flat = np.array([one.flat_at for one in drawn if np.isfinite(one.flat_at)])
    assert FLAT_AT[0] <= flat.min() < flat.max() <= FLAT_AT[1]


def test_the_neighbor_lies_where_it_is_said_with_the_flux_that_is_said(drawn):
    one = next(one for one in drawn if one.neighbor is not None and one.neighbor.profile.n < 1.2)
    close = dataclasses.replace(one.neighbor, distance_arcsec=20 * SCALE, angle_deg=90.0)
    light = Spoiling(neighbor=close).neighbor_light(
        np.array([1000.0, 500.0]),
        ("r", "g"),
        draw_psfs(("r", "g"), np.random.default_rng(1)),
        size_px=96,
        offset_px=(0.2, -0.1),
        pixel_scale_arcsec=SCALE,
    )
    shares = [close.flux_share[BANDS.index(band)] for band in ("r", "g")]
    np.testing.assert_allclose(light.sum(axis=(1, 2)), np.multiply([1000, 500], shares), rtol=0.03)
    y, x = np.indices(light.shape[1:])
    np.testing.assert_allclose((light[0] * x).sum() / light[0].sum(), 48.2, atol=0.1)
    np.testing.assert_allclose((light[0] * y).sum() / light[0].sum(), 67.9, atol=0.3)


def test_the_sky_is_added_in_units_of_its_noise_and_the_core_is_cut_off_below_it():
    image = np.array([[1.0, 40.0], [90.0, 100.0]])
    one = Spoiling(flat_at=0.5, sky_sigmas=(1.0, -2.0, 0.5))
    found = one.spoiled(image, "r", peak_njy=100.0, pixel_scale_arcsec=SCALE)
    expected = np.array([[1.0, 40.0], [50.0, 50.0]]) - 2 * SKY_SIGMA_NJY["r"]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(
        NOT_SPOILED.spoiled(image, "r", peak_njy=100.0, pixel_scale_arcsec=SCALE), image
    )


def test_a_wider_psf_lowers_the_peak_and_keeps_its_shear():
    (psf,) = draw_psfs(("g",), np.random.default_rng(1))
    (wider,) = Spoiling(psf_factor=1.4).widened([psf])
    assert wider.fwhm_arcsec == pytest.approx(1.4 * psf.fwhm_arcsec)
    assert (wider.g1, wider.g2) == (psf.g1, psf.g2)


def test_stamps_that_nothing_spoils_are_those_of_a_training_without():
    settings = {"bands": ("g",), "size_px": 48, "population": "survey", "seed": 9}
    clean, spoiled = training_set(40, **settings), training_set(40, spoiled=True, **settings)
    assert clean.truth.equals(spoiled.truth)
    np.testing.assert_array_equal(clean.psf_fwhm_arcsec, spoiled.psf_fwhm_arcsec)
    unchanged = (clean.images == spoiled.images).all(axis=(1, 2, 3))
    expected = [
        draw_spoiling(np.random.default_rng([9, int(number), 101])) == NOT_SPOILED
        for number in clean.truth["object_id"].to_numpy()
    ]
    assert unchanged.tolist() == expected
    assert 5 < unchanged.sum() < 25


def test_a_band_is_spoiled_alike_for_any_choice_of_the_others():
    truth = draw_population(12, bands=("g", "r"), population="survey", seed=4)
    sky = Sky(spoiled=True)
    both = draw_stamps(truth, bands=("g", "r"), size_px=48, seed=4, sky=sky)
    alone = draw_stamps(truth, bands=("r",), size_px=48, seed=4, sky=sky)
    np.testing.assert_array_equal(alone[:, 0], both[:, 1])
    clean = draw_stamps(truth, bands=("g", "r"), size_px=48, seed=4)
    assert (both != clean).any(axis=(1, 2, 3)).sum() >= 4
