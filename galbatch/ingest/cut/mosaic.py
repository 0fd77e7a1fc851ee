"""One band of one cutout, filled from tiles: exact copies first, then resampled pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from galbatch.core.flags import PixelFlag
from galbatch.core.types import Tile
from galbatch.ingest.cut.canvas import Canvas
from galbatch.ingest.cut.placing import PlacedTile, Target
from galbatch.ingest.cut.resample import resample
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["fill_band"]


def fill_band(
    canvas: Canvas, target: Target, *, reader: TileReader, sources: Sequence[PlacedTile], at: tuple[int, int]
) -> int | None:
    """Fill one band of one cutout from `sources`, each where pixels are still NaN.

    Return the number of tiles after which no pixel was missing; None where some stayed missing.

    Parameters
    ----------
    target : the cutout's place
    sources : tiles of the band, the best first
    at : numbers of the object and the band
    """
    if _read_whole(canvas, target, reader=reader, sources=sources, at=at):
        return 1
    canvas.begin(at)
    index = at[0]
    used: list[PlacedTile] = []
    n_filled_by = None
    for number, source in enumerate(sources, 1):
        box = target.box_in(source, index, size_px=canvas.spec.grid.size_px)
        if box is not None:
            n_new, correlation = _copy(canvas, at, reader=reader, tile=source.tile, box=box), 1.0
        else:
            n_new, correlation = _resample(canvas, at, reader=reader, tile=source.tile, target=target)
            canvas.flags[index] |= PixelFlag.RESAMPLED if n_new else 0
        if n_new:
            # The largest of the parts: noise is rather over- than understated. fmax passes over the NaN of the beginning.
            canvas.noise_correlation[at] = np.fmax(canvas.noise_correlation[at], correlation)
            used.append(source)
        # Covered entirely: the tiles that are left would add nothing.
        if not np.isnan(canvas.image[at]).any():
            n_filled_by = number
            break
    if used:
        # Exact copies come first, and may be of a corner alone: the PSF is that of the tile about the center.
        main = max(used, key=lambda source: source.inside[index])
        canvas.psf_fwhm_arcsec[at] = main.psf_fwhm_arcsec(reader, index)
        canvas.main_tile[at] = main.tile
    canvas.flags[index] |= PixelFlag.MOSAICKED if len(used) > 1 else 0
    canvas.tiles_used[index] |= {source.tile.tile_id for source in used}
    return n_filled_by


def _read_whole(
    canvas: Canvas, target: Target, *, reader: TileReader, sources: Sequence[PlacedTile], at: tuple[int, int]
) -> bool:
    """Read the band straight into the canvas if the best tile holds it whole; False if pixels are missing."""
    if not sources:
        return False
    best = sources[0].tile
    box = target.box_in(sources[0], at[0], size_px=canvas.spec.grid.size_px)
    if box is None or box.clipped(best.shape_px) != box:
        return False
    # Most cutouts end here: no pixel is copied twice, and no map of missing pixels is made.
    if reader.read_into(best, box, out=canvas.pixels(at)):
        canvas.psf_fwhm_arcsec[at] = sources[0].psf_fwhm_arcsec(reader, at[0])
        canvas.noise_correlation[at] = 1.0
        canvas.tiles_used[at[0]].add(best.tile_id)
        canvas.main_tile[at] = best
        return True
    return False


def _copy(canvas: Canvas, at: tuple[int, int], *, reader: TileReader, tile: Tile, box: Box) -> int:
    """Copy pixels from `box` of the tile, which may reach over its edges; return the number of pixels newly covered."""
    inside = box.clipped(tile.shape_px)
    if inside.is_empty:
        return 0
    return canvas.add(at, box=inside.shifted(-box.y0, -box.x0), pixels=reader.read(tile, inside))


def _resample(
    canvas: Canvas, at: tuple[int, int], *, reader: TileReader, tile: Tile, target: Target
) -> tuple[int, float]:
    """Add resampled pixels; return the number of pixels newly covered, and their noise correlation."""
    size_px = canvas.spec.grid.size_px
    found = resample(reader, tile, target=target.wcs, size_px=size_px, resampling=canvas.spec.resampling)
    if found is None:
        return 0, np.nan
    return canvas.add(at, box=Box(0, size_px, 0, size_px), pixels=found.pixels), found.noise_correlation
