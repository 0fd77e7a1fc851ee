"""Pixel lattices: which tiles share pixels, and where sky positions fall on them.

Tiles whose WCS differ only by whole pixels (the patches of a tract, cutouts of one brick) lie on one
lattice. Its key is made from the WCS itself, so a wrong tract number in a file name cannot lie.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from galbatch.core.types import Tile
from galbatch.ingest.headers.wcs import parse_wcs

__all__ = [
    "TanWCS",
    "is_plain_lattice",
    "lattice_key",
    "plain_key",
    "tan_wcs",
    "tile_tan",
]

PLAIN = "tan:"
WARPED = "warped:"


def lattice_key(header: str) -> str:
    """Return the key that tiles share when their pixels lie on one lattice; `header` is as in `Tile.wcs_header`.

    Rounded so that 4 microarcseconds in CRVAL, 1e-9 in CD and 1e-4 px in CRPIX make no difference: below
    1e-4 px over the 4e4 px of a tract. A WCS with distortion or another projection than TAN shares its
    lattice with its equal only.
    """
    wcs, cards = parse_wcs(header), fits.Header.fromstring(header)
    # From the cards: astropy presents TPV as TAN without parameters, its distortion hidden in wcslib.
    projections = [str(cards.get(key, "")).strip() for key in ("CTYPE1", "CTYPE2")]
    distorted = any(re.match(r"PV\d_|(A|B)_ORDER", key) for key in cards)
    lonpole = wcs.wcs.lonpole
    # The standard's own value, which TanWCS stands for: 0 if the reference point is the north pole.
    usual = 0.0 if wcs.wcs.crval[1] >= 90.0 else 180.0
    upright = not math.isfinite(lonpole) or abs(lonpole - usual) < 1e-9
    if projections == ["RA---TAN", "DEC--TAN"] and not distorted and upright:
        return plain_key(wcs.wcs.crval, wcs.pixel_scale_matrix, wcs.wcs.crpix)
    return WARPED + hashlib.sha256(header.encode()).hexdigest()[:16]


def plain_key(crval: npt.ArrayLike, cd: npt.ArrayLike, crpix: npt.ArrayLike) -> str:
    """Return the `lattice_key` of an undistorted TAN projection: deg (ra, dec), deg/px (2, 2), FITS pixel (x, y)."""
    ra, dec = np.asarray(crval, np.float64)
    # Adding 0.0 turns -0.0 into 0.0: the two are one matrix and would be two texts.
    matrix = ",".join(f"{value + 0.0:.9e}" for value in np.asarray(cd, np.float64).ravel())
    # Twice modulo 1, as 0.99999 is rounded to 1, which is the fraction 0.
    fraction = [round(float(value) % 1.0, 4) % 1.0 for value in np.asarray(crpix, np.float64)]
    return f"{PLAIN}{ra % 360.0:.9f},{dec:.9f};{matrix};{fraction[0]:.4f},{fraction[1]:.4f}"


def is_plain_lattice(tile: Tile) -> bool:
    """Return whether the tile's pixels can be copied: an undistorted TAN projection."""
    return tile.grid_key.startswith(PLAIN)


@dataclass(frozen=True, slots=True)
class TanWCS:
    """An undistorted TAN projection.

    Attributes
    ----------
    crpix : FITS (1-based) reference pixel (x, y)
    crval : (ra, dec) of the reference point, deg
    cd : (2, 2) float64, deg/px
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


def tan_wcs(ra_deg: float, dec_deg: float, *, scale_arcsec: float, center_px: int) -> TanWCS:
    """Return a projection with north up, east left, and (ra, dec) exactly on the 0-based pixel (`center_px`, `center_px`)."""
    scale_deg = scale_arcsec / 3600.0
    cd = np.array([[-scale_deg, 0.0], [0.0, scale_deg]])
    return TanWCS((center_px + 1.0, center_px + 1.0), (ra_deg, dec_deg), cd)


def tile_tan(tile: Tile) -> TanWCS:
    """Return the WCS of a tile on a plain lattice."""
    wcs = parse_wcs(tile.wcs_header)
    crpix, crval = wcs.wcs.crpix, wcs.wcs.crval
    return TanWCS(
        (float(crpix[0]), float(crpix[1])), (float(crval[0]), float(crval[1])), wcs.pixel_scale_matrix
    )
