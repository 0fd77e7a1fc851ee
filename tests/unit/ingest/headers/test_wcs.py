"""The WCS of an image: in its own header, or in the primary one alone; and which is accepted."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.errors import TileError
from galbatch.ingest.headers import accepted_wcs, parse_wcs

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
    np.testing.assert_allclose(parse_wcs(tile.wcs_header).to_sky(3, 5), right, rtol=0, atol=1e-12)


def test_an_image_s_own_goes_before_it(tmp_path, tan, read_tiles):
    primary = fits.PrimaryHDU(header=tan(crpix=(1, 1)))
    fits.HDUList([primary, fits.ImageHDU(IMAGE, header=tan(crpix=(35, 30)))]).writeto(tmp_path / "a_g.fits")
    (tile,) = read_tiles(tmp_path, layout="stamps", zero_point_mag=27.0)
    assert parse_wcs(tile.wcs_header).wcs.wcs.crpix.tolist() == [35, 30]


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


def header_of(**cards):
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"], header["CRPIX1"], header["CRPIX2"] = 150.0, 2.0, 40.0, 25.0
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -2.4e-4, 1.4e-4, 1.3e-4, 2.5e-4
    header.update(cards)
    return header


@pytest.mark.parametrize(
    ("cards", "what"),
    [
        ({"CPDIS1": "LOOKUP"}, "CPDIS1"),
        ({"CPDIS2": "LOOKUP"}, "CPDIS2"),
        ({"CQDIS1": "LOOKUP"}, "CQDIS1"),
        ({"D2IMDIS2": "LOOKUP"}, "D2IMDIS2"),
        ({"D2IMARR1": 3}, "D2IMARR1"),
        ({"CTYPE1": "RA---TAB", "CTYPE2": "DEC--TAB"}, "-TAB"),
        ({"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX"}, "TNX"),
        ({"CTYPE1": "RA---ZPX", "CTYPE2": "DEC--ZPX"}, "ZPX"),
        ({"CTYPE1": "RA---DSS", "CTYPE2": "DEC--DSS"}, "DSS"),
    ],
)
def test_distortions_in_tables_are_refused_by_name(cards, what):
    with pytest.raises(
        TileError, match=rf"here: the WCS has distortion tables \({what}.*, which are not read"
    ):
        accepted_wcs(header_of(**cards), "here")


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"CTYPE1": "SLON-TAN", "CTYPE2": "SLAT-TAN"}, "no celestial WCS: .*'SLON-TAN', 'SLAT-TAN'"),
        ({"CTYPE1": "TLON-TAN", "CTYPE2": "TLAT-TAN"}, "no celestial WCS"),
        ({"CTYPE1": "RA", "CTYPE2": "DEC"}, "no celestial WCS"),
        ({"CTYPE1": "RA---TAN", "CTYPE2": "GLAT-TAN"}, "no celestial WCS"),
        ({"CTYPE1": "RA---TAN", "CTYPE2": "RA---TAN"}, "no celestial WCS"),
        ({"CTYPE1": 7}, "no celestial WCS"),
        ({"CTYPE1": "RA---FOO", "CTYPE2": "DEC--FOO"}, "the WCS cannot be used"),
        ({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--SIN"}, "the WCS cannot be used"),
        ({"CD1_1": 0.0, "CD1_2": 0.0}, r"the WCS cannot be used \(Linear transformation matrix is singular"),
        ({"CRVAL2": 95.0}, "the WCS cannot be used"),
        ({"CRVAL1": "10:00:00"}, "the WCS cannot be used: CRVAL1 = '10:00:00' is no number"),
        ({"CRPIX1": True}, "the WCS cannot be used: CRPIX1 = True is no number"),
        ({"A_ORDER": "two", "B_ORDER": 2}, "the WCS cannot be used: A_ORDER = 'two' is no number"),
        ({"CRVAL1": fits.card.Undefined()}, "the WCS cannot be used: CRVAL1 missing"),
        ({"CD1_1": 1e300}, "the WCS makes pixels .* arcsec wide, and 0.0001 to 36000 can be"),
        (
            {"CD1_1": 1e-9, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-9},
            "the WCS makes pixels 3.6e-06 arcsec wide",
        ),
    ],
)
def test_what_is_no_sky_is_refused(cards, message):
    with pytest.raises(TileError, match=f"here: {message}"):
        accepted_wcs(header_of(**cards), "here")


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (["CRPIX1", "CRVAL2"], "CRPIX1, CRVAL2 missing"),
        (["CD1_1", "CD1_2", "CD2_1", "CD2_2"], "CDELT1, CDELT2 missing"),
    ],
)
def test_what_is_missing_is_not_made_up(left_out, message):
    """wcslib takes 0 for CRPIX and CRVAL, and 1 deg a pixel."""
    header = header_of()
    for key in left_out:
        del header[key]
    with pytest.raises(TileError, match=f"here: the WCS cannot be used: {message}"):
        accepted_wcs(header, "here")


SPELLINGS = {
    "units of arcsec": {
        "CUNIT1": "arcsec",
        "CUNIT2": "arcsec",
        "CRVAL1": 150.0 * 3600,
        "CRVAL2": 7200.0,
        "CD1_1": -2.4e-4 * 3600,
        "CD1_2": 1.4e-4 * 3600,
        "CD2_1": 1.3e-4 * 3600,
        "CD2_2": 2.5e-4 * 3600,
    },
    "PC of before the standard": {
        "PC001001": -0.96,
        "PC001002": 0.56,
        "PC002001": 0.52,
        "PC002002": 1.0,
        "CDELT1": 2.5e-4,
        "CDELT2": 2.5e-4,
    },
}


@pytest.mark.parametrize("cards", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_one_wcs(cards):
    header = header_of(**cards)
    if "PC001001" in header:
        for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
            del header[key]
    x, y = np.array([0.0, 79.0]), np.array([3.0, 49.0])
    _, wcs = accepted_wcs(header, "here")
    np.testing.assert_allclose(wcs.to_sky(x, y), WCS(header_of()).all_pix2world(x, y, 0), rtol=0, atol=1e-12)
