"""Which WCS of a header is accepted: one celestial projection, with polynomial distortion or without, in any frame."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, WcsError

from galbatch.errors import TileError
from galbatch.ingest.headers.frames import Frame, frame_cards, frame_of

__all__ = [
    "SkyWCS",
    "accepted_wcs",
    "corners_deg",
    "north_up_corners_deg",
    "parse_wcs",
    "pixel_scale_arcsec",
    "wcs_cards",
]

# The primary WCS only: alternate ones (CRVAL1A) and everything else of a header is left behind. PROJP holds the
# parameters that are now PV2.
WCS_CARD = re.compile(
    r"^(LONPOLE|LATPOLE|(CTYPE|CRPIX|CRVAL|CUNIT|CDELT|CROTA)[12]|(CD|PC|PV)[12]_\d+|PROJP\d"
    r"|(A|B|AP|BP)_(ORDER|\d_\d))$"
)
OLD_PC_CARD = re.compile(r"^PC00([12])00([12])$")  # before FITS standard 3.0; Pan-STARRS still writes it

LATITUDES = {"RA": "DEC", "GLON": "GLAT", "ELON": "ELAT"}
"""The axes that are read: the latitude that belongs to each longitude."""

CTYPE = re.compile(r"(RA|DEC|GLON|GLAT|ELON|ELAT)-+([A-Z]{3})(-SIP)?")

SCALE_RANGE_ARCSEC = (1e-4, 36000.0)
"""Widths of pixels that an image of the sky may have: below VLBI's, to 10 deg."""

# Distortions that stand in tables of other HDUs or in cards of their own kind.
TABLE_CARDS = re.compile(r"^((CP|CQ|D2IM)DIS\d|D2IM(ARR|EXT)\d?)$")
TABLE_PROJECTIONS = {
    "TAB": "-TAB, coordinates in a table",
    "TNX": "TNX, IRAF's polynomials in cards WAT",
    "ZPX": "ZPX, IRAF's polynomials in cards WAT",
    "DSS": "DSS, plate polynomials of the Digitized Sky Survey",
}


