"""The sky noise of cutouts in which too few pixels are free of light: that of their tile, or what the survey states."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from galbatch.core.flags import SkySource
from galbatch.core.sky_noise import MIN_SKY_PIXELS, in_frame, thinned
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.cut.tile.sky import UNKNOWN_SKY, sky_of_tile
from galbatch.ingest.pixels import TileReader

__all__ = ["WiderSky"]

SKY_SHARE = 0.25
"""The quantile of a cutout's variance that is the sky's: light raises the variance, and of these cutouts most pixels have some."""


class WiderSky:
    """The sky noise of cutouts of a block by the tiles that they were cut from; called with the cutouts in which it is unknown.

    Each value follows from the object's own tile and variance, not from the company it is cut in.
    """

    def __init__(self, reader: TileReader, canvas: Canvas) -> None:
        self._reader, self._canvas = reader, canvas
        self._frame = thinned(in_frame(canvas.spec.grid.size_px))

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
        of_tile = UNKNOWN_SKY if tile is None else sky_of_tile(self._reader, tile)
        # The tile tells by how much the scatter differs from what is stated, the cutout's own variance how deep it is here, and
        # what resampling made of it.
        scaled = of_tile.sigma_njy * math.sqrt(stated / of_tile.variance)
        if math.isfinite(scaled):
            return scaled, SkySource.TILE
        if math.isfinite(of_tile.sigma_njy) and self._canvas.noise_correlation[at] == 1:
            return of_tile.sigma_njy, SkySource.TILE
        if math.isfinite(stated):
            return math.sqrt(stated), SkySource.VARIANCE
        return math.nan, SkySource.UNKNOWN
