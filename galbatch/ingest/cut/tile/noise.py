"""The sky noise of a tile, from windows spread over it: for cutouts in which too few pixels are free of light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core.flags import MaskBit, SkySource
from galbatch.core.sky_noise import MIN_SKY_PIXELS, clipped_sky, in_frame, thinned
from galbatch.core.types import Tile
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["WiderSky"]

DETECTED_BITS = int(MaskBit.DETECTED | MaskBit.NEGATIVE)

WINDOWS = 3
WINDOW_PX = 64
"""Three by three windows of this width are read of a tile, 37,000 pixels: their scatter is good to 1 percent where half are free of light."""

SKY_SHARE = 0.25
"""The quantile of a cutout's variance that is the sky's: light raises the variance, and of these cutouts most pixels have some."""


@dataclass(frozen=True)
class TileNoise:
    """The sky of a tile: scatter from pixel to pixel in nJy, and the variance that is stated of it in nJy^2; NaN if unknown."""

    sigma_njy: float
    variance: float


class WiderSky:
    """The sky noise of cutouts of a block by the tiles that they were cut from; called with the cutouts in which it is unknown.

    Each value follows from the object's own tile and variance, not from the company it is cut in.
    """

    def __init__(self, reader: TileReader, canvas: Canvas) -> None:
        self._reader, self._canvas = reader, canvas
        self._frame = thinned(in_frame(canvas.spec.grid.size_px))
        self._of_tile: dict[str, TileNoise] = {}

    def __call__(
        self, unknown: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
        """Return scatter in nJy and `SkySource` of the cutouts marked in `unknown` (object, band), as they come in its order."""
        found = [self._one((int(row), int(band))) for row, band in zip(*np.nonzero(unknown), strict=True)]
        sigma, source = np.array(found, np.float64).reshape(-1, 2).T
        return sigma.astype(np.float32), source.astype(np.int8)

    def _one(self, at: tuple[int, int]) -> tuple[float, int]:
        variance = self._canvas.variance[at].reshape(-1)[self._frame]
        variance = variance[np.isfinite(variance) & (variance > 0)]
        stated = float(np.quantile(variance, SKY_SHARE)) if len(variance) >= MIN_SKY_PIXELS else math.nan
        tile = self._canvas.main_tile.get(at)
        noise = TileNoise(math.nan, math.nan) if tile is None else self._noise(tile)
        # The tile tells by how much the scatter differs from what is stated, the cutout's own variance how deep it is here, and
        # what resampling made of it.
        scaled = noise.sigma_njy * math.sqrt(stated / noise.variance)
        if math.isfinite(scaled):
            return scaled, SkySource.TILE
        if math.isfinite(noise.sigma_njy) and self._canvas.noise_correlation[at] == 1:
            return noise.sigma_njy, SkySource.TILE
        if math.isfinite(stated):
            return math.sqrt(stated), SkySource.VARIANCE
        return math.nan, SkySource.UNKNOWN

    def _noise(self, tile: Tile) -> TileNoise:
        key = f"{tile.image.path} {tile.image.hdu} {tile.image.index}"
        if key not in self._of_tile:
            self._of_tile[key] = tile_noise(self._reader, tile)
        return self._of_tile[key]


def tile_noise(reader: TileReader, tile: Tile) -> TileNoise:
    """Return the sky noise of a tile, of the pixels of nine windows in which nothing was detected.

    Raises
    ------
    TileError, OSError
        As `TileReader.read`.
    """
    image, variance = [], []
    for box in _windows(tile.shape_px):
        pixels = reader.read(tile, box)
        free = np.isfinite(pixels.image) & ((pixels.mask & DETECTED_BITS) == 0)
        image.append(pixels.image[free])
        variance.append(pixels.variance[free])
    values, stated = np.concatenate(image), np.concatenate(variance)
    # Without a mask, and below what the survey detects, there is light: it is clipped.
    sigma = float(clipped_sky(values)[1]) if len(values) >= MIN_SKY_PIXELS else math.nan
    stated = stated[np.isfinite(stated) & (stated > 0)]
    return TileNoise(sigma if sigma > 0 else math.nan, float(np.median(stated)) if len(stated) else math.nan)


def _windows(shape_px: tuple[int, int]) -> list[Box]:
    """Return the windows of a tile, spread evenly; a tile that is smaller is covered by smaller ones."""
    starts = []
    for length in shape_px:
        width = min(WINDOW_PX, max(1, length // WINDOWS))
        starts.append([(round((k + 0.5) * length / WINDOWS - width / 2), width) for k in range(WINDOWS)])
    return [Box(y, y + height, x, x + width) for y, height in starts[0] for x, width in starts[1]]
