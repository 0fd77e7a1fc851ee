"""The cut equals a slow, obviously correct reference on the same grid, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import BarycentricMeanEcliptic, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galbatch import ingest
from galbatch.config import FlagsConfig, SurveyConfig
from galbatch.core import sky
from galbatch.core.types import CutoutSpec, Grid, ObjectTable

SCALE = 0.168
NJY = np.float32(10 ** (0.4 * 4.4))
SKY = np.random.default_rng(2).normal(size=(260, 300)).astype(np.float32)  # the lattice's pixels
PATCHES = {"0,0": (0, 0), "1,0": (0, 140), "0,1": (120, 0), "1,1": (120, 140)}  # (y, x); 140 x 160 px each
FIELDS = {"plain": (150.0, 2.0), "ra wrap": (0.0, -1.0), "north": (33.0, 89.9995), "south": (200.0, -90.0)}


def header_of(field, y0, x0):
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = FIELDS[field]
    header["CRPIX1"], header["CRPIX2"] = 150.5 - x0, 130.5 - y0
    header["CD1_1"], header["CD1_2"] = -SCALE / 3600, 0.0
    header["CD2_1"], header["CD2_2"] = 0.0, SCALE / 3600
    return header


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Four overlapping patches of SKY, with a hole that two of them have, in each field."""
    found = {}
    for field in FIELDS:
        root = tmp_path_factory.mktemp("tract")
        for patch, (y0, x0) in PATCHES.items():
            image = SKY[y0 : y0 + 140, x0 : x0 + 160].copy()
            if patch in ("0,0", "1,0"):
                image[125:130, 60:65] = np.nan
            hdus = [fits.PrimaryHDU()]
            hdus[0].header["FLUXMAG0"] = 10 ** (27.0 / 2.5)
            for plane in (image, np.zeros(image.shape, np.int32), np.ones_like(image)):
                hdus.append(fits.ImageHDU(plane, header=header_of(field, y0, x0)))
            fits.HDUList(hdus).writeto(root / f"calexp-HSC-G-9813-{patch}.fits")
        found[field] = ingest.read_tiles(SurveyConfig(layout="hsc", tiles=str(root), bands=("g",)))
    return found


def covered_sky():
    """SKY where any patch has it, NaN elsewhere: put together pixel by pixel."""
    whole = np.full(SKY.shape, np.nan, np.float32)
    for patch, (y0, x0) in PATCHES.items():
        for y in range(140):
            for x in range(160):
                hole = patch in ("0,0", "1,0") and 125 <= y < 130 and 60 <= x < 65
                if not hole:
                    whole[y0 + y, x0 + x] = SKY[y0 + y, x0 + x] * NJY
    return whole


COVERED = covered_sky()


def reference(x, y, size):
    """The cutout whose central pixel holds (x, y), one pixel at a time."""
    cutout = np.full((size, size), np.nan, np.float32)
    left, bottom = int(np.floor(x + 0.5)) - size // 2, int(np.floor(y + 0.5)) - size // 2
    for row in range(size):
        for column in range(size):
            if 0 <= bottom + row < SKY.shape[0] and 0 <= left + column < SKY.shape[1]:
                cutout[row, column] = COVERED[bottom + row, left + column]
    return cutout


@pytest.mark.parametrize("field", FIELDS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    x=st.floats(-20.0, 320.0),
    y=st.floats(-20.0, 280.0),
    size=st.sampled_from([96, 143, 144, 239]),
)
def test_cut_equals_the_reference(tiles, field, x, y, size):
    whole = WCS(header_of(field, 0, 0))
    # Nudged off the border between two pixels, where rounding in the sky position decides.
    x, y = (v + 1e-3 if abs(v % 1.0 - 0.5) < 1e-4 else v for v in (x, y))
    ra, dec = (np.atleast_1d(np.asarray(v, float)) for v in whole.all_pix2world(x, y, 0))
    ra %= 360.0
    table = ObjectTable(np.array([7]), ra, dec, sky.healpix_29(ra, dec), pa.table({"z": [0.0]}))
    block = ingest.cut_block(
        table,
        tiles[field],
        spec=CutoutSpec(Grid(size, SCALE), ("g",)),
        flags=FlagsConfig(),
        object_flags=np.zeros(1, np.int32),
    )
    np.testing.assert_array_equal(block.image[0, 0], reference(x, y, size))
    assert block.coverage[0, 0] == np.float32(np.isfinite(block.image[0, 0]).mean())
    own = WCS(naxis=2)
    own.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    own.wcs.crpix, own.wcs.crval, own.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
    off = np.array(own.all_world2pix(ra[0], dec[0], 0)) - size // 2
    assert np.abs(off).max() <= 0.5 + 1e-6


