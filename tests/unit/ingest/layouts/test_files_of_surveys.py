"""Real files of surveys come out at the fluxes that astropy and photutils measure on their own pixels.

Right values: circular apertures on the file's pixels (photutils, exact), times 3631e9 x 10^(-0.4 zero point). galbatch's nJy is that of 31.4,
which is 6.0e-5 larger.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from galbatch.core.flags import MaskBit
from galbatch.ingest.headers import parse_wcs
from galbatch.ingest.pixels import Box, TileReader

REL = 2e-4  # 6.0e-5 of 31.4, and the sampling of the aperture's edge


pytestmark = pytest.mark.filterwarnings(
    "ignore::astropy.io.fits.verify.VerifyWarning"
)  # BLANK of a float image


@dataclasses.dataclass(frozen=True)
class Case:
    """One source of a file: where it is on the sky in the file's own frame (FK5 of some) and on the pixels, 0-based, and its flux within a radius."""

    path: str
    layout: str
    band: str
    position: tuple[float, float]
    pixel: tuple[float, float]
    radius_arcsec: float
    flux_njy: float
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    minus_sky: bool = False


HSC = "hsc_cutout_service/222.51551376,0.09749601_300x300_{}.fits"
FAINT, BRIGHT = (222.514980, 0.094189), (222.515493, 0.097575)
CUBE = {"generic": {"axis": {band: place for place, band in enumerate("grizy")}}, "zero_point_mag": 27.0}
CASES = [
    *(
        Case(HSC.format(band), "stamps", band, FAINT, (161.17, 79.16), 1.0, flux)
        for band, flux in (("g", 2611.03), ("r", 4616.03), ("i", 6460.03))
    ),
    *(
        Case(
            "hst_hsc_cosmos/Cut_HSC1.fits",
            "generic",
            band,
            (150.33019387, 2.07082451),
            (28.429, 34.027),
            0.8,
            flux,
            CUBE,
        )
        for band, flux in zip("grizy", (3094.27, 7290.24, 13557.68, 15779.94, 16542.59), strict=True)
    ),
    Case(
        "hst_frontier_drz/abell_2744_dwarf_galaxy_f105w.fits.gz",
        "generic",
        "f105w",
        (3.59625239, -30.38852069),
        (99.963, 99.219),
        0.3,
        2141.85,
        {
            "generic": {
                "weight_replace": ["f105w.fits", "f105w_rms.fits"],
                "weight_kind": "standard_deviation",
            }
        },
    ),
    *(
        Case(
            f"2mass/2MASS_{band}.fits.gz",
            layout,
            band.upper(),
            (265.98532367, -29.30845354),
            (80.358, 79.946),
            15.0,
            flux,
        )
        for layout in ("stamps", "generic")
        for band, flux in (("j", 199314865.6), ("h", 236198560.1), ("k", 255588406.4))
    ),
    Case(
        "ps1_warp/H1413+117_10x10arcsec_55377.34051_z_sci.fits",
        "generic",
        "z",
        (213.94269452, 11.49538670),
        (24.0, 24.0),
        2.0,
        750619.92,
        {"generic": {"weight_replace": ["_sci", "_var"]}},
    ),
    Case(
        "ukidss_wsa/image.fits",
        "generic",
        "K",
        (83.63308731, 22.01448456),
        (149.753, 149.001),
        2.0,
        2600814.6,
        minus_sky=True,
    ),
]


def aperture_sum(image, x, y, radius_px):
    """The sum within a circle, by the share of 50 x 50 points in each pixel."""
    rows, columns = np.indices(image.shape)
    near = np.hypot(columns - x, rows - y) < radius_px + 1
    offset = (np.arange(50) + 0.5) / 50 - 0.5
    dy, dx = offset[:, None, None], offset[None, :, None]
    inside = np.hypot(columns[near] + dx - x, rows[near] + dy - y) < radius_px
    return float(np.nansum(inside.mean(axis=(0, 1)) * image[near])), float(inside.mean(axis=(0, 1)).sum())


@pytest.fixture
def by_survey(realdata):
    def path(name):
        found = realdata / "by_survey" / name
        if not found.exists():
            pytest.skip(f"there is no {found}")
        return found

    return path


