"""Cuts from another grid keep every source's flux to 1e-4 and equal a slow reference, however the grids lie."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from galbatch import ingest
from galbatch.config import FlagsConfig, SurveyConfig
from galbatch.core import sky
from galbatch.core.flags import PixelFlag
from galbatch.core.types import CutoutSpec, Grid, ObjectTable

SHAPE = (160, 160)


@st.composite
def tile_headers(draw, projections=("TAN", "TAN-SIP", "ZEA")):
    """A tile on 0.16 to 0.3 arcsec pixels, turned, flipped or not, anywhere on the sky, distorted or not."""
    scale, angle = draw(st.floats(0.16, 0.3)) / 3600, np.deg2rad(draw(st.floats(0.0, 360.0)))
    flip, projection = draw(st.sampled_from([-1, 1])), draw(st.sampled_from(projections))
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = f"RA---{projection}", f"DEC--{projection}"
    if projection == "TAN-SIP":
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
        header["A_ORDER"], header["B_ORDER"] = 2, 2
        header["A_2_0"], header["B_1_1"] = draw(st.floats(-1e-5, 1e-5)), draw(st.floats(-1e-5, 1e-5))
    header["CRVAL1"], header["CRVAL2"] = draw(st.floats(0.0, 360.0)), draw(st.floats(-90.0, 90.0))
    header["CRPIX1"], header["CRPIX2"] = draw(st.floats(-300.0, 500.0)), draw(st.floats(-300.0, 500.0))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = flip * c, s, -flip * s, c
    header["BUNIT"] = "nJy"
    return header


def cut_one(folder, header, image, at, grid):
    fits.ImageHDU(image.astype(np.float32), header).writeto(folder / "tile_g.fits", overwrite=True)
    tiles = ingest.read_tiles(SurveyConfig(layout="generic", tiles=str(folder), bands=("g",)))
    ra, dec = (np.atleast_1d(v).astype(float) for v in WCS(header).all_pix2world(*at, 0))
    ra %= 360.0
    block = ingest.cut_block(
        ObjectTable(np.array([7]), ra, dec, sky.healpix_29(ra, dec), pa.table({"z": [0.0]})),
        tiles,
        spec=CutoutSpec(grid, ("g",)),
        flags=FlagsConfig(),
        object_flags=np.zeros(1, np.int32),
    )
    own = WCS(naxis=2)
    own.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    own.wcs.crpix, own.wcs.crval, own.wcs.cd = block.crpix[0], block.crval[0], block.cd[0]
    np.testing.assert_allclose(own.all_world2pix(ra, dec, 0), grid.center_px, atol=1e-6)  # [[x], [y]]
    return block, own


def gaussian(at, sigma_px, axis_ratio, angle):
    """Flux 1000 in all, elliptical."""
    y, x = np.indices(SHAPE)
    along = (x - at[0]) * np.cos(angle) + (y - at[1]) * np.sin(angle)
    across = (y - at[1]) * np.cos(angle) - (x - at[0]) * np.sin(angle)
    radius2 = (along / sigma_px) ** 2 + (across / (sigma_px * axis_ratio)) ** 2
    return 1000.0 / (2 * np.pi * sigma_px**2 * axis_ratio) * np.exp(-0.5 * radius2)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=tile_headers(projections=("TAN", "ZEA")),
    at=st.tuples(st.floats(70.0, 90.0), st.floats(70.0, 90.0)),
    fwhm_arcsec=st.floats(0.6, 1.5),
    flatness=st.floats(0.0, 1.0),
    scale=st.sampled_from([0.168, 0.2, 0.262]),
)
def test_flux_and_center_are_kept(tmp_path, header, at, fwhm_arcsec, flatness, scale):
    own_scale = np.hypot(header["CD1_1"], header["CD1_2"]) * 3600
    assume(abs(own_scale / scale - 1) > 2e-3)  # else pixels are copied
    axis_ratio = 1 - flatness * (1 - 0.6 / fwhm_arcsec)  # the minor axis is 0.6 arcsec at least
    image = gaussian(at, fwhm_arcsec / 2.3548 / own_scale, axis_ratio, angle=0.7)
    block, _ = cut_one(tmp_path, header, image, at, Grid(75, scale))
    assert block.flags[0] & PixelFlag.RESAMPLED
    found = np.nan_to_num(block.image[0, 0].astype(float))
    assert found.sum() == pytest.approx(image.sum(), rel=1e-4)
    rows, columns = np.indices(found.shape)
    center = np.array([(found * columns).sum(), (found * rows).sum()]) / found.sum()
    assert np.abs(center - 37).max() < 0.01


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=tile_headers(),
    at=st.tuples(st.floats(-3.0, 162.0), st.floats(-3.0, 162.0)),
    scale=st.sampled_from([0.168, 0.262, 0.4]),
    seed=st.integers(0, 99),
)
def test_pixels_are_those_of_the_slow_reference(tmp_path, slow_resample, header, at, scale, seed):
    own_scale = np.hypot(header["CD1_1"], header["CD1_2"]) * 3600
    assume(abs(own_scale / scale - 1) > 2e-3)
    image = np.random.default_rng(seed).normal(size=SHAPE)
    block, own = cut_one(tmp_path, header, image, at, Grid(12, scale))
    nothing = np.zeros(SHAPE, np.uint16)
    slow = slow_resample(image, nothing, np.ones(SHAPE), WCS(header), own, 12)
    np.testing.assert_allclose(block.image[0, 0], slow.image, rtol=0, atol=3e-4)
    if np.isfinite(slow.image).any():
        assert block.noise_correlation[0, 0] == pytest.approx(slow.noise_correlation, rel=1e-3)
        assert block.flags[0] & PixelFlag.RESAMPLED
