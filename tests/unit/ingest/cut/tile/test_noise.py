"""The sky noise of cutouts in which too few pixels are free of light: that of the tile, or the stated variance."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.flags import PixelFlag, SkySource

NJY = 10 ** (-0.4 * (27.0 - 31.4))
SHAPE = (400, 400)
SIGMA = 3.0
STATED = 2.5  # The root of the variance plane: coadds state too little.


@pytest.fixture
def tile(tmp_path, tan, write_calexp, read_tiles):
    """Write a patch whose middle is detected light, and read it."""

    def write(*, detected=slice(140, 260), variance=True, depth=1.0):
        rng = np.random.default_rng(2)
        image, mask = rng.normal(0.0, SIGMA, SHAPE), np.zeros(SHAPE, np.int32)
        stated = np.full(SHAPE, STATED**2)
        # The middle has another depth, which the variance tells.
        stated[detected, detected] *= depth**2
        image[detected, detected] += 50.0
        mask[detected, detected] = 1 << 5
        if variance:
            write_calexp(tmp_path, image=image, mask=mask, variance=stated, wcs=tan(crpix=(1, 1)))
            return read_tiles(tmp_path)
        header = fits.Header({"BUNIT": "nJy"}) + tan(crpix=(1, 1))
        hdus = [
            fits.PrimaryHDU(image * NJY, header),
            fits.ImageHDU(mask, fits.Header({"HIERARCH MP_DETECTED": 5})),
        ]
        fits.HDUList(hdus).writeto(tmp_path / "sky_g.fits")
        return read_tiles(tmp_path / "sky_g.fits", layout="generic", generic={"mask": 1})

    return write


def center(tan, x=200.0, y=200.0):
    return WCS(tan(crpix=(1, 1))).all_pix2world(x, y, 0)


def test_a_cutout_full_of_light_has_the_noise_of_its_tile(tile, tan, objects, cut):
    block = cut(objects(*center(tan)), tile(), size=80)
    assert block.sky_sigma_njy[0, 0] == pytest.approx(SIGMA * NJY, rel=0.04)
    assert block.sky_source.tolist() == [[SkySource.TILE]]
    assert not block.flags[0] & PixelFlag.LOW_SNR


def test_the_cutouts_own_depth_counts(tile, tan, objects, cut):
    block = cut(objects(*center(tan)), tile(depth=2.0), size=80)
    assert block.sky_sigma_njy[0, 0] == pytest.approx(2.0 * SIGMA * NJY, rel=0.04)


def test_without_a_variance_it_is_the_tiles(tile, tan, objects, cut):
    block = cut(objects(*center(tan)), tile(variance=False), size=80)
    assert block.sky_sigma_njy[0, 0] == pytest.approx(SIGMA * NJY, rel=0.04)
    assert block.sky_source.tolist() == [[SkySource.TILE]]


def test_resampled_pixels_without_a_variance_are_unknown(tile, tan, objects, cut):
    block = cut(objects(*center(tan)), tile(variance=False), size=60, scale=0.2)
    assert np.isnan(block.sky_sigma_njy[0, 0])
    assert block.sky_source.tolist() == [[SkySource.UNKNOWN]]


def test_resampled_pixels_scatter_less_as_their_variance_says(tile, tan, objects, cut):
    ra, dec = np.transpose([center(tan), center(tan, 60.0, 60.0)])
    block = cut(objects(ra, dec), tile(), size=60, scale=0.2)
    assert block.sky_source.tolist() == [[SkySource.TILE], [SkySource.FRAME]]
    assert block.sky_sigma_njy[0, 0] == pytest.approx(block.sky_sigma_njy[1, 0], rel=0.1)


def test_a_tile_full_of_light_leaves_the_stated_variance(tile, tan, objects, cut):
    block = cut(objects(*center(tan)), tile(detected=slice(0, 400)), size=80)
    assert block.sky_sigma_njy[0, 0] == pytest.approx(STATED * NJY, rel=0.01)
    assert block.sky_source.tolist() == [[SkySource.VARIANCE]]


def test_the_company_does_not_count(tile, tan, objects, cut):
    tiles = tile()
    ra, dec = np.transpose([center(tan, 60.0, 60.0), center(tan), center(tan, 195.0, 205.0)])
    together, alone = cut(objects(ra, dec), tiles, size=80), cut(objects(ra[1], dec[1]), tiles, size=80)
    assert together.sky_source[:, 0].tolist() == [SkySource.FRAME, SkySource.TILE, SkySource.TILE]
    assert together.sky_sigma_njy[1, 0] == alone.sky_sigma_njy[0, 0]


def test_no_pixels_have_no_noise(tile, objects, cut):
    block = cut(objects(10.0, -50.0), tile(), size=80)
    assert np.isnan(block.sky_sigma_njy).all()
    assert block.sky_source.tolist() == [[SkySource.UNKNOWN]]
