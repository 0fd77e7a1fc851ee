"""Tiles near objects, and tiles that cover them, found from corners alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from galbatch.core import sky
from galbatch.core.types import ObjectTable, Tile

__all__ = ["Footprint", "tiles_near"]

ROUNDING_RAD = 1e-9
"""0.2 mas: covers the rounding of chords."""

MAX_PAIRS = 100_000
"""Up to this number all distances are computed, 2.4 MB at a time: a block of 256 objects and its tiles need no tree, whose package
takes a worker 0.3 s to import."""

PIECE_OBJECTS = 1 << 18
"""Objects that `Footprint.covering` handles at a time: with their vectors and distances about 30 MB."""

Floats = npt.NDArray[np.float64]


def tiles_near(objects: ObjectTable, tiles: Sequence[Tile], *, radius_deg: float) -> list[int]:
    """Return the indices of the tiles that may touch a circle of `radius_deg` about any object.

    May name a tile too many (tiles count as circles about their corners), never one too few. No I/O.
    """
    if not len(objects) or not tiles:
        return []
    near = _near(_vectors(objects), _Circles.about(_corners(tiles)), radius_deg=radius_deg)
    return [int(index) for index in np.flatnonzero(near)]


class Footprint:
    """The tiles of a survey, prepared for many searches.

    Tiles with the same corners (the bands of a patch) are one **place**. Places are numbered along HEALPix, so
    those of a partition have neighboring numbers.

    Attributes
    ----------
    n_places : distinct places
    place : (tile,) the place of each tile
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        corners = _corners(tiles)
        flat = corners.reshape(len(tiles), 8)
        # Equal to the bit: the bands of a patch have the same WCS cards, and corners are computed from these alone.
        _, first, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
        rank = _along_healpix(_Circles.about(corners[first]).centers)
        renumbered = np.empty_like(rank)
        renumbered[rank] = np.arange(len(rank))
        self.place: npt.NDArray[np.intp] = renumbered[inverse.reshape(-1)]
        self.n_places = len(first)
        self._edges = _inner_sides(corners[first][rank])  # (place, edge, 3)
        self._circles = _Circles.about(corners[first][rank])
        self._layers = _layers(self._circles)
        by_place = np.argsort(self.place, kind="stable")
        starts = np.searchsorted(self.place[by_place], np.arange(self.n_places + 1))
        self._tiles_of = (by_place, starts)

    def near(self, objects: ObjectTable, *, radius_deg: float) -> list[int]:
        """Return the same as `tiles_near`, by a search of the trees first: a partition has few of a survey's tiles near it."""
        if not len(objects) or not self.n_places:
            return []
        vectors = _vectors(objects)
        # Two steps: a circle about all objects finds the few tiles near the partition, then each is compared with the objects.
        center, cap_rad = _cap(vectors)
        reach_rad = cap_rad + math.radians(radius_deg) + 2 * ROUNDING_RAD
        places = np.concatenate([layer.within(center, reach_rad) for layer in self._layers])
        touched = places[_near(vectors, self._circles.at(places), radius_deg=radius_deg)]
        by_place, starts = self._tiles_of
        return sorted(int(t) for place in touched for t in by_place[starts[place] : starts[place + 1]])

    def covering(self, ra_deg: Floats, dec_deg: Floats) -> npt.NDArray[np.int32]:
        """Return the place that covers each position, that of the nearest center; -1 where none does.

        Edges count as arcs of great circles, which they are on TAN tiles.

        Parameters
        ----------
        ra_deg, dec_deg : (object,) float64, deg

        Returns
        -------
        (object,) int32
        """
        result = np.full(len(ra_deg), -1, np.int32)
        if not self.n_places:
            return result
        tree = scipy.spatial.cKDTree(self._circles.centers)
        for start in range(0, len(ra_deg), PIECE_OBJECTS):
            rows = slice(start, start + PIECE_OBJECTS)
            vectors = sky.unit_vectors(ra_deg[rows], dec_deg[rows])
            _, nearest = tree.query(vectors)
            found = np.where(self._covers(nearest, vectors), nearest, -1)
            # Few are left: on a mosaic of like tiles the nearest center is that of a tile that covers the position.
            for layer in self._layers:
                left = np.flatnonzero(found < 0)
                found[left] = self._first_covering(vectors[left], layer)
            result[rows] = found
        return result

    def _first_covering(self, vectors: Floats, layer: _Layer) -> npt.NDArray[np.intp]:
        """Return the place of the layer that covers each position and has the nearest center; -1 where none covers it."""
        candidates = layer.tree.query_ball_point(vectors, _chord(layer.radius_rad + ROUNDING_RAD))
        counts = np.fromiter(map(len, candidates), np.intp, len(vectors))
        result = np.full(len(vectors), -1, np.intp)
        if not counts.any():
            return result
        rows = np.repeat(np.arange(len(vectors)), counts)
        places = layer.places[np.concatenate([c for c in candidates if c]).astype(np.intp)]
        covers = self._covers(places, vectors[rows])
        rows, places = rows[covers], places[covers]
        cosines = np.einsum("cx,cx->c", self._circles.centers[places], vectors[rows])
        # Written last wins: the nearest center, of equals the first place.
        rank = np.lexsort((-places, cosines))
        result[rows[rank]] = places[rank]
        return result

    def _covers(self, places: npt.NDArray[np.intp], vectors: Floats) -> npt.NDArray[np.bool_]:
        sides = np.einsum("cex,cx->ce", self._edges[places], vectors)
        return (sides >= -ROUNDING_RAD).all(axis=1)


