"""One contract of flux and position for every method of resampling, and what reproject's have beside the image."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from reproject import reproject_adaptive, reproject_exact

from galbatch.core.flags import PixelFlag
from galbatch.core.types import Resampling

NJY = 10 ** (0.4 * 4.4)
SCALE = 0.168

# Relative error of the flux in an aperture of 4 arcsec about a source of 0.6 to 1.2 arcsec FWHM, and of a center in
# pixels of the cutout. adaptive normalizes the weights of each cutout pixel, not those of each tile pixel; exact knows
# nothing of where within a tile pixel the light is.
FLUX_ERROR = {"low_pass": 1e-4, "adaptive": 1e-3, "exact": 1e-4}
CENTER_ERROR_PX = {"low_pass": 0.01, "adaptive": 0.01, "exact": 0.02}

METHODS = get_args(Resampling)


def gaussian(radius, fwhm):
    return np.exp(-4 * np.log(2) * (radius / fwhm) ** 2) * 4 * np.log(2) / (np.pi * fwhm**2)


def moffat(radius, fwhm, beta=2.5):
    core = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    return (beta - 1) / (np.pi * core**2) * (1 + (radius / core) ** 2) ** -beta


PLACES = {
    "coarser": {"scale": 0.262},
    "coarser and turned": {"scale": 0.2, "angle": 30.0},
    "finer": {"scale": 0.13},
    "much finer and turned": {"scale": 0.08, "angle": 200.0},
    "flipped": {"scale": SCALE, "angle": 45.0, "flip": 1},
    "galactic": {"scale": 0.262, "cards": {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}},
    "ecliptic": {"scale": 0.2, "cards": {"CTYPE1": "ELON-TAN", "CTYPE2": "ELAT-TAN"}},
    "FK4": {"scale": 0.2, "cards": {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "RADESYS": "FK4"}},
    "FK5, swapped": {
        "scale": 0.2,
        "angle": 90.0,
        "flip": 1,  # with the axes of the sky swapped that is east to the left
        "cards": {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "RADESYS": "FK5", "EQUINOX": 1975.0},
    },
}


def header_of(shape, *, scale, angle=0.0, flip=-1, cards=()):
    header = fits.Header()
    c, s = scale / 3600 * np.cos(np.deg2rad(angle)), scale / 3600 * np.sin(np.deg2rad(angle))
    header["CTYPE1"], header["CTYPE2"], header["CRVAL1"], header["CRVAL2"] = "RA---TAN", "DEC--TAN", 50.0, 2.0
    header["CRPIX1"], header["CRPIX2"] = shape[1] / 2 + 0.3, shape[0] / 2 - 0.4
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = flip * c, s, -flip * s, c
    header.update(cards)
    return header


def icrs_of(header, x, y):
    """By astropy alone; ecliptic coordinates are not ICRS's, as it says."""
    wcs = WCS(header)
    world = wcs.all_pix2world(x, y, 0)
    if wcs.wcs.lngtyp == "ELON":
        return SkyCoord(*world, unit="deg", frame="barycentricmeanecliptic").icrs
    return wcs.pixel_to_world(x, y).icrs


def aperture(image, at, radius_px):
    """Flux within a radius, edge pixels in 100 parts, and the center of light there."""
    around = tuple(slice(int(value - radius_px) - 1, int(value + radius_px) + 3) for value in at[::-1])
    rows, columns = np.mgrid[around]
    parts = (np.arange(10) - 4.5) / 10
    share = sum(np.hypot(columns + a - at[0], rows + b - at[1]) < radius_px for a in parts for b in parts)
    light = share / 100 * image[around].astype(float)
    return light.sum(), np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


