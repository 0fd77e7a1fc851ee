"""Pixel lattices: which tiles share pixels, and where sky positions fall on them.

Tiles whose WCS differ only by whole pixels (the patches of a tract, cutouts of one brick) lie on one
lattice. Its key is made from the WCS itself, so a wrong tract number in a file name cannot lie. A tile in another
frame than ICRS has its lattice in ICRS too, turned.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core import sky
from galbatch.core.types import Grid, Tile
from galbatch.ingest.headers.wcs import SkyWCS, parse_wcs

__all__ = [
    "SCALE_TOLERANCE_PX",
    "TanWCS",
    "is_plain_lattice",
    "lattice_key",
    "pixels_coincide",
    "plain_key",
    "tan_wcs",
    "tile_tan",
]

PLAIN = "tan:"
WARPED = "warped:"


SCALE_TOLERANCE_PX = 0.05
"""How far a tile's pixels may drift from those of a grid over the whole cutout, by their scale alone."""

# By pixels that are not square, axes that are not at right angles, or the wrong parity, at the cutout's corner; and, for
# two tiles, by any difference of their CD matrices. A TAN tract's own curvature is 0.026 px there, 0.85 deg from its
# center: a tile is compared with a grid by its CD, two tiles where the cutout is, as both curve alike.
SHAPE_TOLERANCE_PX = 0.02

CORNERS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
"""The corners of a square about its center, (corner, axis) in halves of its width."""


def lattice_key(header: str) -> str:
    """Return the key that tiles share when their pixels lie on one lattice; `header` is as in `Tile.wcs_header`.

    Rounded so that 4 microarcseconds in CRVAL, 1e-9 in CD and 1e-4 px in CRPIX make no difference: below
    1e-4 px over the 4e4 px of a tract. A WCS with distortion, another projection than TAN, or in FK4 shares its
    lattice with its equal only.
    """
    tan = _icrs_tan(header)
    if tan is None:
        return WARPED + hashlib.sha256(header.encode()).hexdigest()[:16]
    return plain_key(tan.crval, tan.cd, tan.crpix)


def plain_key(crval: npt.ArrayLike, cd: npt.ArrayLike, crpix: npt.ArrayLike) -> str:
    """Return the `lattice_key` of an undistorted TAN projection: deg (ra, dec), deg/px (2, 2), FITS pixel (x, y)."""
    ra, dec = np.asarray(crval, np.float64)
    # Relative to the scale: one program's CD1_2 = 0 is another's 1e-21. Adding 0.0 turns -0.0 into 0.0.
    elements = np.asarray(cd, np.float64)
    scale = math.sqrt(abs(float(np.linalg.det(elements))))
    matrix = ",".join(f"{round(value, 9) + 0.0:.9f}" for value in (elements / scale).ravel().tolist())
    # Twice modulo 1, as 0.99999 is rounded to 1, which is the fraction 0.
    fraction = [round(float(value) % 1.0, 4) % 1.0 for value in np.asarray(crpix, np.float64)]
    return f"{PLAIN}{ra % 360.0:.9f},{dec:.9f};{scale:.9e}:{matrix};{fraction[0]:.4f},{fraction[1]:.4f}"


def is_plain_lattice(tile: Tile) -> bool:
    """Return whether the tile's pixels can be copied: an undistorted TAN projection."""
    return tile.grid_key.startswith(PLAIN)


@dataclass(frozen=True, slots=True)
class TanWCS:
    """An undistorted TAN projection in ICRS.

    Attributes
    ----------
    crpix : FITS (1-based) reference pixel (x, y)
    crval : (ra, dec) of the reference point, deg
    cd : (2, 2) float64, deg/px, (toward east or north, along x or y)
    """

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: npt.NDArray[np.float64]

    def astropy(self) -> WCS:
        """Return the same projection as an astropy WCS."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crpix = self.crpix
        wcs.wcs.crval = self.crval
        wcs.wcs.cd = self.cd
        wcs.wcs.set()
        return wcs

    def sky(self) -> SkyWCS:
        """Return the same projection with positions in ICRS."""
        return SkyWCS(self.astropy())

    def fits_grid(self, grid: Grid) -> bool:
        """Return whether these pixels are a grid's, whatever their rotation, so that they can be copied onto it."""
        # A matrix of a scaled rotation after the mirroring of east to the left is (a -b, b a); c and d are what is left.
        (m00, m01), (m10, m11) = self.cd @ np.diag([-1.0, 1.0]) * 3600.0 / grid.pixel_scale_arcsec
        scale = math.hypot(m00 + m11, m10 - m01) / 2.0
        rest = math.hypot(m00 - m11, m10 + m01) / 2.0
        to_corner_px = grid.size_px / math.sqrt(2.0)
        return (
            abs(scale - 1.0) * grid.size_px <= SCALE_TOLERANCE_PX
            and rest * to_corner_px <= SHAPE_TOLERANCE_PX
        )


