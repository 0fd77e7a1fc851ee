"""The PSF's width at an object: the list goes before the map, the map before the tile."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.types import Plane
from galbatch.errors import TileError
from galbatch.ingest.cut.psf import fwhm_px, psf_fwhm_at
from galbatch.ingest.pixels import TileReader

SHAPE = (60, 80)
MAP = (0.5 + 0.01 * np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) / 80).astype(np.float32)


@pytest.fixture
def tile(tmp_path, tan, write_calexp, read_tiles):
    """60 x 80 px around (150, 2), whose map is 0 at one pixel."""
    write_calexp(tmp_path, image=np.ones(SHAPE), wcs=tan(crpix=(40.5, 30.5)))
    values = MAP.copy()
    values[7, 9], values[7, 10], values[7, 11] = 0.0, np.nan, -1.0
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values)]).writeto(tmp_path / "psfsize.fits")
    (found,) = read_tiles(tmp_path, psf_fwhm_arcsec={"g": 0.9})
    return dataclasses.replace(found, psf=Plane(str(tmp_path / "psfsize.fits"), 1))


@pytest.mark.parametrize(
    ("x", "y", "pixel"),
    [
        (20.0, 30.0, (30, 20)),
        (20.4, 30.4, (30, 20)),
        (20.6, 29.6, (30, 21)),
        (-3.0, 30.0, (30, 0)),  # beside the tile
        (200.0, 80.0, (59, 79)),
    ],
)
def test_the_map_is_read_at_the_nearest_pixel(tile, x, y, pixel):
    with TileReader() as reader:
        assert psf_fwhm_at(reader, tile, x=x, y=y) == pytest.approx(float(MAP[pixel]), rel=1e-6)


@pytest.mark.parametrize("x", [9, 10, 11])
def test_where_the_map_has_none_the_tiles_width_stands(tile, x):
    with TileReader() as reader:
        assert psf_fwhm_at(reader, tile, x=x, y=7) == 0.9
        assert np.isnan(psf_fwhm_at(reader, dataclasses.replace(tile, psf_fwhm_arcsec=np.nan), x=x, y=7))


def test_without_a_map_the_tiles_width_stands(tile):
    with TileReader() as reader:
        assert psf_fwhm_at(reader, dataclasses.replace(tile, psf=None), x=20.0, y=30.0) == 0.9


def test_a_map_that_is_cut_off(tile, tmp_path):
    path = tmp_path / "psfsize.fits"
    path.write_bytes(path.read_bytes()[:9000])
    with TileReader() as reader, pytest.raises(TileError, match="PSF map"):
        psf_fwhm_at(reader, tile, x=20.0, y=30.0)


def positions(tile, pixels):
    """(ra, dec) of 0-based (x, y)."""
    wcs = WCS(fits.Header.fromstring(tile.wcs_header))
    return wcs.all_pix2world(np.array(pixels, float), 0).T


def test_every_cutout_has_the_width_of_its_own_place(tile, objects, cut):
    pixels = [(20, 30), (60, 41), (2, 3), (9, 7)]
    block = cut(objects(*positions(tile, pixels)), [tile], size=16)
    expected = [MAP[30, 20], MAP[41, 60], MAP[3, 2], 0.9]
    assert block.psf_fwhm_arcsec[:, 0] == pytest.approx(expected, rel=1e-6)


def test_resampled_cutouts_have_it_too(tile, objects, cut):
    block = cut(objects(*positions(tile, [(30, 30)])), [tile], size=10, scale=0.25)
    assert block.psf_fwhm_arcsec[0, 0] == pytest.approx(MAP[30, 30], rel=1e-6)


def test_the_list_goes_before_the_map_where_it_has_a_number(tile, objects, cut):
    table = objects(*positions(tile, [(20, 30), (60, 41)]))
    listed = {"g": np.array([np.nan, 1.25], np.float32), "z": np.array([7.0, 7.0], np.float32)}
    table = dataclasses.replace(table, psf_fwhm_arcsec=listed)
    block = cut(table, [tile, dataclasses.replace(tile, band="r")], size=16, bands=("r", "g"))
    np.testing.assert_allclose(
        block.psf_fwhm_arcsec, [[MAP[30, 20], MAP[30, 20]], [MAP[41, 60], 1.25]], rtol=1e-6
    )


def test_without_any_source_it_is_nan(tile, objects, cut):
    bare = dataclasses.replace(tile, psf=None, psf_fwhm_arcsec=np.nan)
    assert np.isnan(cut(objects(*positions(tile, [(20, 30)])), [bare], size=16).psf_fwhm_arcsec).all()


# --- kernel images -----------------------------------------------------------------------------------------


def squared_radius(size):
    y, x = np.indices((size, size)) - size // 2
    return (y**2 + x**2).astype(float)


@pytest.mark.parametrize("fwhm", [2.5, 4.0, 7.0])
@pytest.mark.parametrize("size", [21, 34, 41])
def test_the_width_of_a_gaussian_kernel(fwhm, size):
    kernel = np.exp(-4 * np.log(2) * squared_radius(size) / fwhm**2)
    assert fwhm_px(kernel / kernel.sum()) == pytest.approx(fwhm, rel=1e-9)


@pytest.mark.parametrize("beta", [2.5, 3.5, 4.765])
@pytest.mark.parametrize("fwhm", [3.0, 4.5])
def test_the_width_of_a_moffat_kernel(fwhm, beta):
    kernel = (1 + squared_radius(41) * (2 ** (1 / beta) - 1) * 4 / fwhm**2) ** -beta
    assert fwhm_px(kernel) == pytest.approx(fwhm, rel=0.01)


def test_noise_in_a_kernel_counts_for_little():
    noise = np.random.default_rng(3).normal(scale=5e-3, size=(41, 41))
    kernel = np.exp(-4 * np.log(2) * squared_radius(41) / 4.5**2) + noise
    assert fwhm_px(kernel) == pytest.approx(4.5, rel=0.02)


@pytest.mark.parametrize("kernel", [np.full((5, 5), np.nan), np.zeros((21, 21)), -np.ones((21, 21))])
def test_no_kernel_has_no_width(kernel):
    assert np.isnan(fwhm_px(kernel))
