"""Stamps (small images) of the galaxies in a truth table, for training and tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.simulation.light.camera import BANDS, PIXEL_SCALE_ARCSEC, draw_psfs
from galbatch.simulation.light.fourier import Psf
from galbatch.simulation.light.noise import add_noise
from galbatch.simulation.light.render import Component, draw_light
from galbatch.simulation.light.spoiling import NOT_SPOILED, draw_spoiling
from galbatch.simulation.population import draw_population, require_population
from galbatch.simulation.processes import map_in_processes
from galbatch.simulation.surroundings import draw_neighbors, neighbor_light

__all__ = ["SKIES", "Sky", "TrainingSet", "draw_galaxy", "draw_stamps", "training_set"]

Floats = npt.NDArray[np.float64]

STAMPS_PER_TASK = 250
NEIGHBORS_STREAM = 100  # Part of the random seed of the neighbors; the noise of the bands has 1, 2 and 3.
SPOILING_STREAM = 101


@dataclass(frozen=True, slots=True)
class Sky:
    """Properties of stamps apart from their galaxy.

    Attributes
    ----------
    neighbors : bool
        Add galaxies to i = 25.5 and stars, as many as on the sky.
    noise : bool
        Add noise of sky and photons.
    correlated : bool
        The noise is correlated as in coadds (see noise.py), not independent between pixels.
    spoiled : bool
        Spoil part of the stamps, as real images are and no label tells (see spoiling.py).
    pixel_scale_arcsec : float
        Pixel scale. The sky noise per pixel is scaled with it.
    """

    neighbors: bool = False
    noise: bool = True
    correlated: bool = False
    spoiled: bool = False
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC


SKIES = {"paper": Sky(), "survey": Sky(neighbors=True, correlated=True)}
"""The sky of each population. Galaxies of `paper` have no neighbors, and independent noise."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Stamps with known truth.

    Attributes
    ----------
    images : (object, band, y, x) float32
        nJy per pixel, without NaN.
    truth : pyarrow.Table
        One row per object, as from `draw_population`. It describes the target alone, not the neighbors in the image.
    psf_fwhm_arcsec : (object, band) float32
        FWHM of the PSF.
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
    spoiled: bool = False,
    processes: int | None = None,
) -> TrainingSet:
    """Draw galaxies of a population and their stamps, with the sky of that population (`SKIES`).

    Parameters
    ----------
    n_objects, bands, population, seed
        As for `draw_population`. The same seed gives the same stamps for any number of processes and choice of bands.
    size_px
        Pixels on a side, each of 0.168 arcsec.
    spoiled
        Spoil part of the stamps by close neighbors, sky offsets, other PSFs than the stated ones and flat cores. The galaxies, their noise
        and the truth are those of the same seed without.
    processes
        Number of worker processes, which are spawned. With None or 1 this process draws.

    Raises
    ------
    ConfigError
        A band is not one of g, r, i, or the population is unknown.
    """
    require_population(population)
    truth = draw_population(n_objects, bands=bands, population=population, seed=seed)
    sky = dataclasses.replace(SKIES[population], spoiled=spoiled)
    images = draw_stamps(truth, bands=bands, size_px=size_px, seed=seed, sky=sky, processes=processes)
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
    """Draw stamps of the galaxies in a truth table, each with its own PSF, sub-pixel position, neighbors and noise.

    The center is within half a pixel of pixel (size_px // 2, size_px // 2). A stamp depends only on the seed and the
    object's id, not on the number of processes, the other galaxies or the bands.

    Parameters
    ----------
    truth
        As from `draw_population`, with fluxes in all `bands`.
    bands
        Order of the band axis.
    size_px
        Pixels on a side.
    seed
        Seed of PSFs, positions, neighbors and noise.
    sky
        Neighbors, noise and pixel scale.
    processes
        Number of worker processes, which are spawned. With None or 1 this process draws.

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
    """Return the FWHM (object, band), float32, of the PSFs that `draw_stamps` draws with this seed."""
    # The PSFs are the first draw of each object's generator, so they can be repeated without drawing the stamps.
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


class _Pixels(TypedDict):
    size_px: int
    pixel_scale_arcsec: float


def _draw_some(truth: pa.Table, settings: _Settings) -> npt.NDArray[np.float32]:
    shape = (len(truth), len(settings.bands), settings.size_px, settings.size_px)
    stamps = np.empty(shape, dtype=np.float32)
    for stamp, row in zip(stamps, truth.to_pylist(), strict=True):
        stamp[:] = _draw_stamp(row, settings)
    return stamps


def _draw_stamp(row: Mapping[str, Any], settings: _Settings) -> Floats:
    """Draw the stamp (band, y, x) of one galaxy."""
    sky, object_id = settings.sky, row["object_id"]
    rng = np.random.default_rng([settings.seed, object_id])
    stated_psfs = draw_psfs(settings.bands, rng)
    x, y = rng.uniform(-0.5, 0.5, 2).tolist()
    spoiling = NOT_SPOILED
    if sky.spoiled:
        spoiling = draw_spoiling(np.random.default_rng([settings.seed, object_id, SPOILING_STREAM]))
    psfs = spoiling.widened(stated_psfs)
    pixels: _Pixels = {"size_px": settings.size_px, "pixel_scale_arcsec": sky.pixel_scale_arcsec}
    light = draw_galaxy(row, settings.bands, psfs, offset_px=(x, y), **pixels)
    peaks_njy = light.max(axis=(1, 2))
    if spoiling.neighbor is not None:
        fluxes = _fluxes_njy(row, settings.bands)
        light += spoiling.neighbor_light(fluxes, settings.bands, psfs, offset_px=(x, y), **pixels)
    if sky.neighbors:
        rng = np.random.default_rng([settings.seed, object_id, NEIGHBORS_STREAM])
        neighbors = draw_neighbors(settings.bands, rng, flux_g_njy=row["flux_njy"], **pixels)
        light += neighbor_light(neighbors, psfs, **pixels)
    if sky.noise:
        _add_noise(light, object_id, settings)
    for image, band, peak_njy in zip(light, settings.bands, peaks_njy, strict=True):
        image[:] = spoiling.spoiled(image, band, peak_njy=peak_njy, pixel_scale_arcsec=sky.pixel_scale_arcsec)
    return light


def _fluxes_njy(row: Mapping[str, Any], bands: Sequence[str]) -> Floats:
    """Return the total flux of a galaxy in each band, (band,), nJy."""
    return np.array(
        [sum(row[f"{part}_flux_{band}_njy"] or 0.0 for part in ("disk", "bulge")) for band in bands]
    )


def _add_noise(light: Floats, object_id: int, settings: _Settings) -> None:
    """Add noise to the light (band, y, x) of a stamp, in place."""
    for index, band in enumerate(settings.bands):
        # Each band has its own generator, so that its noise does not depend on the other bands.
        rng = np.random.default_rng([settings.seed, object_id, 1 + BANDS.index(band)])
        light[index] = add_noise(
            light[index],
            band,
            rng,
            correlate=settings.sky.correlated,
            pixel_scale_arcsec=settings.sky.pixel_scale_arcsec,
        )[0]


def draw_galaxy(
    row: Mapping[str, Any],
    bands: Sequence[str],
    psfs: Sequence[Psf],
    *,
    size_px: int,
    offset_px: tuple[float, float],
    pixel_scale_arcsec: float = PIXEL_SCALE_ARCSEC,
) -> Floats:
    """Return the light (band, y, x), nJy per pixel, of the galaxy in one row of a truth table, without noise."""
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
