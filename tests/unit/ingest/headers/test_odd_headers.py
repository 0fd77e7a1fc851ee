"""Headers that are rare but right: positions are astropy's; and weights whose unit contradicts what they are called."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.errors import TileError
from galbatch.ingest.headers import parse_wcs

PIXELS = np.random.default_rng(0).normal(size=(60, 70)).astype(np.float32)
SCALE = 0.168 / 3600
NO_CD = dict.fromkeys(("CD1_1", "CD1_2", "CD2_1", "CD2_2"))
STEPS = {"CDELT1": -SCALE, "CDELT2": SCALE} | NO_CD
SIP = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_0_2": 2e-5}
SCAMP = {
    "PV1_0": 1e-4,
    "PV1_1": 1.01,
    "PV1_2": 0.0,
    "PV1_4": 3e-3,
    "PV1_5": 0.0,
    "PV1_6": 0.0,
    "PV1_7": 1e-3,
    "PV2_0": 0.0,
    "PV2_1": 1.0,
    "PV2_2": 0.0,
    "PV2_4": 0.0,
    "PV2_7": 1e-3,
}
HEADERS = {
    "LONPOLE 90": {"LONPOLE": 90.0},
    "LATPOLE of no use": {"LATPOLE": 30.0},
    "SCAMP's PV on TAN": SCAMP,
    "SIP without -SIP": SIP,
    "SIP": {**SIP, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"},
    "CD and a CDELT of 1": {"CDELT1": 1.0, "CDELT2": 1.0},
    "CD, PC and CDELT": {"PC1_1": 1.0, "PC2_2": 1.0, "CDELT1": -2 * SCALE, "CDELT2": 2 * SCALE},
    "CD and CROTA2": {"CROTA2": 30.0, "CDELT1": -2 * SCALE, "CDELT2": 2 * SCALE},
    "CROTA2": {"CROTA2": 30.0, **STEPS},
    "PC": {"PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8, **STEPS},
    "arcsec": {
        "CUNIT1": "arcsec",
        "CUNIT2": "arcsec",
        "CRVAL1": 540000.0,
        "CRVAL2": 7200.0,
        "CD1_1": -0.168,
        "CD2_2": 0.168,
    },
    "negative right ascension": {"CRVAL1": -210.0},
    "SIN with its parameters": {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN", "PV2_1": 0.1, "PV2_2": 0.05},
    "another WCS beside": {"CTYPE1A": "RA---TAN", "CTYPE2A": "DEC--TAN", "CRVAL1A": 10.0},
}


def header_of(**cards):
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"], header["CRVAL1"], header["CRVAL2"] = (
        "RA---TAN",
        "DEC--TAN",
        150.0,
        2.0,
    )
    header["CRPIX1"], header["CRPIX2"], header["CD1_1"], header["CD2_2"] = 35.5, 30.5, -SCALE, SCALE
    header["BAND"], header["BUNIT"] = "g", "nJy"
    for key, value in cards.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    return header


@pytest.mark.parametrize("axes", [0, 1, 2], ids=["image", "cube of one", "hypercube of one"])
@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@pytest.mark.filterwarnings("ignore:.*cdfix.*")
def test_positions_are_astropys(tmp_path, read_tiles, name, axes):
    pixels = PIXELS.reshape((1,) * axes + PIXELS.shape)
    fits.PrimaryHDU(pixels, header_of(**HEADERS[name])).writeto(tmp_path / "a_g.fits")
    (tile,) = read_tiles(tmp_path, layout="stamps")
    x, y = np.array([0.0, 69.0, 20.0]), np.array([0.0, 10.0, 59.0])
    right = WCS(fits.getheader(tmp_path / "a_g.fits"), naxis=2).pixel_to_world(x, y).icrs
    found = parse_wcs(tile.wcs_header).to_sky(x, y)
    np.testing.assert_allclose(found[0] % 360, right.ra.deg, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found[1], right.dec.deg, rtol=0, atol=1e-10)
    assert tile.shape_px == PIXELS.shape


@pytest.mark.parametrize("axes", [1, 2])
def test_pixels_of_a_cube_of_one(tmp_path, read_tiles, objects, cut, axes):
    shape = (1,) * axes + PIXELS.shape
    variance = fits.ImageHDU(np.full(shape, 0.25, np.float32), name="VARIANCE")
    image = fits.PrimaryHDU(PIXELS.reshape(shape), header_of(CRPIX1=36.0, CRPIX2=31.0))
    fits.HDUList([image, variance]).writeto(tmp_path / "a_g.fits")
    block = cut(objects(150.0, 2.0), read_tiles(tmp_path, layout="stamps"), size=20)
    np.testing.assert_array_equal(block.image[0, 0], PIXELS[20:40, 25:45])
    np.testing.assert_array_equal(block.variance[0, 0], 0.25)


# A plane's name and BUNIT, the image's BUNIT, and what the message says; "" where both agree or nothing contradicts.
WEIGHTS = [
    ("VARIANCE", "nJy2", "nJy", ""),
    ("VARIANCE", "nJy", "nJy", ""),  # a copy of the image's header
    ("VARIANCE", "uJy", "nJy", r"the variance has BUNIT = 'uJy', which is that of a standard deviation"),
    ("VARIANCE", "uJy2", "nJy", r"image has BUNIT = 'nJy', its variance 'uJy2', which is of another scale"),
    ("VARIANCE", "adu2", "nJy", ""),
    ("ERR", "uJy", "nJy", r"its standard deviation 'uJy', which is of another scale"),
    ("ERR", "nJy2", "nJy", r"standard deviation has BUNIT = 'nJy2', which is that of a variance"),
    ("ERR", "MJy/sr", "MJy/sr", ""),
    ("VAR", "(MJy/sr)2", "MJy/sr", ""),
    ("VAR", "(Jy/sr)2", "MJy/sr", r"its variance '\(Jy/sr\)2', which is of another scale"),
    ("IVAR", "nJy-2", "nJy", ""),
    ("IVAR", "1/nJy2", "nJy", ""),
    ("IVAR", "nJy2", "nJy", r"inverse variance has BUNIT = 'nJy2', which is that of a variance"),
    ("IVAR", "1/nanomaggy^2", "nanomaggy", ""),
    ("WHT", "nJy2", "nJy", ""),
]


@pytest.mark.parametrize(("name", "unit", "image_unit", "said"), WEIGHTS)
def test_a_weight_s_unit_must_be_that_of_its_kind(tmp_path, read_tiles, name, unit, image_unit, said):
    weight = fits.ImageHDU(np.ones_like(PIXELS), name=name)
    weight.header["BUNIT"] = unit
    image = fits.PrimaryHDU(PIXELS, header_of(BUNIT=image_unit))
    fits.HDUList([image, weight]).writeto(tmp_path / "a_g.fits")
    if said:
        with pytest.raises(TileError, match=said):
            read_tiles(tmp_path, layout="stamps")
    else:
        assert read_tiles(tmp_path, layout="stamps")[0].weight is not None