@dataclass(frozen=True, slots=True)
class _Circles:
    """Circles on the sphere.

    Attributes
    ----------
    centers : (circle, 3) unit vectors
    radii_rad : (circle,)
    """

    centers: Floats
    radii_rad: Floats

    @classmethod
    def about(cls, corners_deg: Floats) -> _Circles:
        """Return the circles about tiles through their farthest corners; `corners_deg` is (tile, corner, 2)."""
        vectors = _corner_vectors(corners_deg)
        centers = vectors.mean(axis=1)
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
        cosines = np.einsum("tcx,tx->tc", vectors, centers)
        return cls(centers, np.arccos(np.clip(cosines.min(axis=1, initial=1.0), -1.0, 1.0)))

    def at(self, index: npt.NDArray[np.intp]) -> _Circles:
        return _Circles(self.centers[index], self.radii_rad[index])


@dataclass(frozen=True, slots=True)
class _Layer:
    """Places of similar size. A search among them reaches as far as the largest of them needs, not the largest of all."""

    places: npt.NDArray[np.intp]
    tree: scipy.spatial.cKDTree
    radius_rad: float

    def within(self, center: Floats, reach_rad: float) -> npt.NDArray[np.intp]:
        """Return the places that a circle of `reach_rad` about `center` (3,) may touch."""
        found = self.tree.query_ball_point(center, _chord(reach_rad + self.radius_rad))
        return self.places[np.asarray(found, np.intp)]


def _layers(circles: _Circles) -> list[_Layer]:
    """Return the places sorted into layers, one for each factor of 2 in the radius of their circles."""
    # 1e-12 rad: a tile whose corners fall together has no radius, and log2(0) no layer.
    octave = np.floor(np.log2(np.maximum(circles.radii_rad, 1e-12)))
    layers = []
    for value in np.unique(octave):
        places = np.flatnonzero(octave == value)
        layers.append(
            _Layer(
                places, scipy.spatial.cKDTree(circles.centers[places]), float(circles.radii_rad[places].max())
            )
        )
    return layers


def _corners(tiles: Sequence[Tile]) -> Floats:
    return np.array([tile.corners_deg for tile in tiles], np.float64).reshape(len(tiles), 4, 2)


def _corner_vectors(corners_deg: Floats) -> Floats:
    ra, dec = corners_deg[..., 0].ravel(), corners_deg[..., 1].ravel()
    return sky.unit_vectors(ra, dec).reshape(len(corners_deg), 4, 3)  # (tile, corner, 3)


def _vectors(objects: ObjectTable) -> Floats:
    return sky.unit_vectors(objects.ra_deg, objects.dec_deg)


def _nearest_chords(vectors: Floats, centers: Floats) -> Floats:
    """Return the straight distance from each center to the nearest of the vectors, (center,) float64."""
    if len(vectors) * len(centers) > MAX_PAIRS:
        # One search a center instead of one a pair.
        return np.asarray(scipy.spatial.cKDTree(vectors).query(centers)[0])
    squares = ((vectors[np.newaxis] - centers[:, np.newaxis]) ** 2).sum(axis=2)  # (center, vector)
    return np.asarray(np.sqrt(squares.min(axis=1)))


def _near(vectors: Floats, circles: _Circles, *, radius_deg: float) -> npt.NDArray[np.bool_]:
    """Return whether each circle lies within `radius_deg` of any of the positions, (circle,) bool."""
    if not len(circles.radii_rad):
        return np.zeros(0, np.bool_)
    # The nearest position of each circle decides.
    chords = _nearest_chords(vectors, circles.centers)
    distance_rad = 2.0 * np.arcsin(np.clip(chords / 2.0, 0.0, 1.0))
    return distance_rad <= circles.radii_rad + math.radians(radius_deg) + ROUNDING_RAD


def _cap(vectors: Floats) -> tuple[Floats, float]:
    """Return a circle that holds all positions: its center, a unit vector, and its radius in rad."""
    mean = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-3:  # distributed over the whole sphere
        return np.array([0.0, 0.0, 1.0]), math.pi
    center = mean / length
    farthest = float(np.linalg.norm(vectors - center, axis=1).max())
    return center, 2.0 * math.asin(min(farthest / 2.0, 1.0))


def _chord(angle_rad: float) -> float:
    return 2.0 * math.sin(min(angle_rad, math.pi) / 2.0)


def _inner_sides(corners_deg: Floats) -> Floats:
    """Return the unit normals of the planes through each edge, (place, edge, 3), pointing to the center's side."""
    vectors = _corner_vectors(corners_deg)
    normals = np.cross(vectors, np.roll(vectors, -1, axis=1))
    lengths = np.linalg.norm(normals, axis=2, keepdims=True)
    # Corners that fall together (at a pole) have an edge without length, whose normal stays 0: it excludes nothing.
    normals = normals / np.where(lengths > 0, lengths, 1.0)
    center = vectors.mean(axis=1)
    return normals * np.sign(np.einsum("pex,px->pe", normals, center))[..., None]


def _along_healpix(centers: Floats) -> npt.NDArray[np.intp]:
    """Return the indices that sort unit vectors (center, 3) along the HEALPix index."""
    if not len(centers):
        return np.zeros(0, np.intp)
    return np.argsort(sky.healpix_29(*sky.position_deg(centers)), kind="stable")
