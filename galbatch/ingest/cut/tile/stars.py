"""The PSF of a tile by its own stars: their width beside what the survey states at their places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Set
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import numpy.typing as npt
import sep

from galbatch.core.flags import MaskBit
from galbatch.core.sky_noise import MIN_SKY_PIXELS, clipped_sky
from galbatch.core.types import Plane, Tile
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.cut.psf import psf_fwhm_at, psf_window
from galbatch.ingest.cut.tile.known import OncePerTile
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["psf_of_stars", "strips_px"]

STRIPS, STRIP_PX = (2, 0, 4, 1, 3), 128
"""Numbers of five strips of this height spread over a tile, in the order in which they are looked at, until the stars are enough. They are as wide as the
tile, as most files are stored row by row; of an HSC patch they are a seventh, 21 arcmin^2, which hold some 20 stars off the plane of the Milky Way."""

PART_PX = 1024
"""A strip is looked at in parts of this width, each with a sky of its own."""

SKY_STEP = 11
"""Every eleventh pixel of a part tells its sky, 12,000 of them: the level to 1 percent of the noise."""

DETECTION_SIGMA = 10.0
PEAK_SIGMA = 25.0
"""A star whose peak is this far above the noise has its width to 3 percent."""

ROUND = 0.8
"""Least axis ratio of a star, in its pixels above the threshold."""

CORE_SHARE = 0.3
"""Pixels above this share of the brightest one tell the width: half of the peak lies within, and the wings of galaxies beyond."""

MIN_CORE_PX = 8
"""Fewer pixels do not tell a profile of three numbers."""

REACH_PX = 12
"""Half the width of the window about a source; a FWHM of 3 arcsec at 0.168 arcsec a pixel is 18 px."""

NARROWER = 0.15
"""Nothing is narrower than stars, but for this share of their number, by noise and defects."""

LOCI = (0.06, 0.1)
"""Stars of a tile have one width within a factor of 1 plus one of these: noise makes 0.03, and a PSF that varies more than that is stated so."""

MIN_STARS, ENOUGH_STARS = 8, 20
"""Below the first number the width is unknown; with the second it is known to 1 percent, and no further strip is read."""

SIGNIFICANCE = 2.5
"""Stars outnumber by this many standard deviations what galaxies put into their interval, by the number of sources up to three times as wide."""

SPOILED = int(reduce(or_, (MaskBit.BAD, MaskBit.SAT, MaskBit.CR, MaskBit.EDGE, MaskBit.NO_DATA)))

Floats = npt.NDArray[np.float64]


def strips_px(tile: Tile) -> int:
    """Return the number of pixels of the strips that are read of a tile at most."""
    return len(STRIPS) * STRIP_PX * tile.shape_px[1]


def psf_of_stars(reader: TileReader, canvas: Canvas, *, tiles: Set[Plane]) -> npt.NDArray[np.float32]:
    """Return the PSF's full width at half maximum at the objects by the stars of their tiles, (object, band) float32, arcsec.

    What is measured is by how much the stars of a tile are wider than stated where they stand; the width at an object is that
    times what its tile states there, or the stars' own where a tile states nothing. NaN: too few stars tell it, or the tile is
    not among `tiles`, by their image planes.

    Raises
    ------
    TileError, OSError
        As `TileReader.read`.
    """
    result = np.full(canvas.psf_fwhm_arcsec.shape, np.nan, np.float32)
    for at, tile in canvas.main_tile.items():
        if tile.image in tiles:
            unit = canvas.psf_fwhm_arcsec[at] if _states_psf(tile) else 1.0
            result[at] = width_of_stars(reader, tile) * unit
    return result


def _states_psf(tile: Tile) -> bool:
    return tile.psf is not None or math.isfinite(tile.psf_fwhm_arcsec)


def _width_of_stars(reader: TileReader, tile: Tile) -> float:
    """Return the width of a tile's stars in units of what is stated at their places, else in arcsec; NaN if they are too few."""
    ny, nx = tile.shape_px
    widths, found = np.empty(0), math.nan
    for number in STRIPS:
        start = round((number + 0.5) * ny / len(STRIPS) - STRIP_PX / 2)
        sources = np.array(list(_round_sources(reader, tile, Box(start, start + STRIP_PX, 0, nx))))
        if len(sources):
            widths = np.append(widths, _in_stated_units(reader, tile, *sources.T))
        found, n_stars = _locus(widths)
        if n_stars >= ENOUGH_STARS:
            break
    return found


width_of_stars: OncePerTile[float] = OncePerTile("stars", _width_of_stars)


