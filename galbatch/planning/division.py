"""The division of the sky into HEALPix pixels of adaptive order. It depends on the objects alone, and does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from galbatch.core.pixels import HealpixPixel, Partition

__all__ = ["MAX_HEALPIX_ORDER", "Limits", "divide", "divide_ranked"]

BytesOf = Callable[[int, int], int]
"""Returns the bytes that the objects from a first to before a last one read plus write."""

MAX_HEALPIX_ORDER = 13
"""A pixel of this order is never split: 26 arcsec across, smaller than the field of two cutouts."""


@dataclass(frozen=True)
class Limits:
    """The most that a partition should hold: objects, and bytes read plus written."""

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

    A pixel is split while it holds more than `max_objects` objects or needs more than `max_bytes`, down to
    order 13 or a single object.

    Parameters
    ----------
    healpix_29 : (object,) int64, sorted, order 29 NESTED
    bytes_of : bytes that the objects `start` to `stop` read plus write; None counts none

    Returns
    -------
    Partitions in HEALPix order; together they hold each object exactly once.
    """

    def rank(index: int) -> int:
        return int(np.searchsorted(healpix_29, index))

    return divide_ranked(rank, Limits(max_objects, max_bytes), bytes_of)


def divide_ranked(
    rank: Callable[[int], int], limits: Limits, bytes_of: BytesOf | None = None
) -> list[Partition]:
    """Divide objects as `divide` does, where `rank` returns the number of objects before an index of order 29."""

    def is_small(partition: Partition) -> bool:
        if partition.n_objects == 1:
            return True
        if partition.n_objects > limits.max_objects:
            return False
        return bytes_of is None or bytes_of(partition.start, partition.stop) <= limits.max_bytes

    result: list[Partition] = []
    # The stack holds the next pixel on top, so that partitions come out in HEALPix order.
    pending = _neighbors(0, range(12), rank)[::-1]
    while pending:
        partition = pending.pop()
        if partition.n_objects == 0:
            continue
        if is_small(partition) or partition.healpix_order == MAX_HEALPIX_ORDER:
            result.append(partition)
        else:
            children = range(4 * partition.healpix_pixel, 4 * partition.healpix_pixel + 4)
            pending.extend(_neighbors(partition.healpix_order + 1, children, rank)[::-1])
    return result


def _neighbors(healpix_order: int, pixels: range, rank: Callable[[int], int]) -> list[Partition]:
    """Return consecutive pixels of one order with their objects."""
    bounds = [rank(HealpixPixel(healpix_order, pixel).index_range[0]) for pixel in (*pixels, pixels.stop)]
    return [
        Partition(healpix_order, pixel, start, stop)
        for pixel, (start, stop) in zip(pixels, pairwise(bounds), strict=True)
    ]
