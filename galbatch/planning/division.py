"""The division of the sky into HEALPix pixels of adaptive order.

It depends on the objects and the config alone, not on the number of workers, and does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from galbatch.core.pixels import HealpixPixel, Partition

__all__ = ["MAX_HEALPIX_ORDER", "Limits", "divide", "divide_ranked"]

BytesOf = Callable[[int, int], int]
"""Takes the positions `start` and `stop` of a range of objects; returns the bytes that these read plus write."""

MAX_HEALPIX_ORDER = 13
"""Pixels of this HEALPix order are not split: they are 26 arcsec across, less than one cutout of GaMPEN (40 arcsec)."""


@dataclass(frozen=True)
class Limits:
    """The upper limits of a partition: number of objects, and bytes read plus written."""

    max_objects: int
    max_bytes: int


def divide(
    healpix_29: npt.NDArray[np.int64],
    *,
    max_objects: int,
    max_bytes: int,
    bytes_of: BytesOf | None = None,
) -> list[Partition]:
    """Divide sorted objects into HEALPix pixels of adaptive order.

    A pixel is split while it holds more than `max_objects` objects or reads plus writes more than `max_bytes`, down to
    order 13 or a single object.

    Parameters
    ----------
    healpix_29 : ndarray of int64, (object,)
        HEALPix index of each object, order 29 in NESTED numbering, sorted.
    max_objects, max_bytes : int
        The limits.
    bytes_of : callable or None
        Takes the positions `start` and `stop` of a range of objects; returns the bytes that these read plus write. None:
        bytes are not limited.

    Returns
    -------
    list of Partition
        In HEALPix order; together they hold each object exactly once.
    """

    def rank(index: int) -> int:
        return int(np.searchsorted(healpix_29, index))

    return divide_ranked(rank, Limits(max_objects, max_bytes), bytes_of)


def divide_ranked(
    rank: Callable[[int], int], limits: Limits, bytes_of: BytesOf | None = None
) -> list[Partition]:
    """Divide objects as `divide` does, without their indices in memory.

    `rank` takes a HEALPix index of order 29 and returns the number of objects with a smaller one.
    """

    def is_small(partition: Partition) -> bool:
        if partition.n_objects == 1:
            return True
        if partition.n_objects > limits.max_objects:
            return False
        # Projecting bytes is the expensive test, so it comes last.
        return bytes_of is None or bytes_of(partition.start, partition.stop) <= limits.max_bytes

    result: list[Partition] = []
    # The stack holds the next pixel on top, so that partitions come out in HEALPix order.
    # HEALPix has 12 pixels at order 0; in NESTED numbering the children of pixel p are 4p to 4p + 3.
    pending = _pixels_of_order(0, range(12), rank)[::-1]
    while pending:
        partition = pending.pop()
        if partition.n_objects == 0:
            continue
        if is_small(partition) or partition.healpix_order == MAX_HEALPIX_ORDER:
            result.append(partition)
        else:
            children = range(4 * partition.healpix_pixel, 4 * partition.healpix_pixel + 4)
            pending.extend(_pixels_of_order(partition.healpix_order + 1, children, rank)[::-1])
    return result


def _pixels_of_order(healpix_order: int, pixels: range, rank: Callable[[int], int]) -> list[Partition]:
    """Return consecutive pixels of one HEALPix order as partitions, with the range of objects in each."""
    # The end of a pixel's range of indices is the beginning of the next one's.
    bounds = [rank(HealpixPixel(healpix_order, pixel).index_range[0]) for pixel in (*pixels, pixels.stop)]
    return [
        Partition(healpix_order, pixel, start, stop)
        for pixel, (start, stop) in zip(pixels, pairwise(bounds), strict=True)
    ]
