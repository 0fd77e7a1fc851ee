"""Galaxies of a truth table as stamps: for training and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.simulation.light.camera import BANDS, PIXEL_SCALE_ARCSEC, draw_psfs
from galbatch.simulation.light.fourier import Psf
from galbatch.simulation.light.noise import add_noise
from galbatch.simulation.light.render import Component, draw_light
from galbatch.simulation.population import draw_population, require_population
from galbatch.simulation.processes import map_in_processes
from galbatch.simulation.surroundings import draw_neighbors, neighbor_light

__all__ = ["SKIES", "Sky", "TrainingSet", "draw_galaxy", "draw_stamps", "training_set"]

Floats = npt.NDArray[np.float64]

STAMPS_PER_TASK = 250
NEIGHBORS_STREAM = 100  # of random numbers; those of the bands' noise are 1 and more


@dataclass(frozen=True, slots=True)
class Sky:
    """Everything that stamps have besides their galaxy.

    neighbors : galaxies to i = 25.5 and stars around it, as numerous as on the sky
    noise : of sky and photons
    correlated : the noise is correlated as in coadds (see noise.py), else independent from pixel to pixel
    pixel_scale_arcsec : of the pixels, and sky noise to match
    """

    neighbors: bool = False
    noise: bool = True
    correlated: bool = False
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC


SKIES = {"paper": Sky(), "survey": Sky(neighbors=True, correlated=True)}
"""By population: the paper's galaxies are alone, with independent noise."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Stamps with known truth.

    images : (object, band, y, x) float32, nJy per pixel
    truth : as `draw_population` makes it, a row an object; a survey's stamps hold neighbors, the truth is the target's
    psf_fwhm_arcsec : (object, band) float32
    """

    images: npt.NDArray[np.float32]
    truth: pa.Table
    psf_fwhm_arcsec: npt.NDArray[np.float32]


def training_set(
    n_objects: int,
    *,
    bands: Sequence[str],
    size_px: int,
    population: str,
    seed: int,
    processes: int | None = None,
) -> TrainingSet:
    """Draw galaxies of a population and their stamps, under the sky that goes with it (`SKIES`).

    Parameters
    ----------
    n_objects, bands, population, seed
        As for `draw_population`. The same seed gives the same stamps, whatever `processes` and the other bands.
    size_px
        Pixels on a side, of 0.168 arcsec.
    processes
        Worker processes (spawned); None or 1: none.

    Raises
    ------
    ConfigError
        A band without colors, or another population.
    """
    require_population(population)
    truth = draw_population(n_objects, bands=bands, population=population, seed=seed)
    images = draw_stamps(
        truth, bands=bands, size_px=size_px, seed=seed, sky=SKIES[population], processes=processes
    )
    return TrainingSet(images, truth, stamp_psf_fwhm_arcsec(truth, bands=bands, seed=seed))


def draw_stamps(
    truth: pa.Table,
    *,
    bands: Sequence[str],
    size_px: int,
    seed: int,
    sky: Sky = SKIES["paper"],
    processes: int | None = None,
) -> npt.NDArray[np.float32]:
    """Draw the galaxies of a truth table, each with a PSF, a sub-pixel position, neighbors and noise of its own.

    The center lies within half a pixel of pixel (size_px // 2, size_px // 2). What is drawn depends on
    (seed, object_id) alone: not on the number of processes, the other galaxies or the bands.

    Parameters
    ----------
    truth
        As `draw_population` makes it, with fluxes for all `bands`.
    bands
        Order of the band axis.
    size_px
        Pixels on a side.
    seed
        Of PSFs, positions, neighbors and noise.
    sky
        What there is besides the galaxies.
    processes
        Worker processes (spawned); None or 1: none.

    Returns
    -------
    (object, band, y, x) float32, nJy per pixel, without NaN
    """
    stamps = np.empty((len(truth), len(bands), size_px, size_px), dtype=np.float32)
    settings = _Settings(tuple(bands), size_px, seed, sky)
    starts = range(0, len(truth), STAMPS_PER_TASK)
    tasks = [(truth.slice(start, STAMPS_PER_TASK), settings) for start in starts]
    start = 0
    for drawn in map_in_processes(_draw_some, tasks, processes or 1):
        stamps[start : start + len(drawn)] = drawn
        start += len(drawn)
    return stamps


def stamp_psf_fwhm_arcsec(truth: pa.Table, *, bands: Sequence[str], seed: int) -> npt.NDArray[np.float32]:
    """(object, band): full width at half maximum of the PSF that `draw_stamps` draws with this seed."""
    widths = [
        [psf.fwhm_arcsec for psf in draw_psfs(bands, np.random.default_rng([seed, object_id]))]
        for object_id in truth["object_id"].to_pylist()
    ]
    return np.array(widths, dtype=np.float32).reshape(len(truth), len(bands))


@dataclass(frozen=True, slots=True)
class _Settings:
    bands: tuple[str, ...]
    size_px: int
    seed: int
    sky: Sky


def _draw_some(truth: pa.Table, settings: _Settings) -> npt.NDArray[np.float32]:
    shape = (len(truth), len(settings.bands), settings.size_px, settings.size_px)
    stamps = np.empty(shape, dtype=np.float32)
    for stamp, row in zip(stamps, truth.to_pylist(), strict=True):
        stamp[:] = _draw_stamp(row, settings)
    return stamps


def _draw_stamp(row: Mapping[str, Any], settings: _Settings) -> Floats:
    """One galaxy's stamp (band, y, x)."""
    sky, object_id = settings.sky, row["object_id"]
    rng = np.random.default_rng([settings.seed, object_id])
    psfs = draw_psfs(settings.bands, rng)
    x, y = rng.uniform(-0.5, 0.5, 2).tolist()
    size_px, scale = settings.size_px, sky.pixel_scale_arcsec
    light = draw_galaxy(
        row, settings.bands, psfs, size_px=size_px, offset_px=(x, y), pixel_scale_arcsec=scale
    )
    if sky.neighbors:
        rng = np.random.default_rng([settings.seed, object_id, NEIGHBORS_STREAM])
        neighbors = draw_neighbors(
            settings.bands, rng, size_px=size_px, flux_g_njy=row["flux_njy"], pixel_scale_arcsec=scale
        )
        light += neighbor_light(neighbors, psfs, size_px=size_px, pixel_scale_arcsec=scale)
    if not sky.noise:
        return light
    for index, band in enumerate(settings.bands):
        rng = np.random.default_rng([settings.seed, object_id, 1 + BANDS.index(band)])
        light[index] = add_noise(
            light[index],
            band,
            rng,
            correlate=sky.correlated,
            pixel_scale_arcsec=sky.pixel_scale_arcsec,
        )[0]
    return light


def draw_galaxy(
    row: Mapping[str, Any],
    bands: Sequence[str],
    psfs: Sequence[Psf],
    *,
    size_px: int,
    offset_px: tuple[float, float],
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
) -> Floats:
    """Light (band, y, x), nJy per pixel, of one row of a truth table, without noise."""
    components, fluxes = [], []
    for part in ("disk", "bulge"):
        if row[f"{part}_n"] is not None:
            shape = (row[f"{part}_{name}"] for name in ("n", "re_arcsec", "axis_ratio", "angle_deg"))
            components.append(Component(*shape))
            fluxes.append([row[f"{part}_flux_{band}_njy"] for band in bands])
    return draw_light(
        components,
        fluxes,
        psfs,
        size_px=size_px,
        offset_px=offset_px,
        pixel_scale_arcsec=pixel_scale_arcsec,
    )
