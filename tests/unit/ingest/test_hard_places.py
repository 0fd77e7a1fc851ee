"""Where cuts go wrong: each place against a slow, plain reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.flags import MaskBit, PixelFlag
from galbatch.errors import TileError

NJY = np.float32(10 ** (0.4 * 4.4))
SHAPE = (90, 100)
BITS = {0: MaskBit.BAD, 1: MaskBit.SAT, 5: MaskBit.DETECTED}  # HSC's number: ours


def wcs_header(crval=(150.0, 2.0), *, projection="TAN", scale=0.168, angle=0.0, flip=-1, crpix=(52.3, 44.8)):
    """North up and east left at `angle` 0 and `flip` -1."""
    c, s = (scale / 3600 * f(math.radians(angle)) for f in (math.cos, math.sin))
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = f"RA---{projection}", f"DEC--{projection}"
    header["CRVAL1"], header["CRVAL2"] = crval
    header["CRPIX1"], header["CRPIX2"] = crpix
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = flip * c, s, -flip * s, c
    return header


def sip_header():
    header = wcs_header(scale=0.2, angle=30.0)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["A_ORDER"], header["B_ORDER"] = 3, 3
    header["A_2_0"], header["A_0_3"], header["B_0_2"], header["B_1_2"] = 2e-4, 1e-6, -3e-4, -2e-6
    return header


def tpv_header():
    """DECam's: cubic, in degrees from a reference point 0.3 deg away."""
    header = wcs_header(projection="TPV", scale=0.263, angle=90.0, crpix=(4100.0, -500.0))
    cards = [(0, 1e-4), (1, 1.01), (2, 2e-3), (4, 4e-3), (5, -2e-3), (7, 1e-2)]
    for number, value in cards:
        header[f"PV1_{number}"], header[f"PV2_{number}"] = value, value
    return header


def skewed_header():
    """Pixels that are no squares, and axes that are not at right angles."""
    header = wcs_header(scale=0.2)
    header["CD1_1"], header["CD1_2"] = -0.22 / 3600, 0.11 / 3600
    header["CD2_1"], header["CD2_2"] = 0.02 / 3600, 0.16 / 3600
    return header


PLACES = {
    "another scale": wcs_header(scale=0.262),
    "the tile much finer": wcs_header(scale=0.09, angle=20.0),
    "the tile much coarser": wcs_header(scale=0.5, angle=-70.0),
    "flipped": wcs_header(scale=0.263, flip=1),
    "flipped and turned": wcs_header(scale=0.2, flip=1, angle=133.0),
    "skewed": skewed_header(),
    "north pole": wcs_header((77.0, 90.0), scale=0.2),
    "near the north pole": wcs_header((77.0, 89.9995), scale=0.2, angle=10.0),
    "south pole": wcs_header((200.0, -90.0), scale=0.2),
    "RA 0": wcs_header((0.0, -1.0), scale=0.2),
    "RA 360": wcs_header((359.9999, 60.0), scale=0.25),
    "reference point far away": wcs_header((151.2, 1.1), scale=0.2, crpix=(21000.0, 15000.0)),
    "SIP": sip_header(),
    "TPV": tpv_header(),
    "zenithal equal area": wcs_header((10.0, 45.0), projection="ZEA", scale=0.2, crpix=(3000.0, 2000.0)),
    "plate carree": wcs_header((30.0, 0.0), projection="CAR", scale=0.2, crpix=(50.0, -90000.0)),
}


