"""The PSF's width at an object: from its list, the survey's map, or the tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galbatch.core.types import ObjectTable, Tile
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["listed_or", "psf_fwhm_at", "psf_window"]


def psf_fwhm_at(reader: TileReader, tile: Tile, *, x: float, y: float) -> float:
    """Return the FWHM in arcsec at a pixel of the tile (0-based); NaN if unknown.

    From the tile's map, at the nearest of its pixels where the position lies outside the tile; the tile's one
    width where the map has none (Legacy Surveys' psfsize is 0 without exposures) or there is no map.

    Raises
    ------
    TileError, OSError
        As `TileReader.read`.
    """
    if tile.psf is None:
        return tile.psf_fwhm_arcsec
    width = float(reader.window(tile, tile.psf, box=psf_window(tile, x=x, y=y))[0, 0])
    return width if np.isfinite(width) and width > 0 else tile.psf_fwhm_arcsec


def psf_window(tile: Tile, *, x: float, y: float) -> Box:
    """Return the one pixel of the tile's map that `psf_fwhm_at` reads."""
    ny, nx = tile.shape_px
    row, column = int(np.clip(round(y), 0, ny - 1)), int(np.clip(round(x), 0, nx - 1))
    return Box(row, row + 1, column, column + 1)


def listed_or(
    found: npt.NDArray[np.float32], objects: ObjectTable, *, bands: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Return the PSF widths in arcsec, (object, band) float32: those of the object list, and `found` where it has none."""
    result = found.copy()
    for index, band in enumerate(bands):
        if band in objects.psf_fwhm_arcsec:
            listed = objects.psf_fwhm_arcsec[band]
            result[:, index] = np.where(np.isfinite(listed), listed, found[:, index])
    return result
