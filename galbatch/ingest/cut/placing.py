"""The place of each cutout, and the tiles it is made from; no pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.core import sky
from galbatch.core.fingerprint import digest
from galbatch.core.types import Grid, ObjectTable, Tile
from galbatch.ingest.cut.psf import psf_fwhm_at
from galbatch.ingest.headers import TanWCS, is_plain_lattice, parse_wcs, pixels_coincide, tan_wcs, tile_tan
from galbatch.ingest.pixels import Box, TileReader

__all__ = ["Arrangement", "PlacedTile", "Target", "arrange", "place_tiles", "tile_identity"]


def tile_identity(tile: Tile) -> list[object]:
    """Return what tells a tile from another version of it: id, band, size and version of its files, calibration and PSF."""
    # Paths are left out, so that a survey may be moved.
    identity = tile.identity and [tile.identity.size_bytes, tile.identity.version]
    return [tile.tile_id, tile.band, identity, tile.njy_per_unit, tile.psf_fwhm_arcsec]


@dataclass(frozen=True, slots=True)
class PlacedTile:
    """A tile and where the block's objects fall on it.

    Attributes
    ----------
    x, y : (object,) float64, 0-based pixels; NaN beyond the projection's horizon
    inside : (object,) float64, pixels to the nearest edge; negative outside
    copies : whether the tile's pixels can be copied onto the grid
    reach_px : half the cutout's diagonal in the tile's pixels: farther outside it touches no cutout
    identity : digest of what tells the tile from another version of it
    """

    tile: Tile
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    inside: npt.NDArray[np.float64]
    copies: bool
    reach_px: float
    identity: bytes

    def psf_fwhm_arcsec(self, reader: TileReader, index: int) -> float:
        """Return the PSF's width at an object; NaN if unknown."""
        return psf_fwhm_at(reader, self.tile, x=self.x[index], y=self.y[index])


def place_tiles(objects: ObjectTable, tiles: Sequence[Tile], *, grid: Grid) -> list[PlacedTile]:
    """Return the tiles with the positions of all objects on them.

    One transformation per lattice serves all its tiles: they differ by whole pixels.
    """
    # By lattice: the WCS of its first tile here, and all objects' positions on that, x and y (object,).
    on_lattice: dict[str, tuple[TanWCS, npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    placed = []
    for tile in tiles:
        is_plain = is_plain_lattice(tile)
        shift = (0, 0)
        if is_plain and tile.grid_key in on_lattice:
            first, x, y = on_lattice[tile.grid_key]
            tan = tile_tan(tile)
            # CRPIX of one tract's patches differ by whole pixels; rounding takes away what the header's digits lost.
            shift = (round(tan.crpix[0] - first.crpix[0]), round(tan.crpix[1] - first.crpix[1]))
        else:
            x, y = parse_wcs(tile.wcs_header).to_pixels(objects.ra_deg, objects.dec_deg)
            if is_plain:
                on_lattice[tile.grid_key] = (tile_tan(tile), x, y)
        placed.append(
            _placed(
                tile,
                (x + shift[0], y + shift[1]),
                grid=grid,
                copies=is_plain and tile_tan(tile).fits_grid(grid),
            )
        )
    return placed


def _placed(
    tile: Tile,
    position: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    *,
    grid: Grid,
    copies: bool,
) -> PlacedTile:
    """Return the tile with its objects' distances from the edges; `position` is x and y, (object,) float64."""
    x, y = position
    ny, nx = tile.shape_px
    # Half a pixel more, as a pixel's area reaches that far beyond its center.
    inside = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y)) + 0.5
    # The extra 2 px are for rounding to whole pixels and for interpolation.
    reach_px = grid.size_px * grid.pixel_scale_arcsec / _narrowest_arcsec(tile) / math.sqrt(2.0) + 2.0
    identity = digest(tile_identity(tile)).encode()
    return PlacedTile(tile, x, y, np.nan_to_num(inside, nan=-np.inf), copies, reach_px, identity)


