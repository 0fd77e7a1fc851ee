"""The PSF of a tile by its own stars: their width beside what the survey states at their places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import numpy.typing as npt
import sep

from galbatch.core.fingerprint import digest
from galbatch.core.flags import MaskBit
from galbatch.core.sky_noise import MIN_SKY_PIXELS, clipped_sky
from galbatch.core.types import Grid, ObjectTable, Plane, Tile
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.cut.psf import psf_fwhm_at, psf_window
from galbatch.ingest.pixels import Box, TileReader
from galbatch.ingest.tiles import Footprint

__all__ = ["dense_tiles", "large_tiles", "n_cutouts", "psf_of_stars"]

STRIPS, STRIP_PX = (2, 0, 4, 1, 3), 128
"""Numbers of five strips of this height spread over a tile, in the order in which they are looked at, until the stars are enough. They are as wide as the
tile, as most files are stored row by row; of an HSC patch they are a seventh, 21 arcmin^2, which hold some 20 stars off the plane of the Milky Way."""

PART_PX = 1024
"""A strip is looked at in parts of this width, each with a sky of its own."""

MIN_TILE_PX = len(STRIPS) * STRIP_PX
"""Smaller tiles, such as stamps, hold too few stars, and would be read a second time for them."""

MOST_READ = 0.25
"""The strips hold at most this share of the pixels that a partition's cutouts take from the tile: of sparse objects they would be most of what is read."""

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

MOST_KNOWN = 1000
"""The number of tiles whose widths a process keeps. Partitions are neighbors, so that a worker goes on to other tiles."""

_KNOWN_WIDTHS: dict[str, float] = {}

Floats = npt.NDArray[np.float64]


def psf_of_stars(reader: TileReader, canvas: Canvas, *, dense_tiles: Set[Plane]) -> npt.NDArray[np.float32]:
    """Return the PSF's full width at half maximum at the objects by the stars of their tiles, (object, band) float32, arcsec.

    What is measured is by how much the stars of a tile are wider than stated where they stand; the width at an object is that
    times what its tile states there, or the stars' own where a tile states nothing. NaN: too few stars tell it, or the tile is
    not among `dense_tiles`, by their image planes.

    Raises
    ------
    TileError, OSError
        As `TileReader.read`.
    """
    result = np.full(canvas.psf_fwhm_arcsec.shape, np.nan, np.float32)
    for at, tile in canvas.main_tile.items():
        if tile.image not in dense_tiles:
            continue
        if tile.image not in reader.star_widths:
            reader.star_widths[tile.image] = _known_width(reader, tile)
        unit = canvas.psf_fwhm_arcsec[at] if _states_psf(tile) else 1.0
        result[at] = reader.star_widths[tile.image] * unit
    return result


def large_tiles(tiles: Sequence[Tile]) -> frozenset[Plane]:
    """Return the image planes of tiles that are large enough to hold stars."""
    return frozenset(tile.image for tile in tiles if min(tile.shape_px) >= MIN_TILE_PX)


def dense_tiles(objects: ObjectTable, tiles: Sequence[Tile], *, grid: Grid) -> frozenset[Plane]:
    """Return the image planes of large tiles from which so many of the objects are cut that reading stars adds little to them."""
    # Small partitions have too few objects in all; only others load what finds the tile of each.
    bound = dict.fromkeys((tile.image for tile in tiles), len(objects))
    left = large_tiles(tiles) & _dense(tiles, bound, grid=grid)
    return left & _dense(tiles, n_cutouts(objects, tiles), grid=grid) if left else left


def _dense(tiles: Sequence[Tile], n_of_tile: Mapping[Plane, int], *, grid: Grid) -> frozenset[Plane]:
    """Return the image planes of tiles whose strips are a small part of what the cutouts read, of which each tile has `n_of_tile`."""

    def is_dense(tile: Tile) -> bool:
        cutout_px = (grid.size_px * grid.pixel_scale_arcsec / tile.pixel_scale_arcsec) ** 2
        strips_px = len(STRIPS) * STRIP_PX * tile.shape_px[1]
        return strips_px <= MOST_READ * cutout_px * n_of_tile[tile.image]

    return frozenset(tile.image for tile in tiles if is_dense(tile))


def n_cutouts(objects: ObjectTable, tiles: Sequence[Tile]) -> dict[Plane, int]:
    """Return how many cutouts are mainly made of each tile, by its image plane."""
    counts: dict[Plane, int] = {}
    for band in {tile.band for tile in tiles}:
        of_band = [tile for tile in tiles if tile.band == band]
        footprint = Footprint(of_band)
        # (object,) place, -1 where no tile covers it
        covering = footprint.covering(objects.ra_deg, objects.dec_deg)
        of_place = np.bincount(covering[covering >= 0], minlength=footprint.n_places)
        counts |= {
            tile.image: int(of_place[place]) for tile, place in zip(of_band, footprint.place, strict=True)
        }
    return counts


def _states_psf(tile: Tile) -> bool:
    return tile.psf is not None or math.isfinite(tile.psf_fwhm_arcsec)


def _known_width(reader: TileReader, tile: Tile) -> float:
    """Return the width of a tile's stars, which a process measures once for all partitions that take cutouts from the tile."""
    if tile.identity is None:
        return _width_of_stars(reader, tile)
    # With all that is stated of the tile; its identity is that of its files.
    key = digest(repr(tile))
    if key not in _KNOWN_WIDTHS:
        if len(_KNOWN_WIDTHS) >= MOST_KNOWN:
            _KNOWN_WIDTHS.clear()
        _KNOWN_WIDTHS[key] = _width_of_stars(reader, tile)
    return _KNOWN_WIDTHS[key]


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
