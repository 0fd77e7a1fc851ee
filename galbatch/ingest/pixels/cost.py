"""The cost of reading a tile's planes, and the way of reading that follows from it; no I/O.

The readers in `planes` choose by the same functions, so that the plan's numbers are those of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from galbatch import storage
from galbatch.core.types import Plane, Tile

__all__ = [
    "MERGE_GAP_BYTES",
    "REQUEST_BYTES",
    "ExpectedReads",
    "ReadCost",
    "merge_gap_bytes",
    "plane_cost",
    "read_cost",
    "tile_read_cost",
]

Shape = tuple[int, int]

REQUEST_BYTES = 12 * 1024
"""Cost of a request on top of the bytes it brings, for a worker that gets 20 MB/s: 64 at a time of 25 ms each come to
8 KiB, the 1.5 ms of processor time that aiobotocore was seen to take to 30 KiB."""

MERGE_GAP_BYTES = 4 * 1024
"""Byte ranges closer than this are fetched as one, if it is not more than they hold themselves."""


@dataclass(frozen=True, slots=True)
class ExpectedReads:
    """The windows of a plane that will be read.

    Attributes
    ----------
    n_windows : number of windows
    size_px : side of each, in pixels of the tile
    """

    n_windows: int
    size_px: int


@dataclass(frozen=True, slots=True)
class ReadCost:
    """The cost of reading: bytes from disk or network, S3 requests, and whether the plane is fetched whole."""

    bytes_: int
    requests: int
    whole: bool

    def __add__(self, other: ReadCost) -> ReadCost:
        return ReadCost(
            self.bytes_ + other.bytes_, self.requests + other.requests, self.whole and other.whole
        )


def merge_gap_bytes(row_bytes: int) -> int:
    """Return the distance up to which rows of windows are fetched as one.

    Never more than a row: so what is fetched is at most twice what is wanted. Rows of a 4200 px float32 image are
    16.8 KB apart: those of one window stay alone.
    """
    return min(MERGE_GAP_BYTES, row_bytes)


def read_cost(tile: Tile, plane: Plane, *, n_windows: int, size_px: int) -> ReadCost:
    """Return the cost of reading `n_windows` windows of one of the tile's planes, without the file's headers.

    `plane_cost` says what is counted. The windows are squares of `size_px` pixels of the tile.
    """
    return plane_cost(plane, tile.shape_px, ExpectedReads(n_windows, size_px))


def plane_cost(
    plane: Plane, shape_px: Shape, expected: ExpectedReads, *, strips: Sequence[Shape] = ()
) -> ReadCost:
    """Return the cost of the `expected` windows of a plane of `shape_px` (y, x) pixels.

    Windows are counted as if none overlapped another. From S3 a plane is fetched whole where that is cheaper
    than a request for each row (or each run of compressed blocks), a request counted as `REQUEST_BYTES`.
    Locally the kernel reads pages of 4 KiB (its read-ahead may bring more), compressed planes their blocks.
    What of a window reaches over the tile's edge is not subtracted. Areas of the shapes in `strips`, (y, x) pixels, are read
    besides; they do not decide whether the plane is fetched whole.
    """
    if expected.n_windows == 0:
        return ReadCost(0, 0, whole=False)
    remote = storage.reads_by_request(plane.path)
    whole = _whole(plane, shape_px, remote=remote)
    if plane.packed:
        return whole
    # (y, x): a window reaches at most over the whole tile.
    window = (min(expected.size_px, shape_px[0]), min(expected.size_px, shape_px[1]))
    bytes_, requests = _area_cost(plane, shape_px, window, remote=remote)
    parts = ReadCost(math.ceil(expected.n_windows * bytes_), expected.n_windows * requests, whole=False)
    if remote and _weighed(parts) > _weighed(whole):
        return whole
    for strip in strips:
        bytes_, requests = _area_cost(plane, shape_px, strip, remote=remote)
        parts += ReadCost(math.ceil(bytes_), requests, whole=False)
    # The page cache keeps what windows that overlap have read: no more than a local file comes from the disk.
    return parts if remote else ReadCost(min(parts.bytes_, whole.bytes_), 0, whole=False)


def _weighed(cost: ReadCost) -> int:
    """Return bytes, with those that requests cost."""
    return cost.bytes_ + cost.requests * REQUEST_BYTES


def _area_cost(plane: Plane, shape_px: Shape, area: Shape, *, remote: bool) -> tuple[float, int]:
    """Return bytes and requests of an area of pixels (y, x) of a plane."""
    if plane.block_px is not None:
        return _compressed(plane, shape_px, area)
    return _ranged(plane, shape_px, area) if remote else _mapped(plane, shape_px, area)


def tile_read_cost(tile: Tile, *, n_windows: int, size_px: int, strips: Sequence[Shape] = ()) -> ReadCost:
    """Return the cost of reading `n_windows` windows, and `strips`, of the tile's image, mask and weight, headers included."""
    planes, expected = tile.pixel_planes, ExpectedReads(n_windows, size_px)
    costs = [plane_cost(plane, tile.shape_px, expected, strips=strips) for plane in planes]
    total = costs[0]
    for cost in costs[1:]:
        total += cost
    if n_windows == 0 or tile.image.packed:
        return total
    # A block of the file for the header of each plane, and one for the first; asking S3 for the size takes one more.
    n_headers = len(planes) + len({plane.path for plane in planes})
    path = tile.image.path
    n_requests = n_headers + 1 if storage.reads_by_request(path) else 0
    return total + ReadCost(n_headers * storage.least_read_bytes(path), n_requests, whole=total.whole)


