"""The tiles of which a partition measures facts: large ones, from which it cuts so many objects that this adds little."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from galbatch.core.types import Grid, ObjectTable, Plane, Tile
from galbatch.ingest.cut.tile.sky import windows_px
from galbatch.ingest.cut.tile.stars import strips_px
from galbatch.ingest.tiles import Footprint

__all__ = ["DenseTiles", "n_cutouts"]

MIN_TILE_PX = 640
"""Smaller tiles, such as stamps, hold too few stars (the strips would be the whole), and their sky is that of the galaxy in them."""

MOST_READ = 0.25
"""Strips or windows hold at most this share of the pixels that a partition's cutouts take from the tile: of sparse objects they would be most of what is
read. Of 16 cutouts of 96 px, with which the windows begin, one at least needs the tile's noise nearly always, so that they are read anyway."""


@dataclass(frozen=True)
class DenseTiles:
    """The image planes of the tiles in which stars are looked for, and of those of which the level of the sky is measured."""

    stars: frozenset[Plane] = frozenset()
    sky: frozenset[Plane] = frozenset()

    @classmethod
    def large(cls, tiles: Sequence[Tile]) -> DenseTiles:
        """Return all tiles that are large enough."""
        found = frozenset(tile.image for tile in tiles if min(tile.shape_px) >= MIN_TILE_PX)
        return cls(found, found)

    @classmethod
    def of(cls, objects: ObjectTable, tiles: Sequence[Tile], *, grid: Grid) -> DenseTiles:
        """Return the large tiles from which so many of the objects are cut that reading strips, or windows, adds little to them."""
        # Small partitions have too few objects in all; only others load what finds the tile of each.
        bound = dict.fromkeys((tile.image for tile in tiles), len(objects))
        found = cls.large(tiles)._among(tiles, bound, grid=grid)
        return found._among(tiles, n_cutouts(objects, tiles), grid=grid) if found.sky else found

    def _among(self, tiles: Sequence[Tile], n_of_tile: Mapping[Plane, int], *, grid: Grid) -> DenseTiles:
        """Return those of which strips and windows are a small part of what the cutouts read, of which each tile has `n_of_tile`."""

        def dense(read_px: Callable[[Tile], int]) -> frozenset[Plane]:
            return frozenset(
                tile.image
                for tile in tiles
                if read_px(tile) <= MOST_READ * _cutout_px(tile, grid) * n_of_tile[tile.image]
            )

        return DenseTiles(self.stars & dense(strips_px), self.sky & dense(windows_px))


def _cutout_px(tile: Tile, grid: Grid) -> float:
    """Return the number of pixels of a tile under a cutout."""
    return float((grid.size_px * grid.pixel_scale_arcsec / tile.pixel_scale_arcsec) ** 2)


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
