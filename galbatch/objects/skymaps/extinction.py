"""E(B-V) at positions, from a HEALPix map or from FITS images with a WCS."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt
import scipy
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import wcs_to_celestial_frame

from galbatch import storage
from galbatch.config import ExtinctionConfig
from galbatch.errors import ObjectListError

__all__ = ["open_dust_map"]

Floats = npt.NDArray[np.float64]
DustMap = Callable[[Floats, Floats], Floats]
"""E(B-V) in mag, (position,) float64, NaN outside the map, of right ascensions and declinations (position,) in deg."""

FRAMES: Mapping[str, str] = {"G": "galactic", "C": "icrs", "E": "barycentrictrueecliptic"}
"""Frames by the first letter of the card COORDSYS; C stands for CELESTIAL, as does EQUATORIAL, which is told apart below."""

# Values at and below it are missing: UNSEEN of HEALPix is -1.6375e30.
UNSEEN = -1e30

NSIDES = frozenset(2**order for order in range(30))
"""Numbers of pixels along a side of a base pixel that HEALPix has."""


def open_dust_map(config: ExtinctionConfig) -> DustMap:
    """Return the function that gives E(B-V) at positions.

    Raises
    ------
    ObjectListError
        A file does not exist, is no FITS, or holds neither a HEALPix map nor an image with a celestial WCS; a HEALPix map has not the
        values that its cards promise; several are given of which one is a HEALPix map.
    """
    opened = [_opened(path, config) for path in config.map]
    if len(opened) == 1:
        return opened[0][0]
    centers = [center for _, center in opened]
    if any(center is None for center in centers):
        raise ObjectListError(
            f"run.toml: [extinction] map: {', '.join(config.map)}: give one HEALPix map, or images alone"
        )
    return _nearest_of(
        [dust for dust, _ in opened], SkyCoord([center.icrs for center in centers if center is not None])
    )


def _nearest_of(maps: Sequence[DustMap], centers: SkyCoord) -> DustMap:
    """Return a map that takes each position from the image whose reference point is nearest to it."""

    def at(ra_deg: Floats, dec_deg: Floats) -> Floats:
        sky = SkyCoord(ra_deg, dec_deg, unit="deg")
        nearest = np.argmin([center.separation(sky).deg for center in centers], axis=0)
        found = np.full(len(ra_deg), np.nan)
        for number, dust in enumerate(maps):
            (own,) = np.nonzero(nearest == number)
            found[own] = dust(ra_deg[own], dec_deg[own])
        return found

    return at


def _opened(path: str, config: ExtinctionConfig) -> tuple[DustMap, SkyCoord | None]:
    """Return the map in a file, and the reference point of an image; None for HEALPix."""
    where = f"run.toml: [extinction] map: {path}"
    try:
        with fits.open(storage.local_copy(path, sha256=None), memmap=False) as hdus:
            for hdu in hdus:
                if isinstance(hdu, fits.BinTableHDU) and "NSIDE" in hdu.header:
                    return _healpix(hdu, config, where), None
                if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS") == 2:
                    return _image(hdu, config.interpolation == "nearest", where)
    except FileNotFoundError:
        raise ObjectListError(f"{where}: there is no such file") from None
    except OSError as error:
        raise ObjectListError(f"{where}: cannot be read as FITS: {error}") from None
    raise ObjectListError(f"{where}: holds neither a HEALPix table (card NSIDE) nor an image of two axes")


def _image(hdu: Any, nearest: bool, where: str) -> tuple[DustMap, SkyCoord]:
    with warnings.catch_warnings():
        # Old maps state dates and equinoxes in forms that astropy corrects.
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(hdu.header)
    if not wcs.has_celestial:
        raise ObjectListError(f"{where}: its image has no celestial WCS")
    wcs, values = wcs.celestial, np.asarray(hdu.data, np.float64)
    try:
        frame = wcs_to_celestial_frame(wcs)
    except ValueError:
        axes = " and ".join(wcs.wcs.ctype)
        raise ObjectListError(
            f"{where}: its image has the axes {axes}; expected equatorial, galactic or ecliptic coordinates"
        ) from None
    center = SkyCoord(*(wcs.wcs.crval * u.deg), frame=frame)

    def at(ra_deg: Floats, dec_deg: Floats) -> Floats:
        sky = SkyCoord(ra_deg, dec_deg, unit="deg").transform_to(frame)
        x, y = wcs.world_to_pixel(sky)
        found = scipy.ndimage.map_coordinates(
            values, [y, x], order=0 if nearest else 1, mode="constant", cval=np.nan
        )
        return np.where(np.isfinite(x) & np.isfinite(y), found, np.nan)

    return at, center


def _healpix(hdu: fits.BinTableHDU, config: ExtinctionConfig, where: str) -> DustMap:
    from astropy_healpix import bilinear_interpolation_weights, lonlat_to_healpix

    nside, scheme, frame = _nside(hdu.header, where), _scheme(hdu.header, where), _frame(hdu.header, where)
    names = [name for name in hdu.columns.names if name.upper() != "PIXEL"]
    column = config.column or next(iter(names), "of values")
    if column not in names:
        raise ObjectListError(f"{where}: has no column {column}; there are {', '.join(names) or 'none'}")
    values = _numbers(hdu, column, where)
    values = np.where(values > UNSEEN, values, np.nan)
    explicit = next((name for name in hdu.columns.names if name.upper() == "PIXEL"), None)
    pixels = None if explicit is None else _pixels(hdu, explicit, where, n_pixels=12 * nside**2)
    if len(values) != (12 * nside**2 if pixels is None else len(pixels)) or not len(values):
        expected = f"12 NSIDE^2 = {12 * nside**2}, or a column PIXEL"
        raise ObjectListError(f"{where}: column {column} has {len(values)} values; expected {expected}")
    value_of = _lookup(values, pixels)

    def at(ra_deg: Floats, dec_deg: Floats) -> Floats:
        sky = SkyCoord(ra_deg, dec_deg, unit="deg").transform_to(frame).spherical
        if config.interpolation == "nearest":
            return value_of(lonlat_to_healpix(sky.lon, sky.lat, nside, order=scheme))
        pixels, weights = bilinear_interpolation_weights(
            sky.lon, sky.lat, nside, order=scheme
        )  # (4, position)
        return np.asarray((value_of(pixels) * weights).sum(axis=0))

    return at


def _numbers(hdu: fits.BinTableHDU, column: str, where: str) -> Floats:
    """Return the values (pixel,) of a column, which may hold several in a row."""
    found = np.asarray(hdu.data[column])
    if found.dtype.kind not in "fiu":
        raise ObjectListError(f"{where}: column {column} holds no numbers")
    return found.astype(np.float64).ravel()


def _pixels(hdu: fits.BinTableHDU, column: str, where: str, *, n_pixels: int) -> npt.NDArray[np.int64]:
    """Return the numbers (pixel,) of a column of pixels as integers."""
    numbers = _numbers(hdu, column, where)
    is_pixel = (numbers == np.floor(numbers)) & (numbers >= 0) & (numbers < n_pixels)
    if not is_pixel.all():
        raise ObjectListError(
            f"{where}: column {column} holds {numbers[~is_pixel][0]:.17g}; expected numbers of pixels, 0 to 12 NSIDE^2 - 1 = {n_pixels - 1}"
        )
    return numbers.astype(np.int64)


def _nside(header: fits.Header, where: str) -> int:
    """Return the number of pixels along a side of a base pixel."""
    nside = header["NSIDE"]
    # Some writers state it as 64.0.
    if not isinstance(nside, int | float) or nside not in NSIDES:
        raise ObjectListError(f"{where}: card NSIDE is {nside}; expected a power of two")
    return int(nside)


def _lookup(
    values: Floats, pixels: npt.NDArray[np.int64] | None
) -> Callable[[npt.NDArray[np.int64]], Floats]:
    """Return the function that gives the values of pixels, by their number or, where the map is of a part of the sky, by its column PIXEL."""
    if pixels is None:
        return lambda wanted: values[wanted]
    order = np.argsort(pixels)
    rising, sorted_values = pixels[order], values[order]

    def value_of(wanted: npt.NDArray[np.int64]) -> Floats:
        place = np.minimum(np.searchsorted(rising, wanted), len(rising) - 1)
        return np.where(rising[place] == wanted, sorted_values[place], np.nan)

    return value_of


def _scheme(header: fits.Header, where: str) -> str:
    stated = str(header.get("ORDERING", "")).strip().upper()
    if stated not in ("RING", "NESTED", "NEST"):
        raise ObjectListError(f"{where}: card ORDERING is {stated or 'missing'}; expected RING or NESTED")
    return "ring" if stated == "RING" else "nested"


def _frame(header: fits.Header, where: str) -> str:
    stated = str(header.get("COORDSYS", "")).strip().upper()
    if stated.startswith("EQ"):
        return FRAMES["C"]
    if stated[:1] not in FRAMES:
        raise ObjectListError(
            f"{where}: card COORDSYS is {stated or 'missing'}; expected G (galactic), C (celestial) or E (ecliptic): add the card"
        )
    return FRAMES[stated[0]]