@pytest.mark.parametrize("place", PLACES)
def test_flux_and_position_are_kept_by_every_method(place, tmp_path, write_calexp, read_tiles, objects, cut):
    scale = PLACES[place]["scale"]
    n_px = int(28 / scale)
    header = header_of((n_px, n_px), **PLACES[place])
    x, y = n_px / 2 + 3.67, n_px / 2 - 2.61
    rows, columns = np.indices((n_px, n_px))
    parts = (np.arange(5) - 2) / 5  # pixels hold the mean over their area
    position = icrs_of(header, x, y)
    for band, (profile, fwhm) in {"G": (gaussian, 0.6), "R": (moffat, 0.8), "I": (moffat, 1.2)}.items():
        image = sum(
            profile(np.hypot(columns + a - x, rows + b - y) * scale, fwhm) for a in parts for b in parts
        )
        write_calexp(tmp_path, band=band, image=1000 * image * scale**2 / 25, wcs=header)
    tiles = read_tiles(tmp_path, bands=("g", "r", "i"))
    # The object lies off the source, so that the source lies between the cutout's pixels.
    table = objects(position.ra.deg + 0.6e-4, position.dec.deg + 1.1e-4)
    for method in METHODS:
        block = cut(table, tiles, size=77, bands=("g", "r", "i"), resampling=method)
        assert block.resampling == method
        assert block.flags[0] & PixelFlag.RESAMPLED
        assert np.isfinite(block.image).all()
        own = WCS(naxis=2)
        own.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        own.wcs.crpix, own.wcs.crval, own.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
        expected = np.array(own.all_world2pix(position.ra.deg, position.dec.deg, 0))
        for number, band in enumerate("GRI"):
            path = tmp_path / f"deepCoadd-results/HSC-{band}/9813/4,4/calexp-HSC-{band}-9813-4,4.fits"
            right, _ = aperture(fits.getdata(path, 1), (x, y), 4.0 / scale)
            flux, center = aperture(block.image[0, number], expected, 4.0 / SCALE)
            assert flux == pytest.approx(right * NJY, rel=FLUX_ERROR[method]), (method, band)
            assert np.abs(center - expected).max() < CENTER_ERROR_PX[method], (method, band)


def second_moment(image, at):
    """Mean square of x about a point within 18 px, px^2."""
    rows, columns = np.indices(image.shape)
    radius2 = (columns - at[0]) ** 2 + (rows - at[1]) ** 2
    light = np.where(radius2 < 18**2, image, 0.0).astype(float)
    return (light * radius2).sum() / light.sum() / 2


# The table of the docs: what a method adds to the mean square of x of a source, in squared tile pixels (times 5.55 that
# of the FWHM); by how much a uniform brightness is off; the scatter of white noise over the root of the stated variance.
# exact adds 1/12 for each of the two pixels.
COSTS = {
    ("low_pass", 0.168): (-0.028, 3.1e-3, 1.0),
    ("low_pass", 0.262): (-0.028, 1e-3, 1.0),
    ("adaptive", 0.168): (0.41, 1e-6, 0.56),
    ("adaptive", 0.262): (0.41, 1e-6, 0.56),
    ("exact", 0.168): (2 / 12, 1e-6, 0.84),
    ("exact", 0.262): ((1 + (0.168 / 0.262) ** 2) / 12, 1e-6, 1.0),
}


@pytest.mark.parametrize(("method", "scale"), COSTS)
def test_what_a_method_adds_is_what_the_docs_say(
    tmp_path, write_calexp, read_tiles, objects, cut, method, scale
):
    header = header_of((200, 200), scale=scale, angle=20.0, flip=1)  # or 0.168 would be copied
    x, y = 100.3, 99.4
    rows, columns = np.indices((200, 200))
    parts = (np.arange(5) - 2) / 5
    source = sum(gaussian(np.hypot(columns + a - x, rows + b - y) * scale, 0.8) for a in parts for b in parts)
    planes = {"G": source, "R": np.ones((200, 200)), "I": np.random.default_rng(2).normal(size=(200, 200))}
    for band, image in planes.items():
        write_calexp(tmp_path, band=band, image=image, wcs=header)
    position = icrs_of(header, x, y)
    tiles = read_tiles(tmp_path, bands=("g", "r", "i"))
    table = objects(position.ra.deg, position.dec.deg)
    block = cut(table, tiles, size=121, bands=("g", "r", "i"), resampling=method)
    added, uneven, noise = COSTS[method, scale]
    before = second_moment(source, (x, y))
    after = second_moment(block.image[0, 0], (60.0, 60.0)) * (SCALE / scale) ** 2
    assert after - before == pytest.approx(added, abs=5e-3)
    np.testing.assert_allclose(block.image[0, 1], NJY * (SCALE / scale) ** 2, rtol=uneven)
    pulls = block.image[0, 2] / np.sqrt(block.variance[0, 2])
    assert pulls.std() == pytest.approx(noise, rel=0.04)


