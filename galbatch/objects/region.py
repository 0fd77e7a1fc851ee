"""Parts of the sky that `[objects] region` names: a MOC file, a circle, a box; tracts come from the tiles."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import storage
from galbatch.config import RegionConfig
from galbatch.core import sky
from galbatch.errors import ConfigError, ObjectListError

__all__ = ["Region", "SkyBox", "box_around", "region_of", "sky_box"]

Positions = npt.NDArray[np.float64]
Limits = tuple[float, float]
Contains = Callable[[Positions, Positions], npt.NDArray[np.bool_]]

COARSE_ORDER = 6
"""A MOC is bounded by its HEALPix pixels of this order, 0.92 deg wide: at most 49,152 of them."""

COARSE_RADIUS_DEG = 1.0
"""More than the distance from the center of such a pixel to its corners, which is 0.91 deg at most."""


@dataclass(frozen=True)
class SkyBox:
    """A box in right ascension and declination, in deg. Where ra_min exceeds ra_max it crosses ra = 0."""

    ra_min_deg: float
    ra_max_deg: float
    dec_min_deg: float
    dec_max_deg: float

    def contains(self, ra_deg: Positions, dec_deg: Positions) -> npt.NDArray[np.bool_]:
        """Return which positions lie in the box, (position,) bool; its edges belong to it."""
        above, below = ra_deg >= self.ra_min_deg, ra_deg <= self.ra_max_deg
        in_ra = above | below if self.ra_min_deg > self.ra_max_deg else above & below
        return in_ra & (dec_deg >= self.dec_min_deg) & (dec_deg <= self.dec_max_deg)

    def may_hold(self, ra: Limits | None, dec: Limits | None) -> bool:
        """Return whether positions between a least and a greatest value may lie in the box; None: not known.

        Lists may count right ascensions from -180 deg or beyond 360: such values are wrapped after they are read.
        """
        if not all(isinstance(value, float | int) for value in (*(ra or ()), *(dec or ()))):
            return True  # text, for example, is refused when it is read
        if dec is not None and (dec[1] < self.dec_min_deg or dec[0] > self.dec_max_deg):
            return False
        if ra is None or ra[0] < 0.0 or ra[1] >= 360.0:
            return True
        if self.ra_min_deg > self.ra_max_deg:
            return ra[1] >= self.ra_min_deg or ra[0] <= self.ra_max_deg
        return ra[1] >= self.ra_min_deg and ra[0] <= self.ra_max_deg


@dataclass(frozen=True)
class Region:
    """A part of the sky.

    Attributes
    ----------
    contains : returns which positions lie in it, (position,) bool, from their ra and dec, (position,) float64, deg, finite, ra in [0, 360)
    bounds : a box about it; the rest of a list need not be read
    """

    contains: Contains
    bounds: SkyBox


def region_of(config: RegionConfig | None) -> Region | None:
    """Return the region that ``[objects] region`` states by a MOC file, a circle or a box; None if there is none.

    Raises
    ------
    ObjectListError
        The MOC file does not exist, cannot be read, or covers nothing.
    ConfigError
        Tracts are stated, which only the survey's tiles tell.
    """
    if config is None:
        return None
    if config.moc is not None:
        return _moc(config.moc)
    if config.circle_deg is not None:
        return _circle(*config.circle_deg)
    if config.box_deg is not None:
        box = sky_box(*config.box_deg)
        return Region(box.contains, box)
    raise ConfigError(
        "[objects] region: tracts are known from the survey's tiles: give the run.toml that names them"
    )


def sky_box(ra_min_deg: float, ra_max_deg: float, dec_min_deg: float, dec_max_deg: float) -> SkyBox:
    """Return the box of limits that may count right ascensions from -180 deg."""
    if ra_max_deg - ra_min_deg >= 360.0:
        return SkyBox(0.0, 360.0, dec_min_deg, dec_max_deg)
    # 360 is an upper end, not 0.
    ra_max = ra_max_deg if ra_max_deg == 360.0 else ra_max_deg % 360.0
    return SkyBox(ra_min_deg % 360.0, ra_max, dec_min_deg, dec_max_deg)


def box_around(ra_deg: Positions, dec_deg: Positions, *, margin_deg: float) -> SkyBox:
    """Return a box that holds all points within `margin_deg` of the positions (position,) float64, deg."""
    dec_min, dec_max = dec_deg.min() - margin_deg, dec_deg.max() + margin_deg
    # Meridians draw together towards the poles: there the margin is wider in right ascension.
    cosine = np.cos(np.radians(min(max(abs(dec_min), abs(dec_max)), 90.0)))
    margin_ra = np.degrees(np.arcsin(min(1.0, np.sin(np.radians(margin_deg)) / max(cosine, 1e-9))))
    ra = np.sort(np.mod(ra_deg, 360.0))
    # The box begins behind the widest gap between neighbors in right ascension.
    gaps = np.diff(ra, append=ra[0] + 360.0)
    widest = int(np.argmax(gaps))
    if gaps[widest] <= 2 * margin_ra or max(abs(dec_min), abs(dec_max)) >= 90.0:
        return SkyBox(0.0, 360.0, max(dec_min, -90.0), min(dec_max, 90.0))
    first, last = ra[(widest + 1) % len(ra)] - margin_ra, ra[widest] + margin_ra
    return SkyBox(float(first % 360.0), float(last % 360.0), float(dec_min), float(dec_max))


def _circle(ra_deg: float, dec_deg: float, radius_deg: float) -> Region:
    center = np.array([ra_deg]), np.array([dec_deg])

    def contains(ra: Positions, dec: Positions) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = sky.separation_arcsec(*center, ra, dec) <= radius_deg * 3600.0
        return inside

    # A thousandth of an arcsec more, so that rounding loses no object on the circle itself.
    return Region(contains, box_around(*center, margin_deg=radius_deg + 1e-3 / 3600.0))


def _moc(path: str) -> Region:
    try:
        data = storage.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError):
        raise ObjectListError(f"[objects] region: moc = {path}: there is no such file") from None
    ranges = np.asarray(_parsed_moc(path, data).to_depth29_ranges, np.uint64).astype(np.int64).reshape(-1, 2)
    if not len(ranges):
        raise ObjectListError(f"[objects] region: moc = {path}: covers no part of the sky")
    firsts, ends = ranges[:, 0], ranges[:, 1]

    def contains(ra: Positions, dec: Positions) -> npt.NDArray[np.bool_]:
        index = sky.healpix_29(ra, dec)
        at = np.searchsorted(firsts, index, side="right") - 1
        return (at >= 0) & (index < ends[at])

    pixels = _coarse_pixels(firsts, ends)
    centers = sky.pixel_centers_deg(COARSE_ORDER, pixels)
    return Region(contains, box_around(*centers, margin_deg=COARSE_RADIUS_DEG))


def _coarse_pixels(firsts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers of the pixels of COARSE_ORDER that ranges of order 29 touch."""
    first, last = sky.pixel_of(firsts, COARSE_ORDER), sky.pixel_of(ends - 1, COARSE_ORDER)
    begun = np.zeros(12 * 4**COARSE_ORDER + 1, np.int64)
    np.add.at(begun, first, 1)
    np.add.at(begun, last + 1, -1)
    return np.flatnonzero(np.cumsum(begun)[:-1])


def _parsed_moc(path: str, data: bytes) -> Any:
    """Return the MOC in a file's content: FITS, JSON or text, as the standard's sections 4 and 5 write it."""
    from mocpy import MOC  # it takes half a second, with matplotlib, and most lists are read without a region

    try:
        if not data.startswith(b"SIMPLE"):
            kind = "json" if data.lstrip().startswith(b"{") else "ascii"
            return MOC.from_string(data.decode("utf-8"), format=kind)
        # mocpy reads FITS from files of this machine only.
        with tempfile.TemporaryDirectory(prefix="galbatch-moc-") as folder:
            local = Path(folder) / "moc.fits"
            local.write_bytes(data)
            return MOC.load(local, format="fits")
    except (OSError, ValueError) as error:
        raise ObjectListError(
            f"[objects] region: moc = {path}: is no MOC (FITS, JSON or ASCII): {' '.join(str(error).split())}"
        ) from None
