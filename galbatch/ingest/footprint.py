"""Which tiles lie near which objects, from corners alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from galbatch import sky
from galbatch.types import ObjectTable, Tile

__all__ = ["tiles_near"]


def tiles_near(objects: ObjectTable, tiles: Sequence[Tile], *, radius_deg: float) -> list[int]:
    """Indices of the tiles that may touch a circle of `radius_deg` about any object.

    May name a tile too many (tiles count as circles about their corners), never one too few. No I/O.
    """
    if not len(objects) or not tiles:
        return []
    centers, radii_rad = _circles(tiles)
    tree = cKDTree(sky.unit_vectors(objects.ra_deg, objects.dec_deg))
    chords, _ = tree.query(centers)
    distance_rad = 2.0 * np.arcsin(np.clip(chords / 2.0, 0.0, 1.0))
    # 1e-9 rad (0.2 mas) covers the rounding of chords.
    near = distance_rad <= radii_rad + np.deg2rad(radius_deg) + 1e-9
    return [int(index) for index in np.flatnonzero(near)]


def _circles(tiles: Sequence[Tile]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Circles through the tiles' corners: (tile, 3) unit vectors of the centers, (tile,) radii in rad."""
    corners = np.array([tile.corners_deg for tile in tiles])  # (tile, corner, 2)
    ra, dec = corners[..., 0].ravel(), corners[..., 1].ravel()
    vectors = sky.unit_vectors(ra, dec).reshape(len(tiles), 4, 3)  # (tile, corner, 3)
    centers = vectors.mean(axis=1)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    cosines = np.einsum("tcx,tx->tc", vectors, centers)
    return centers, np.arccos(np.clip(cosines.min(axis=1), -1.0, 1.0))
