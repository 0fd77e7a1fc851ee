"""The tile for `spoiled.py`: one of the simulated survey, cut as a run cuts it, clean, with a wider PSF in its pixels, and on a sky that is off."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits
from spoiled_scenes import CLEAN, OFFSETS, WIDER, Scene, TileFacts, widened

import galbatch
from galbatch import ingest
from galbatch.config import FlagsConfig, SurveyConfig, read_config
from galbatch.core import sky
from galbatch.core.types import CutoutSpec, Grid, ObjectTable, Tile
from galbatch.simulation import PIXEL_SCALE_ARCSEC

__all__ = ["with_tile"]

N_GALAXIES = 1400
"""Galaxies of the tile's list: 136 arcmin^2, an HSC patch."""

SKY_NJY = 2.0
"""White noise that is added to a widened tile, as convolution takes most of its own away."""

Images = npt.NDArray[Any]


def with_tile(scene: Scene, *, stars: bool, seed: int) -> Scene:
    """Return the scene with what a simulated tile of the population survey says of the sky's level and, where `stars` is true, of the PSF."""
    with tempfile.TemporaryDirectory() as folder:
        survey = _drawn(folder, scene.bands, seed=seed)
        tiles = {CLEAN: tile_facts(survey, scene.bands)}
        for name, offset_njy in OFFSETS.items():
            with changed(survey, lambda image, tile, of=offset_njy: image + of / tile.njy_per_unit):
                tiles[name] = tile_facts(survey, scene.bands)
        if stars:
            with changed(survey, lambda image, tile: _widened(image, tile.psf_fwhm_arcsec, seed=seed)):
                wider = tile_facts(survey, scene.bands)
            tiles[WIDER] = dataclasses.replace(tiles[CLEAN], stars=wider.stars)
        else:
            unknown = np.full(len(scene.bands), np.nan)
            tiles = {name: dataclasses.replace(one, stars=unknown) for name, one in tiles.items()}
        return dataclasses.replace(scene, tiles=tiles)


def _drawn(folder: str, bands: tuple[str, ...], *, seed: int) -> SurveyConfig:
    """Simulate a survey of one tile a band in a folder."""
    drawn = galbatch.simulate(
        folder,
        n_objects=N_GALAXIES,
        patches=1,
        bands=bands,
        population="survey",
        layout="generic",
        seed=seed,
    )
    run = Path(folder, "run.toml")
    run.write_text(
        f'{drawn.run_toml}\n[cutouts]\nstore = "cutouts"\nsize_px = 96\npixel_scale_arcsec = {PIXEL_SCALE_ARCSEC}\n'
    )
    (survey,) = read_config(run).survey
    return survey


def tile_facts(survey: SurveyConfig, bands: tuple[str, ...]) -> TileFacts:
    """Return what a survey's first tile says of an object at its center."""
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
    assert block.sky_level_njy is not None
    assert block.sky_level_err_njy is not None
    found = (
        block.psf_fwhm_stars_arcsec / block.psf_fwhm_arcsec,
        block.sky_level_njy,
        block.sky_level_err_njy,
    )
    return TileFacts(*(one[0].astype(np.float64) for one in found))


@contextmanager
def changed(survey: SurveyConfig, change: Callable[[Images, Tile], Images]) -> Iterator[None]:
    """Change the images of a survey's tiles in their files, in the file's unit, and put them back at the end."""
    before = {}
    for tile in ingest.read_tiles(survey):
        with fits.open(tile.image.path, mode="update") as hdus:
            before[tile.image.path] = hdus["SCI"].data.copy()
            hdus["SCI"].data = change(before[tile.image.path], tile).astype(np.float32)
    yield
    for path, image in before.items():
        with fits.open(path, mode="update") as hdus:
            hdus["SCI"].data = image


def _widened(found: Images, fwhm_arcsec: float, *, seed: int) -> Images:
    """Return the image of a tile convolved as if its PSF were wider."""
    image = np.where(np.isfinite(found), widened(np.nan_to_num(found), np.float32(fwhm_arcsec)), np.nan)
    return np.asarray(
        image + np.random.default_rng(seed).normal(0.0, SKY_NJY, image.shape).astype(np.float32)
    )
