"""Which WCS of a header is accepted: one celestial projection, with polynomial distortion or without."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from galbatch.errors import TileError

__all__ = [
    "accepted_wcs",
    "celestial_header",
    "corners_deg",
    "north_up_corners_deg",
    "parse_wcs",
    "pixel_scale_arcsec",
    "wcs_cards",
]

# The primary WCS only: alternate ones (CRVAL1A) and everything else of a header is left behind.
WCS_CARD = re.compile(
    r"^(WCSAXES|RADESYS|EQUINOX|LONPOLE|LATPOLE|(CTYPE|CRPIX|CRVAL|CUNIT|CDELT|CROTA)[12]|(CD|PC|PV)[12]_\d+"
    r"|(A|B|AP|BP)_(ORDER|\d_\d))$"
)
OLD_PC_CARD = re.compile(r"^PC00([12])00([12])$")  # before FITS standard 3.0; Pan-STARRS still writes it


def accepted_wcs(header: fits.Header, where: str) -> tuple[str, WCS]:
    """Return the celestial WCS of a header, as text for `Tile.wcs_header` and parsed.

    Raises
    ------
    TileError
        It has distortion tables, cannot be parsed, is not celestial, or has no pixel scale; `where` names the tile.
    """
    if "CPDIS1" in header or "D2IMDIS1" in header:
        raise TileError(
            f"{where}: the WCS has distortion tables (CPDIS, D2IM), which are not read; exclude it"
        )
    chosen = celestial_header(header)
    text = chosen.tostring()
    try:
        wcs = parse_wcs(text)
    except (WcsError, ValueError) as error:
        raise TileError(
            f"{where}: the WCS cannot be used ({error}); correct its cards or exclude the tile"
        ) from None
    if [name[:4] for name in wcs.wcs.ctype] != ["RA--", "DEC-"]:
        found = [header.get("CTYPE1"), header.get("CTYPE2")]
        raise TileError(
            f"{where}: no celestial WCS: CTYPE1, CTYPE2 are {found}, right ascension and declination are needed; "
            "solve the image's astrometry or exclude it"
        )
    if not math.isfinite(pixel_scale_arcsec(wcs)) or pixel_scale_arcsec(wcs) == 0:
        raise TileError(f"{where}: the WCS has no pixel scale: CD, or PC and CDELT, are missing or singular")
    return text, wcs


def wcs_cards(hdus: fits.HDUList, image: int | str) -> fits.Header:
    """Return the header that has an image's WCS: its own, or that of a primary HDU without an image, if only that has one.

    A primary HDU with an image of the image's shape passes its WCS on, too: both were written on the same pixels.
    """
    own, primary = hdus[image].header, hdus[0].header
    shape = getattr(hdus[0], "shape", None) or ()
    if "CTYPE1" in own or "CTYPE1" not in primary or (shape and shape[-2:] != hdus[image].shape[-2:]):
        return own
    return primary


def celestial_header(header: fits.Header) -> fits.Header:
    """Return the cards of the celestial WCS alone, as in `header`; old spellings become those of the standard."""
    chosen = fits.Header()
    for card in header.cards:
        key = OLD_PC_CARD.sub(r"PC\1_\2", card.keyword)
        if WCS_CARD.match(key) and key != "WCSAXES":
            chosen[key] = card.value
    return chosen


@functools.lru_cache(maxsize=4096)
def parse_wcs(header: str) -> WCS:
    """Return the WCS of a tile's `wcs_header`; its projection may be any, with or without distortion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # "RADECSYS is deprecated" and its like
        return WCS(fits.Header.fromstring(header), naxis=2)


def pixel_scale_arcsec(wcs: WCS) -> float:
    """Return the root of the pixel's area at the reference point."""
    return math.sqrt(abs(float(np.linalg.det(wcs.pixel_scale_matrix)))) * 3600.0


def corners_deg(wcs: WCS, shape_px: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Return (ra, dec) of the outer corners of the corner pixels, in order around the tile."""
    ny, nx = shape_px
    x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
    y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    ra, dec = wcs.all_pix2world(x, y, 0)
    return tuple((float(a) % 360.0, float(d)) for a, d in zip(ra, dec, strict=True))


def north_up_corners_deg(
    positions: npt.NDArray[np.float64], shape: tuple[int, int], *, crpix: Sequence[float], scale_deg: float
) -> npt.NDArray[np.float64]:
    """Return (object, 4, 2) float64, deg: the corners of stamps as `corners_deg` gives them, for all positions at once.

    Calabretta & Greisen 2002, section 5.1.3, with standard coordinates xi to the east and eta to the north.
    """
    ny, nx = shape
    x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5]) + 1.0 - crpix[0]
    y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5]) + 1.0 - crpix[1]
    xi, eta = np.deg2rad(-x * scale_deg), np.deg2rad(y * scale_deg)  # (corner,)
    ra, dec = np.deg2rad(positions[:, :1]), np.deg2rad(positions[:, 1:])  # (object, 1)
    toward = np.cos(dec) - eta * np.sin(dec)
    corner_ra = ra + np.arctan2(xi, toward)
    corner_dec = np.arctan2(np.sin(dec) + eta * np.cos(dec), np.hypot(xi, toward))
    return np.stack([np.rad2deg(corner_ra) % 360.0, np.rad2deg(corner_dec)], axis=-1)
