"""The sky of a tile by nine windows spread over it: its level and its noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.flags import MaskBit
from galbatch.core.sky_noise import MIN_SKY_PIXELS, SIGMA_OF_MAD, clipped_sky
from galbatch.core.types import Plane, Tile
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.cut.tile.known import OncePerTile
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["TileNoise", "noise_of_tile", "sky_levels", "windows_px"]

DETECTED_BITS = int(MaskBit.DETECTED | MaskBit.NEGATIVE)

WINDOWS = 3
WINDOW_PX = 64
"""Three by three windows of this width are read of a tile, 37,000 pixels: their scatter is good to 1 percent where half are free of light."""

MIN_WINDOWS = 5
"""With fewer windows in which there is sky, of nine, the level of a tile is unknown."""

LEVEL_STEP = 3
"""Every third free pixel of a window tells its level: to 0.03 of the noise, less than windows differ."""

UNDETECTED_LIGHT = 0.05
"""The light of sources that nothing detects raises the level by 0.02 to 0.12 of the pixels' noise in simulated tiles and by up to 0.09 in real
images of HSC and the Legacy Surveys: such an error is added to that by the windows' scatter."""

ERROR_OF_MEDIAN = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class TileNoise:
    """The noise of a tile's sky in its own pixels: scatter from pixel to pixel in nJy, and the variance that is stated of it in nJy^2; NaN if unknown."""

    sigma_njy: float
    variance: float


@dataclass(frozen=True)
class TileLevel:
    """The level of a tile's sky, the median of its windows, and its error, in nJy a pixel of the tile; NaN if unknown."""

    level_njy: float
    error_njy: float


def windows_px(tile: Tile) -> int:
    """Return the number of pixels of the windows that are read of a tile."""
    return sum(math.prod(box.shape) for box in _windows(tile.shape_px))


def sky_levels(
    reader: TileReader, canvas: Canvas, *, tiles: frozenset[Plane]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the level of the sky about the objects and its error by their tiles, (object, band) float32, nJy a pixel of the cutouts.

    NaN: the tile that the cutout is mainly made of is not among `tiles`, by their image planes, or has too little sky.

    Raises
    ------
    TileError, OSError
        As `TileReader.read`.
    """
    found = np.full((2, *canvas.psf_fwhm_arcsec.shape), np.nan, np.float32)
    for at, tile in canvas.main_tile.items():
        if tile.image in tiles:
            sky = level_of_tile(reader, tile)
            # Light per area of the sky is the same on both grids.
            of_pixel = (canvas.spec.grid.pixel_scale_arcsec / tile.pixel_scale_arcsec) ** 2
            found[:, *at] = sky.level_njy * of_pixel, sky.error_njy * of_pixel
    return found[0], found[1]


def _free_pixels(
    reader: TileReader, tile: Tile
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Yield image and variance (pixel,) of each of nine windows of a tile, in nJy and nJy^2, where nothing was detected."""
    for box in _windows(tile.shape_px):
        pixels = reader.read(tile, box)
        free = np.isfinite(pixels.image) & ((pixels.mask & DETECTED_BITS) == 0)
        yield pixels.image[free], pixels.variance[free]


def _noise_of_tile(reader: TileReader, tile: Tile) -> TileNoise:
    values, stated = map(np.concatenate, zip(*_free_pixels(reader, tile), strict=True))
    # Without a mask, and below what the survey detects, there is light: it is clipped.
    sigma = float(clipped_sky(values)[1]) if len(values) >= MIN_SKY_PIXELS else math.nan
    stated = stated[np.isfinite(stated) & (stated > 0)]
    return TileNoise(sigma if sigma > 0 else math.nan, float(np.median(stated)) if len(stated) else math.nan)


noise_of_tile: OncePerTile[TileNoise] = OncePerTile("sky noise", _noise_of_tile)
"""Return the `TileNoise` of a tile by the files of a reader; raises as `TileReader.read`."""


def _level_of_tile(reader: TileReader, tile: Tile) -> TileLevel:
    """Return the level of the sky of a tile.

    Windows differ by the wings of galaxies and by how the sky was subtracted: their scatter is the error, not that of their pixels.
    """
    thinned = [image[::LEVEL_STEP] for image, _ in _free_pixels(reader, tile)]
    found = np.array([clipped_sky(one) for one in thinned if len(one) >= MIN_SKY_PIXELS], np.float64)
    if len(found) < MIN_WINDOWS:
        return TileLevel(math.nan, math.nan)
    levels, sigma = found[:, 0], float(np.median(found[:, 1]))
    level = float(np.median(levels))
    scatter = SIGMA_OF_MAD * float(np.median(np.abs(levels - level)))
    error = math.hypot(ERROR_OF_MEDIAN * scatter / math.sqrt(len(levels)), UNDETECTED_LIGHT * sigma)
    return TileLevel(level, error) if sigma > 0 else TileLevel(math.nan, math.nan)


level_of_tile: OncePerTile[TileLevel] = OncePerTile("sky level", _level_of_tile)
"""Return the `TileLevel` of a tile by the files of a reader; raises as `TileReader.read`."""


def _windows(shape_px: tuple[int, int]) -> list[Box]:
    """Return the windows of a tile, spread evenly; a tile that is smaller is covered by smaller ones."""
    starts = []
    for length in shape_px:
        width = min(WINDOW_PX, max(1, length // WINDOWS))
        starts.append([(round((k + 0.5) * length / WINDOWS - width / 2), width) for k in range(WINDOWS)])
    return [Box(y, y + height, x, x + width) for y, height in starts[0] for x, width in starts[1]]
