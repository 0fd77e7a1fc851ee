"""The flags that the object list alone decides: another object near (NEIGHBOR), or at the same place."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from galbatch.config import FlagsConfig
from galbatch.core import sky
from galbatch.core.flags import PixelFlag
from galbatch.core.pixels import HEALPIX_ORDER
from galbatch.core.types import ObjectTable

__all__ = ["flags_of_distance", "is_near_edge", "object_flags", "search_radius_arcsec"]

CELL_ARCSEC = 58.6 * 3600.0
"""Mean width of a HEALPix pixel of order 0."""

# Of a pixel's number, every second bit belongs to one of the two directions inside its base pixel.
EVEN_BITS = 0x5555_5555_5555_5555


def object_flags(objects: ObjectTable, flags: FlagsConfig) -> npt.NDArray[np.int32]:
    """Return the NEIGHBOR and DUPLICATE_POSITION bits of a whole object list.

    Parameters
    ----------
    objects : ObjectTable
    flags : FlagsConfig
        Radii, in arcsec, within which another object sets each bit.

    Returns
    -------
    (object,) int32 in PixelFlag bits
    """
    # One search serves both: 6 s for 10 million objects.
    nearest = sky.nearest_arcsec(objects.ra_deg, objects.dec_deg, within_arcsec=search_radius_arcsec(flags))
    return flags_of_distance(nearest, flags)


def search_radius_arcsec(flags: FlagsConfig) -> float:
    """Return the distance in arcsec beyond which another object sets neither bit."""
    return max(flags.neighbor_radius_arcsec, flags.duplicate_radius_arcsec)


def flags_of_distance(nearest_arcsec: npt.NDArray[np.float64], flags: FlagsConfig) -> npt.NDArray[np.int32]:
    """Return the NEIGHBOR and DUPLICATE_POSITION bits (object,) int32.

    Parameters
    ----------
    nearest_arcsec : (object,) float64
        Distance to the nearest other object; infinite where none is near.
    flags : FlagsConfig
        Radii of both bits.
    """
    result = np.zeros(len(nearest_arcsec), np.int32)
    for bit, radius_arcsec in (
        (PixelFlag.NEIGHBOR, flags.neighbor_radius_arcsec),
        (PixelFlag.DUPLICATE_POSITION, flags.duplicate_radius_arcsec),
    ):
        result[nearest_arcsec < radius_arcsec] |= int(bit)
    return result


def is_near_edge(
    healpix_29: npt.NDArray[np.int64], pixel: tuple[int, int], radius_arcsec: float
) -> npt.NDArray[np.bool_]:
    """Return which objects may lie within the radius of the edge of the HEALPix pixel that holds them, (object,) bool.

    The pixel is divided into cells of a HEALPix order whose mean width is at least twice the radius; as the narrowest
    cells (near the poles) are 0.67 as wide as the mean, all are wider than the radius. Objects in the outermost cells count.

    Parameters
    ----------
    healpix_29 : (object,) int64
        Indices of order 29.
    pixel : (int, int)
        First index of the pixel, and the one behind its last.
    radius_arcsec : float
        Distance from the edge.
    """
    if radius_arcsec <= 0:
        return np.zeros(len(healpix_29), np.bool_)
    cells_per_side = CELL_ARCSEC / (2.0 * radius_arcsec)
    order = min(max(int(math.log2(cells_per_side)), 0), HEALPIX_ORDER) if cells_per_side > 1 else 0
    n_bits = 2 * (HEALPIX_ORDER - order)
    cell = (healpix_29 - pixel[0]) >> n_bits
    last = (pixel[1] - pixel[0] - 1) >> n_bits  # all bits of the cells' numbers set
    along_x, along_y = EVEN_BITS & last, ~EVEN_BITS & last
    x, y = cell & along_x, cell & along_y
    near: npt.NDArray[np.bool_] = (x == 0) | (x == along_x) | (y == 0) | (y == along_y)
    return near