@pytest.fixture
def pixels(read_tiles):
    """The only tile of a file in a band, and all its pixels."""

    def read(path, layout, band, **options):
        (tile,) = read_tiles(path, layout=layout, bands=(band,), **options)
        with TileReader() as reader:
            return tile, reader.read(tile, Box(0, tile.shape_px[0], 0, tile.shape_px[1]))

    return read


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.path.split('/')[0]} {case.layout} {case.band}"
)
def test_flux_in_an_aperture(by_survey, pixels, case):
    tile, found = pixels(by_survey(case.path), case.layout, case.band, **case.options)
    x, y = parse_wcs(tile.wcs_header).wcs.all_world2pix(*case.position, 0)
    assert (float(x), float(y)) == pytest.approx(case.pixel, abs=0.006)
    flux, area = aperture_sum(found.image, float(x), float(y), case.radius_arcsec / tile.pixel_scale_arcsec)
    if case.minus_sky:
        flux -= float(np.nanmedian(found.image)) * area
    assert flux == pytest.approx(case.flux_njy, rel=2e-3 if case.minus_sky else REL)


def test_planes_of_hsc_s_cutout_service(by_survey, pixels, objects, read_tiles, cut):
    """Image, mask and variance unnamed, their archive cut off."""
    folder = by_survey("hsc_cutout_service")
    variances = {"g": 4.5101, "r": 9.8542, "i": 12.9243}
    tiles = read_tiles(folder, layout="stamps", bands=tuple(variances))
    block = cut(objects(*FAINT), tiles, size=41, bands=tuple(variances))
    np.testing.assert_allclose(block.variance[0, :, 20, 20], list(variances.values()), rtol=REL)
    assert (block.mask[0, :, 20, 20] == MaskBit.BRIGHT_OBJECT | MaskBit.DETECTED).all()
    for band, right in (("g", 46302.74), ("r", 105954.03), ("i", 161342.57)):
        tile, found = pixels(folder / HSC.format(band).split("/")[1], "stamps", band)
        x, y = parse_wcs(tile.wcs_header).wcs.all_world2pix(*BRIGHT, 0)
        assert aperture_sum(found.image, float(x), float(y), 1.0 / 0.168)[0] == pytest.approx(right, rel=REL)
        # NO_DATA is set at one pixel of i that is finite in the file.
        assert np.isnan(found.image[250, 257]) == (band == "i")


@pytest.mark.parametrize("spelled", ["z", "Z", "DECam z"])
def test_decam_s_community_pipeline(by_survey, pixels, spelled):
    generic = {"weight_replace": ["-image-", "-invvar-"], "weight_kind": "inverse_variance"}
    path = by_survey("decam_cp/decam-520206-S16-image-sub.fits")
    tile, found = pixels(path, "generic", spelled, generic=generic)
    x, y = parse_wcs(tile.wcs_header).wcs.all_world2pix(181.63244626, 32.54041873, 0)
    assert (float(x), float(y)) == pytest.approx((28.566, 49.115), abs=0.005)
    assert found.image[49, 29] == pytest.approx(
        8550.69 * 2.83156, rel=1e-4
    )  # counts, nJy of a count by MAGZERO
    invvar = fits.getdata(str(path).replace("-image-", "-invvar-"), 1)
    # Weights of 0 came back from lossy compression as -4e-7 to 4e-7; the next larger is 4.5e-4.
    measured = invvar > 1e-6
    np.testing.assert_array_equal(np.isnan(found.image), ~measured)
    right = np.where(measured, tile.njy_per_unit**2 / np.where(measured, invvar, 1), np.nan)
    np.testing.assert_allclose(found.variance, right, rtol=1e-5)


@pytest.mark.parametrize("spelled", ["1", "W1", "w1"])
def test_unwise_band_is_a_number(by_survey, pixels, spelled):
    """The mask (int32) and the inverse variance are gzipped beside a plain image."""
    generic = {
        "weight_replace": ["-img-m.fits", "-invvar-m.fits.gz"],
        "weight_kind": "inverse_variance",
        "mask_replace": ["-w1-img-m.fits", "-msk.fits.gz"],
        "mask_planes": {"SAT": 0},
    }
    path = by_survey("unwise/unwise-3460p121-w1-img-m.fits")
    tile, found = pixels(path, "generic", spelled, generic=generic)
    assert (tile.image.packed, tile.mask.packed, tile.weight.packed) == (False, True, True)
    assert parse_wcs(tile.wcs_header).wcs.all_world2pix(346.68377855, 12.79129364, 0) == pytest.approx(
        (5, 5), abs=1e-3
    )
    assert found.image[5, 5] == pytest.approx(969.63, rel=1e-4)
    assert np.isfinite(found.variance).any()


