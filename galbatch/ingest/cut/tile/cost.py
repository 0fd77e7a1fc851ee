"""The cost of cutting from a tile: the windows of its cutouts, and what tells its sky."""

from __future__ import annotations

from galbatch.core.types import Tile
from galbatch.ingest.cut.tile.dense import is_large
from galbatch.ingest.cut.tile.sky import sky_strips
from galbatch.ingest.pixels import ReadCost, tile_read_cost

__all__ = ["cutting_cost"]


def cutting_cost(tile: Tile, *, n_windows: int, size_px: int) -> ReadCost:
    """Return the cost of reading what `n_windows` cutouts of `size_px` pixels of the tile take from it.

    Of a large tile that is also the strips that tell its sky; of a small one they are read for few cutouts, and are not counted.
    """
    strips = [box.shape for box in sky_strips(tile.shape_px)] if is_large(tile) else []
    return tile_read_cost(tile, n_windows=n_windows, size_px=size_px, strips=strips)
