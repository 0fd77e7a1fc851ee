"""The tiles of which a partition measures facts: large ones; stars are looked for where so many objects are cut that this adds little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from galbatch.core.types import Grid, ObjectTable, Plane, Tile
from galbatch.ingest.cut.tile.stars import strips_px
from galbatch.ingest.tiles import Footprint

__all__ = ["dense_tiles", "is_large", "large_tiles", "n_cutouts"]

MIN_TILE_PX = 640
"""Smaller tiles, such as stamps, hold too few stars (the strips would be the whole), and their sky is that of the galaxy in them."""

MOST_READ = 0.25
"""Strips hold at most this share of the pixels that a partition's cutouts take from the tile: of sparse objects they would be most of what is read."""


def is_large(tile: Tile) -> bool:
    """Return whether a tile is large enough to hold stars, and sky beyond one galaxy's light."""
    return min(tile.shape_px) >= MIN_TILE_PX


def large_tiles(tiles: Sequence[Tile]) -> frozenset[Plane]:
    """Return the image planes of large tiles."""
    return frozenset(tile.image for tile in tiles if is_large(tile))


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
        return bool(strips_px(tile) <= MOST_READ * cutout_px * n_of_tile[tile.image])

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