def test_rms_of_hst_in_a_file_without_wcs(by_survey, pixels):
    path = by_survey("hst_frontier_drz/abell_2744_dwarf_galaxy_f105w.fits.gz")
    generic = {"weight_replace": ["f105w.fits", "f105w_rms.fits"], "weight_kind": "standard_deviation"}
    tile, found = pixels(path, "generic", "F105W", generic=generic)
    rms = fits.getdata(str(path).replace("f105w.fits", "f105w_rms.fits"))
    measured = np.isfinite(found.variance)
    assert measured.mean() > 0.9
    np.testing.assert_allclose(found.variance[measured], (rms[measured] * tile.njy_per_unit) ** 2, rtol=1e-5)


def test_pixels_of_hst_by_pc_in_degrees(by_survey, read_tiles):
    """PC holds degrees and CDELT is 1: 0.03 arcsec, about the source that HSC's cube of the same sky shows."""
    path = by_survey("hst_hsc_cosmos/Cut_HST1.fits")
    (tile,) = read_tiles(path, layout="generic", bands=("F814W",), zero_point_mag=25.94)
    assert tile.pixel_scale_arcsec == pytest.approx(0.03, rel=1e-3)
    x, y = parse_wcs(tile.wcs_header).wcs.all_world2pix(150.33019387, 2.07082451, 0)
    assert 0 < x < 250
    assert 0 < y < 250


def test_viking_says_its_band_by_its_name(by_survey, read_tiles):
    path = by_survey("viking/mystery_VIKING_Z.fits")
    for spelled in ("Z", "z"):
        (tile,) = read_tiles(path, layout="stamps", bands=(spelled,), zero_point_mag=30.0)
        assert tile.band == spelled
    wcs = parse_wcs(tile.wcs_header).wcs
    assert wcs.all_world2pix(352.2914408, -31.8223455, 0) == pytest.approx((177, 177), abs=1e-2)


@pytest.mark.parametrize("layout", ["stamps", "generic"])
def test_a_file_of_afw_of_2012(by_survey, pixels, layout):
    """The empty primary repeats EXTTYPE = IMAGE, the mask's MP_* and the WCS."""
    tile, found = pixels(by_survey("suprimecam_old_afw/act-img.fits"), layout, "i")
    assert (tile.image.hdu, tile.shape_px) == (1, (250, 250))
    assert tile.njy_per_unit == pytest.approx(0.155187, rel=1e-4)
    image = fits.getdata(tile.image.path, 1)
    good = np.isfinite(found.image)
    assert good.mean() > 0.9
    np.testing.assert_allclose(found.image[good], image[good] * tile.njy_per_unit, rtol=1e-5)
    if layout == "stamps":
        assert (tile.mask.hdu, tile.weight.hdu) == (2, 3)
        assert tile.mask_planes["SAT"] == fits.getheader(tile.image.path, 2)["MP_SAT"]


def test_an_exposure_of_the_lsst_pipelines(by_survey, pixels):
    """22 HDUs gzipped: planes by EXTNAME, the band by FILTER = HSC-I, the scale by its PhotoCalib."""
    tile, found = pixels(by_survey("hsc_calexp_ccd/calexp.fits.gz"), "stamps", "i")
    assert (tile.image.hdu, tile.mask.hdu, tile.weight.hdu, tile.shape_px) == (1, 2, 3, (32, 64))
    assert tile.image.packed
    with fits.open(tile.image.path) as hdus:
        np.testing.assert_allclose(found.variance, hdus[3].data * 1.9940875**2, rtol=1e-5)
        detected = (hdus[2].data >> hdus[2].header["MP_DETECTED"]) & 1
    np.testing.assert_array_equal((found.mask & MaskBit.DETECTED) != 0, detected != 0)