def _whole(plane: Plane, shape_px: Shape, *, remote: bool) -> ReadCost:
    size = _stored_bytes(plane, shape_px)
    return ReadCost(size, math.ceil(size / storage.PIECE_BYTES) if remote else 0, whole=True)


def _stored_bytes(plane: Plane, shape_px: Shape) -> int:
    plain = shape_px[0] * shape_px[1] * plane.bytes_per_px
    return plane.stored_bytes or plain if plane.block_px is not None else plain


def _ranged(plane: Plane, shape_px: Shape, window: Shape) -> tuple[float, int]:
    """Return bytes and requests of a window: a byte range for each row, or one for all where rows are close."""
    row_bytes = window[1] * plane.bytes_per_px
    stride_bytes = shape_px[1] * plane.bytes_per_px
    if stride_bytes - row_bytes <= merge_gap_bytes(row_bytes):
        return (window[0] - 1) * stride_bytes + row_bytes, 1
    return window[0] * row_bytes, window[0]


def _mapped(plane: Plane, shape_px: Shape, window: Shape) -> tuple[float, int]:
    row_bytes = window[1] * plane.bytes_per_px
    stride_bytes = shape_px[1] * plane.bytes_per_px
    # A run of bytes at a random place touches one page more than it fills.
    by_row = window[0] * (row_bytes / storage.PAGE_BYTES + 1.0)
    in_one = ((window[0] - 1) * stride_bytes + row_bytes) / storage.PAGE_BYTES + 1.0
    return min(by_row, in_one) * storage.PAGE_BYTES, 0


def _compressed(plane: Plane, shape_px: Shape, window: Shape) -> tuple[float, int]:
    """Return bytes and requests of the blocks that a window at a random place touches, on average."""
    assert plane.block_px is not None
    touched, there = [], []
    for size, block, length in zip(window, plane.block_px, shape_px, strict=True):
        there.append(math.ceil(length / block))
        # A window of n pixels at a random place touches (n - 1) / block + 1 blocks of an axis on average.
        touched.append(min((size - 1) / block + 1.0, there[-1]))
    # A row of blocks lies in one range of bytes if the window touches all of it; else each row of blocks takes a request.
    share = touched[0] * touched[1] / (there[0] * there[1])
    requests = 1 if touched[1] == there[1] else math.ceil(touched[0])
    return share * _stored_bytes(plane, shape_px), requests