@dataclass(frozen=True, slots=True)
class SkyWCS:
    """A celestial WCS, whose axes may be in either order; positions go in and come out in ICRS.

    Attributes
    ----------
    wcs : the WCS in its own frame, set
    frame : that frame; None: ICRS
    """

    wcs: WCS
    frame: Frame | None = None

    def to_sky(
        self, x: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return ra and dec, deg, of 0-based pixels; NaN beyond the projection's horizon."""
        world = self.wcs.all_pix2world(x, y, 0)
        longitude, latitude = world[self.wcs.wcs.lng], world[self.wcs.wcs.lat]
        return (longitude, latitude) if self.frame is None else self.frame.to_icrs(longitude, latitude)

    def to_pixels(
        self, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, *, tolerance_px: float = 1e-4
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the 0-based pixels x and y of ICRS positions; NaN beyond the projection's horizon.

        Parameters
        ----------
        tolerance_px : float
            The error at which inverses that are found iteratively (SIP) stop.
        """
        position = (ra_deg, dec_deg) if self.frame is None else self.frame.from_icrs(ra_deg, dec_deg)
        world = position if self.wcs.wcs.lng == 0 else position[::-1]
        x, y = self.wcs.all_world2pix(*world, 0, tolerance=tolerance_px, quiet=True)
        return x, y


def accepted_wcs(header: fits.Header, where: str) -> tuple[str, SkyWCS]:
    """Return the celestial WCS of a header, as text for `Tile.wcs_header` and parsed.

    The text states its frame by RADESYS and EQUINOX, whichever cards the header has.

    Raises
    ------
    TileError
        It has distortion tables, cannot be parsed, is not celestial, is in a frame that is not read, or has no pixel
        scale; `where` names the tile.
    """
    longitude = _longitude(header, where)
    chosen = _celestial_header(header)
    _require_numbers(chosen, where)
    chosen.update(frame_cards(header, longitude, where))
    text = chosen.tostring()
    try:
        sky_wcs = parse_wcs(text)
    except (WcsError, ValueError) as error:
        # Other lines of wcslib's message name places in its own code.
        said = " ".join(line for line in str(error).splitlines() if not line.startswith("ERROR"))
        raise TileError(
            f"{where}: the WCS cannot be used ({said}); correct its cards or exclude the tile"
        ) from None
    scale = pixel_scale_arcsec(sky_wcs.wcs)
    if not SCALE_RANGE_ARCSEC[0] <= scale <= SCALE_RANGE_ARCSEC[1]:
        raise TileError(
            f"{where}: the WCS makes pixels {scale:.3g} arcsec wide, and {SCALE_RANGE_ARCSEC[0]:g} to "
            f"{SCALE_RANGE_ARCSEC[1]:g} can be: correct CD, or PC and CDELT, or exclude the tile"
        )
    return text, sky_wcs


def wcs_cards(hdus: fits.HDUList, image: int | str) -> fits.Header:
    """Return the header that has an image's WCS: its own, or that of a primary HDU without an image, if only that has one.

    A primary HDU with an image of the image's shape passes its WCS on, too: both were written on the same pixels.
    """
    own, primary = hdus[image].header, hdus[0].header
    shape = getattr(hdus[0], "shape", None) or ()
    if "CTYPE1" in own or "CTYPE1" not in primary or (shape and shape[-2:] != hdus[image].shape[-2:]):
        return own
    return primary


def _longitude(header: fits.Header, where: str) -> str:
    """Return RA, GLON or ELON, whichever a header's celestial axes are; raise if they are not, or need tables."""
    found = [str(header.get(key, "")).strip() for key in ("CTYPE1", "CTYPE2")]
    parts = [CTYPE.fullmatch(name) for name in found]
    tables = [TABLE_PROJECTIONS.get(name.rpartition("-")[2], "") for name in found]
    tables += [key for key in header if TABLE_CARDS.match(key)]
    if any(tables):
        raise TileError(
            f"{where}: the WCS has distortion tables ({next(filter(None, tables))}), which are not read; fit it by TPV or "
            "SIP, or exclude the tile"
        )
    axes = {match[1] for match in parts if match}
    for longitude, latitude in LATITUDES.items():
        if axes == {longitude, latitude}:
            return longitude
    raise TileError(
        f"{where}: no celestial WCS: CTYPE1, CTYPE2 are {found}; right ascension and declination, or galactic or "
        "ecliptic longitude and latitude, are needed; solve the image's astrometry or exclude it"
    )


def _celestial_header(header: fits.Header) -> fits.Header:
    """Return the cards of the celestial WCS but for its frame, as in `header`; old spellings become the standard's."""
    chosen = fits.Header()
    for card in header.cards:
        key = OLD_PC_CARD.sub(r"PC\1_\2", card.keyword)
        if WCS_CARD.match(key) and not isinstance(card.value, fits.card.Undefined):
            chosen[key] = card.value
    return chosen


def _require_numbers(cards: fits.Header, where: str) -> None:
    """Raise where a card of a WCS is no number, or one is missing for which wcslib would take 0, or pixels of 1 deg."""
    for key, value in cards.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number and not key.startswith(("CTYPE", "CUNIT")):
            raise TileError(
                f"{where}: the WCS cannot be used: {key} = {value!r} is no number; correct it or exclude the tile"
            )
    missing = [key for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2") if key not in cards]
    if not any(key.startswith(("CD1_", "CD2_")) for key in cards):
        missing += [key for key in ("CDELT1", "CDELT2") if key not in cards]
    if missing:
        raise TileError(
            f"{where}: the WCS cannot be used: {', '.join(missing)} missing; add them or exclude the tile"
        )


@functools.lru_cache(maxsize=4096)
def parse_wcs(header: str) -> SkyWCS:
    """Return the WCS of a tile's `wcs_header`; its projection and frame may be any, with or without distortion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # deprecated cards, which are read all the same
        wcs = WCS(fits.Header.fromstring(header), naxis=2)
    wcs.wcs.set()
    return SkyWCS(wcs, frame_of(wcs))


def pixel_scale_arcsec(wcs: WCS) -> float:
    """Return the root of the pixel's area at the reference point."""
    return math.sqrt(abs(float(np.linalg.det(wcs.pixel_scale_matrix)))) * 3600.0


def corners_deg(wcs: SkyWCS, shape_px: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    """Return (ra, dec) of the outer corners of the corner pixels, in order around the tile."""
    ny, nx = shape_px
    x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
    y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    ra, dec = wcs.to_sky(x, y)
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
