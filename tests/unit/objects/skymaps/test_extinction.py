"""E(B-V) of maps whose value at each place is known."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy_healpix import HEALPix

from galbatch.config import ExtinctionConfig
from galbatch.errors import ObjectListError
from galbatch.objects.skymaps import open_dust_map

SKY = SkyCoord([150.1, 10.3, 266.4, 300.0], [2.2, -45.0, -29.0, 80.0], unit="deg")


def truth(sky):
    """A smooth E(B-V) of galactic coordinates."""
    gal = sky.galactic
    return 0.1 + 0.05 * np.sin(gal.b.rad) + 0.02 * np.cos(gal.l.rad) * np.cos(gal.b.rad)


def healpix_table(nside, ordering, *, coordsys="G", rows=None, per_row=1, **cards):
    grid = HEALPix(nside, order="nested" if ordering.startswith("NEST") else "ring", frame="galactic")
    pixels = np.arange(grid.npix) if rows is None else rows
    values = truth(grid.healpix_to_skycoord(pixels)).astype("f4")
    columns = [fits.Column("TEMPERATURE", f"{per_row}E", array=values.reshape(-1, per_row))]
    if rows is not None:
        columns.insert(0, fits.Column("PIXEL", "J", array=pixels))
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.header.update(
        {"PIXTYPE": "HEALPIX", "NSIDE": nside, "ORDERING": ordering, "COORDSYS": coordsys, **cards}
    )
    return hdu


def at(path, sky=SKY, **keys):
    found = open_dust_map(ExtinctionConfig(map=tuple(map(str, np.atleast_1d(path))), a_b={"g": 3.6}, **keys))
    return found(sky.icrs.ra.deg, sky.icrs.dec.deg)


@pytest.mark.parametrize(("ordering", "per_row"), [("RING", 1), ("NESTED", 1024)])
def test_healpix_maps_are_interpolated_between_four_pixels(tmp_path, ordering, per_row):
    # Some writers state numbers of pixels as 64.0.
    healpix_table(64, ordering, per_row=per_row, NSIDE=64.0).writeto(tmp_path / "a.fits")
    found = at(tmp_path / "a.fits")
    np.testing.assert_allclose(found, truth(SKY), atol=2e-5)
    nearest = at(tmp_path / "a.fits", interpolation="nearest")
    assert 1e-5 < np.abs(nearest - truth(SKY)).max() < 2e-3  # pixels are 0.9 deg wide


def test_a_map_of_a_part_of_the_sky_has_no_values_elsewhere(tmp_path):
    grid = HEALPix(64, order="nested", frame="galactic")
    near = grid.cone_search_skycoord(SKY[0], 4 * u.deg)
    healpix_table(64, "NESTED", rows=np.sort(near)).writeto(tmp_path / "a.fits")
    found = at(tmp_path / "a.fits")
    assert found[0] == pytest.approx(truth(SKY[0]), abs=2e-5)
    assert np.isnan(found[1:]).all()


def test_unseen_pixels_are_missing(tmp_path):
    hdu = healpix_table(16, "RING")
    hdu.data["TEMPERATURE"][:] = -1.6375e30
    hdu.writeto(tmp_path / "a.fits")
    assert np.isnan(at(tmp_path / "a.fits")).all()


def image(b_deg, *, n=200):
    """A map about a galactic pole, as those of Schlegel, Finkbeiner and Davis."""
    header = fits.Header()
    header.update(
        {"CTYPE1": "GLON-ZEA", "CTYPE2": "GLAT-ZEA", "CRVAL1": 0.0, "CRVAL2": b_deg, "LONPOLE": 180.0}
    )
    header.update({"CRPIX1": n / 2 + 0.5, "CRPIX2": n / 2 + 0.5, "CDELT1": -1.0, "CDELT2": 1.0})
    from astropy.wcs import WCS

    y, x = np.mgrid[:n, :n]
    with np.errstate(invalid="ignore"):
        sky = WCS(header).pixel_to_world(x, y)
    valid = np.isfinite(sky.l.deg)
    values = np.full((n, n), np.nan)
    values[valid] = truth(SkyCoord(sky.l[valid], sky.b[valid], frame="galactic"))
    return fits.PrimaryHDU(values.astype("f4"), header)


def test_of_two_polar_images_the_nearer_counts(tmp_path):
    image(90.0).writeto(tmp_path / "ngp.fits")
    image(-90.0).writeto(tmp_path / "sgp.fits")
    found = at([tmp_path / "ngp.fits", tmp_path / "sgp.fits"])
    np.testing.assert_allclose(found, truth(SKY), atol=3e-5)
    # Beyond its edge an image has no value.
    small = image(90.0, n=20)
    small.writeto(tmp_path / "small.fits")
    assert np.isnan(at(tmp_path / "small.fits")).all()


SUPERGALACTIC = {"CTYPE1": "SLON-ZEA", "CTYPE2": "SLAT-ZEA", "CDELT1": -1.0, "CDELT2": 1.0}


def text_table():
    hdu = fits.BinTableHDU.from_columns([fits.Column("NAME", "2A", array=["a"] * 48)])
    hdu.header.update({"NSIDE": 2, "ORDERING": "RING", "COORDSYS": "G"})
    return hdu


def pixel_table(pixels):
    columns = [fits.Column("PIXEL", "D", array=pixels), fits.Column("EBV", "E", array=np.ones(len(pixels)))]
    hdu = fits.BinTableHDU.from_columns(columns)
    hdu.header.update({"NSIDE": 2, "ORDERING": "RING", "COORDSYS": "G"})
    return hdu


@pytest.mark.parametrize(
    ("hdu", "message"),
    [
        (healpix_table(2, "RING", coordsys="X"), "COORDSYS is X; expected G"),
        (healpix_table(2, "SPIRAL"), "ORDERING is SPIRAL; expected RING or NESTED"),
        (fits.PrimaryHDU(np.zeros((4, 4))), "no celestial WCS"),
        (fits.PrimaryHDU(), "neither a HEALPix table"),
        (healpix_table(2, "RING", NSIDE=4), "TEMPERATURE has 48 values; expected 12 NSIDE.2 = 192"),
        (healpix_table(2, "NESTED", NSIDE=3), "NSIDE is 3; expected a power of two"),
        (healpix_table(2, "RING", NSIDE="two"), "NSIDE is two; expected a power of two"),
        (pixel_table([1, np.nan]), "column PIXEL holds nan; expected numbers of pixels, 0 to .* = 47"),
        (pixel_table([1, np.inf]), "column PIXEL holds inf; expected"),
        (pixel_table([48, 1]), "column PIXEL holds 48; expected"),
        (fits.PrimaryHDU(np.zeros((4, 4)), fits.Header(SUPERGALACTIC)), "axes SLON-ZEA and SLAT-ZEA"),
        (text_table(), "column NAME holds no numbers"),
    ],
    ids=[
        "frame",
        "ordering",
        "wcs",
        "empty",
        "length",
        "nside",
        "nside text",
        "no pixel",
        "infinite",
        "beyond",
        "axes",
        "text",
    ],
)
def test_maps_that_do_not_say_what_they_are_are_refused(tmp_path, hdu, message):
    hdu.writeto(tmp_path / "a.fits")
    with pytest.raises(ObjectListError, match=message):
        at(tmp_path / "a.fits")


def test_a_missing_map_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(ObjectListError, match=r"extinction\] map: .*nowhere.fits: there is no such file"):
        at(tmp_path / "nowhere.fits")
    healpix_table(2, "RING").writeto(tmp_path / "a.fits")
    with pytest.raises(ObjectListError, match="has no column TAU; there are TEMPERATURE"):
        at(tmp_path / "a.fits", column="TAU")
    with pytest.raises(ObjectListError, match="one HEALPix map, or images alone"):
        at([tmp_path / "a.fits", tmp_path / "a.fits"])
