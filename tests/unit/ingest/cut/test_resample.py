from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from reproject import reproject_interp

from galbatch.core.flags import PixelFlag
from galbatch.core.types import Resampling
from galbatch.ingest import headers as lattice
from galbatch.ingest.cut import resample
from galbatch.ingest.pixels import Pixels

NJY = 10 ** (0.4 * 4.4)
CENTER = (150.0, 2.0)


def galaxy(header, shape, *, sigma_arcsec=1.5, flux=1000.0, at=CENTER):
    """A round Gaussian of known total flux about a sky position, on any pixels."""
    x, y = WCS(header).all_world2pix(*at, 0)
    scale = np.sqrt(abs(header["CD1_1"] * header["CD2_2"] - header["CD1_2"] * header["CD2_1"])) * 3600
    rows, columns = np.indices(shape)
    radius = np.hypot(rows - y, columns - x) * scale
    return flux * scale**2 / (2 * np.pi * sigma_arcsec**2) * np.exp(-0.5 * (radius / sigma_arcsec) ** 2)


@pytest.fixture
def one_tile(tmp_path, tan, write_calexp):
    def make(*, scale, angle=0.0, n=300, **planes):
        header = tan(crpix=(n / 2 + 0.3, n / 2 - 0.4), scale_arcsec=scale, angle_deg=angle)
        write_calexp(tmp_path, wcs=header, **{"image": galaxy(header, (n, n)), **planes})
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("scale", "angle"), [(0.262, 0.0), (0.2, 30.0), (0.13, 0.0), (0.08, 200.0), (0.168, 10.0)]
)
def test_flux_is_conserved(one_tile, read_tiles, objects, cut, scale, angle):
    block = cut(objects(*CENTER), read_tiles(one_tile(scale=scale, angle=angle)), size=95)
    assert block.image[0, 0].sum() == pytest.approx(1000.0 * NJY, rel=1e-4)
    rows, columns = np.indices((95, 95))
    image = block.image[0, 0] / block.image[0, 0].sum()
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
    expected = wcs.all_world2pix(*CENTER, 0)
    # Its center of light lies where the cutout's own WCS says.
    assert ((image * columns).sum(), (image * rows).sum()) == pytest.approx(
        tuple(map(float, expected)), abs=0.02
    )
    rotated_only = scale == 0.168
    assert bool(block.flags[0] & PixelFlag.RESAMPLED) is not rotated_only


def test_shape_survives_upsampling(one_tile, tan, read_tiles, objects, cut):
    block = cut(objects(*CENTER), read_tiles(one_tile(scale=0.262)), size=95)
    own = tan(crpix=(48, 48), crval=CENTER)
    expected = galaxy(own, (95, 95)) * NJY
    np.testing.assert_allclose(block.image[0, 0], expected, atol=3e-3 * expected.max())


def test_agrees_with_reproject(one_tile, tan, read_tiles, objects, cut):
    """Another program, another kernel: a well-sampled galaxy and its place come out alike."""
    block = cut(objects(*CENTER), read_tiles(one_tile(scale=0.2, angle=25.0)), size=95)
    source = tan(crpix=(150.3, 149.6), scale_arcsec=0.2, angle_deg=25.0)
    own = WCS(tan(crpix=(48, 48), crval=CENTER))
    theirs, _ = reproject_interp(
        (galaxy(source, (300, 300)), WCS(source)), own, order="bicubic", shape_out=(95, 95)
    )
    theirs *= NJY * (0.168 / 0.2) ** 2
    np.testing.assert_allclose(block.image[0, 0], theirs, atol=3e-3 * theirs.max())


def test_own_grid_is_north_up_and_centered(one_tile, read_tiles, objects, cut):
    block = cut(objects(150.001, 2.001), read_tiles(one_tile(scale=0.262, angle=40.0)), size=48)
    assert block.crpix[0].tolist() == [25.0, 25.0]
    assert block.crval[0].tolist() == [150.001, 2.001]
    np.testing.assert_allclose(block.cd[0] * 3600, [[-0.168, 0.0], [0.0, 0.168]], rtol=1e-12)


