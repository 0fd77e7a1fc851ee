"""The area of a run's footprint under its masks, and random points that are distributed evenly in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import execution, ingest
from galbatch.config import RunConfig
from galbatch.core import sky
from galbatch.core.columns import DEC, RA
from galbatch.core.pixels import HEALPIX_ORDER
from galbatch.core.types import Tile
from galbatch.errors import UsageError
from galbatch.objects import Region, SkyMaps, write_parquet

__all__ = ["Area", "area_of_run"]

CELLS_OF_TILE_PX = 8
"""Cells that a tile is covered by are about an eighth as wide as the tile, so that few of the points drawn lie outside."""

POINTS_AT_ONCE = 500_000
"""Points that are looked up at a time; each takes some 200 bytes."""

SQUARE_DEG = (180.0 / np.pi) ** 2
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Area:
    """The area of a footprint, and random points in it.

    Attributes
    ----------
    square_deg : area that the tiles cover in every band, in ``[objects] region`` and where the masks want objects, in square degrees
    error_square_deg : standard error of the area, from the number of points
    unmasked_square_deg : the same area without the masks
    n_drawn : number of points that were drawn in the cells about the tiles
    points : ra_deg, dec_deg of the points that are in the area, and what the maps say there
    """

    square_deg: float
    error_square_deg: float
    unmasked_square_deg: float
    n_drawn: int
    points: pa.Table

    def write(self, path: str) -> None:
        """Write the points as Parquet, with the area in the file's metadata."""
        stated = {
            "area_square_deg": f"{self.square_deg:.9g}",
            "area_error_square_deg": f"{self.error_square_deg:.3g}",
        }
        write_parquet(path, self.points.replace_schema_metadata(stated))


def area_of_run(config: RunConfig, *, n_points: int, seed: int) -> Area:
    """Return the area of a run's footprint under its masks, measured by random points.

    The footprint is that of the tiles' outlines in all bands of the run; pixels without data within them are not looked at.

    Parameters
    ----------
    config : RunConfig
        ``[survey]``, ``[objects] region``, ``[[masks]]`` and ``[extinction]`` are read.
    n_points : int
        Number of points to draw about the tiles; those in the area are kept.
    seed : int

    Raises
    ------
    UsageError
        There are no tiles, or a mask cannot be read.
    """
    tiles = execution.tiles_of_run(config)
    if not tiles:
        raise UsageError("galbatch area: [survey] tiles names no tile")
    region, maps = execution.region_of_run(config), SkyMaps.open(config.extinction, config.masks)
    cells, order = _cells(tiles)
    rng = np.random.default_rng([seed, n_points])
    footprints = [ingest.Footprint([tile for tile in tiles if tile.band == band]) for band in config.bands]
    kept: list[tuple[Floats, Floats]] = []
    n_covered = 0
    for start in range(0, n_points, POINTS_AT_ONCE):
        ra, dec = _drawn(cells, order, min(POINTS_AT_ONCE, n_points - start), rng)
        inside = _covered(footprints, region, ra, dec)
        n_covered += int(inside.sum())
        good = maps.is_good(ra[inside], dec[inside])
        kept.append((ra[inside][good], dec[inside][good]))
    ra, dec = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    cells_area = len(cells) * 4 * np.pi * SQUARE_DEG / (12 * 4**order)
    share = len(ra) / n_points
    return Area(
        share * cells_area,
        float(np.sqrt(share * (1 - share) / n_points)) * cells_area,
        n_covered / n_points * cells_area,
        n_points,
        _table(ra, dec, maps),
    )


def _covered(
    footprints: Sequence[ingest.Footprint], region: Region | None, ra: Floats, dec: Floats
) -> npt.NDArray[np.bool_]:
    """Return which positions tiles of every band cover, in the region, (position,) bool."""
    inside = np.ones(len(ra), np.bool_) if region is None else region.contains(ra, dec)
    for footprint in footprints:
        inside &= footprint.covering(ra, dec) >= 0
    return inside


def _cells(tiles: Sequence[Tile]) -> tuple[npt.NDArray[np.int64], int]:
    """Return the NESTED HEALPix pixels that may touch a tile, and their order."""
    side_deg = min(max(tile.shape_px) * tile.pixel_scale_arcsec / 3600.0 for tile in tiles)
    # A pixel of order k is 58.6 / 2^k deg wide.
    order = int(np.clip(np.ceil(np.log2(58.6 * CELLS_OF_TILE_PX / side_deg)), 0, 20))
    found = []
    for corners, radius_arcsec in {(tile.corners_deg, _radius_arcsec(tile)) for tile in tiles}:
        ra, dec = np.array(corners, np.float64).T
        center = sky.unit_vectors(ra, dec).mean(axis=0)
        (middle_ra,), (middle_dec,) = sky.position_deg(center[None])
        found.append(sky.cone_pixels(middle_ra, middle_dec, radius_arcsec=radius_arcsec, healpix_order=order))
    return np.unique(np.concatenate(found)).astype(np.int64), order


def _radius_arcsec(tile: Tile) -> float:
    """Return the radius of a circle about a tile; a hundredth more for what a projection bends."""
    return 1.01 * float(np.hypot(*tile.shape_px)) / 2 * tile.pixel_scale_arcsec


def _drawn(
    cells: npt.NDArray[np.int64], order: int, n_points: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return positions drawn evenly in the cells: centers of pixels of order 29, which have equal areas and are 0.4 mas wide."""
    bits = 2 * (HEALPIX_ORDER - order)
    chosen = rng.choice(cells, n_points) << bits
    return sky.pixel_centers_deg(HEALPIX_ORDER, chosen + rng.integers(0, 1 << bits, n_points))


def _table(ra: Floats, dec: Floats, maps: SkyMaps) -> pa.Table:
    columns = maps.columns(ra, dec)
    fields = [pa.field(one.name, pa.float64(), metadata={"unit": "deg", "ucd": one.ucd}) for one in (RA, DEC)]
    schema = pa.schema([*fields, *(described for described, _ in columns)])
    return pa.table([pa.array(ra), pa.array(dec), *(values for _, values in columns)], schema=schema)
