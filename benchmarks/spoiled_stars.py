"""Stars for `spoiled.py`: a tile of the simulated survey, cut as a run cuts it, with the stated PSF and with a wider one in its pixels."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits
from spoiled_scenes import Scene, widened

import galbatch
from galbatch import ingest
from galbatch.config import FlagsConfig, SurveyConfig, read_config
from galbatch.core import sky
from galbatch.core.types import CutoutSpec, Grid, ObjectTable
from galbatch.simulation import PIXEL_SCALE_ARCSEC

__all__ = ["with_stars"]

N_GALAXIES = 1400
"""Galaxies of the tile's list: 136 arcmin^2, an HSC patch."""

SKY_NJY = 2.0
"""White noise that is added to a widened tile, as convolution takes most of its own away."""


def with_stars(scene: Scene, *, seed: int) -> Scene:
    """Return the scene with what the stars of a simulated tile of the population survey say of the PSF."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = galbatch.simulate(
            folder,
            n_objects=N_GALAXIES,
            patches=1,
            bands=scene.bands,
            population="survey",
            layout="generic",
            seed=seed,
        )
        run = Path(folder, "run.toml")
        run.write_text(
            f'{drawn.run_toml}\n[cutouts]\nstore = "cutouts"\nsize_px = 96\npixel_scale_arcsec = {PIXEL_SCALE_ARCSEC}\n'
        )
        (survey,) = read_config(run).survey
        stars = star_ratio(survey, scene.bands)
        for tile in ingest.read_tiles(survey):
            _widen(tile.image.path, tile.psf_fwhm_arcsec, seed=seed)
        return dataclasses.replace(scene, stars=stars, wider_stars=star_ratio(survey, scene.bands))


def star_ratio(survey: SurveyConfig, bands: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return the width of the stars of a survey's first tile over the stated one, (band,) float64."""
    tiles = ingest.read_tiles(survey)
    ra, dec = (np.array([np.mean(side)]) for side in zip(*tiles[0].corners_deg, strict=True))
    center = ObjectTable(np.array([1]), ra, dec, sky.healpix_29(ra, dec), pa.table({"z": [0.0]}))
    block = ingest.cut_block(
        center,
        tiles,
        spec=CutoutSpec(Grid(96, PIXEL_SCALE_ARCSEC), bands),
        flags=FlagsConfig(),
        object_flags=np.zeros(1, np.int32),
    )
    assert block.psf_fwhm_stars_arcsec is not None
    return (block.psf_fwhm_stars_arcsec / block.psf_fwhm_arcsec)[0].astype(np.float64)


def _widen(path: str, fwhm_arcsec: float, *, seed: int) -> None:
    """Convolve the image of a tile in its file as if its PSF were wider."""
    with fits.open(path, mode="update") as hdus:
        found = hdus["SCI"].data
        image = np.where(np.isfinite(found), widened(np.nan_to_num(found), np.float32(fwhm_arcsec)), np.nan)
        noise = np.random.default_rng(seed).normal(0.0, SKY_NJY, image.shape)
        hdus["SCI"].data = image + noise.astype(np.float32)