def _narrowest_arcsec(tile: Tile) -> float:
    """Return the least width of a pixel along the tile's edges: a plate carrée's at 60 deg is half of what CD says."""
    ny, nx = tile.shape_px
    corners = sky.unit_vectors(*np.transpose(tile.corners_deg))  # (corner, 3)
    chords = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    widths = np.degrees(2.0 * np.arcsin(chords / 2.0)) * 3600.0 / (nx, ny, nx, ny)
    # An edge at a pole has no length and says nothing of the pixels near it: a tenth of CD's width is taken then.
    narrowest = float(np.fmin.reduce(widths, initial=tile.pixel_scale_arcsec))  # NaN beyond a horizon
    return max(narrowest, 0.1 * tile.pixel_scale_arcsec)


@dataclass(frozen=True, slots=True)
class Target:
    """A cutout's place: its WCS and, if it is cut from a lattice, a tile of that and the cutout's first pixel.

    `origin` is (x, y) of the cutout's first pixel in `home`'s pixels.
    """

    wcs: TanWCS
    home: PlacedTile | None = None
    origin: tuple[int, int] = (0, 0)

    def box_in(self, placed: PlacedTile, index: int, *, size_px: int) -> Box | None:
        """Return the cutout in the tile's pixels; None if the tile has other pixels than `home` there."""
        home = self.home
        if home is None or not is_plain_lattice(placed.tile):
            return None
        dx, dy = placed.x[index] - home.x[index], placed.y[index] - home.y[index]
        at = (home.x[index], home.y[index])
        if not pixels_coincide(home.tile, placed.tile, at=at, shift=(dx, dy), size_px=size_px):
            return None
        x0, y0 = self.origin[0] + round(dx), self.origin[1] + round(dy)
        return Box(y0, y0 + size_px, x0, x0 + size_px)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The place of a cutout, and the tiles it is made from.

    Attributes
    ----------
    target : its place
    sources : for each band the tiles that touch it, the best first
    tile_id : the tile that covers its center best, in the first band that has one; "" if there is none
    """

    target: Target
    sources: tuple[list[PlacedTile], ...]
    tile_id: str


def arrange(
    placed: Sequence[PlacedTile], index: int, *, objects: ObjectTable, grid: Grid, bands: Sequence[str]
) -> Arrangement:
    """Choose the place and the tiles of the cutout of the object `index`."""
    near = [p for p in placed if p.inside[index] > -p.reach_px]
    # The tile id decides between tiles that are as far inside, so that a cutout never depends on the order of files.
    near.sort(key=lambda p: (-p.inside[index], p.tile.tile_id))
    by_band = [[p for p in near if p.tile.band == band] for band in bands]
    covering = [p for of_band in by_band for p in of_band if p.inside[index] >= 0]
    position = float(objects.ra_deg[index]), float(objects.dec_deg[index])
    # A lattice whose tiles touch the cutout without covering its center is taken when no tile at all covers it.
    candidates = [
        p for of_band in by_band for p in of_band if p.copies and (p.inside[index] >= 0 or not covering)
    ]
    target = _target(candidates, index, position=position, grid=grid)
    for of_band in by_band:
        # Exact copies first: a stable sort keeps the order within both kinds.
        of_band.sort(key=lambda p: target.box_in(p, index, size_px=grid.size_px) is None)
    return Arrangement(target, tuple(by_band), covering[0].tile.tile_id if covering else "")


def _target(homes: Sequence[PlacedTile], index: int, *, position: tuple[float, float], grid: Grid) -> Target:
    """Return the place on the lattice of the first of `homes`; without any, on a grid of the cutout's own, north up."""
    if not homes:
        ra, dec = position
        return Target(tan_wcs(ra, dec, scale_arcsec=grid.pixel_scale_arcsec, center_px=grid.center_px))
    home = homes[0]
    # The pixel that holds the position becomes the central one: np.round would send half of the ties the other way.
    x0 = int(np.floor(home.x[index] + 0.5)) - grid.center_px
    y0 = int(np.floor(home.y[index] + 0.5)) - grid.center_px
    tan = tile_tan(home.tile)
    return Target(TanWCS((tan.crpix[0] - x0, tan.crpix[1] - y0), tan.crval, tan.cd), home, (x0, y0))
