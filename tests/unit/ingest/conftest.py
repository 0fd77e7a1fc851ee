from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from galbatch import ingest, sky
from galbatch.config import FlagsConfig, SurveyConfig
from galbatch.types import Grid, ObjectTable

HSC_FLUXMAG0 = 10 ** (27.0 / 2.5)
HSC_PLANES = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "DETECTED": 5, "NO_DATA": 8, "BRIGHT_OBJECT": 9}


def tan_header(*, crpix, crval=(150.0, 2.0), scale_arcsec=0.168, angle_deg=0.0):
    """Cards of a TAN WCS, turned by `angle_deg`."""
    scale, angle = scale_arcsec / 3600.0, np.deg2rad(angle_deg)
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = crval
    header["CRPIX1"], header["CRPIX2"] = crpix
    header["CD1_1"], header["CD1_2"] = -scale * np.cos(angle), scale * np.sin(angle)
    header["CD2_1"], header["CD2_2"] = scale * np.sin(angle), scale * np.cos(angle)
    return header


def _write_calexp(
    root, *, band="G", tract=9813, patch="4,4", image, mask=None, variance=None, wcs, fluxmag0=HSC_FLUXMAG0
):
    folder = Path(root) / f"deepCoadd-results/HSC-{band}/{tract}/{patch}"
    folder.mkdir(parents=True, exist_ok=True)
    image = np.asarray(image, np.float32)
    mask = np.zeros(image.shape, np.int32) if mask is None else mask
    variance = np.ones(image.shape, np.float32) if variance is None else variance
    primary = fits.PrimaryHDU()
    if fluxmag0 is not None:
        primary.header["FLUXMAG0"] = fluxmag0
    hdus = [primary, *(fits.ImageHDU(plane, header=wcs) for plane in (image, mask, variance))]
    for name, number in HSC_PLANES.items():
        hdus[2].header[f"HIERARCH MP_{name}"] = number
    archive = fits.BinTableHDU(np.zeros(3, dtype=[("id", "i4")]))
    path = folder / f"calexp-HSC-{band}-{tract}-{patch}.fits"
    fits.HDUList([*hdus, archive]).writeto(path, overwrite=True)
    return path


@pytest.fixture
def write_calexp():
    return _write_calexp


@pytest.fixture
def tan():
    return tan_header


@pytest.fixture
def objects():
    def make(ra, dec, ids=None):
        ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
        ids = np.arange(len(ra)) + 36411452835238206 if ids is None else ids
        return ObjectTable(ids, ra, dec, sky.healpix_29(ra, dec), pa.table({"z": np.zeros(len(ra))}))

    return make


@pytest.fixture
def read_tiles():
    def read(path, *, layout="hsc", bands=("g",), **survey):
        return ingest.read_tiles(SurveyConfig(layout=layout, tiles=str(path), bands=bands, **survey))

    return read


@pytest.fixture
def cut():
    def run(table, tiles, *, size=32, scale=0.168, bands=("g",), flags=None, object_flags=None):
        return ingest.cut_block(
            table,
            tiles,
            grid=Grid(size, scale),
            bands=bands,
            flags=flags or FlagsConfig(),
            object_flags=np.zeros(len(table), np.int32) if object_flags is None else object_flags,
        )

    return run


@pytest.fixture
def realdata():
    """The folder of real survey pixels beside the repository."""
    folder = Path(__file__).parents[3].parent / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip("real survey pixels are not there: ../shared/realdata")
    return folder
