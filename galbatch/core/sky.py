"""HEALPix index, pixels, neighbors: the only door to the HEALPix library.

Pixels are NESTED throughout. `healpix_29` is the index at order 29, whose pixels are 0.4 milliarcseconds
wide; the index of any lower order is its leading bits.
"""

from __future__ import annotations

import lazy_loader
import numpy as np
import numpy.typing as npt
from astropy import units
from astropy.coordinates import Latitude, Longitude
from scipy.spatial import cKDTree

from galbatch.core.pixels import HEALPIX_ORDER

# Loaded when first used: it takes 0.3 s, and workers that only cut do without.
cdshealpix = lazy_loader.load("cdshealpix")

__all__ = [
    "cone_pixels",
    "has_neighbor",
    "healpix_29",
    "nearest_arcsec",
    "pixel_center_deg",
    "pixel_of",
    "separation_arcsec",
    "unit_vectors",
]

# 16 bytes a row come back from the tree: 16 MB at a time, where 10 million rows would be 160.
ROWS_AT_ONCE = 1_000_000

ARCSEC_PER_RADIAN = 180.0 * 3600.0 / np.pi


def healpix_29(ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the HEALPix index at order 29, NESTED.

    Parameters
    ----------
    ra_deg, dec_deg : (object,) float64, deg
        Finite; declinations within -90..90.

    Returns
    -------
    (object,) int64
        Equal to ``hats.pixel_math.compute_spatial_index``.
    """
    ra = np.atleast_1d(np.asarray(ra_deg, dtype=np.float64))
    dec = np.atleast_1d(np.asarray(dec_deg, dtype=np.float64))
    if ra.size == 0:
        return np.empty(0, dtype=np.int64)
    index = cdshealpix.lonlat_to_healpix(Longitude(ra, unit="deg"), Latitude(dec, unit="deg"), HEALPIX_ORDER)
    return np.asarray(index, dtype=np.int64)


def pixel_of(healpix_29: npt.NDArray[np.int64], healpix_order: int) -> npt.NDArray[np.int64]:
    """Return the pixel at `healpix_order` that holds each index of order 29.

    Parameters
    ----------
    healpix_29 : (object,) int64
    """
    return healpix_29 >> np.int64(2 * (HEALPIX_ORDER - healpix_order))


def pixel_center_deg(healpix_order: int, healpix_pixel: int) -> tuple[float, float]:
    """Return right ascension and declination of a pixel's center, deg."""
    pixel = np.array([healpix_pixel], dtype=np.uint64)
    ra, dec = cdshealpix.healpix_to_lonlat(pixel, healpix_order)
    return float(ra.to_value("deg")[0]), float(dec.to_value("deg")[0])


def unit_vectors(ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return directions as points on the unit sphere.

    Parameters
    ----------
    ra_deg, dec_deg : (object,) float64, deg

    Returns
    -------
    (object, 3) float64
        NaN where a position is NaN.
    """
    ra, dec = (
        np.radians(np.asarray(ra_deg, dtype=np.float64)),
        np.radians(np.asarray(dec_deg, dtype=np.float64)),
    )
    cos_dec = np.cos(dec)
    return np.stack([cos_dec * np.cos(ra), cos_dec * np.sin(ra), np.sin(dec)], axis=-1)


def separation_arcsec(
    ra1_deg: npt.ArrayLike, dec1_deg: npt.ArrayLike, ra2_deg: npt.ArrayLike, dec2_deg: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return the great-circle separation of positions given in deg, in arcsec; the shapes broadcast.

    From the haversine, which stays exact to rounding at the milliarcseconds where the arc cosine fails.
    """
    ra1, dec1, ra2, dec2 = (
        np.radians(np.asarray(angle, dtype=np.float64)) for angle in (ra1_deg, dec1_deg, ra2_deg, dec2_deg)
    )
    haversine = np.sin((dec2 - dec1) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra2 - ra1) / 2) ** 2
    return np.asarray(2.0 * np.arcsin(np.sqrt(np.clip(haversine, 0.0, 1.0))) * ARCSEC_PER_RADIAN)


def nearest_arcsec(
    ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, *, within_arcsec: float
) -> npt.NDArray[np.float64]:
    """Return the distance to the nearest other position of the list, where that is nearer than `within_arcsec`.

    Parameters
    ----------
    ra_deg, dec_deg : (object,) float64, deg
        Finite. Poles and the wrap of right ascension need no care: distances are those on the sphere.

    Returns
    -------
    (object,) float64, arcsec
        Infinite where no other is that near.
    """
    points = unit_vectors(ra_deg, dec_deg)
    nearest = np.full(len(points), np.inf)
    if len(points) < 2 or within_arcsec <= 0:
        return nearest
    # Without balancing the tree is built in 60 percent of the time, and positions are no adversary.
    tree = cKDTree(points, balanced_tree=False)
    chord = 2.0 * np.sin(within_arcsec / ARCSEC_PER_RADIAN / 2.0)
    for start in range(0, len(points), ROWS_AT_ONCE):
        # The nearest is the point itself, or its exact twin; the second nearest decides.
        distance, _ = tree.query(points[start : start + ROWS_AT_ONCE], k=[2], distance_upper_bound=chord)
        nearest[start : start + ROWS_AT_ONCE] = distance[:, 0]
    found = np.isfinite(nearest)
    nearest[found] = 2.0 * np.arcsin(nearest[found] / 2.0) * ARCSEC_PER_RADIAN
    return nearest


def has_neighbor(
    ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, *, radius_arcsec: float
) -> npt.NDArray[np.bool_]:
    """Return whether another position of the list is nearer than `radius_arcsec`; see `nearest_arcsec`.

    Returns
    -------
    (object,) bool
    """
    return nearest_arcsec(ra_deg, dec_deg, within_arcsec=radius_arcsec) < radius_arcsec


def cone_pixels(
    ra_deg: float, dec_deg: float, *, radius_arcsec: float, healpix_order: int
) -> npt.NDArray[np.int64]:
    """Return the pixels at `healpix_order` that may overlap a cone.

    Returns
    -------
    (pixel,) int64
        Sorted; none that overlaps is missing, a few at the rim may not overlap.
    """
    pixels, _, _ = cdshealpix.cone_search(
        lon=Longitude(ra_deg, unit="deg"),
        lat=Latitude(dec_deg, unit="deg"),
        radius=radius_arcsec * units.arcsec,
        depth=healpix_order,
        flat=True,
    )
    return np.sort(np.asarray(pixels, dtype=np.int64))