def pixels_coincide(
    first: Tile, second: Tile, *, at: tuple[float, float], shift: tuple[float, float], size_px: int
) -> bool:
    """Return whether pixels of two tiles on plain lattices differ by whole pixels over a cutout, so that both can be copied into it.

    Parameters
    ----------
    at : 0-based pixel (x, y) of the cutout's object on `first`
    shift : (x, y) of the object on `second` minus that on `first`; NaN beyond the horizon
    size_px : width of the cutout
    """
    if first.grid_key == second.grid_key:
        return True
    # Most tiles of other lattices end here: where their pixels lie between those of the first is a matter of chance.
    if not math.hypot(*(value - np.rint(value) for value in shift)) <= SHAPE_TOLERANCE_PX:
        return False
    corners = np.array(at) + 1.0 + size_px / 2.0 * CORNERS  # FITS pixels
    mapped = np.column_stack([corners, np.ones(4)]) @ _homography(first.wcs_header, second.wcs_header).T
    strayed = mapped[:, :2] / mapped[:, 2:] - corners - shift
    return bool(np.hypot(*strayed.T).max() <= SHAPE_TOLERANCE_PX)


@functools.lru_cache(maxsize=4096)
def _homography(first: str, second: str) -> npt.NDArray[np.float64]:
    """Return the (3, 3) matrix that takes FITS pixels (x, y, 1) of one TAN projection to those of another, but for a factor.

    A gnomonic projection is a perspective view, so two of them differ by a projective map.
    """
    (to_plane, axes), (other_to_plane, other_axes) = _perspective(first), _perspective(second)
    return np.asarray(np.linalg.inv(other_to_plane) @ other_axes @ axes.T @ to_plane)


def _perspective(header: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the matrix of (x, y, 1) to standard coordinates (xi, eta, 1), rad, and their axes in ICRS, each (3, 3)."""
    tan = _icrs_tan(header)
    assert tan is not None
    cd = np.radians(tan.cd)
    to_plane = np.vstack([np.column_stack([cd, -cd @ tan.crpix]), [0.0, 0.0, 1.0]])
    return to_plane, np.vstack([_east_north(*tan.crval), sky.unit_vectors(*tan.crval)])


def tan_wcs(ra_deg: float, dec_deg: float, *, scale_arcsec: float, center_px: int) -> TanWCS:
    """Return a projection with north up, east left, and (ra, dec) exactly on the 0-based pixel (`center_px`, `center_px`)."""
    scale_deg = scale_arcsec / 3600.0
    cd = np.array([[-scale_deg, 0.0], [0.0, scale_deg]])
    return TanWCS((center_px + 1.0, center_px + 1.0), (ra_deg, dec_deg), cd)


def tile_tan(tile: Tile) -> TanWCS:
    """Return the WCS of a tile on a plain lattice, in ICRS whatever the tile's own frame."""
    tan = _icrs_tan(tile.wcs_header)
    assert tan is not None
    return tan


@functools.lru_cache(maxsize=4096)
def _icrs_tan(header: str) -> TanWCS | None:
    """Return the WCS of a header as an undistorted TAN projection in ICRS; None if it is none."""
    wcs, cards = parse_wcs(header), fits.Header.fromstring(header)
    # From the cards: astropy presents TPV as TAN without parameters, its distortion hidden in wcslib.
    projections = {str(cards.get(key, "")).strip()[5:] for key in ("CTYPE1", "CTYPE2")}
    distorted = any(re.match(r"PV\d_|(A|B)_ORDER", key) for key in cards)
    axes = [wcs.wcs.wcs.lng, wcs.wcs.wcs.lat]
    crpix = (float(wcs.wcs.wcs.crpix[0]), float(wcs.wcs.wcs.crpix[1]))
    crval, cd = wcs.wcs.wcs.crval[axes], wcs.wcs.pixel_scale_matrix[axes]
    # The standard's own value, which TanWCS stands for: 0 if the reference point is the north pole.
    usual = 0.0 if crval[1] >= 90.0 else 180.0
    if projections != {"TAN"} or distorted or abs(wcs.wcs.wcs.lonpole - usual) >= 1e-9:
        return None
    if wcs.frame is None:
        return TanWCS(crpix, (float(crval[0]), float(crval[1])), cd)
    if wcs.frame.rotation is None or crval[1] >= 90.0:
        return None
    # A gnomonic projection is one in every rotated frame; north at its reference point is another direction there.
    ra, dec = wcs.frame.to_icrs(*crval)
    own = _east_north(*crval) @ wcs.frame.rotation.T  # (east or north, xyz) in ICRS
    return TanWCS(crpix, (float(ra), float(dec)), _east_north(float(ra), float(dec)) @ own.T @ cd)


def _east_north(longitude_deg: float, latitude_deg: float) -> npt.NDArray[np.float64]:
    """Return the unit vectors to the east and to the north at a position, (2, xyz) float64."""
    east = sky.unit_vectors(longitude_deg + 90.0, 0.0)
    return np.stack([east, np.cross(sky.unit_vectors(longitude_deg, latitude_deg), east)])
