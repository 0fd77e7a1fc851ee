"""The cut equals a slow, obviously correct reference on the same grid, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galbatch import ingest, sky
from galbatch.config import FlagsConfig, SurveyConfig
from galbatch.types import Grid, ObjectTable

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
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        grid=Grid(size, SCALE),
        bands=("g",),
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