def planes(seed=3):
    """White noise on a source, uneven variance, mask bits, a hole."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE)
    image = rng.normal(size=SHAPE) + 50 * np.exp(-0.5 * ((y - 44) ** 2 + (x - 51) ** 2) / 1.6**2)
    variance = rng.uniform(0.5, 2.0, SHAPE)
    mask = np.zeros(SHAPE, np.int32)
    mask[40, 57], mask[47, 45], mask[42:47, 49:54] = 1 << 1, 1 << 0, 1 << 5
    image[52, 55] = np.nan
    return image.astype(np.float32), mask, variance.astype(np.float32)


def in_our_bits(mask):
    ours = np.zeros(mask.shape, np.uint16)
    for number, bit in BITS.items():
        ours[(mask >> number & 1) != 0] |= np.uint16(bit)
    return ours


def own_wcs(block, index=0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = block.crpix[index], block.crval[index], block.cd[index]
    return wcs


def sky_of(header, x, y):
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    return float(ra) % 360.0, float(dec)


def expect_resampled(block, slow, *, band=0):
    """Everything of one cutout is as the slow reference has it."""
    scale = np.nanmax(np.abs(slow.image))
    np.testing.assert_allclose(block.image[0, band], slow.image, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(block.variance[0, band], slow.variance, rtol=5e-4)
    np.testing.assert_array_equal(block.mask[0, band], slow.mask)
    assert block.noise_correlation[0, band] == pytest.approx(slow.noise_correlation, rel=1e-4)


@pytest.mark.parametrize("place", PLACES)
def test_resampled_as_pixel_by_pixel(place, tmp_path, write_calexp, read_tiles, objects, cut, slow_resample):
    header = PLACES[place]
    image, mask, variance = planes()
    write_calexp(tmp_path, image=image, mask=mask, variance=variance, wcs=header)
    ra, dec = sky_of(header, 51.2, 44.4)
    block = cut(objects(ra, dec), read_tiles(tmp_path), size=17)
    assert block.flags[0] & PixelFlag.RESAMPLED
    found = own_wcs(block).all_world2pix(ra, dec, 0)
    np.testing.assert_allclose(found, [8, 8], atol=1e-6)
    slow = slow_resample(image * NJY, in_our_bits(mask), variance * NJY**2, WCS(header), own_wcs(block), 17)
    assert np.isfinite(slow.image).any()
    expect_resampled(block, slow)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", [96, 239])
def test_the_pixel_map_is_astropys(place, size):
    """Polynomials through 64 points against every pixel transformed, and the cutout's WCS finds its object again."""
    from galbatch.ingest import headers as lattice
    from galbatch.ingest.cut.pixel_map import PixelTransform
    from galbatch.ingest.pixels import Box

    sky_wcs = lattice.accepted_wcs(PLACES[place], "here")[1]
    source = sky_wcs.wcs
    ra, dec = sky_of(PLACES[place], 51.2, 44.4)
    tan = lattice.tan_wcs(ra, dec, scale_arcsec=0.168, center_px=size // 2)
    target = tan.astropy()
    found = PixelTransform(tan.sky(), sky_wcs).positions(Box(0, size, 0, size))
    rows, columns = np.indices((size, size))
    x, y = source.all_world2pix(*target.all_pix2world(columns, rows, 0), 0, tolerance=1e-8)
    assert max(np.abs(found.x - x).max(), np.abs(found.y - y).max()) < 2e-6
    at_center = (found.x[size // 2, size // 2], found.y[size // 2, size // 2])
    assert at_center == pytest.approx((51.2, 44.4), abs=1e-5)
    steps = np.gradient(x, axis=1) * np.gradient(y, axis=0) - np.gradient(x, axis=0) * np.gradient(y, axis=1)
    np.testing.assert_allclose(found.area[1:-1, 1:-1], np.abs(steps)[1:-1, 1:-1], rtol=1e-6)


def test_at_a_projections_seam_every_pixel_is_transformed():
    from galbatch.ingest.cut.pixel_map import PixelTransform
    from galbatch.ingest.headers import SkyWCS
    from galbatch.ingest.pixels import Box

    # An all-sky map breaks at its native meridian of 180 deg, which runs through this cutout.
    source = WCS(wcs_header((180.0, 0.0), projection="CAR", scale=3600.0, crpix=(180.5, 90.5)))
    target = WCS(wcs_header((0.0, 0.0), scale=3600.0, crpix=(10.5, 10.5)))
    found = PixelTransform(SkyWCS(target), SkyWCS(source)).positions(Box(0, 20, 0, 20))
    x, y = source.all_world2pix(*target.all_pix2world(*np.meshgrid(np.arange(20), np.arange(20)), 0), 0)
    np.testing.assert_allclose(found.x, x, atol=1e-9)
    np.testing.assert_allclose(found.y, y, atol=1e-9)
    assert np.ptp(x) > 300


def test_the_other_hemisphere_is_no_error(tmp_path, write_calexp, read_tiles, objects, cut):
    write_calexp(tmp_path, image=planes()[0], wcs=wcs_header(scale=0.2))
    block = cut(objects(330.0, -2.0), read_tiles(tmp_path), size=21)
    assert np.isnan(block.image).all()
    assert np.isnan(block.noise_correlation).all()


def test_a_band_with_another_scale_comes_on_the_first_bands_pixels(
    tmp_path, write_calexp, read_tiles, objects, cut, slow_resample
):
    fine, coarse = wcs_header(), wcs_header(scale=0.262, angle=5.0)
    image, mask, variance = planes()
    write_calexp(tmp_path, band="G", image=image, wcs=fine)
    write_calexp(tmp_path, band="R", image=image[::-1], mask=mask, variance=variance, wcs=coarse)
    ra, dec = sky_of(fine, 50.7, 46.2)
    block = cut(objects(ra, dec), read_tiles(tmp_path, bands=("g", "r")), size=25, bands=("g", "r"))
    np.testing.assert_array_equal(block.image[0, 0], (image * NJY)[34:59, 39:64])
    slow = slow_resample(
        image[::-1] * NJY, in_our_bits(mask), variance * NJY**2, WCS(coarse), own_wcs(block), 25
    )
    expect_resampled(block, slow, band=1)
    assert block.noise_correlation[0, 0] == 1.0
    np.testing.assert_allclose(own_wcs(block).all_world2pix(ra, dec, 0), [11.7, 12.2], atol=1e-6)


BIG = np.random.default_rng(8).normal(size=(400, 420)).astype(np.float32)


@pytest.mark.parametrize("overlap", [0, 1, 30])
@pytest.mark.parametrize("size", [96, 143, 144, 239])
def test_four_patches_meet_at_the_object(tmp_path, write_calexp, read_tiles, objects, cut, size, overlap):
    for patch, rows, columns in [
        ("0,0", slice(0, 200 + overlap), slice(0, 210 + overlap)),
        ("1,0", slice(0, 200 + overlap), slice(210, 420)),
        ("0,1", slice(200, 400), slice(0, 210 + overlap)),
        ("1,1", slice(200, 400), slice(210, 420)),
    ]:
        crpix = (1 - columns.start, 1 - rows.start)
        write_calexp(tmp_path, patch=patch, image=BIG[rows, columns], wcs=wcs_header(crpix=crpix))
    at = np.array([(209.5 + dx, 199.5 + dy) for dx in (-0.3, 0.2) for dy in (-0.1, 0.4)])
    ra, dec = WCS(wcs_header(crpix=(1, 1))).all_pix2world(*at.T, 0)
    block = cut(objects(ra, dec), read_tiles(tmp_path), size=size)
    for index, (x, y) in enumerate(at):
        x0, y0 = math.floor(x + 0.5) - size // 2, math.floor(y + 0.5) - size // 2
        expected = BIG[y0 : y0 + size, x0 : x0 + size] * NJY
        np.testing.assert_array_equal(block.image[index, 0], expected)
        found = own_wcs(block, index).all_world2pix(ra[index], dec[index], 0)
        np.testing.assert_allclose(found, [x - x0, y - y0], atol=1e-6)
    assert (block.flags & PixelFlag.MOSAICKED).all()
    assert not (block.flags & (PixelFlag.PARTIAL_COVERAGE | PixelFlag.RESAMPLED)).any()


def test_a_duplicated_tile_changes_nothing_but_costs_nothing(
    tmp_path, write_calexp, read_tiles, objects, cut
):
    image, mask, variance = planes()
    header = wcs_header()
    for patch in ("4,4", "1,7"):
        write_calexp(tmp_path, patch=patch, image=image, mask=mask, variance=variance, wcs=header)
    tiles = read_tiles(tmp_path)
    table = objects(*sky_of(header, 50.0, 50.0))
    single = cut(table, [tile for tile in tiles if tile.tile_id == "9813/4,4"], size=33)
    for both in (tiles, tiles[::-1]):
        block = cut(table, both, size=33)
        np.testing.assert_array_equal(block.image, single.image)
        np.testing.assert_array_equal(block.mask, single.mask)
        assert block.tile.tolist() == ["9813/1,7"]  # equally deep inside: the first id
        assert block.flags.tolist() == single.flags.tolist()


def test_an_all_nan_tile_counts_as_no_tile(tmp_path, write_calexp, read_tiles, objects, cut):
    image, header = planes()[0], wcs_header()
    write_calexp(tmp_path, patch="0,0", image=np.full(SHAPE, np.nan), wcs=header)
    table = objects(*sky_of(header, 50.0, 40.0))
    (alone,) = read_tiles(tmp_path)
    block = cut(table, [alone], size=33)
    assert np.isnan(block.image).all()
    assert block.coverage.tolist() == [[0.0]]
    missing = PixelFlag.OUTSIDE_FOOTPRINT | PixelFlag.MISSING_BAND
    assert block.flags[0] & missing == missing
    write_calexp(tmp_path, patch="9,9", image=image, wcs=header)
    block = cut(table, read_tiles(tmp_path), size=33)
    np.testing.assert_array_equal(block.image[0, 0], (image * NJY)[24:57, 34:67])
    assert not block.flags[0] & (PixelFlag.MOSAICKED | missing)


STORED = {
    "int16, BZERO, BSCALE and BLANK": (">i2", {"BSCALE": 0.25, "BZERO": -3.0, "BLANK": -9}),
    "unsigned 16 bits": (">i2", {"BZERO": 32768}),
    "int32": (">i4", {}),
    "unsigned bytes with BLANK": ("u1", {"BLANK": 7}),
    "float64": (">f8", {}),
    "float32 scaled": (">f4", {"BSCALE": 2.0, "BZERO": 10.0}),
}


def write_stored(path, stored, cards, wcs):
    """A FITS file byte by byte: no library scales or swaps anything."""
    bitpix = stored.dtype.itemsize * 8 * (-1 if stored.dtype.kind == "f" else 1)
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, bitpix, 2
    header["NAXIS1"], header["NAXIS2"] = stored.shape[1], stored.shape[0]
    header.update(cards)
    header["BUNIT"] = "nJy"
    header.extend(wcs, update=True)
    data = stored.tobytes()
    path.write_bytes(header.tostring().encode("ascii") + data + b"\0" * (-len(data) % 2880))


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("scale", [0.168, 0.262])
def test_stored_numbers_become_physical_ones(tmp_path, read_tiles, objects, cut, slow_resample, kind, scale):
    dtype, cards = STORED[kind]
    stored = np.random.default_rng(6).integers(0, 250, SHAPE).astype(dtype)
    stored[45, 48] = cards.get("BLANK", stored[45, 48])
    header = wcs_header(scale=scale)
    write_stored(tmp_path / "image_g.fits", stored, cards, header)
    physical = np.array([[float(v) for v in row] for row in stored])
    if "BLANK" in cards:
        physical[stored == cards["BLANK"]] = np.nan
    physical = physical * cards.get("BSCALE", 1.0) + cards.get("BZERO", 0.0)
    ra, dec = sky_of(header, 50.0, 45.0)
    block = cut(objects(ra, dec), read_tiles(tmp_path, layout="generic"), size=21)
    if scale == 0.168:
        np.testing.assert_array_equal(block.image[0, 0], physical[35:56, 40:61].astype(np.float32))
    else:
        nothing = np.zeros(SHAPE, np.uint16)
        slow = slow_resample(physical, nothing, nothing * np.nan, WCS(header), own_wcs(block), 21)
        scale = np.nanmax(np.abs(physical))
        np.testing.assert_allclose(block.image[0, 0], slow.image, rtol=0, atol=1e-4 * scale)
    assert np.isnan(block.image[0, 0]).any() == ("BLANK" in cards)


@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_floats_with_an_offset_keep_their_fractions(tmp_path, read_tiles, objects, cut, dtype):
    stored = np.random.default_rng(7).normal(size=SHAPE).astype(dtype)
    stored[45, 48] = np.nan
    write_stored(tmp_path / "image_g.fits", stored, {"BSCALE": 1.0, "BZERO": 100.0}, wcs_header())
    ra, dec = sky_of(wcs_header(), 50.0, 45.0)
    block = cut(objects(ra, dec), read_tiles(tmp_path, layout="generic"), size=21)
    expected = stored[35:56, 40:61] + 100.0
    np.testing.assert_allclose(block.image[0, 0], expected, rtol=0, atol=1e-5)


def test_a_tile_turned_about_the_pole_is_not_on_its_twins_lattice(tmp_path, read_tiles, objects, cut):
    """With its reference point on the pole, LONPOLE = 180 is the same tile turned by 180 deg, not the usual one."""
    header = wcs_header((77.0, 90.0))
    header["LONPOLE"] = 180.0
    stored = np.random.default_rng(8).normal(size=SHAPE).astype(">f4")
    write_stored(tmp_path / "image_g.fits", stored, {}, header)
    ra, dec = sky_of(header, 40.3, 38.8)
    block = cut(objects(ra, dec), read_tiles(tmp_path, layout="generic"), size=16)
    x, y = own_wcs(block).all_world2pix(ra, dec, 0)
    assert (float(x), float(y)) == pytest.approx((8.0, 8.0), abs=0.5)


def test_a_plate_carree_far_from_its_equator_completes_from_beyond_its_edge(
    tmp_path, read_tiles, objects, cut
):
    """At 60 deg its pixels are half as wide as its CD says: cutouts reach twice as many of them."""
    header = wcs_header((150.0, 0.0))
    header["CTYPE1"], header["CTYPE2"] = "RA---CAR", "DEC--CAR"
    header["CRPIX2"] = 45.5 - 60.0 / header["CD2_2"]
    write_stored(tmp_path / "image_g.fits", np.ones(SHAPE, ">f4"), {}, header)
    # 48 px are 24 of the cutout's: of its 32 beside the center 8 lie on the tile, less the kernel's reach.
    block = cut(objects(*sky_of(header, -48.0, 44.5)), read_tiles(tmp_path, layout="generic"), size=64)
    covered = np.isfinite(block.image[0, 0]).any(axis=0).sum()
    assert 5 <= covered <= 8


def rewrite_card(path, old, new):
    """Change a header in place, as a wrong writer would have left it."""
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))


def test_a_header_that_promises_more_rows_than_there_are(tmp_path, read_tiles):
    write_stored(tmp_path / "image_g.fits", np.zeros(SHAPE, ">f4"), {}, wcs_header())
    rewrite_card(
        tmp_path / "image_g.fits", b"NAXIS2  =                   90", b"NAXIS2  =                  190"
    )
    with pytest.raises(TileError, match=r"image is \d+ x 100 px, its header says 190 x 100"):
        read_tiles(tmp_path, layout="generic")


def test_a_header_that_promises_fewer_columns_than_the_mask_has(tmp_path, write_calexp, read_tiles):
    path = write_calexp(tmp_path, image=planes()[0], wcs=wcs_header())
    with fits.open(path, mode="update") as hdus:
        hdus[1].data = hdus[1].data[:, :90].copy()
    with pytest.raises(TileError, match=r"calexp-HSC-G.*mask is \(90, 100\) px, the image \(90, 90\)"):
        read_tiles(tmp_path)