def _in_stated_units(reader: TileReader, tile: Tile, x: Floats, y: Floats, fwhm_px: Floats) -> Floats:
    """Return widths of sources at places of a tile in units of what is stated there, (source,); in arcsec if nothing is."""
    width = fwhm_px * tile.pixel_scale_arcsec
    if not _states_psf(tile):
        return width
    places = list(zip(x.tolist(), y.tolist(), strict=True))
    if tile.psf is not None and tile.psf_cells is None:
        reader.prefetch_psf(tile, [psf_window(tile, x=x, y=y) for x, y in places])
    stated = np.array([psf_fwhm_at(reader, tile, x=x, y=y) for x, y in places])
    known = np.isfinite(stated)
    return width[known] / stated[known]


def _locus(width: Floats) -> tuple[float, int]:
    """Return the width that most stars have, the median of the interval that stands out most, and their number; NaN and 0 where none does.

    Galaxies are wider than stars, in all widths: an interval of theirs holds half as many as the two above it.
    """
    width, place = np.sort(width), np.arange(len(width))
    best, found = SIGNIFICANCE, (math.nan, 0)
    for locus in LOCI if len(width) else ():
        n_within, n_beyond = (
            np.searchsorted(width, width * (1 + locus) ** k, side="right") - place for k in (1, 3)
        )
        galaxies = (n_beyond - n_within) / 2
        may_be_stars = (n_within >= MIN_STARS) & (place <= np.maximum(1, NARROWER * n_within))
        excess = np.where(may_be_stars, (n_within - galaxies) / np.sqrt(galaxies + 1), -math.inf)
        first = int(np.argmax(excess))
        if excess[first] >= best:
            stars = width[first : first + n_within[first]]
            best, found = float(excess[first]), (float(np.median(stars)), len(stars))
    return found


def _round_sources(reader: TileReader, tile: Tile, strip: Box) -> Iterator[tuple[float, float, float]]:
    """Yield place x, y in the tile and FWHM in px of the bright round sources of a strip that nothing spoils."""
    pixels = reader.read(tile, strip)
    for start in range(0, strip.shape[1], PART_PX):
        columns = slice(start, start + PART_PX)
        image, spoiled = pixels.image[:, columns], (pixels.mask[:, columns] & SPOILED) != 0
        for x, y, fwhm_px in _round_sources_in(image, spoiled | ~np.isfinite(image)):
            yield x + start, y + strip.y0, fwhm_px


def _round_sources_in(
    image: npt.NDArray[np.float32], spoiled: npt.NDArray[np.bool_]
) -> Iterator[tuple[float, float, float]]:
    """Yield place x, y and FWHM in px of the bright round sources of an image (y, x), in nJy, whose surroundings are not spoiled (y, x)."""
    values = image[np.isfinite(image)][::SKY_STEP]
    if len(values) < MIN_SKY_PIXELS:
        return
    sky, sigma = clipped_sky(values)
    if not sigma > 0:
        return
    image = np.where(np.isfinite(image), image - sky, np.float32(0))
    # Without deblending: a source that touches another is not round, or a part of its light is missing.
    found = sep.extract(image, DETECTION_SIGMA, err=float(sigma), deblend_nthresh=1)
    is_star = (found["flag"] == 0) & (found["peak"] > PEAK_SIGMA * sigma) & (found["b"] > ROUND * found["a"])
    for x, y in zip(found["x"][is_star].tolist(), found["y"][is_star].tolist(), strict=True):
        row, column = round(y) - REACH_PX, round(x) - REACH_PX
        near = slice(max(row, 0), row + 2 * REACH_PX + 1), slice(max(column, 0), column + 2 * REACH_PX + 1)
        if image[near].shape != (2 * REACH_PX + 1, 2 * REACH_PX + 1) or spoiled[near].any():
            continue
        fwhm_px = _fwhm_px(image[near], x=x - column, y=y - row)
        if math.isfinite(fwhm_px):
            yield x, y, fwhm_px


def _fwhm_px(image: npt.NDArray[Any], *, x: float, y: float) -> float:
    """Return the full width at half maximum of a source without sky at a place in an image (y, x); NaN if its core is too small.

    The logarithm of the pixels of the core is taken for a parabola in the squared radius, as for kernels (`psf.fwhm_px`), with the central value free: no pixel need be
    centered on a star. Bright pixels count more, as their logarithms scatter less.
    """
    rows, columns = np.indices(image.shape)
    squared = np.square(rows - y) + np.square(columns - x)
    core = (image > CORE_SHARE * image.max()) & (squared < REACH_PX**2)
    if core.sum() < MIN_CORE_PX:
        return math.nan
    light = image[core].astype(np.float64)
    fit = np.polynomial.Polynomial.fit(squared[core], np.log(light), 2, w=light).convert()
    slope, bend = (*fit.coef[1:], 0.0, 0.0)[:2]
    # ln I falls by ln 2 at the squared radius s: slope s + bend s^2 = -ln 2.
    root = slope * slope - 4 * bend * math.log(2)
    half = -2 * math.log(2) / (slope - math.sqrt(root)) if root > 0 and slope < 0 else math.nan
    return 2 * math.sqrt(half) if half > 0 else math.nan