@pytest.fixture
def noise(tmp_path, write_calexp, read_tiles):
    """A tile of noise with a hole and a saturated pixel, and its header."""
    header = header_of((120, 130), scale=0.2, angle=20.0)
    rng = np.random.default_rng(5)
    image, variance = rng.normal(size=(120, 130)), rng.uniform(1, 2, (120, 130))
    mask = np.zeros((120, 130), np.int32)
    image[66, 70], mask[60, 61] = np.nan, 1 << 1
    write_calexp(tmp_path, image=image, variance=variance, mask=mask, wcs=header)
    return read_tiles(tmp_path), header, image


@pytest.mark.parametrize("method", ["adaptive", "exact"])
def test_images_are_reproject_s_and_the_rest_is_the_kernel_s(noise, objects, cut, method):
    tiles, header, image = noise
    table = objects(*WCS(header).all_pix2world(64.3, 61.8, 0))
    own = cut(table, tiles, size=40)
    block = cut(table, tiles, size=40, resampling=method)
    goal = WCS(naxis=2)
    goal.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    goal.wcs.crpix, goal.wcs.crval, goal.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
    options = {"shape_out": (40, 40), "return_footprint": False}
    if method == "adaptive":
        right = reproject_adaptive((image, WCS(header)), goal, conserve_flux=True, **options) * NJY
    else:
        right = reproject_exact((image, WCS(header)), goal, **options) * NJY * (SCALE / 0.2) ** 2
    there = np.isfinite(block.image[0, 0])
    np.testing.assert_allclose(block.image[0, 0][there], right[there], rtol=0, atol=1e-4 * NJY)
    # Nothing is made up: what galbatch's kernel cannot have is missing with every method, and here nothing else.
    np.testing.assert_array_equal(there, np.isfinite(own.image[0, 0]))
    np.testing.assert_array_equal(block.variance, own.variance)
    np.testing.assert_array_equal(block.mask, own.mask)
    np.testing.assert_array_equal(block.noise_correlation, own.noise_correlation)


@pytest.mark.parametrize("method", ["adaptive", "exact"])
def test_copies_are_copies_with_every_method(tmp_path, tan, write_calexp, read_tiles, objects, cut, method):
    image = np.random.default_rng(6).normal(size=(100, 100)).astype(np.float32)
    write_calexp(tmp_path, image=image, wcs=tan(crpix=(50, 50)))
    block = cut(objects(150.0, 2.0), read_tiles(tmp_path), size=31, resampling=method)
    np.testing.assert_array_equal(block.image[0, 0], image[34:65, 34:65] * np.float32(NJY))
    assert not block.flags[0] & PixelFlag.RESAMPLED


@pytest.mark.parametrize("method", METHODS)
def test_a_tile_s_edge_leaves_nan_and_nothing_else(noise, objects, cut, method):
    tiles, header, _ = noise
    block = cut(objects(*WCS(header).all_pix2world(2.0, 60.0, 0)), tiles, size=40, resampling=method)
    assert 0.3 < block.coverage[0, 0] < 0.55
    np.testing.assert_array_equal(np.isnan(block.variance), np.isnan(block.image))
    assert not block.mask[np.isnan(block.image)].any()