def test_scales_that_drift_by_a_twentieth_of_a_pixel_are_copied(one_tile, read_tiles, objects, cut):
    for drift_px, resampled in ((0.045, False), (0.055, True)):
        for size in (32, 239):
            tiles = read_tiles(one_tile(scale=0.168 * (1 + drift_px / size)))
            block = cut(objects(*CENTER), tiles, size=size)
            assert bool(block.flags[0] & PixelFlag.RESAMPLED) is resampled


@pytest.mark.parametrize(
    "changes",
    [
        {"CD1_1": 0.168 / 3600},  # east to the right
        {
            "CD1_1": -0.168 / 3600 * (1 + 4e-4),
            "CD2_2": 0.168 / 3600 * (1 - 4e-4),
        },  # not square, of the same area
        {"CD1_2": 0.168 / 3600 * 8e-4},  # axes not at right angles
    ],
)
def test_pixels_of_another_shape_or_parity_are_resampled(
    tmp_path, tan, write_calexp, read_tiles, objects, cut, changes
):
    """0.03 px at the corner of 95 px; the cutout is north up and east left, and the galaxy is where it belongs."""
    header = tan(crpix=(150.3, 149.6))
    header.update(changes)
    at = WCS(header).all_pix2world(160.0, 140.0, 0)
    write_calexp(tmp_path, image=galaxy(header, (300, 300), at=at), wcs=header)
    block = cut(objects(*CENTER), read_tiles(tmp_path), size=95)
    assert block.flags[0] == int(PixelFlag.RESAMPLED)
    np.testing.assert_allclose(block.cd[0] * 3600, [[-0.168, 0.0], [0.0, 0.168]], rtol=1e-12)
    expected = galaxy(tan(crpix=(48, 48), crval=CENTER), (95, 95), at=at) * NJY
    np.testing.assert_allclose(block.image[0, 0], expected, atol=3e-3 * expected.max())


def test_a_tile_of_another_frame_is_copied_with_its_wcs_in_icrs(
    tmp_path, tan, write_calexp, read_tiles, objects, cut
):
    header = tan(crpix=(150.3, 149.6), crval=(230.0, 50.0), angle_deg=12.0)
    header["CTYPE1"], header["CTYPE2"] = "GLON-TAN", "GLAT-TAN"
    image = np.random.default_rng(4).normal(size=(300, 300)).astype(np.float32)
    write_calexp(tmp_path, image=image, wcs=header)
    position = WCS(header).pixel_to_world(120.2, 170.9).icrs
    block = cut(objects(position.ra.deg, position.dec.deg), read_tiles(tmp_path), size=32)
    np.testing.assert_array_equal(block.image[0, 0], image[155:187, 104:136] * np.float32(NJY))
    assert not block.flags[0] & PixelFlag.RESAMPLED
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
    x, y = np.array([0.0, 31.0, 0.0]), np.array([0.0, 5.0, 31.0])
    right = WCS(header).pixel_to_world(x + 104, y + 155).icrs
    assert SkyCoord(*wcs.all_pix2world(x, y, 0), unit="deg").separation(right).arcsec.max() < 1e-6


def test_noise_correlation_brings_sums_to_their_variance(one_tile, read_tiles, objects, cut):
    """A sum over many pixels has the variance of the tile pixels it covers."""
    tiles = read_tiles(one_tile(scale=0.262, variance=np.full((300, 300), 4.0, np.float32)))
    block = cut(objects(*CENTER), tiles, size=48)
    summed = block.variance[0, 0].sum() * block.noise_correlation[0, 0] ** 2
    covered = (48 * 0.168 / 0.262) ** 2
    assert summed == pytest.approx(4.0 * NJY**2 * covered, rel=3e-3)
    assert block.noise_correlation[0, 0] == pytest.approx(2.0, abs=0.02)


def test_noise_of_sums_is_what_is_stated(one_tile, tan, read_tiles, objects, cut):
    """White noise, 300 cutouts from one tile: the scatter of their sums, known to 4 percent."""
    noise = np.random.default_rng(12).normal(scale=2.0, size=(700, 700)).astype(np.float32)
    tiles = read_tiles(one_tile(scale=0.262, n=700, image=noise, variance=np.full_like(noise, 4.0)))
    x, y = np.random.default_rng(1).uniform(30, 670, (2, 300))
    table = objects(*WCS(tan(crpix=(350.3, 349.6), scale_arcsec=0.262)).all_pix2world(x, y, 0))
    block = cut(table, tiles, size=40)
    sums = block.image[:, 0].sum(axis=(1, 2))
    stated = np.sqrt(block.variance[:, 0].sum(axis=(1, 2))) * block.noise_correlation[:, 0]
    assert (sums / stated).std() == pytest.approx(1.0, abs=0.12)
    # Pixel by pixel the variance alone is right.
    pulls = block.image / np.sqrt(block.variance)
    assert pulls.std() == pytest.approx(1.0, abs=0.02)


