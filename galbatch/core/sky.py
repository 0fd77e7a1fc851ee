"""HEALPix indices, separations and neighbors on the sky. No other module imports the HEALPix library.

All pixels are NESTED. `healpix_29` is the index at order 29, whose pixels are 0.4 milliarcseconds wide. The leading bits
of that index are the index at any lower order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy
from astropy import units
from astropy.coordinates import Latitude, Longitude

from galbatch.core.pixels import HEALPIX_ORDER

# cdshealpix is imported by the functions that use it: it takes 0.3 s, and workers that only cut images do without. A module of
# lazy_loader would not wait for its use, as astropy and torch look at each module that is there, which loads it.

__all__ = [
    "cone_pixels",
    "has_neighbor",
    "healpix_29",
    "nearest_arcsec",
    "pixel_centers_deg",
    "pixel_of",
    "position_deg",
    "separation_arcsec",
    "unit_vectors",
]

# Queries of the tree return 16 bytes per row: 16 MB at a time, instead of 160 MB for a list of 10 million objects.
ROWS_AT_ONCE = 1_000_000

ARCSEC_PER_RADIAN = 180.0 * 3600.0 / np.pi


def healpix_29(ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the NESTED HEALPix index at order 29 of positions (ICRS).

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
    import cdshealpix

    index = cdshealpix.lonlat_to_healpix(Longitude(ra, unit="deg"), Latitude(dec, unit="deg"), HEALPIX_ORDER)
    return np.asarray(index, dtype=np.int64)


def pixel_of(healpix_29: npt.NDArray[np.int64], healpix_order: int) -> npt.NDArray[np.int64]:
    """Return the number of the pixel at `healpix_order` that contains each index at order 29.

    Parameters
    ----------
    healpix_29 : (object,) int64
    healpix_order : int
        0 to 29.

    Returns
    -------
    (object,) int64
    """
    # A pixel's four children extend its number by two bits.
    return healpix_29 >> np.int64(2 * (HEALPIX_ORDER - healpix_order))


def pixel_centers_deg(
    healpix_order: int, healpix_pixels: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the right ascensions and declinations (pixel,) float64 (ICRS, deg) of the centers of NESTED pixels."""
    pixels = np.atleast_1d(np.asarray(healpix_pixels, dtype=np.uint64))
    import cdshealpix

    ra, dec = cdshealpix.healpix_to_lonlat(pixels, healpix_order)
    return np.asarray(ra.to_value("deg")), np.asarray(dec.to_value("deg"))


def unit_vectors(ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return positions on the sky as unit vectors (x, y, z).

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
    # (object, xyz)
    return np.stack([cos_dec * np.cos(ra), cos_dec * np.sin(ra), np.sin(dec)], axis=-1)


def position_deg(vectors: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return right ascension in [0, 360) and declination, deg, of vectors (..., xyz) of any length; NaN stays NaN."""
    x, y, z = np.moveaxis(np.asarray(vectors, dtype=np.float64), -1, 0)
    # The arc sine would lose half of the digits near the poles.
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def separation_arcsec(
    ra1_deg: npt.ArrayLike, dec1_deg: npt.ArrayLike, ra2_deg: npt.ArrayLike, dec2_deg: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Return the great-circle separation of positions, float64, in arcsec.

    The haversine formula is used: unlike the arc cosine it is accurate at separations of milliarcseconds.

    Parameters
    ----------
    ra1_deg, dec1_deg, ra2_deg, dec2_deg : float64, deg
        Scalars or arrays, broadcast against each other.
    """
    ra1, dec1, ra2, dec2 = (
        np.radians(np.asarray(angle, dtype=np.float64)) for angle in (ra1_deg, dec1_deg, ra2_deg, dec2_deg)
    )
    haversine = np.sin((dec2 - dec1) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra2 - ra1) / 2) ** 2
    # Rounding can make the haversine of opposite positions larger than 1, whose arc sine is NaN.
    return np.asarray(2.0 * np.arcsin(np.sqrt(np.clip(haversine, 0.0, 1.0))) * ARCSEC_PER_RADIAN)


def nearest_arcsec(
    ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, *, within_arcsec: float
) -> npt.NDArray[np.float64]:
    """Return the distance of each position to the nearest other position in the list, up to a limit.

    Parameters
    ----------
    ra_deg, dec_deg : (object,) float64, deg
        Finite. Distances are measured on the sphere, so positions at the poles and across 0 h are handled.
    within_arcsec : float
        Limit of the search.

    Returns
    -------
    (object,) float64, arcsec
        Infinite where no other position is nearer than the limit.
    """
    points = unit_vectors(ra_deg, dec_deg)
    nearest = np.full(len(points), np.inf)
    if len(points) < 2 or within_arcsec <= 0:
        return nearest
    # scipy loads its subpackages at their first use: this one takes 0.3 s, and workers that only cut do without.
    # An unbalanced tree is built in 60 percent of the time; balance only guards against unusual distributions of points.
    tree = scipy.spatial.cKDTree(points, balanced_tree=False)
    # The tree measures straight distances between unit vectors, so the limit and the results are chords of the sphere.
    chord = 2.0 * np.sin(within_arcsec / ARCSEC_PER_RADIAN / 2.0)
    for start in range(0, len(points), ROWS_AT_ONCE):
        # The nearest point is the position itself, or one at the same place: k=[2] returns only the second nearest.
        distance, _ = tree.query(points[start : start + ROWS_AT_ONCE], k=[2], distance_upper_bound=chord)
        nearest[start : start + ROWS_AT_ONCE] = distance[:, 0]
    found = np.isfinite(nearest)
    nearest[found] = 2.0 * np.arcsin(nearest[found] / 2.0) * ARCSEC_PER_RADIAN
    return nearest


def has_neighbor(
    ra_deg: npt.ArrayLike, dec_deg: npt.ArrayLike, *, radius_arcsec: float
) -> npt.NDArray[np.bool_]:
    """Return whether each position has another position of the list nearer than a radius.

    Parameters
    ----------
    ra_deg, dec_deg : (object,) float64, deg
        Finite.
    radius_arcsec : float

    Returns
    -------
    (object,) bool
    """
    return nearest_arcsec(ra_deg, dec_deg, within_arcsec=radius_arcsec) < radius_arcsec


def cone_pixels(
    ra_deg: float, dec_deg: float, *, radius_arcsec: float, healpix_order: int
) -> npt.NDArray[np.int64]:
    """Return the NESTED pixels at `healpix_order` that may overlap a cone.

    Parameters
    ----------
    ra_deg, dec_deg : float
        Center of the cone, ICRS, deg.
    radius_arcsec : float
    healpix_order : int

    Returns
    -------
    (pixel,) int64
        Sorted. All pixels that overlap the cone, and possibly some at its edge that do not.
    """
    import cdshealpix

    pixels, _, _ = cdshealpix.cone_search(
        lon=Longitude(ra_deg, unit="deg"),
        lat=Latitude(dec_deg, unit="deg"),
        radius=radius_arcsec * units.arcsec,
        depth=healpix_order,
        flat=True,
    )
    return np.sort(np.asarray(pixels, dtype=np.int64))
