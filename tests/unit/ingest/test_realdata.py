"""Real survey files: what their own catalogs and headers say must come out."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from galbatch import ingest, storage
from galbatch.config import SurveyConfig
from galbatch.core.flags import PixelFlag
from galbatch.core.types import njy_per_unit
from galbatch.errors import TileError
from galbatch.ingest import headers
from galbatch.ingest.pixels import open_fits


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def sources(realdata, objects):
    def read(folder):
        rows = rows_of(realdata / folder / "sources.csv")
        positions = [(float(row["ra_deg"]), float(row["dec_deg"])) for row in rows]
        return objects(*np.transpose(positions), ids=np.array([int(row["object_id"]) for row in rows]))

    return read


def test_decals_equals_cutout2d(realdata, sources, read_tiles, cut):
    path = realdata / "decals_dr9"
    table = sources("decals_dr9")
    tiles = read_tiles(path, layout="legacysurvey", bands=("g", "r", "z"))
    block = cut(table, tiles, size=63, scale=0.262, bands=("g", "r", "z"))
    with fits.open(path / "cutout_59.1067_-30.4848.fits") as hdus:
        for band, number in enumerate((1, 3, 5)):
            weight = hdus[number + 1].data
            image = np.where(weight > 0, hdus[number].data, np.nan)
            x, y = WCS(hdus[number].header).all_world2pix(table.ra_deg, table.dec_deg, 0)
            for index in range(len(table)):
                expected = Cutout2D(image, (x[index], y[index]), 63, mode="partial", fill_value=np.nan).data
                np.testing.assert_allclose(block.image[index, band], expected * njy_per_unit(22.5), rtol=1e-6)
    at_edge = np.minimum.reduce([x, y, 255 - x, 255 - y]) < 31
    assert at_edge.sum() > 5
    np.testing.assert_array_equal(
        (block.flags & PixelFlag.PARTIAL_COVERAGE) != 0, (block.coverage < 1).any(axis=1)
    )
    assert (block.coverage[at_edge] < 1).all()
    assert not (block.flags & (PixelFlag.OUTSIDE_FOOTPRINT | PixelFlag.RESAMPLED | PixelFlag.MOSAICKED)).any()


def test_decals_noise_agrees_with_its_weights(realdata, sources, read_tiles, cut):
    tiles = read_tiles(realdata / "decals_dr9", layout="legacysurvey", bands=("g",))
    block = cut(sources("decals_dr9"), tiles, size=96, scale=0.262)
    expected = np.sqrt(np.nanmedian(block.variance, axis=(1, 2, 3)))
    ratio = block.sky_sigma_njy[:, 0] / expected
    assert np.nanmedian(ratio) == pytest.approx(1.0, abs=0.25)


def test_hsc_stars_have_their_catalog_flux(realdata, objects, read_tiles, cut):
    rows = rows_of(realdata / "hsc_pdr2_stamps" / "star_cat_correct.csv")
    ra, dec, mag = (np.array([float(row[key]) for row in rows]) for key in ("ira", "idec", "imag_psf"))
    tiles = read_tiles(realdata / "hsc_pdr2_stamps", layout="stamps", bands=("i",))
    assert len(tiles) == 10
    assert len({tile.grid_key for tile in tiles}) == 1  # stamps of one tract share its lattice
    block = cut(objects(ra, dec), tiles, size=23, bands=("i",))
    expected = 10 ** (0.4 * (31.4 - mag))
    np.testing.assert_allclose(np.nansum(block.image[:, 0], axis=(1, 2)), expected, rtol=0.05)
    peaks = [np.unravel_index(np.nanargmax(image), image.shape) for image in block.image[:, 0]]
    assert np.abs(np.array(peaks) - 11).max() <= 1


def test_one_galaxy_in_two_surveys_on_one_grid(realdata, sources, read_tiles, cut):
    table = sources("des_griz")
    bands = ("g", "r", "i", "z")
    des = cut(
        table,
        read_tiles(realdata / "des_griz", layout="stamps", bands=bands),
        size=64,
        scale=0.25,
        bands=bands,
    )
    ps1 = cut(
        table,
        read_tiles(realdata / "ps1_griz", layout="stamps", bands=bands),
        size=64,
        scale=0.25,
        bands=bands,
    )
    assert (des.flags & PixelFlag.RESAMPLED).all()
    assert not (ps1.flags & PixelFlag.RESAMPLED).any()
    ratio = ps1.image[0].sum(axis=(1, 2)) / des.image[0].sum(axis=(1, 2))
    np.testing.assert_allclose(ratio, 1.0, atol=0.1)  # two photometric systems
    for block in (des, ps1):
        peak = np.unravel_index(np.nanargmax(block.image[0, 1]), (64, 64))
        assert np.abs(np.array(peak) - 32).max() <= 2


BOTH = (
    SurveyConfig(layout="stamps", tiles="des_griz", bands=("g", "r", "i", "z"), name="des"),
    SurveyConfig(layout="stamps", tiles="ps1_griz", bands=("g", "r", "i", "z"), name="ps1"),
)


def centroid(image, at, radius_px):
    """(x, y) where light, weighted with a Gaussian about that point, has its center."""
    rows, columns = np.indices(image.shape)
    x, y = at
    for _ in range(40):
        weight = np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / radius_px**2) * np.nan_to_num(image)
        x += 2 * (weight * (columns - x)).sum() / weight.sum()
        y += 2 * (weight * (rows - y)).sum() / weight.sum()
    return x, y


def centroid_arcsec(image, wcs, *, about, scale):
    """East and north of `about` (ra, dec), on the sky, in ICRS; `wcs` states its frame."""
    at = [float(v) for v in wcs.world_to_pixel(SkyCoord(*about, unit="deg"))]
    found = wcs.pixel_to_world(*centroid(image, at, radius_px=1.7 / scale)).icrs
    ra, dec = found.ra.deg, found.dec.deg
    return np.array([(ra - about[0]) * np.cos(np.deg2rad(about[1])), dec - about[1]]) * 3600


@pytest.mark.parametrize("first", ["des", "ps1"])
def test_two_surveys_are_bands_of_one_cutout(realdata, sources, cut, first):
    """One galaxy, seen by two surveys on two grids: DES' has east to the right, PS1's is in FK5."""
    scales = {"des": 0.263, "ps1": 0.25}
    surveys = [
        survey.model_copy(update={"tiles": str(realdata / survey.tiles)})
        for survey in sorted(BOTH, key=lambda survey: survey.name != first)
    ]
    bands = [band for survey in surveys for band in survey.run_bands]
    table = sources("des_griz")
    tiles = ingest.read_surveys(surveys)
    block = cut(table, tiles, size=143, scale=scales[first], bands=tuple(bands))
    assert block.flags[0] & PixelFlag.RESAMPLED
    assert (block.coverage[0] > 0.99).all()
    copied = [band.startswith("ps1") and first == "ps1" for band in bands]
    assert ((block.noise_correlation[0] == 1.0) == copied).all()
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
    about = float(table.ra_deg[0]), float(table.dec_deg[0])
    found = {
        band: centroid_arcsec(image, wcs, about=about, scale=scales[first])
        for band, image in zip(bands, block.image[0], strict=True)
    }
    # Each band's galaxy is where its own file has it.
    in_files = {}
    for band in bands:
        survey, short = band.split("_")
        with fits.open(realdata / f"{survey}_griz" / f"{survey.upper()}_{short}.fits") as hdus:
            image, header = hdus[0].data.astype(float), hdus[0].header
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)  # PS1's deprecated PC001001
            in_files[band] = centroid_arcsec(image, WCS(header), about=about, scale=scales[survey])
        assert np.abs(found[band] - in_files[band]).max() < 0.02
    # The bands of a survey agree. The two surveys' files place this galaxy, and its neighbor as well (the two
    # sources.csv), 0.21 arcsec apart in RA and 0.22 in Dec: the cut adds nothing to that.
    apart = []
    for places in (found, in_files):
        centers = {name: np.array([places[f"{name}_{band}"] for band in "griz"]) for name in scales}
        for of_survey in centers.values():
            assert np.ptp(of_survey, axis=0).max() < 0.05
        apart.append(centers["ps1"].mean(axis=0) - centers["des"].mean(axis=0))
    np.testing.assert_allclose(apart[1], [-0.207, 0.221], atol=0.01)
    np.testing.assert_allclose(apart[0], apart[1], atol=0.01)
    # The same light in g, r and i, which are nearly alike; DES' z lies 50 nm redder.
    flux = np.nansum(block.image[0, :, 40:103, 40:103], axis=(1, 2))
    np.testing.assert_allclose((flux[:4] / flux[4:])[:3], 1.0, atol=0.1)


def test_a_wrong_wcs_puts_the_object_outside(realdata, sources, read_tiles, cut):
    tiles = read_tiles(realdata / "sdss_bad_wcs", layout="stamps", bands=("g", "r"))
    block = cut(sources("ps1_griz"), tiles, size=64, scale=0.396, bands=("g", "r"))
    outside = PixelFlag.OUTSIDE_FOOTPRINT | PixelFlag.MISSING_BAND
    assert block.flags.tolist() == [int(outside)] * 2
    assert np.isnan(block.image).all()


def test_a_single_exposure_has_no_calibrated_zero_point(realdata, read_tiles):
    path = realdata / "hsc_exposure_masks" / "HSC-0908120-056-small.fits"
    with pytest.raises(TileError, match="no tile matches"):
        read_tiles(path)


def test_a_tpv_distorted_compressed_ccd_is_reprojected_about_its_brightest_pixel(realdata, objects, cut):
    folder = realdata / "decam_compressed" / "testcase8"
    (path,) = folder.rglob("*_ooi_r_ls9.N6.fits")
    with open_fits(str(path), storage.FileAccessLog()) as hdus:
        planes = headers.Planes(image=1)
        tile = headers.make_tile(
            hdus, str(path), key=("N6", "r"), planes=planes, njy=1.0, psf_fwhm_arcsec=1.0
        )
        image = hdus[1].data[40:-40, 40:-40]
        y, x = np.unravel_index(np.argmax(image), image.shape)
        ra, dec = WCS(hdus[1].header).all_pix2world(x + 40, y + 40, 0)
    assert tile.grid_key.startswith("warped:")
    block = cut(objects(ra, dec), [tile], size=41, scale=0.262, bands=("r",))
    assert block.flags[0] & PixelFlag.RESAMPLED
    peak = np.unravel_index(np.nanargmax(block.image[0, 0]), (41, 41))
    assert np.abs(np.array(peak) - 20).max() <= 1
    window = image[y - 20 : y + 21, x - 20 : x + 21]
    assert block.image[0, 0].sum() == pytest.approx(window.sum(), rel=0.03)


@pytest.fixture
def by_survey(realdata):
    folder = realdata / "by_survey"
    if not folder.is_dir():
        pytest.skip(f"there are no files in {folder}")
    return folder


@pytest.mark.filterwarnings(
    "ignore::astropy.wcs.FITSFixedWarning", "ignore::astropy.io.fits.verify.VerifyWarning"
)
@pytest.mark.parametrize(
    ("name", "hdu", "frame"),
    [
        ("2mass/2MASS_j.fits.gz", 0, "fk5"),  # by EQUINOX alone; CROTA2
        ("decam_cp/decam-520206-S16-image-sub.fits", 1, "icrs"),  # TPV
        ("hsc_calexp_ccd/calexp.fits.gz", 1, "icrs"),  # TAN-SIP
        ("hst_frontier_drz/abell_2744_dwarf_galaxy_f105w.fits.gz", 0, "fk5"),
        ("hst_hsc_cosmos/Cut_HST1.fits", 0, "fk5"),
        ("ps1_warp/H1413+117_10x10arcsec_55377.34051_z_sci.fits", 0, "icrs"),
        ("spitzer_galactic/spitzer_glon_car_120px.fits", 0, "galactic"),  # CAR
        ("suprimecam_old_afw/act-img.fits", 1, "fk5"),  # RADESYS and RADECSYS
        ("ukidss_wsa/image.fits", 1, "icrs"),  # ZPN
        ("unwise/unwise-3460p121-w1-img-m.fits", 0, "fk5"),  # EPOCH = -1
        ("viking/mystery_VIKING_Z.fits", 0, "icrs"),  # RADECSYS beside EQUINOX
    ],
)
def test_pixels_of_real_files_are_where_astropy_has_them_in_icrs(by_survey, name, hdu, frame):
    with fits.open(by_survey / name) as hdus:
        header = hdus[hdu].header.copy()
        ny, nx = hdus[hdu].shape[-2:]
    _, wcs = headers.accepted_wcs(header, name)
    right = WCS(header, naxis=2)
    x, y = np.array([0.0, nx - 1.0, nx / 2]), np.array([0.0, ny / 3, ny - 1.0])
    native = right.pixel_to_world(x, y)
    assert native.frame.name == frame
    assert SkyCoord(*wcs.to_sky(x, y), unit="deg").separation(native.icrs).mas.max() < 0.01
    np.testing.assert_allclose(wcs.to_pixels(native.icrs.ra.deg, native.icrs.dec.deg), [x, y], atol=1e-3)


def test_a_galactic_image_of_spitzer_keeps_flux_and_place(by_survey, objects, read_tiles, cut):
    """GLON-CAR in MJy/sr, in pixels of 1.2 arcsec: a star, cut north up."""
    path = by_survey / "spitzer_galactic" / "spitzer_glon_car_120px.fits"
    image, header = fits.getdata(path).astype(float), fits.getheader(path)
    x, y = centroid(image - np.median(image), (55.0, 55.0), radius_px=2.0)
    wcs = WCS(header)
    position = wcs.pixel_to_world(x, y).icrs
    (tile,) = read_tiles(
        path, layout="generic", generic={"pattern": r"spitzer_(?P<band>glon)"}, bands=("glon",)
    )
    block = cut(objects(position.ra.deg, position.dec.deg), [tile], size=41, scale=1.2, bands=("glon",))
    assert block.flags[0] & PixelFlag.RESAMPLED
    assert block.coverage[0, 0] == 1.0
    # At latitude b a pixel of the plate carree is narrower by cos b, 3e-6 here.
    njy = 1e15 * np.deg2rad(abs(header["CD1_1"])) * np.deg2rad(header["CD2_2"])
    rows, columns = np.indices(image.shape)
    right = image[np.hypot(columns - x, rows - y) <= 8.0].sum() * njy
    rows, columns = np.indices((41, 41))
    found = block.image[0, 0][np.hypot(columns - 20, rows - 20) <= 8.0].sum()
    assert found == pytest.approx(right, rel=0.01)  # edges of apertures in whole pixels
    peak = centroid(block.image[0, 0] - np.median(block.image[0, 0]), (20.0, 20.0), radius_px=2.0)
    assert peak == pytest.approx((20.0, 20.0), abs=0.02)
