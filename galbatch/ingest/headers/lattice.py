"""Pixel lattices: which tiles share pixels, and where sky positions fall on them.

Tiles whose WCS differ only by whole pixels (the patches of a tract, cutouts of one brick) lie on one
lattice. Its key is made from the WCS itself, so a wrong tract number in a file name cannot lie.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from galbatch.core.types import Tile

__all__ = [
    "TanWCS",
    "celestial_header",
    "corners_deg",
    "is_plain_lattice",
    "lattice_key",
    "parse_wcs",
    "pixel_scale_arcsec",
    "plain_key",
    "tan_wcs",
    "tile_tan",
]

PLAIN = "tan:"
WARPED = "warped:"

# The primary WCS only: alternate ones (CRVAL1A) and everything else of a header is left behind.
WCS_CARD = re.compile(
    r"^(WCSAXES|RADESYS|EQUINOX|LONPOLE|LATPOLE|(CTYPE|CRPIX|CRVAL|CUNIT|CDELT|CROTA)[12]|(CD|PC|PV)[12]_\d+"
    r"|(A|B|AP|BP)_(ORDER|\d_\d))$"
)
OLD_PC_CARD = re.compile(r"^PC00([12])00([12])$")  # before FITS standard 3.0; Pan-STARRS still writes it


def celestial_header(header: fits.Header) -> fits.Header:
    """The cards of the celestial WCS alone, as they stand in `header`; old spellings are brought up to date."""
    chosen = fits.Header()
    for card in header.cards:
        key = OLD_PC_CARD.sub(r"PC\1_\2", card.keyword)
        if WCS_CARD.match(key) and key != "WCSAXES":
            chosen[key] = card.value
    return chosen


@functools.lru_cache(maxsize=4096)
def parse_wcs(header: str) -> WCS:
    """The WCS of a tile's `wcs_header`; its projection may be any, with or without distortion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # "RADECSYS is deprecated" and its like
        return WCS(fits.Header.fromstring(header), naxis=2)


def is_celestial(wcs: WCS) -> bool:
    """Whether the axes are right ascension and declination, in that order."""
    return [name[:4] for name in wcs.wcs.ctype] == ["RA--", "DEC-"]


def pixel_scale_arcsec(wcs: WCS) -> float:
    """Root of the pixel's area at the reference point."""
    return math.sqrt(abs(float(np.linalg.det(wcs.pixel_scale_matrix)))) * 3600.0


def corners_deg(wcs: WCS, shape_px: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """(ra, dec) of the outer corners of the corner pixels, in order around the tile."""
    ny, nx = shape_px
    x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
    y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    ra, dec = wcs.all_pix2world(x, y, 0)
    return tuple((float(a) % 360.0, float(d)) for a, d in zip(ra, dec, strict=True))


def lattice_key(header: str) -> str:
    """Key that tiles share when their pixels lie on one lattice; `header` is as in `Tile.wcs_header`.

    Rounded so that 4 microarcseconds in CRVAL, 1e-9 in CD and 1e-4 px in CRPIX make no difference: below
    1e-4 px over the 4e4 px of a tract. A WCS with distortion or another projection than TAN shares its
    lattice with its equal only.
    """
    wcs = parse_wcs(header)
    if not _is_plain_tan(fits.Header.fromstring(header), wcs):
        return WARPED + hashlib.sha256(header.encode()).hexdigest()[:16]
    return plain_key(wcs.wcs.crval, wcs.pixel_scale_matrix, wcs.wcs.crpix)


def plain_key(crval: npt.ArrayLike, cd: npt.ArrayLike, crpix: npt.ArrayLike) -> str:
    """`lattice_key` of an undistorted TAN projection: deg (ra, dec), deg/px (2, 2), FITS pixel (x, y)."""
    ra, dec = np.asarray(crval, np.float64)
    matrix = ",".join(f"{value + 0.0:.9e}" for value in np.asarray(cd, np.float64).ravel())
    fraction = [round(float(value) % 1.0, 4) % 1.0 for value in np.asarray(crpix, np.float64)]
    return f"{PLAIN}{ra % 360.0:.9f},{dec:.9f};{matrix};{fraction[0]:.4f},{fraction[1]:.4f}"


def _is_plain_tan(header: fits.Header, wcs: WCS) -> bool:
    """From the cards: astropy presents TPV as TAN without parameters, its distortion hidden in wcslib."""
    projections = [str(header.get(key, "")).strip() for key in ("CTYPE1", "CTYPE2")]
    distorted = any(re.match(r"PV\d_|(A|B)_ORDER", key) for key in header)
    lonpole = wcs.wcs.lonpole
    # The standard's own value, which TanWCS stands for: 0 if the reference point is the north pole.
    usual = 0.0 if wcs.wcs.crval[1] >= 90.0 else 180.0
    upright = not math.isfinite(lonpole) or abs(lonpole - usual) < 1e-9
    return projections == ["RA---TAN", "DEC--TAN"] and not distorted and bool(upright)


def is_plain_lattice(tile: Tile) -> bool:
    """Whether the tile's pixels can be copied: an undistorted TAN projection."""
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
        """The same as astropy's WCS."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crpix = self.crpix
        wcs.wcs.crval = self.crval
        wcs.wcs.cd = self.cd
        wcs.wcs.set()
        return wcs


def tan_wcs(ra_deg: float, dec_deg: float, *, scale_arcsec: float, center_px: int) -> TanWCS:
    """North up, east left, with (ra, dec) exactly on the 0-based pixel (`center_px`, `center_px`)."""
    scale_deg = scale_arcsec / 3600.0
    cd = np.array([[-scale_deg, 0.0], [0.0, scale_deg]])
    return TanWCS((center_px + 1.0, center_px + 1.0), (ra_deg, dec_deg), cd)


def tile_tan(tile: Tile) -> TanWCS:
    """The WCS of a tile on a plain lattice."""
    wcs = parse_wcs(tile.wcs_header)
    crpix, crval = wcs.wcs.crpix, wcs.wcs.crval
    return TanWCS(
        (float(crpix[0]), float(crpix[1])), (float(crval[0]), float(crval[1])), wcs.pixel_scale_matrix
    )