def test_bands_of_one_wcs_share_the_pixel_map(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    header = tan(crpix=(100, 100), scale_arcsec=0.2)
    for band in "GRI":
        write_calexp(tmp_path, band=band, image=galaxy(header, (200, 200)), wcs=header)
    tiles = read_tiles(tmp_path, bands=("g", "r", "i"))
    resample._drawing.cache_clear()
    block = cut(objects([150.0, 150.001], [2.0, 2.001]), tiles, size=40, bands=("g", "r", "i"))
    found = resample._drawing.cache_info()
    assert (found.misses, found.hits) == (2, 4)
    np.testing.assert_array_equal(block.image[:, 0], block.image[:, 2])


@pytest.mark.parametrize("at", [(330.0, -2.0), (150.0, 60.0), (151.0, 2.0)])
def test_a_tile_elsewhere_gives_nothing(one_tile, read_tiles, at):
    """The other side of the sky, far off, and beside the tile: no window is read."""
    (tile,) = read_tiles(one_tile(scale=0.2))
    target = lattice.tan_wcs(*at, scale_arcsec=0.168, center_px=20)
    assert resample.resample(None, tile, target=target, size_px=40) is None


def test_beyond_the_tiles_edge_is_nan(one_tile, tan, read_tiles, objects, cut):
    """Covered as far as the whole kernel is within the tile."""
    ra, dec = WCS(tan(crpix=(150.3, 149.6), scale_arcsec=0.2)).all_pix2world(299.0, 150.0, 0)
    # Noise: far from a galaxy without any the pixels are exactly 0, as padding is.
    sky = np.random.default_rng(4).normal(size=(300, 300))
    block = cut(objects(ra, dec), read_tiles(one_tile(scale=0.2, image=sky)), size=41)
    covered = np.isfinite(block.image[0, 0]).any(axis=0)
    # The kernel about x reaches from floor(x) - 2 to floor(x) + 3, which is 299 at most: x < 297. Column k lies
    # at x = 299 + 0.84 (k - 20).
    assert covered.tolist() == [True] * 18 + [False] * 23
    assert block.flags[0] & PixelFlag.PARTIAL_COVERAGE


def test_holes_and_bits_reach_as_far_as_the_kernel(one_tile, read_tiles, objects, cut):
    mask = np.zeros((300, 300), np.int32)
    mask[155, 150], mask[140, 150] = 1 << 8, 1 << 1  # NO_DATA, SAT
    block = cut(objects(*CENTER), read_tiles(one_tile(scale=0.262, mask=mask)), size=95)
    missing = np.argwhere(np.isnan(block.image[0, 0]))
    saturated = np.argwhere(block.mask[0, 0] != 0)
    ratio = 0.262 / 0.168
    for found, row in ((missing, 155), (saturated, 140)):
        extent = np.ptp(found, axis=0) + 1
        assert (np.abs(extent - 6 * ratio) <= 1).all()  # 6 x 6 tile pixels
        assert len(found) == np.prod(extent)
        center = found.mean(axis=0) - 47  # the object is at (y, x) = (148.6, 149.3)
        assert center == pytest.approx([(row - 148.6) * ratio, 0.7 * ratio], abs=0.7)
    assert np.isfinite(block.image[0, 0]).sum() == 95**2 - len(missing)
    assert np.isnan(block.variance[0, 0][tuple(missing.T)]).all()


def test_another_tract_completes_what_the_first_lacks(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    first = tan(crpix=(181, 100), crval=(150.0, 2.0))
    second = tan(crpix=(20.4, 100.7), crval=(150.0, 2.0), angle_deg=3.0)
    at = (149.9992, 2.0)
    write_calexp(tmp_path, tract=9813, image=galaxy(first, (200, 200), at=at), wcs=first)
    write_calexp(tmp_path, tract=9814, image=galaxy(second, (200, 200), at=at), wcs=second)
    ra, dec = WCS(first).all_pix2world(184.0, 99.0, 0)
    block = cut(objects(ra, dec), read_tiles(tmp_path), size=63)
    flags = PixelFlag(int(block.flags[0]))
    assert flags & PixelFlag.RESAMPLED
    assert flags & PixelFlag.MOSAICKED
    assert not flags & PixelFlag.PARTIAL_COVERAGE
    assert block.tile[0] == "9814/4,4"  # the center is 16 px inside the first tract, 23 px inside the second
    np.testing.assert_allclose(
        block.cd[0], [[second["CD1_1"], second["CD1_2"]], [second["CD2_1"], second["CD2_2"]]]
    )
    expected = galaxy(tan(crpix=tuple(block.crpix[0]), angle_deg=3.0), (63, 63), at=at) * NJY
    np.testing.assert_allclose(block.image[0, 0], expected, atol=2e-3 * expected.max())


@pytest.mark.parametrize("place", ["CD1_1", "CD1_2", "CD2_1", "CD2_2"])
def test_patches_match_in_all_of_cd(tmp_path, tan, write_calexp, read_tiles, objects, cut, place):
    """A patch whose CD is off by 0.02 px at the cutout's corner, in any element, is resampled; the last digits are nothing."""
    first = tan(crpix=(160.0, 100.0))
    sky = np.random.default_rng(1).normal(size=(200, 200))
    write_calexp(tmp_path, patch="4,4", image=sky, wcs=first)
    ra, dec = WCS(first).all_pix2world(199.0, 100.0, 0)
    for off_px, resampled in ((1e-9, False), (0.02, True)):
        second = tan(crpix=(160.0 - 190, 100.0))
        second[place] += off_px / (63 / 2) * 0.168 / 3600
        write_calexp(tmp_path, patch="5,4", image=sky, wcs=second)
        block = cut(objects(ra, dec), read_tiles(tmp_path), size=63)
        assert block.flags[0] & PixelFlag.MOSAICKED
        assert bool(block.flags[0] & PixelFlag.RESAMPLED) is resampled


def test_exact_pixels_remain_where_the_home_lattice_has_them(
    tmp_path, tan, write_calexp, read_tiles, objects, cut
):
    first, second = tan(crpix=(181, 100)), tan(crpix=(50.4, 100.7), angle_deg=3.0)
    image = galaxy(first, (200, 200), sigma_arcsec=3.0)
    write_calexp(tmp_path, tract=9813, image=image, wcs=first)
    write_calexp(
        tmp_path,
        tract=9814,
        image=galaxy(second, (200, 200), sigma_arcsec=3.0)[:, 35:],
        wcs=tan(crpix=(15.4, 100.7), angle_deg=3.0),
    )
    ra, dec = WCS(first).all_pix2world(178.0, 99.0, 0)
    block = cut(objects(ra, dec), read_tiles(tmp_path), size=63)
    assert block.tile[0] == "9813/4,4"
    # Columns 147 to 199 are the first tract's own pixels; the rest is the same galaxy, reprojected.
    np.testing.assert_allclose(block.image[0, 0][:, :53], image[68:131, 147:200] * NJY, rtol=1e-6)
    header = tan(crpix=(181, 100))
    whole = galaxy(header, (200, 260), sigma_arcsec=3.0)[68:131, 147:210] * NJY
    np.testing.assert_allclose(block.image[0, 0], whole, atol=3e-3 * whole.max())


def test_bands_on_two_lattices_share_the_first_bands_wcs(
    tmp_path, tan, write_calexp, read_tiles, objects, cut
):
    lattices = {"G": tan(crpix=(100, 100)), "R": tan(crpix=(100.5, 100.5), angle_deg=15.0)}
    for band, header in lattices.items():
        write_calexp(tmp_path, band=band, image=galaxy(header, (200, 200)), wcs=header)
    tiles = read_tiles(tmp_path, bands=("g", "r"))
    block = cut(objects(*CENTER), tiles, size=63, bands=("g", "r"))
    expected = galaxy(lattices["G"], (200, 200))[68:131, 68:131] * NJY
    np.testing.assert_allclose(block.image[0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(block.image[0, 1], expected, atol=3e-3 * expected.max())
    assert block.flags[0] & PixelFlag.RESAMPLED
    assert not block.flags[0] & PixelFlag.MOSAICKED
    # Asked for in the other order, the other lattice is the cutout's.
    swapped = cut(objects(*CENTER), tiles, size=63, bands=("r", "g"))
    np.testing.assert_allclose(
        swapped.cd[0] * 3600,
        np.array([[-np.cos(np.pi / 12), np.sin(np.pi / 12)], [np.sin(np.pi / 12), np.cos(np.pi / 12)]])
        * 0.168,
        rtol=1e-9,
    )


def test_the_psf_is_of_the_tile_about_the_center(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    """Not of one on the cutout's lattice that gives the band a corner alone, though that is copied first."""
    turned = tan(crpix=(100.5, 100.5), angle_deg=15.0)
    ones = np.ones((200, 200))
    write_calexp(tmp_path, band="G", patch="4,4", image=ones, wcs=tan(crpix=(100, 100)))
    write_calexp(tmp_path, band="R", patch="5,4", image=ones, wcs=tan(crpix=(-20, 100)))
    write_calexp(tmp_path, band="R", tract=9814, patch="0,0", image=ones, wcs=turned)
    widths = {"9813/4,4": 0.7, "9813/5,4": 0.5, "9814/0,0": 0.9}
    tiles = read_tiles(tmp_path, bands=("g", "r"))
    tiles = [dataclasses.replace(tile, psf_fwhm_arcsec=widths[tile.tile_id]) for tile in tiles]
    block = cut(objects(*CENTER), tiles, size=63, bands=("g", "r"))
    assert block.flags[0] & PixelFlag.MOSAICKED
    np.testing.assert_allclose(block.psf_fwhm_arcsec[0], [0.7, 0.9], rtol=1e-6)


def test_a_distorted_tile_is_never_copied(tmp_path, tan, write_calexp, read_tiles, objects, cut):
    header = tan(crpix=(150, 150))
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["A_ORDER"], header["B_ORDER"] = 2, 2
    header["A_2_0"], header["B_0_2"] = 1e-4, -1e-4
    x, y = 180.0, 120.0
    ra, dec = WCS(header).all_pix2world(x, y, 0)
    rows, columns = np.indices((300, 300))
    image = 100.0 * np.exp(-0.5 * ((rows - y) ** 2 + (columns - x) ** 2) / 3.0**2)
    write_calexp(tmp_path, image=image, wcs=header)
    (tile,) = read_tiles(tmp_path)
    assert tile.grid_key.startswith("warped:")
    block = cut(objects(ra, dec), [tile], size=47)
    assert block.flags[0] & PixelFlag.RESAMPLED
    peak = np.unravel_index(np.nanargmax(block.image[0, 0]), (47, 47))
    assert peak == (23, 23)
    assert block.image[0, 0].sum() == pytest.approx(image.sum() * NJY, rel=5e-3)


@pytest.mark.parametrize(("scale", "angle"), [(0.262, 0.0), (0.05, 30.0), (0.4, 200.0)])
@pytest.mark.parametrize("method", get_args(Resampling))
def test_the_window_told_in_advance_holds_all_that_is_read(one_tile, read_tiles, scale, angle, method):
    tile = read_tiles(one_tile(scale=scale, angle=angle))[0]
    for dec in (2.0, 2.004, 2.2):  # inside, over the edge, outside
        target = lattice.tan_wcs(150.0, dec, scale_arcsec=0.168, center_px=40)
        told = resample.window_to_resample(tile, target=target, size_px=80, resampling=method)
        reads = Reads()
        resample.resample(reads, tile, target=target, size_px=80, resampling=method)
        assert bool(reads.boxes) is (dec < 2.1)
        for box in reads.boxes:
            assert told is not None
            assert told.y0 <= box.y0 < box.y1 <= told.y1
            assert told.x0 <= box.x0 < box.x1 <= told.x1


class Reads:
    """A reader that remembers what it was asked for."""

    def __init__(self):
        self.boxes = []

    def read(self, tile, box):
        self.boxes.append(box)
        return Pixels(
            np.zeros(box.shape, np.float32), np.zeros(box.shape, np.uint16), np.ones(box.shape, np.float32)
        )