@st.composite
def arrangements(draw):
    """Up to five tiles anywhere on the lattice: (y0, x0, height, width) of each."""
    tiles = []
    for _ in range(draw(st.integers(1, 5))):
        height, width = draw(st.integers(8, 150)), draw(st.integers(8, 170))
        y0 = draw(st.integers(0, SKY.shape[0] - height))
        tiles.append((y0, draw(st.integers(0, SKY.shape[1] - width)), height, width))
    return tiles


FRAMES = {
    "ICRS": {},
    "FK5": {"RADESYS": "FK5"},
    "galactic": {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"},
    "ecliptic": {"CTYPE1": "ELAT-TAN", "CTYPE2": "ELON-TAN"},
}


def turned_header(angle_deg, frame, y0, x0):
    header = header_of("plain", y0, x0)
    header.update(FRAMES[frame])
    c, s = np.cos(np.deg2rad(angle_deg)) * SCALE / 3600, np.sin(np.deg2rad(angle_deg)) * SCALE / 3600
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -c, s, s, c
    if frame == "ecliptic":  # axes are swapped
        for key in ("CRVAL{}", "CD{}_1", "CD{}_2"):
            one, two = key.format(1), key.format(2)
            header[one], header[two] = header[two], header[one]
    return header


def cut_one(folder, ra, dec, size):
    tiles = ingest.read_tiles(SurveyConfig(layout="generic", tiles=str(folder), bands=("g",)))
    ra, dec = np.atleast_1d(ra) % 360.0, np.atleast_1d(dec)
    return ingest.cut_block(
        ObjectTable(np.array([7]), ra, dec, sky.healpix_29(ra, dec), pa.table({"z": [0.0]})),
        tiles,
        spec=CutoutSpec(Grid(size, SCALE), ("g",)),
        flags=FlagsConfig(),
        object_flags=np.zeros(1, np.int32),
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrangement=arrangements(),
    angle_deg=st.floats(0.0, 360.0),
    frame=st.sampled_from(list(FRAMES)),
    x=st.floats(0.0, 299.0),
    y=st.floats(0.0, 259.0),
    size=st.sampled_from([31, 96, 143, 144, 239]),
)
def test_any_arrangement_and_rotation(tmp_path_factory, arrangement, angle_deg, frame, x, y, size):
    folder = tmp_path_factory.mktemp("tiles")
    covered = np.full(SKY.shape, np.nan, np.float32)
    for number, (y0, x0, height, width) in enumerate(arrangement):
        here = slice(y0, y0 + height), slice(x0, x0 + width)
        covered[here] = SKY[here]
        header = turned_header(angle_deg, frame, y0, x0)
        header["BUNIT"] = "nJy"
        fits.ImageHDU(SKY[here], header).writeto(folder / f"{number}.fits")
    x, y = (v + 1e-3 if abs(v % 1.0 - 0.5) < 1e-4 else v for v in (x, y))
    ra, dec = turned(angle_deg, frame, x, y)
    block = cut_one(folder, ra, dec, size)
    half = size // 2
    around = np.pad(covered, 240, constant_values=np.nan)
    top, left = int(np.floor(y + 0.5)) + 240 - half, int(np.floor(x + 0.5)) + 240 - half
    expected = around[top : top + size, left : left + size]
    touched = np.isfinite(expected).any()
    deepest = [
        min(x - x0, x0 + width - 1 - x, y - y0, y0 + height - 1 - y) for y0, x0, height, width in arrangement
    ]
    if touched:
        np.testing.assert_array_equal(block.image[0, 0], expected)
    else:
        assert np.isnan(block.image).all()
    assert (block.tile[0] == "") == (max(deepest) < -0.5)
    if block.tile[0]:
        assert int(block.tile[0]) == int(np.argmax(deepest))
    own = WCS(naxis=2)
    own.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    own.wcs.crpix, own.wcs.crval, own.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
    found = np.array(own.all_world2pix(ra, dec, 0))
    if touched:
        np.testing.assert_allclose(found, [x - left + 240, y - top + 240], atol=1e-3)
    assert np.abs(found - half).max() <= 0.5 + 1e-6


def turned(angle_deg, frame, x, y):
    """The position of a pixel of the whole lattice in ICRS, by astropy."""
    wcs = WCS(turned_header(angle_deg, frame, 0, 0))
    world = wcs.all_pix2world(x, y, 0)
    named = BarycentricMeanEcliptic() if frame == "ecliptic" else frame.lower()
    position = SkyCoord(world[wcs.wcs.lng], world[wcs.wcs.lat], unit="deg", frame=named).icrs
    return float(position.ra.deg), float(position.dec.deg)
