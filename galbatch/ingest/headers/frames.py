"""The sky frame that a header states, and its transformation by astropy to ICRS, in which all positions of objects are."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy import units
from astropy.coordinates import (
    FK4,
    FK5,
    ICRS,
    BarycentricMeanEcliptic,
    BaseCoordinateFrame,
    Galactic,
    SkyCoord,
)
from astropy.coordinates.representation import CartesianRepresentation
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from galbatch.core import sky
from galbatch.errors import TileError

__all__ = ["Frame", "frame_cards", "frame_of"]

# Frames of Gaia's catalogs and the ICRF are realizations of ICRS, alike to 1 mas.
ICRS_NAME = re.compile(r"ICRS|ICRF\d?|GAIA.*")

# The FITS standard: RADESYS is FK4 where the equinox lies before 1984, FK5 after; these are their own equinoxes.
FIRST_FK5_YEAR = 1984.0
USUAL_EQUINOX = {"FK4": 1950.0, "FK5": 2000.0}
YEAR_RANGE = (1800.0, 2100.0)

# A frame that precession alone takes to ICRS has a rotation matrix to 1e-15; the aberration in FK4 moves it by 1e-6.
RIGID = 1e-12

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frame:
    """A sky frame other than ICRS.

    Attributes
    ----------
    astropy : the frame in astropy
    rotation : (3, 3) float64, takes unit vectors in this frame to ICRS; None if that is no rotation (FK4)
    """

    astropy: BaseCoordinateFrame
    rotation: _Float64 | None

    @classmethod
    def of(cls, frame: BaseCoordinateFrame) -> Frame:
        """Return the frame with its rotation, which astropy's transformation of the three axes gives."""
        axes = np.column_stack([np.eye(3), np.full(3, np.sqrt(1 / 3))])  # (xyz, vector)
        vectors = frame.realize_frame(CartesianRepresentation(axes)).transform_to(ICRS()).cartesian.xyz.value
        matrix, diagonal = vectors[:, :3], vectors[:, 3]
        is_linear = np.abs(matrix @ axes[:, 3] - diagonal).max() < RIGID
        is_rigid = is_linear and np.abs(matrix @ matrix.T - np.eye(3)).max() < RIGID
        return cls(frame, matrix if is_rigid else None)

    def to_icrs(self, longitude_deg: npt.ArrayLike, latitude_deg: npt.ArrayLike) -> tuple[_Float64, _Float64]:
        """Return ra and dec, deg, of positions in this frame; NaN stays NaN."""
        if self.rotation is not None:
            return sky.position_deg(sky.unit_vectors(longitude_deg, latitude_deg) @ self.rotation.T)
        return _transformed(longitude_deg, latitude_deg, self.astropy, ICRS())

    def from_icrs(self, ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> tuple[_Float64, _Float64]:
        """Return longitude and latitude in this frame, deg."""
        if self.rotation is not None:
            return sky.position_deg(sky.unit_vectors(ra_deg, dec_deg) @ self.rotation)
        return _transformed(ra_deg, dec_deg, ICRS(), self.astropy)


def _transformed(
    longitude_deg: npt.ArrayLike,
    latitude_deg: npt.ArrayLike,
    origin: BaseCoordinateFrame,
    goal: BaseCoordinateFrame,
) -> tuple[_Float64, _Float64]:
    found = SkyCoord(longitude_deg, latitude_deg, unit=units.deg, frame=origin).transform_to(goal).spherical
    return found.lon.to_value(units.deg), found.lat.to_value(units.deg)


def frame_of(wcs: WCS) -> Frame | None:
    """Return the frame of a WCS whose header has the cards of `frame_cards`; None if it is ICRS."""
    return _frame(wcs.wcs.lngtyp, wcs.wcs.radesys, float(wcs.wcs.equinox))


@functools.lru_cache(maxsize=64)  # a survey's tiles share a frame, whose matrix takes astropy 5 ms
def _frame(longitude: str, system: str, year: float) -> Frame | None:
    # Not astropy's wcs_to_celestial_frame: it takes ecliptic longitudes for right ascensions.
    if longitude == "GLON":
        return Frame.of(Galactic())
    if longitude == "ELON":
        equinox = year if system == "FK5" else USUAL_EQUINOX["FK5"]
        return Frame.of(BarycentricMeanEcliptic(equinox=Time(equinox, format="jyear")))
    if system == "FK5":
        return Frame.of(FK5(equinox=Time(year, format="jyear")))
    if system == "FK4":
        return Frame.of(FK4(equinox=Time(year, format="byear")))
    return None


def frame_cards(header: fits.Header, longitude: str, where: str) -> dict[str, Any]:
    """Return the frame that a header states as RADESYS and EQUINOX; nothing for galactic coordinates, which need neither.

    RADECSYS and EPOCH are older names of these two.

    Parameters
    ----------
    longitude : {"RA", "GLON", "ELON"}
        The longitude axis.
    where : str
        The tile and its file, for errors.

    Raises
    ------
    TileError
        The cards contradict one another, or name a frame or an equinox that is not read.
    """
    if longitude == "GLON":
        return {}
    system = _system(header, where)
    if system == "ICRS":
        return {"RADESYS": system}
    equinox = _equinox(header, where)
    if not system:
        if equinox is None:
            return {"RADESYS": "ICRS"}
        system = "FK4" if equinox < FIRST_FK5_YEAR else "FK5"
    if longitude == "ELON" and system == "FK4":
        raise TileError(
            f"{where}: ecliptic coordinates of FK4 are not read; give the WCS in RADESYS = 'ICRS'"
        )
    return {"RADESYS": system, "EQUINOX": USUAL_EQUINOX[system] if equinox is None else equinox}


def _system(header: fits.Header, where: str) -> str:
    """Return ICRS, FK5 or FK4 by RADESYS or, without it, by RADECSYS; "" if the header has neither."""
    said = {}
    for key in ("RADESYS", "RADECSYS"):
        name = str(_stated(header, key) or "").strip().upper()
        if name:
            said[key] = "ICRS" if ICRS_NAME.fullmatch(name) else name
            if said[key] != "ICRS" and name not in USUAL_EQUINOX:
                raise TileError(
                    f"{where}: {key} = {header[key]!r} is no frame that is read: ICRS, FK5 and FK4 are; correct the card "
                    "or exclude the tile"
                )
    # DECam's pipeline writes FK5 beside ICRS, 0.02 arcsec apart: the card of today's standard goes before. FK4 is 0.6 deg away.
    if len(set(said.values())) > 1 and "FK4" in said.values():
        shown = ", ".join(f"{key} = {header[key]!r}" for key in said)
        raise TileError(f"{where}: {shown} contradict each other; correct one of them or exclude the tile")
    return next(iter(said.values()), "")


def _equinox(header: fits.Header, where: str) -> float | None:
    """Return the year of EQUINOX or, without it, of EPOCH; None if the header has neither."""
    if (stated := _stated(header, "EQUINOX")) is not None:
        year = _year(stated)
        if not YEAR_RANGE[0] <= year <= YEAR_RANGE[1]:
            raise TileError(
                f"{where}: EQUINOX = {stated!r} is no year; correct it (2000.0), or state RADESYS = 'ICRS'"
            )
        return year
    stated = _stated(header, "EPOCH")
    year = _year(stated)
    if not year > 0:  # unWISE writes -1
        return None
    if year not in USUAL_EQUINOX.values():
        # EPOCH was once the equinox; today many write the time of the observation there.
        raise TileError(
            f"{where}: EPOCH = {stated!r} without RADESYS and EQUINOX may be the equinox or the time of the observation; "
            "add EQUINOX (2000.0), or RADESYS = 'ICRS'"
        )
    return year


def _stated(header: fits.Header, key: str) -> Any:
    """Return a card's value; None if there is none."""
    value = header.get(key)
    return None if isinstance(value, fits.card.Undefined) or value == "" else value


def _year(value: Any) -> float:
    """Return a card's value as a year, also of texts such as J2000 and 2000.0; NaN if it is none."""
    match = re.fullmatch(r"\s*[JB]?(\d+(\.\d*)?)\s*", str(value))
    return float(match[1]) if match else np.nan
