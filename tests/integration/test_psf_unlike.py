"""PSF_UNLIKE in a run through the command line: of two tiles one has a wider PSF than its header states."""

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

import galbatch
from galbatch.cli.app import app
from galbatch.core.flags import PixelFlag
from galbatch.objects import write_table

SIDE_PX, SCALE, SPACING_PX = 660, 0.168, 60
STATED, WIDER = 0.8, 1.1
N = 320
"""Objects of each tile: enough for its stars to be looked at, which of sparse objects would be most of what is read."""

RUN = """
[objects]
path = "objects.parquet"
[survey]
layout = "generic"
tiles = "*_g.fits"
bands = ["g"]
psf_fwhm_card = "SEEING"
[survey.generic]
pattern = '(?P<tile>[^/]+)_(?P<band>[a-z])\\.fits$'
[catalog]
path = "catalog"
[cutouts]
store = "cutouts.zarr"
[posterior]
passes = 2
[cluster]
kind = "local"
workers = 1
[[models]]
name = "gampen"
bundle = "demo:gampen"
"""


def tile(path, *, ra_deg, fwhm_arcsec):
    """Write a tile of stars and, as many, disks of up to three times their width; return the positions of its objects."""
    rng = np.random.default_rng(4)
    image = rng.normal(0.0, 1.0, (SIDE_PX, SIDE_PX))
    y, x = np.indices(image.shape)
    places = [(a, b) for a in range(30, SIDE_PX, SPACING_PX) for b in range(30, SIDE_PX, SPACING_PX)]
    for number, (row, column) in enumerate(places):
        sigma = (1.0 if number % 2 == 0 else rng.uniform(1.15, 3.0)) * fwhm_arcsec / SCALE / 2.3548
        near = slice(row - 30, row + 30), slice(column - 30, column + 30)
        at = np.array([row, column]) + rng.uniform(-0.5, 0.5, 2)
        squared = (y[near] - at[0]) ** 2 + (x[near] - at[1]) ** 2
        image[near] += rng.uniform(60, 400) * np.exp(-squared / (2 * sigma**2))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra_deg, 2.0]
    wcs.wcs.crpix, wcs.wcs.cdelt = [SIDE_PX / 2, SIDE_PX / 2], [-SCALE / 3600, SCALE / 3600]
    header = fits.Header({"BUNIT": "nJy", "SEEING": STATED}) + wcs.to_header()
    fits.PrimaryHDU(image.astype(np.float32), header).writeto(path)
    return wcs.all_pix2world(rng.uniform(60, SIDE_PX - 60, (N, 2)), 0)


def test_objects_of_a_tile_whose_psf_is_wider_than_stated_have_the_flag(tmp_path, monkeypatch):
    # A degree apart, so that each tile has a partition of its own.
    as_stated = tile(tmp_path / "a_g.fits", ra_deg=150.0, fwhm_arcsec=STATED)
    wider = tile(tmp_path / "b_g.fits", ra_deg=151.0, fwhm_arcsec=WIDER)
    ra_dec = np.concatenate([as_stated, wider])
    write_table(
        str(tmp_path / "objects.parquet"),
        pa.table({"object_id": np.arange(2 * N), "ra_deg": ra_dec[:, 0], "dec_deg": ra_dec[:, 1]}),
    )
    (tmp_path / "run.toml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["run", "run.toml"])
    assert done.exit_code == 0, done.output
    table = galbatch.open_catalog("catalog").table()
    is_wider = np.asarray(table["object_id"]) >= N
    has_flag = (np.asarray(table["flags"]) & PixelFlag.PSF_UNLIKE) != 0
    assert has_flag.tolist() == is_wider.tolist()
    width = np.asarray(table["psf_fwhm_stars_arcsec_g"], np.float64)
    assert np.median(width[~is_wider]) == pytest.approx(STATED, rel=0.02)
    assert np.median(width[is_wider]) == pytest.approx(WIDER, rel=0.02)
    counted = CliRunner().invoke(app, ["flags", "catalog"])
    assert any("PSF_UNLIKE" in line and str(N) in line for line in counted.output.splitlines())
