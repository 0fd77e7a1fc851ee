"""The PSF's width at an object: from its list, the survey's map or kernel images, or the tile."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galbatch.core.types import ObjectTable, Plane, PsfCells, Tile
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["fwhm_px", "listed_or", "psf_fwhm_at", "psf_window"]

NEAR_HALF = (0.2, 0.85)
"""Values of a kernel, as shares of its central one, by which its width is told: at a FWHM of 2.5 px those of eight pixels."""


def psf_fwhm_at(reader: TileReader, tile: Tile, *, x: float, y: float) -> float:
    """Return the FWHM in arcsec at a pixel of the tile (0-based); NaN if unknown.

    From the tile's map, or the kernel image of the cell, at the nearest of its pixels where the position lies outside the
    tile; the tile's one width where the map has none (Legacy Surveys' psfsize is 0 without exposures) or there is no map.

    Raises
    ------
    TileError, OSError
        As `TileReader.read`.
    """
    if tile.psf is None:
        return tile.psf_fwhm_arcsec
    if tile.psf_cells is not None:
        plane = dataclasses.replace(tile.psf, index=_cell_at(tile.psf_cells, x=x, y=y))
        width = _kernel_fwhm_arcsec(reader, tile, plane)
    else:
        width = float(reader.window(tile, tile.psf, box=psf_window(tile, x=x, y=y))[0, 0])
    return width if np.isfinite(width) and width > 0 else tile.psf_fwhm_arcsec


def _cell_at(cells: PsfCells, *, x: float, y: float) -> tuple[int, int]:
    """Return the number (y, x) of the cell at a pixel, the nearest one where there is none."""
    place = zip((y, x), cells.first_px, cells.cell_px, cells.n_cells, strict=True)
    row, column = (int(np.clip((round(at) - first) // size, 0, n - 1)) for at, first, size, n in place)
    return row, column


def _kernel_fwhm_arcsec(reader: TileReader, tile: Tile, plane: Plane) -> float:
    """Return the FWHM of a cell's kernel image, measured once for all objects in the cell."""
    assert tile.psf_cells is not None
    if plane not in reader.kernel_fwhm_px:
        height, width = tile.psf_cells.kernel_px
        kernel = reader.window(tile, plane, box=Box(0, height, 0, width))
        reader.kernel_fwhm_px[plane] = fwhm_px(np.asarray(kernel, np.float64))
    return reader.kernel_fwhm_px[plane] * tile.pixel_scale_arcsec


def fwhm_px(kernel: npt.NDArray[np.float64]) -> float:
    """Return the full width in px at half of the central value of a kernel image (y, x); NaN if it has none.

    The center is the pixel (y // 2, x // 2), on which kernels are centered. The logarithm of the values about half of it is taken
    for a parabola in the squared radius: exact for a Gaussian, within 1 percent for a Moffat, and averaged over the angle.
    """
    center = tuple(length // 2 for length in kernel.shape)
    if not np.isfinite(kernel).all() or kernel[center] <= 0:
        return math.nan
    share = kernel / kernel[center]
    y, x = np.indices(kernel.shape)
    squared = (y - center[0]) ** 2 + (x - center[1]) ** 2  # (y, x), px^2
    near_half = (share > NEAR_HALF[0]) & (share < NEAR_HALF[1])
    radii = np.unique(squared[near_half])
    if radii.size < 2:
        return math.nan
    fit = np.polynomial.Polynomial.fit(np.log(share[near_half]), squared[near_half], min(2, radii.size - 1))
    half = float(fit(math.log(0.5)))
    return 2.0 * math.sqrt(half) if half > 0 else math.nan


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
