"""The surroundings of a galaxy of the population `survey`: other galaxies and stars at random positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.types import AB_ZERO_POINT_NJY
from galbatch.simulation.counts import (
    BRIGHTEST_STAR_MAG,
    FAINTEST_NEIGHBOR_MAG,
    GALAXY_COUNTS,
    STAR_COUNTS,
    TARGET_MAG,
    draw_survey_galaxies,
    star_colors_mag,
)
from galbatch.simulation.defects import SATURATION_NJY
from galbatch.simulation.light.camera import BANDS
from galbatch.simulation.light.fourier import Psf
from galbatch.simulation.light.sources import Profiles, paint, profiles_of

__all__ = ["Neighbors", "draw_neighbors", "draw_star_fluxes", "neighbor_light", "points"]

Floats = npt.NDArray[np.float64]

REACH_ARCSEC = 20.0
"""Sources are drawn up to this distance outside a stamp. From farther away only very bright ones reach into it."""
BLENDED_ARCSEC = 0.8
"""No brighter source is closer to a target: a survey would list that source instead of the target."""


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Galaxies and stars around a target, with positions in pixels of its stamp, and fluxes in the bands of the stamp."""

    galaxies: Profiles
    stars: Profiles


def draw_neighbors(
    bands: Sequence[str],
    rng: np.random.Generator,
    *,
    size_px: int,
    flux_g_njy: float,
    pixel_scale_arcsec: float,
) -> Neighbors:
    """Draw the galaxies and stars in and around a stamp.

    Parameters
    ----------
    bands : sequence of str
        Bands of the fluxes, out of g, r, i. They do not change which sources are drawn.
    rng : numpy.random.Generator
    size_px : int
        Side of the stamp.
    flux_g_njy : float
        Flux of the target in g, nJy: brighter sources are not drawn within `BLENDED_ARCSEC` of it.
    pixel_scale_arcsec : float
    """
    side_px = size_px + 2 * REACH_ARCSEC / pixel_scale_arcsec
    area_arcmin2 = (side_px * pixel_scale_arcsec / 60) ** 2
    limits = TARGET_MAG[0], FAINTEST_NEIGHBOR_MAG
    n_galaxies = int(rng.poisson(area_arcmin2 * GALAXY_COUNTS.per_arcmin2(*limits)))
    _, columns, fluxes = draw_survey_galaxies(n_galaxies, limits, rng)
    place = _places(n_galaxies, side_px, size_px, rng)
    total_g = fluxes["disk", "g"] + fluxes["bulge", "g"]
    kept = _is_no_blend(place, total_g, flux_g_njy, size_px, pixel_scale_arcsec)
    galaxies, _ = profiles_of(
        {name: values[kept] for name, values in columns.items()},
        place[kept],
        {key: values[kept] for key, values in fluxes.items()},
        bands=bands,
    )
    n_stars = int(
        rng.poisson(area_arcmin2 * STAR_COUNTS.per_arcmin2(BRIGHTEST_STAR_MAG, FAINTEST_NEIGHBOR_MAG))
    )
    flux = draw_star_fluxes(n_stars, rng)
    place = _places(n_stars, side_px, size_px, rng)
    kept = _is_no_blend(place, flux[:, 0], flux_g_njy, size_px, pixel_scale_arcsec)
    stars = points(place[kept], flux[kept], bands=bands)
    return Neighbors(galaxies, stars)


def points(position_px: Floats, flux_njy: Floats, *, bands: Sequence[str]) -> Profiles:
    """Return point sources at positions (source, 2), with fluxes (source, g r i) in nJy of which `bands` are kept."""
    # A radius of 0 marks a point source, whose transform is 1 for any Sersic index.
    one = np.ones(len(position_px))
    chosen = flux_njy[:, [BANDS.index(band) for band in bands]]
    return Profiles(position_px, one, 0 * one, one, 0 * one, chosen, flux_njy.max(axis=1))


def draw_star_fluxes(n_stars: int, rng: np.random.Generator) -> Floats:
    """Draw the fluxes (star, g r i) of stars, float64, nJy."""
    mag_i = STAR_COUNTS.draw(rng.random(n_stars), BRIGHTEST_STAR_MAG, FAINTEST_NEIGHBOR_MAG)
    gr, ri = star_colors_mag(n_stars, rng)
    mag_r = mag_i + ri
    return 10 ** (0.4 * (AB_ZERO_POINT_NJY - np.stack([mag_r + gr, mag_r, mag_i], axis=1)))


def neighbor_light(
    neighbors: Neighbors,
    psfs: Sequence[Psf],
    *,
    size_px: int,
    pixel_scale_arcsec: float,
) -> Floats:
    """Return the light (band, y, x) of the neighbors in a stamp, nJy per pixel. Stars are cut at SATURATION_NJY."""
    light = np.zeros((len(psfs), size_px, size_px))
    stars = np.zeros_like(light)
    paint(light, neighbors.galaxies, [psfs], pixel_scale_arcsec=pixel_scale_arcsec)
    paint(stars, neighbors.stars, [psfs], pixel_scale_arcsec=pixel_scale_arcsec)
    return light + np.minimum(stars, SATURATION_NJY)


def _places(n: int, side_px: float, size_px: int, rng: np.random.Generator) -> Floats:
    """Draw positions (source, 2) in a square of side `side_px` about the stamp, in pixels of the stamp."""
    return (size_px - side_px) / 2 + rng.uniform(0, side_px, (n, 2))


def _is_no_blend(
    place: Floats, flux_njy: Floats, of_target: float, size_px: int, scale_arcsec: float
) -> npt.NDArray[np.bool_]:
    """Return a mask (source,): True for sources that are fainter than the target or not close to it."""
    distance = np.hypot(*(place - size_px // 2).T) * scale_arcsec
    return (distance > BLENDED_ARCSEC) | (flux_njy < of_target)
