"""The sky of a tile by three strips spread over it: its noise and its level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.flags import MaskBit
from galbatch.core.sky_noise import MIN_SKY_PIXELS, SIGMA_OF_MAD, clipped_sky
from galbatch.core.types import Tile
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.cut.tile.dense import is_large
from galbatch.ingest.cut.tile.known import OncePerTile
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["UNKNOWN_SKY", "TileSky", "sky_levels", "sky_of_tile", "sky_strips"]

DETECTED_BITS = int(MaskBit.DETECTED | MaskBit.NEGATIVE)

STRIPS, PARTS = 3, 3
"""Three strips as wide as the tile are read, as most files are stored row by row, and each is looked at in three parts."""

MIN_STRIP_PX = 8

PART_PIXELS = 4096
"""Strips are so high that a part holds as many pixels, and no more of them are looked at: the scatter of nine is good to 1 percent where half are free of
light, and the level of one to 0.02 of the noise, less than parts differ."""

MIN_PARTS = 5
"""With fewer parts in which there is sky, of nine, the level of a tile is unknown."""

UNDETECTED_LIGHT = 0.05
"""The light of sources that nothing detects raises the level by 0.02 to 0.12 of the pixels' noise in simulated tiles and by up to 0.11 in real
images of HSC and the Legacy Surveys: such an error is added to that by the parts' scatter."""

LIGHT_SIGMAS = 3.0
"""Pixels that are brighter by this many times the scatter hold light, detected or not."""

WINGS = 2.0
"""Where light covers most of a tile, every part holds wings of it. In simulated tiles that are covered to 40 to 90 percent, the level is 1.9 times (0.8 to
3.3) the square of the share with light, in the pixels' noise: this many times the square is added to the error."""

ERROR_OF_MEDIAN = math.sqrt(math.pi / 2)


@dataclass(frozen=True)
class TileSky:
    """The sky of a tile, in its own pixels; NaN: unknown.

    Attributes
    ----------
    sigma_njy : scatter from pixel to pixel, in nJy
    variance : what is stated of it, in nJy^2
    level_njy : level, the median of the parts, in nJy a pixel
    level_err_njy : error of the level, in nJy a pixel
    """

    sigma_njy: float = math.nan
    variance: float = math.nan
    level_njy: float = math.nan
    level_err_njy: float = math.nan


UNKNOWN_SKY = TileSky()


def sky_levels(reader: TileReader, canvas: Canvas) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the level of the sky about the objects and its error by their tiles, (object, band) float32, nJy a pixel of the cutouts.

    It is measured however few objects are cut from a tile: it decides a flag, which must not follow from the company in which an
    object is cut. NaN: the tile that the cutout is mainly made of is small, so that its sky is that of the galaxy in it, or has too
    little sky.

    Raises
    ------
    TileError, OSError
        As `TileReader.read`.
    """
    found = np.full((2, *canvas.psf_fwhm_arcsec.shape), np.nan, np.float32)
    for at, tile in canvas.main_tile.items():
        if is_large(tile):
            sky = sky_of_tile(reader, tile)
            # Light per area of the sky is the same on both grids.
            of_pixel = (canvas.spec.grid.pixel_scale_arcsec / tile.pixel_scale_arcsec) ** 2
            found[:, *at] = sky.level_njy * of_pixel, sky.level_err_njy * of_pixel
    return found[0], found[1]


def sky_strips(shape_px: tuple[int, int]) -> list[Box]:
    """Return the strips that are read of a tile of `shape_px` (y, x), spread evenly."""
    ny, nx = shape_px
    height = min(max(1, ny // STRIPS), max(MIN_STRIP_PX, math.ceil(PARTS * PART_PIXELS / nx)))
    starts = [round((k + 0.5) * ny / STRIPS - height / 2) for k in range(STRIPS)]
    return [Box(y, y + height, 0, nx) for y in starts]


def _sky_of_tile(reader: TileReader, tile: Tile) -> TileSky:
    """Return the sky of a tile; raises as `TileReader.read`."""
    parts = list(_free_pixels(reader, tile))
    image, stated = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "variance")
    )
    # Without a mask, and below what the survey detects, there is light: it is clipped.
    sigma = float(clipped_sky(image)[1]) if len(image) >= MIN_SKY_PIXELS else 0.0
    stated = stated[np.isfinite(stated) & (stated > 0)]
    level = _level(parts)
    return TileSky(
        sigma if sigma > 0 else math.nan, float(np.median(stated)) if len(stated) else math.nan, *level
    )


sky_of_tile: OncePerTile[TileSky] = OncePerTile("sky", _sky_of_tile)
"""Return the `TileSky` of a tile by the files of a reader; raises as `TileReader.read`."""


@dataclass(frozen=True)
class _Part:
    """The pixels of one of nine parts of a tile in which nothing was detected.

    Attributes
    ----------
    image, variance : (pixel,) float32, in nJy and nJy^2
    free_share : share of them among all pixels that have data; NaN where none has
    """

    image: npt.NDArray[np.float32]
    variance: npt.NDArray[np.float32]
    free_share: float

    def dark_share(self, level: float, sigma: float) -> float:
        """Return the share of the part in which there is no light above the sky of this level and scatter."""
        if not len(self.image):
            return self.free_share
        return self.free_share * float(np.mean(self.image < level + LIGHT_SIGMAS * sigma))


def _free_pixels(reader: TileReader, tile: Tile) -> Iterator[_Part]:
    """Yield the nine parts of a tile."""
    strips = sky_strips(tile.shape_px)
    reader.prefetch(tile, strips)
    for box in strips:
        pixels = reader.read(tile, box)
        has_data = np.isfinite(pixels.image)
        planes = (pixels.image, pixels.variance, has_data, has_data & ((pixels.mask & DETECTED_BITS) == 0))
        for image, variance, has, is_free in zip(
            *(np.array_split(p, PARTS, axis=1) for p in planes), strict=True
        ):
            step = math.ceil(is_free.sum() / PART_PIXELS) or 1
            share = is_free.sum() / has.sum() if has.any() else math.nan
            yield _Part(image[is_free][::step], variance[is_free][::step], float(share))


def _level(parts: list[_Part]) -> tuple[float, float]:
    """Return the level of the sky by the parts of a tile, and its error.

    Parts differ by the wings of galaxies and by how the sky was subtracted: their scatter is the error, not that of their pixels.
    In a crowded tile they agree on a level that is light.
    """
    found = np.array(
        [clipped_sky(one.image) for one in parts if len(one.image) >= MIN_SKY_PIXELS], np.float64
    )
    if len(found) < MIN_PARTS:
        return math.nan, math.nan
    levels, sigma = found[:, 0], float(np.median(found[:, 1]))
    level = float(np.median(levels))
    scatter = SIGMA_OF_MAD * float(np.median(np.abs(levels - level)))
    with_light = 1.0 - float(np.nanmedian([part.dark_share(level, sigma) for part in parts]))
    of_light = math.hypot(UNDETECTED_LIGHT, WINGS * with_light**2)
    error = math.hypot(ERROR_OF_MEDIAN * scatter / math.sqrt(len(levels)), of_light * sigma)
    return (level, error) if sigma > 0 else (math.nan, math.nan)
