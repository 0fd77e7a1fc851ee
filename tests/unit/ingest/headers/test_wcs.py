"""The WCS of an image: in its own header, or in the primary one alone."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.errors import TileError
from galbatch.ingest.headers import parse_wcs

IMAGE = np.ones((60, 70), np.float32)


@pytest.mark.parametrize("layout", ["generic", "stamps", "lsst"])
def test_only_the_primary_header_has_it(tmp_path, tan, read_tiles, layout):
    primary = fits.PrimaryHDU(header=tan(crpix=(35, 30)))
    primary.header["FILTER"] = "g"
    planes = [fits.ImageHDU(plane) for plane in (IMAGE, np.zeros(IMAGE.shape, np.int32), IMAGE)]
    for hdu, kind in zip(planes, ("IMAGE", "MASK", "VARIANCE"), strict=True):
        hdu.header["EXTTYPE"] = kind
    planes[1].header["HIERARCH MP_SAT"] = 1
    fits.HDUList([primary, *planes]).writeto(tmp_path / "deepCoadd-g-9813-40.fits")
    (tile,) = read_tiles(tmp_path, layout=layout, zero_point_mag=27.0)
    assert tile.image.hdu == 1
    right = WCS(tan(crpix=(35, 30))).all_pix2world(3, 5, 0)
    np.testing.assert_allclose(parse_wcs(tile.wcs_header).all_pix2world(3, 5, 0), right, rtol=0, atol=1e-12)


def test_an_image_s_own_goes_before_it(tmp_path, tan, read_tiles):
    primary = fits.PrimaryHDU(header=tan(crpix=(1, 1)))
    fits.HDUList([primary, fits.ImageHDU(IMAGE, header=tan(crpix=(35, 30)))]).writeto(tmp_path / "a_g.fits")
    (tile,) = read_tiles(tmp_path, layout="stamps", zero_point_mag=27.0)
    assert parse_wcs(tile.wcs_header).wcs.crpix.tolist() == [35, 30]


def test_that_of_another_image_is_none(tmp_path, tan, read_tiles):
    primary = fits.PrimaryHDU(IMAGE[:50], header=tan(crpix=(1, 1)))
    fits.HDUList([primary, fits.ImageHDU(IMAGE)]).writeto(tmp_path / "a_g.fits")
    with pytest.raises(TileError, match="no celestial WCS"):
        read_tiles(tmp_path, layout="generic", zero_point_mag=27.0, generic={"image": 1})


@pytest.mark.parametrize("layout", ["lsst", "stamps", "generic"])
def test_an_empty_primary_that_repeats_exttype(tmp_path, tan, read_tiles, layout):
    """As afw wrote files until 2013: EXTTYPE, MP_* and the WCS stand in the primary header, too."""
    planes = [
        fits.ImageHDU(plane, header=tan(crpix=(35, 30)))
        for plane in (IMAGE, np.zeros(IMAGE.shape, np.int16), IMAGE)
    ]
    for hdu, kind in zip(planes, ("IMAGE", "MASK", "VARIANCE"), strict=True):
        hdu.header["EXTTYPE"] = kind
    planes[1].header["HIERARCH MP_SAT"] = 1
    primary = fits.PrimaryHDU(header=planes[1].header)
    primary.header.update({"EXTTYPE": "IMAGE", "FILTER": "g", "FLUXMAG0": 10 ** (0.4 * 27.0)})
    fits.HDUList([primary, *planes]).writeto(tmp_path / "deepCoadd-g-9813-40.fits")
    (tile,) = read_tiles(tmp_path, layout=layout)
    assert (tile.image.hdu, tile.shape_px, tile.njy_per_unit) == (
        1,
        (60, 70),
        pytest.approx(57.54399, rel=1e-6),
    )
    if layout != "generic":
        assert (tile.mask.hdu, tile.weight.hdu) == (2, 3)
