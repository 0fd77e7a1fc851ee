from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import api
from galbatch.core.flags import MaskBit
from galbatch.errors import UsageError

from .conftest import ANGLE_DEG, IDS

STORE_MISSING = "no cutout store; give that of the run by --store"


@pytest.fixture(scope="module")
def cutout(small: str) -> api.Cutout:
    (found,) = api.find_cutouts(small, api.store_of(small), [str(IDS[0])])
    return found


def test_cutouts_come_in_the_order_of_the_ids(small: str) -> None:
    found = api.find_cutouts(small, api.store_of(small), [str(IDS[2]), str(IDS[1])])
    assert [one.object_id for one in found] == [IDS[2], IDS[1]]
    assert found[0].wcs.world_to_pixel_values(150.1, -2.25) == pytest.approx((12, 12), abs=1e-6)
    with pytest.raises(UsageError, match=STORE_MISSING):
        api.find_cutouts(small, f"{small}/nothing.zarr", [str(IDS[0])])


def test_fits_has_image_mask_and_variance_with_wcs(small: str, tmp_path: Path) -> None:
    path = str(tmp_path / "x.fits")
    api.write_cutouts(path, api.find_cutouts(small, api.store_of(small), list(map(str, IDS[:2]))))
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus[1:7]] == [
            *("IMAGE_G", "MASK_G", "VARIANCE_G"), *("IMAGE_R", "MASK_R", "VARIANCE_R"),
        ]  # fmt: skip
        image = hdus["IMAGE_R", 1]
        assert image.header["BUNIT"] == "nJy"
        assert image.header["OBJECT"] == str(IDS[0])
        assert image.header["FLAGTEXT"] == "BAD_CENTER MOSAICKED"
        assert image.header["PSFFWHM"] == pytest.approx(0.7)
        assert image.data.dtype == np.dtype(">f4")
        assert image.data[12, 12] == 200
        for plane in ("IMAGE_G", "MASK_G", "VARIANCE_G"):
            wcs = WCS(hdus[plane, 2].header)
            assert wcs.world_to_pixel_values(150.101, -2.2) == pytest.approx((12, 12), abs=1e-6)
        mask = hdus["MASK_G", 1]
        assert mask.data[12, 12] & 1 << mask.header["MP_SAT"] == int(MaskBit.SAT)
        assert hdus["VARIANCE_G", 1].header["BUNIT"] == "nJy2"
    with pytest.raises(UsageError, match=r"x\.png: cutouts are written as FITS"):
        api.write_cutouts("x.png", [])


def test_north_is_up_and_the_flux_is_kept(cutout: api.Cutout) -> None:
    before = cutout.wcs.pixel_scale_matrix
    assert np.rad2deg(np.arctan2(before[1, 0], before[1, 1])) == pytest.approx(ANGLE_DEG)
    turned = api.north_up(cutout)
    np.testing.assert_allclose(
        turned.wcs.pixel_scale_matrix * 3600, [[-0.2, 0], [0, 0.2]], rtol=1e-6, atol=1e-12
    )
    assert turned.wcs.world_to_pixel_values(150.1, -2.2) == pytest.approx((12, 12), abs=1e-6)
    # The pixels about the edge are NaN, where the filter meets them; the source is not there.
    sums = np.nansum(turned.image, axis=(1, 2)) / np.nansum(cutout.image, axis=(1, 2))
    np.testing.assert_allclose(sums, 1, atol=2e-3)
    peak = np.unravel_index(np.nanargmax(turned.image[0]), turned.image[0].shape)
    assert peak == (12, 12)
    assert turned.mask is not None
    assert turned.mask[0, 12, 12] == int(MaskBit.SAT)
    # Corners of the turned grid lie outside the cutout.
    assert turned.mask[0, 0, 0] == int(MaskBit.NO_DATA)
    assert np.isnan(turned.image[0, 0, 0])
    assert "resampled by reproject" in str(api.cutouts_as_fits([turned])[1].header["HISTORY"])


def test_a_cutout_on_the_pixels_of_another_image(cutout: api.Cutout, tmp_path: Path) -> None:
    other = WCS(naxis=2)
    other.wcs.ctype, other.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.1, -2.2]
    other.wcs.crpix, other.wcs.cdelt = [11.0, 7.0], [-0.4 / 3600, 0.4 / 3600]
    path = str(tmp_path / "other.fits")
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((14, 20), np.float32), other.to_header())]
    ).writeto(path)
    found = api.on_image(cutout, path)
    assert found.image.shape == (2, 14, 20)
    # A pixel covers four of the cutout's.
    assert np.nansum(found.image[1]) == pytest.approx(np.nansum(cutout.image[1]), rel=2e-3)
    assert np.unravel_index(np.nanargmax(found.image[0]), (14, 20)) == (6, 10)
    np.testing.assert_allclose(found.wcs.pixel_to_world_values(3, 4), other.pixel_to_world_values(3, 4))
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    with pytest.raises(UsageError, match=r"empty\.fits: no image with a celestial WCS"):
        api.on_image(cutout, str(tmp_path / "empty.fits"))
    with pytest.raises(UsageError, match=r"gone\.fits: cannot be read as FITS"):
        api.on_image(cutout, str(tmp_path / "gone.fits"))


def test_distortion_polynomials_of_another_image_are_stated(cutout: api.Cutout, tmp_path: Path) -> None:
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 150.1, "CRVAL2": -2.2,
            "CRPIX1": 15.0, "CRPIX2": 15.0, "CD1_1": -0.2 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.2 / 3600,
            "A_ORDER": 2, "A_2_0": 1e-3, "B_ORDER": 2, "B_0_2": 2e-3,
        }
    )  # fmt: skip
    fits.PrimaryHDU(np.zeros((30, 30), np.float32), header).writeto(tmp_path / "sip.fits")
    found = api.cutouts_as_fits([api.on_image(cutout, str(tmp_path / "sip.fits"))])[1].header
    assert WCS(found).all_pix2world([[2, 27]], 0) == pytest.approx(
        WCS(header).all_pix2world([[2, 27]], 0), abs=1e-9
    )
