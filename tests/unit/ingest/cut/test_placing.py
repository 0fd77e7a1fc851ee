"""Which tiles' pixels are copied into one cutout: both sides of each bound, with the misplacement by astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.flags import PixelFlag

NJY = 10 ** (0.4 * 4.4)
SCALE = 0.168
SIZE = 64
BIG = np.random.default_rng(5).normal(size=(100, 220)).astype(np.float32)
BORDER = (108.0, 50.0)  # the object in the pixels of BIG; the patches are BIG[:, :120] and BIG[:, 100:]


def header_of(cd, *, crpix, crval=(150.0, 2.0)):
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"], header["CRPIX1"], header["CRPIX2"] = *crval, *crpix
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = np.ravel(cd)
    return header


def square(angle_deg=0.0):
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return SCALE / 3600 * np.array([[-c, s], [s, c]])


def anchored(cd, x, y, position, *, crval):
    """A header whose 0-based pixel (x, y) lies at a position, whatever its CD."""
    found = WCS(header_of(cd, crpix=(0.0, 0.0), crval=crval)).all_world2pix(*position, 0)
    return header_of(cd, crpix=(x - float(found[0]), y - float(found[1])), crval=crval)


def strays_px(home, other, x, y):
    """How far the corners of a cutout about (x, y) of `home` stray from whole pixels on `other`, at most, by astropy."""
    half = SIZE / 2
    corners = np.array(
        [(x - half, y - half), (x + half, y - half), (x - half, y + half), (x + half, y + half)]
    )
    to_other = np.transpose(WCS(other).all_world2pix(*WCS(home).all_pix2world(*corners.T, 0), 0))
    shift = to_other - corners
    return np.hypot(*(shift - np.rint(shift.mean(axis=0))).T).max()


# Each changes CD so that a corner, 32 px away in x and in y, strays by 1 px for `by` = 1.
CHANGES = {
    "turned": lambda by: np.array([[0, -by], [by, 0]]) / (32 * np.sqrt(2)),
    "scaled": lambda by: np.eye(2) * by / (32 * np.sqrt(2)),
    "not square": lambda by: np.diag([by, -by]) / (32 * np.sqrt(2)),
    "sheared": lambda by: np.array([[0, by], [0, 0]]) / 32,
    "one element": lambda by: np.array([[0, 0], [0, by]]) / 32,
}
FAR = (-18200.0, 300.0)  # CRPIX 0.85 deg away: a TAN projection's own curvature is in both patches


@pytest.mark.parametrize(
    ("crpix", "angle"), [((60.0, 40.0), 0.0), (FAR, 37.0)], ids=["near", "far and turned"]
)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("by_px", "copied"), [(0.0, True), (0.015, True), (-0.018, True), (0.023, False), (-0.03, False)]
)
def test_tiles_of_one_cutout_match_in_all_of_cd(
    tmp_path, write_calexp, read_tiles, objects, cut, crpix, angle, change, by_px, copied
):
    home = header_of(square(angle), crpix=crpix)
    position = WCS(home).all_pix2world(*BORDER, 0)
    changed = square(angle) @ (np.eye(2) + CHANGES[change](by_px))
    other = anchored(changed, BORDER[0] - 100, BORDER[1], position, crval=(150.0, 2.0))
    assert strays_px(home, other, *BORDER) == pytest.approx(abs(by_px), abs=1e-3)
    write_calexp(tmp_path, patch="0,0", image=BIG[:, :120], wcs=home)
    write_calexp(tmp_path, patch="1,0", image=BIG[:, 100:], wcs=other)
    block = cut(objects(*position), read_tiles(tmp_path), size=SIZE)
    flags = PixelFlag(int(block.flags[0]))
    assert PixelFlag.MOSAICKED in flags
    assert (PixelFlag.RESAMPLED not in flags) is copied
    expected = BIG[18:82, 76:140] * NJY
    columns = slice(None) if copied else slice(120 - 76, None)
    same = np.allclose(block.image[0, 0][:, columns], expected[:, columns], rtol=1e-6)
    assert same is copied


@pytest.mark.parametrize(("off_px", "copied"), [(0.015, True), (0.03, False), (0.5, False)])
def test_tiles_of_one_cutout_differ_by_whole_pixels(
    tmp_path, write_calexp, read_tiles, objects, cut, off_px, copied
):
    home = header_of(square(), crpix=(60.0, 40.0))
    write_calexp(tmp_path, patch="0,0", image=BIG[:, :120], wcs=home)
    other = header_of(square(), crpix=(60.0 - 100 + off_px * 0.6, 40.0 - off_px * 0.8))
    write_calexp(tmp_path, patch="1,0", image=BIG[:, 100:], wcs=other)
    block = cut(objects(*WCS(home).all_pix2world(*BORDER, 0)), read_tiles(tmp_path), size=SIZE)
    assert bool(block.flags[0] & PixelFlag.RESAMPLED) is not copied


@pytest.mark.parametrize(("crval", "copied"), [((150.0 + 1e-7, 2.0), True), ((151.5, 61.0), False)])
def test_another_tangent_point_turns_pixels_though_cd_is_the_same(
    tmp_path, write_calexp, read_tiles, objects, cut, crval, copied
):
    """At 60 deg, north is turned by 1.3 deg between tangent points that lie 1.5 deg apart in RA."""
    crval_home = (150.0, crval[1])
    home = header_of(square(), crpix=(60.0, 40.0), crval=crval_home)
    position = WCS(home).all_pix2world(*BORDER, 0)
    other = anchored(square(), BORDER[0] - 100, BORDER[1], position, crval=crval)
    assert bool(strays_px(home, other, *BORDER) < 0.02) is copied
    write_calexp(tmp_path, patch="0,0", image=BIG[:, :120], wcs=home)
    write_calexp(tmp_path, patch="1,0", image=BIG[:, 100:], wcs=other)
    block = cut(objects(*position), read_tiles(tmp_path), size=SIZE)
    assert bool(block.flags[0] & PixelFlag.RESAMPLED) is not copied


# Against a grid scale is apart from shape: 0.05 px over the cutout's 64 px.
GRID_BOUNDS = [
    *((change, by_px, abs(by_px) < 0.02) for change in ("not square", "sheared") for by_px in (0.015, -0.03)),
    ("scaled", 0.04 / np.sqrt(2), True),
    ("scaled", -0.06 / np.sqrt(2), False),
]


@pytest.mark.parametrize("angle", [0.0, 37.0, 160.0])
@pytest.mark.parametrize(("change", "by_px", "copied"), GRID_BOUNDS)
def test_a_tile_matches_the_grid_whatever_its_rotation(
    tmp_path, write_calexp, read_tiles, objects, cut, change, by_px, copied, angle
):
    # Of a shear, that part of a corner's way counts that is no rotation: 1 in root 2.
    factor = np.sqrt(2) if change == "sheared" else 1.0
    header = header_of(square(angle) @ (np.eye(2) + factor * CHANGES[change](by_px)), crpix=FAR)
    write_calexp(tmp_path, image=BIG, wcs=header)
    block = cut(objects(*WCS(header).all_pix2world(*BORDER, 0)), read_tiles(tmp_path), size=SIZE)
    assert bool(block.flags[0] & PixelFlag.RESAMPLED) is not copied


def test_a_mirrored_tile_is_resampled(tmp_path, write_calexp, read_tiles, objects, cut):
    header = header_of(square() @ np.diag([-1.0, 1.0]), crpix=(60.0, 40.0))
    write_calexp(tmp_path, image=BIG, wcs=header)
    block = cut(objects(*WCS(header).all_pix2world(*BORDER, 0)), read_tiles(tmp_path), size=SIZE)
    assert block.flags[0] & PixelFlag.RESAMPLED
