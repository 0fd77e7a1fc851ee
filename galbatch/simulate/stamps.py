"""Galaxies of a truth table as stamps: for training and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.simulate.population import BANDS
from galbatch.simulate.render import Component, Psf, draw_light

__all__ = ["SKY_SIGMA_NJY", "add_noise", "draw_galaxy", "draw_psfs", "draw_stamps"]

SKY_SIGMA_NJY = {"g": 2.0, "r": 2.6, "i": 3.6}
"""Sky noise per 0.168 arcsec pixel: about HSC Wide's (5 sigma point sources of 26.5, 26.1, 25.9 mag)."""

ELECTRONS_PER_NJY = 66.0  # ten 4-minute exposures with a zero point of 27 mag of 3.8 electrons, roughly

PSF_FWHM_ARCSEC = {"g": 0.85, "r": 0.79, "i": 0.66}
PSF_SCATTER = 0.08  # of the width, common to the bands; g then stays within 0.70-1.05
PSF_LIMITS = (0.83, 1.23)
PSF_SHEAR = 0.02

STAMPS_PER_TASK = 250


def draw_stamps(
    truth: pa.Table,
    *,
    bands: Sequence[str],
    size_px: int,
    seed: int,
    noise: bool = True,
    processes: int | None = None,
) -> npt.NDArray[np.float32]:
    """Draw the galaxies of a truth table, each with a PSF, a sub-pixel position and noise of its own.

    The center lies within half a pixel of pixel (size_px // 2, size_px // 2). What is drawn depends on
    (seed, object_id) alone: not on the number of processes, the other galaxies or the bands.

    Parameters
    ----------
    truth
        As `draw_population` makes it, with fluxes for all `bands`.
    bands
        Order of the band axis.
    size_px
        Pixels on a side, of 0.168 arcsec.
    seed
        Of PSFs, positions and noise.
    noise
        False: the light alone.
    processes
        Worker processes (spawned); None or 1: none.

    Returns
    -------
    (object, band, y, x) float32, nJy per pixel, without NaN
    """
    stamps = np.empty((len(truth), len(bands), size_px, size_px), dtype=np.float32)
    tasks = [truth.slice(start, STAMPS_PER_TASK) for start in range(0, len(truth), STAMPS_PER_TASK)]
    settings = (tuple(bands), size_px, seed, noise)
    start = 0
    for drawn in _mapped(tasks, settings, processes or 1):
        stamps[start : start + len(drawn)] = drawn
        start += len(drawn)
    return stamps


def _mapped(
    tasks: Sequence[pa.Table], settings: tuple[tuple[str, ...], int, int, bool], processes: int
) -> Iterator[npt.NDArray[np.float32]]:
    if processes == 1:
        yield from (_draw_some(task, settings) for task in tasks)
        return
    # Spawn: fork copies locks that threads of the parent (BLAS, Arrow) may hold.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_draw_some, tasks, [settings] * len(tasks))


def _draw_some(truth: pa.Table, settings: tuple[tuple[str, ...], int, int, bool]) -> npt.NDArray[np.float32]:
    bands, size_px, seed, noise = settings
    stamps = np.empty((len(truth), len(bands), size_px, size_px), dtype=np.float32)
    for stamp, row in zip(stamps, truth.to_pylist(), strict=True):
        rng = np.random.default_rng([seed, row["object_id"]])
        psfs = draw_psfs(bands, rng)
        offset = tuple(rng.uniform(-0.5, 0.5, 2))
        light = draw_galaxy(row, bands, psfs, size_px=size_px, offset_px=(offset[0], offset[1]))
        for index, band in enumerate(bands):
            noise_rng = np.random.default_rng([seed, row["object_id"], 1 + BANDS.index(band)])
            stamp[index] = add_noise(light[index], band, noise_rng)[0] if noise else light[index]
    return stamps


def draw_psfs(bands: Sequence[str], rng: np.random.Generator) -> list[Psf]:
    """A PSF for each band: one seeing for all, a small shear of each band's own.

    The same draws are made whatever the bands.
    """
    seeing = float(np.clip(rng.normal(1.0, PSF_SCATTER), *PSF_LIMITS))
    shears = rng.normal(0.0, PSF_SHEAR, (len(BANDS), 2))
    return [Psf(PSF_FWHM_ARCSEC[band] * seeing, *shears[BANDS.index(band)].tolist()) for band in bands]


def draw_galaxy(
    row: Mapping[str, Any],
    bands: Sequence[str],
    psfs: Sequence[Psf],
    *,
    size_px: int,
    offset_px: tuple[float, float],
) -> npt.NDArray[np.float64]:
    """Light (band, y, x), nJy per pixel, of one row of a truth table, without noise."""
    components, fluxes = [], []
    for part in ("disk", "bulge"):
        if row[f"{part}_n"] is not None:
            shape = (row[f"{part}_{name}"] for name in ("n", "re_arcsec", "axis_ratio", "angle_deg"))
            components.append(Component(*shape))
            fluxes.append([row[f"{part}_flux_{band}_njy"] for band in bands])
    return draw_light(components, fluxes, psfs, size_px=size_px, offset_px=offset_px)


def add_noise(
    light_njy: npt.NDArray[np.float64], band: str, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Image (nJy) and variance (nJy^2), any shape: sky noise plus the photon noise of the light."""
    variance = SKY_SIGMA_NJY[band] ** 2 + np.maximum(light_njy, 0.0) / ELECTRONS_PER_NJY
    return light_njy + rng.standard_normal(light_njy.shape) * np.sqrt(variance), variance
