from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch import ingest
from galbatch.config import FlagsConfig
from galbatch.core.flags import PixelFlag
from galbatch.core.types import CutoutSpec, Grid
from galbatch.errors import TileError

NJY = 10 ** (0.4 * 4.4)  # of one unit at zero point 27
SHAPE = (100, 120)
BIG = np.random.default_rng(5).normal(size=(200, 240)).astype(np.float32)  # the tract's pixels


def position(header, x, y):
    """(ra, dec) of a 0-based pixel."""
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    return float(ra), float(dec)


def wcs_of(block, index=0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = block.crpix[index], block.crval[index], block.cd[index]
    return wcs


@pytest.fixture
def two_patches(tmp_path, tan, write_calexp):
    """Patches 0,0 and 1,0 of BIG in band g: columns 0..120 and 100..220, 20 px in common."""
    write_calexp(tmp_path, patch="0,0", image=BIG[:100, :120], wcs=tan(crpix=(1, 1)))
    write_calexp(tmp_path, patch="1,0", image=BIG[:100, 100:220], wcs=tan(crpix=(-99, 1)))
    return tmp_path


@pytest.mark.parametrize("size", [31, 32])
def test_inside_one_tile_pixels_are_copied(two_patches, tan, read_tiles, objects, cut, size):
    ra, dec = position(tan(crpix=(1, 1)), 50.3, 48.6)
    block = cut(objects(ra, dec), read_tiles(two_patches), size=size)
    y0, x0 = 49 - size // 2, 50 - size // 2
    np.testing.assert_allclose(block.image[0, 0], BIG[y0 : y0 + size, x0 : x0 + size] * NJY, rtol=1e-6)
    assert block.flags[0] & ~PixelFlag.LOW_SNR == 0
    assert block.tile[0] == "9813/0,0"
    assert block.coverage[0, 0] == 1.0
    x, y = wcs_of(block).all_world2pix(ra, dec, 0)
    assert (x - size // 2, y - size // 2) == pytest.approx((0.3, -0.4), abs=1e-6)


def test_across_the_border_the_neighbor_completes(two_patches, tan, read_tiles, objects, cut):
    ra, dec = position(tan(crpix=(1, 1)), 112.0, 50.0)
    block = cut(objects(ra, dec), read_tiles(two_patches), size=64)
    np.testing.assert_allclose(block.image[0, 0], BIG[18:82, 80:144] * NJY, rtol=1e-6)
    assert block.flags[0] & PixelFlag.MOSAICKED
    assert not block.flags[0] & (PixelFlag.RESAMPLED | PixelFlag.PARTIAL_COVERAGE)
    # 112 is 8 px inside the first patch and 12 px inside the second.
    assert block.tile[0] == "9813/1,0"


def test_the_tile_with_the_center_deepest_inside_wins(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    write_calexp(tmp_path, patch="0,0", image=np.full((100, 120), 1.0), wcs=tan(crpix=(1, 1)))
    write_calexp(tmp_path, patch="1,0", image=np.full((100, 120), 2.0), wcs=tan(crpix=(-99, 1)))
    left = position(tan(crpix=(1, 1)), 107.0, 50.0)
    right = position(tan(crpix=(1, 1)), 112.0, 50.0)
    block = cut(objects(*np.transpose([left, right])), read_tiles(tmp_path), size=33)
    np.testing.assert_allclose(block.image[:, 0, 16, 16] / NJY, [1.0, 2.0], rtol=1e-6)
    assert block.tile.tolist() == ["9813/0,0", "9813/1,0"]


def test_holes_are_filled_from_the_next_patch(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    first, mask = BIG[:100, :120].copy(), np.zeros((100, 120), np.int32)
    first[40, 105] = np.nan
    mask[41, 106] = 1 << 8  # NO_DATA
    write_calexp(tmp_path, patch="0,0", image=first, mask=mask, wcs=tan(crpix=(1, 1)))
    write_calexp(tmp_path, patch="1,0", image=BIG[:100, 100:220], wcs=tan(crpix=(-99, 1)))
    ra, dec = position(tan(crpix=(1, 1)), 102.0, 40.0)
    block = cut(objects(ra, dec), read_tiles(tmp_path), size=21)
    np.testing.assert_allclose(block.image[0, 0], BIG[30:51, 92:113] * NJY, rtol=1e-6)
    assert block.mask[0, 0, 11, 14] == 0
    assert block.flags[0] & PixelFlag.MOSAICKED


def test_beyond_the_footprint_is_nan_and_never_shifted(two_patches, tan, read_tiles, objects, cut):
    ra, dec = position(tan(crpix=(1, 1)), 3.0, 95.0)
    block = cut(objects(ra, dec), read_tiles(two_patches), size=21)
    expected = np.full((21, 21), np.nan)
    expected[:15, 7:] = BIG[85:100, :14] * NJY
    np.testing.assert_allclose(block.image[0, 0], expected, rtol=1e-6)
    assert block.coverage[0, 0] == pytest.approx(15 * 14 / 441)
    assert block.flags[0] & PixelFlag.PARTIAL_COVERAGE
    assert not block.flags[0] & PixelFlag.OUTSIDE_FOOTPRINT


def test_just_outside_the_corner_of_pixels_remains(two_patches, tan, read_tiles, objects, cut):
    ra, dec = position(tan(crpix=(1, 1)), -5.0, 50.0)
    block = cut(objects(ra, dec), read_tiles(two_patches), size=21)
    np.testing.assert_allclose(block.image[0, 0, :, 15:], BIG[40:61, :6] * NJY, rtol=1e-6)
    assert np.isnan(block.image[0, 0, :, :15]).all()
    assert block.flags[0] & PixelFlag.OUTSIDE_FOOTPRINT
    assert block.tile[0] == ""


def test_outside_every_tile_the_row_stays(two_patches, read_tiles, objects, cut):
    block = cut(objects([10.0, 330.0], [-50.0, -2.0]), read_tiles(two_patches), size=21)
    assert np.isnan(block.image).all()
    outside = PixelFlag.OUTSIDE_FOOTPRINT | PixelFlag.MISSING_BAND
    assert block.flags.tolist() == [int(outside)] * 2
    assert block.coverage.tolist() == [[0.0], [0.0]]
    assert np.isnan(block.sky_sigma_njy).all()
    x, y = wcs_of(block, 1).all_world2pix(330.0, -2.0, 0)
    assert (x, y) == pytest.approx((10.0, 10.0), abs=1e-9)


def test_no_objects(two_patches, read_tiles, objects, cut):
    assert cut(objects([], []), read_tiles(two_patches)).image.shape == (0, 1, 32, 32)


def test_a_band_that_is_missing_for_some_objects(two_patches, tan, write_calexp, read_tiles, objects, cut):
    write_calexp(two_patches, band="R", patch="0,0", image=-BIG[:100, :120], wcs=tan(crpix=(1, 1)))
    both = position(tan(crpix=(1, 1)), 50.0, 50.0)
    only_g = position(tan(crpix=(1, 1)), 200.0, 50.0)
    table = objects(*np.transpose([both, only_g]))
    block = cut(table, read_tiles(two_patches, bands=("g", "r")), size=21, bands=("g", "r"))
    assert ((block.flags & PixelFlag.MISSING_BAND) != 0).tolist() == [False, True]
    assert block.coverage.tolist() == [[1.0, 1.0], [1.0, 0.0]]
    np.testing.assert_array_equal(block.image[0, 0], -block.image[0, 1])


def test_object_flags_are_carried(two_patches, tan, read_tiles, objects, cut):
    ra, dec = position(tan(crpix=(1, 1)), 50.0, 50.0)
    known = np.array([PixelFlag.NEIGHBOR], np.int32)
    block = cut(objects(ra, dec), read_tiles(two_patches), object_flags=known)
    assert block.flags[0] & PixelFlag.NEIGHBOR
    assert block.flags.dtype == np.int32


def test_flags_from_the_survey_mask_within_the_radius(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    mask = np.zeros((100, 120), np.int32)
    mask[50, 55], mask[50, 45], mask[53, 50] = 1 << 1, 1 << 2, 1 << 9  # SAT, INTRP, BRIGHT_OBJECT
    write_calexp(tmp_path, image=BIG[:100, :120], mask=mask, wcs=tan(crpix=(1, 1)))
    ra, dec = position(tan(crpix=(1, 1)), 50.0, 50.0)
    bits = PixelFlag.SATURATED | PixelFlag.BAD_CENTER | PixelFlag.BRIGHT_OBJECT
    found = {}
    for radius_px in (2.5, 3.5, 5.5):
        flags = FlagsConfig(center_radius_arcsec=radius_px * 0.168)
        block = cut(objects(ra, dec), read_tiles(tmp_path), flags=flags)
        found[radius_px] = PixelFlag(int(block.flags[0])) & bits
    assert found == {2.5: PixelFlag(0), 3.5: PixelFlag.BRIGHT_OBJECT, 5.5: bits}


def test_low_snr_needs_every_band_to_be_faint(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    # 1 arcsec holds 109 px of variance 1: the noise is 10.4, S/N is 5 at 0.479 a pixel.
    for band, level in (("G", 0.46), ("R", 0.50)):
        write_calexp(tmp_path, band=band, image=np.full(SHAPE, level), wcs=tan(crpix=(1, 1)))
    ra, dec = position(tan(crpix=(1, 1)), 50.0, 50.0)
    tiles = read_tiles(tmp_path, bands=("g", "r"))
    flags = {
        bands: bool(cut(objects(ra, dec), tiles, bands=bands).flags[0] & PixelFlag.LOW_SNR)
        for bands in (("g",), ("r",), ("g", "r"))
    }
    assert flags == {("g",): True, ("r",): False, ("g", "r"): False}


def test_sky_sigma_leaves_detected_pixels_out(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    image = np.random.default_rng(1).normal(size=SHAPE)
    mask = np.zeros(SHAPE, np.int32)
    image[:, :45] += 100.0  # more than half of the frame
    image[:, 55:] += 100.0
    mask[image > 50] = 1 << 5
    write_calexp(tmp_path, image=image, mask=mask, wcs=tan(crpix=(1, 1)))
    ra, dec = position(tan(crpix=(1, 1)), 50.0, 50.0)
    sigma = cut(objects(ra, dec), read_tiles(tmp_path), size=80).sky_sigma_njy[0, 0]
    assert sigma == pytest.approx(NJY, rel=0.25)


def test_positions_at_the_ra_wrap(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    header = tan(crpix=(60, 50), crval=(0.0, 0.0))
    write_calexp(tmp_path, image=BIG[:100, :120], wcs=header)
    east, west = position(header, 50.0, 49.0), position(header, 70.0, 49.0)
    assert (east[0], west[0]) == pytest.approx((9 * 0.168 / 3600, 360 - 11 * 0.168 / 3600))
    block = cut(objects(*np.transpose([east, west])), read_tiles(tmp_path), size=21)
    np.testing.assert_allclose(block.image[0, 0], BIG[39:60, 40:61] * NJY, rtol=1e-6)
    np.testing.assert_allclose(block.image[1, 0], BIG[39:60, 60:81] * NJY, rtol=1e-6)


@pytest.mark.parametrize("identity_is_known", [True, False])
def test_a_file_cut_after_the_plan(two_patches, tan, read_tiles, objects, cut, identity_is_known):
    tiles = read_tiles(two_patches)
    path = tiles[0].image.path
    expected = "was replaced: it is 25920 bytes"
    if not identity_is_known:
        tiles = [dataclasses.replace(tile, files=()) for tile in tiles]
        expected = "header says 100 x 120; .*truncated"
    with open(path, "r+b") as file:
        file.truncate(2880 * 4 + 120 * 4 * 30)
    ra, dec = position(tan(crpix=(1, 1)), 50.0, 50.0)
    with pytest.raises(TileError, match=rf"tile 9813/0,0 band g .*{expected}"):
        cut(objects(ra, dec), tiles)


def test_a_file_that_is_gone_can_be_retried(two_patches, tan, read_tiles, objects, cut):
    tiles = read_tiles(two_patches)
    (two_patches / "deepCoadd-results/HSC-G/9813/0,0/calexp-HSC-G-9813-0,0.fits").unlink()
    ra, dec = position(tan(crpix=(1, 1)), 50.0, 50.0)
    with pytest.raises(OSError, match="calexp-HSC-G-9813-0,0"):
        cut(objects(ra, dec), tiles)


def test_scaled_and_compressed_planes_read_alike(tmp_path, tan, read_tiles, objects, cut):
    whole = np.arange(100 * 120, dtype=np.int16).reshape(SHAPE)
    header = tan(crpix=(1, 1))
    header["BUNIT"] = "nJy"
    scaled = fits.ImageHDU(whole.astype(np.float64) * 0.5 + 7.0, header=header)
    scaled.scale("int16", bscale=0.5, bzero=7.0)
    compressed = fits.CompImageHDU(
        (whole * 0.5 + 7.0).astype(np.float32), header=header, compression_type="GZIP_2", quantize_level=0.0
    )
    fits.HDUList([fits.PrimaryHDU(), scaled]).writeto(tmp_path / "scaled_g.fits")
    fits.HDUList([fits.PrimaryHDU(), compressed]).writeto(tmp_path / "compressed_r.fits")
    (tmp_path / "packed_i.fits.gz").write_bytes(gzip.compress((tmp_path / "scaled_g.fits").read_bytes()))
    ra, dec = position(header, 50.0, 40.0)
    tiles = read_tiles(tmp_path, layout="stamps", bands=("g", "r", "i"))
    block = cut(objects(ra, dec), tiles, size=21, bands=("g", "r", "i"))
    expected = whole[30:51, 40:61] * 0.5 + 7.0
    for band in range(3):
        np.testing.assert_allclose(block.image[0, band], expected, rtol=1e-6)


def test_result_does_not_depend_on_the_block(two_patches, tan, read_tiles, objects, cut):
    rng = np.random.default_rng(8)
    table = objects(*np.transpose([position(tan(crpix=(1, 1)), *xy) for xy in rng.uniform(0, 220, (12, 2))]))
    tiles = read_tiles(two_patches)
    together = cut(table, tiles)
    for index in range(12):
        alone = cut(table.take(slice(index, index + 1)), tiles[::-1])
        np.testing.assert_array_equal(alone.image[0], together.image[index])
        np.testing.assert_array_equal(alone.crpix[0], together.crpix[index])
        assert alone.flags[0] == together.flags[index]


class Lamp:
    """A light of 5 nJy in the pixel of the object, whose noise and variance follow from the electrons that the tile states."""

    key = 1

    def image(self, object_id, bands, psf_fwhm_arcsec, *, grid, offset_px):
        light = np.zeros((len(bands), grid.size_px, grid.size_px))
        light[:, grid.size_px // 2, grid.size_px // 2] = 5.0
        return light

    def photon_noise(self, object_id, bands, light_njy, *, electrons_per_njy):
        scale = np.array(electrons_per_njy)[:, None, None]
        return scale * light_njy, 10 * scale * light_njy


def test_light_comes_with_its_photon_noise_in_image_and_variance(
    two_patches, tan, read_tiles, objects, monkeypatch
):
    table = objects(*position(tan(crpix=(1, 1)), 50, 48))
    tiles = [dataclasses.replace(tile, electrons_per_njy=3.0) for tile in read_tiles(two_patches)]
    settings = {
        "spec": CutoutSpec(Grid(32, 0.168), ("g",)),
        "flags": FlagsConfig(),
        "object_flags": np.zeros(1, np.int32),
    }
    (bare,) = ingest.cut_blocks(table, tiles, **settings)
    (lit,) = ingest.cut_blocks(table, tiles, **settings, light=Lamp())
    for plane, added in (("image", 5.0 + 15.0), ("variance", 150.0)):
        expected = np.zeros((1, 1, 32, 32))
        expected[0, 0, 16, 16] = added
        np.testing.assert_allclose(getattr(lit, plane) - getattr(bare, plane), expected, rtol=1e-4)
