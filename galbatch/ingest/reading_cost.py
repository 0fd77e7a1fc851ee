"""How a plane of a tile will be read, and what that costs; no I/O.

The readers in `planes` choose by the same functions, so that the plan's numbers are those of the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from galbatch import storage
from galbatch.types import Plane, Tile

__all__ = [
    "MERGE_GAP_BYTES",
    "REQUEST_BYTES",
    "ExpectedReads",
    "ReadCost",
    "is_packed",
    "read_cost",
    "tile_read_cost",
]

REQUEST_BYTES = 8 * 1024
"""What a request costs beside the bytes it brings: 64 at a time of 25 ms each, while a worker gets 20 MB/s."""

MERGE_GAP_BYTES = 4 * 1024
"""Byte ranges closer than this are fetched as one. Rows of a 4200 px float32 image are 16.8 KB apart: they stay alone."""

PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ExpectedReads:
    """How many windows of a plane will be read, of `size_px` pixels of the tile on a side."""

    n_windows: int
    size_px: int


@dataclass(frozen=True, slots=True)
class ReadCost:
    """What reading takes: bytes from disk or network, S3 requests, and whether the plane is fetched whole."""

    bytes_: int
    requests: int
    whole: bool

    def __add__(self, other: ReadCost) -> ReadCost:
        return ReadCost(
            self.bytes_ + other.bytes_, self.requests + other.requests, self.whole and other.whole
        )


def is_packed(path: str) -> bool:
    """Whether the file is packed as a whole, so that no part can be read without what lies before it."""
    return path.endswith((".gz", ".bz2"))


def read_cost(tile: Tile, plane: Plane, *, n_windows: int, size_px: int) -> ReadCost:
    """Cost of reading `n_windows` windows of one of the tile's planes, without the file's headers.

    Windows are counted as if none overlapped another. From S3 a plane is fetched whole where that is cheaper
    than a request for each row (or each run of compressed blocks), a request counted as `REQUEST_BYTES`.
    Locally the kernel reads pages of 4 KiB (its read-ahead may bring more), compressed planes their blocks.

    Parameters
    ----------
    size_px : pixels of the tile on a side of a window; what reaches over the tile's edge is not subtracted
    """
    if n_windows == 0:
        return ReadCost(0, 0, whole=False)
    window = (min(size_px, tile.shape_px[0]), min(size_px, tile.shape_px[1]))
    remote = storage.is_s3(plane.path)
    whole = _whole(tile, plane, remote=remote)
    if is_packed(plane.path):
        return whole
    if plane.block_px is not None:
        parts = _compressed(tile, plane, window=window, n_windows=n_windows)
    elif remote:
        parts = _ranged(tile, plane, window=window, n_windows=n_windows)
    else:
        parts = _mapped(tile, plane, window=window, n_windows=n_windows)
    if not remote:
        return ReadCost(min(parts.bytes_, whole.bytes_), 0, whole=False)
    dense = parts.bytes_ + parts.requests * REQUEST_BYTES > whole.bytes_ + whole.requests * REQUEST_BYTES
    return whole if dense else parts


def tile_read_cost(tile: Tile, *, n_windows: int, size_px: int) -> ReadCost:
    """Cost of reading `n_windows` windows of the tile's image, mask and weight, headers included."""
    planes = [plane for plane in (tile.image, tile.mask, tile.weight) if plane is not None]
    costs = [read_cost(tile, plane, n_windows=n_windows, size_px=size_px) for plane in planes]
    total = costs[0]
    for cost in costs[1:]:
        total += cost
    if n_windows == 0 or is_packed(tile.image.path):
        return total
    # A block of the file for the header of each plane, and one for the first; S3 tells the size in one more.
    n_headers = len(planes) + len({plane.path for plane in planes})
    remote = storage.is_s3(tile.image.path)
    header_bytes = storage.BLOCK_BYTES if remote else PAGE_BYTES
    return total + ReadCost(n_headers * header_bytes, (n_headers + 1) * remote, whole=total.whole)


def _whole(tile: Tile, plane: Plane, *, remote: bool) -> ReadCost:
    size = plane.stored_bytes if plane.block_px is not None else _plain_bytes(tile, plane)
    size = size or _plain_bytes(tile, plane)
    return ReadCost(size, math.ceil(size / storage.PIECE_BYTES) if remote else 0, whole=True)


def _plain_bytes(tile: Tile, plane: Plane) -> int:
    return tile.shape_px[0] * tile.shape_px[1] * plane.bytes_per_px


def _ranged(tile: Tile, plane: Plane, *, window: tuple[int, int], n_windows: int) -> ReadCost:
    """A byte range for each row, or for all rows at once where they are close."""
    row_bytes = window[1] * plane.bytes_per_px
    stride_bytes = tile.shape_px[1] * plane.bytes_per_px
    if stride_bytes - row_bytes <= MERGE_GAP_BYTES:
        return ReadCost(n_windows * ((window[0] - 1) * stride_bytes + row_bytes), n_windows, whole=False)
    return ReadCost(n_windows * window[0] * row_bytes, n_windows * window[0], whole=False)


def _mapped(tile: Tile, plane: Plane, *, window: tuple[int, int], n_windows: int) -> ReadCost:
    row_bytes = window[1] * plane.bytes_per_px
    stride_bytes = tile.shape_px[1] * plane.bytes_per_px
    # A run of bytes at a random place touches one page more than it fills.
    by_row = window[0] * (row_bytes / PAGE_BYTES + 1.0)
    in_one = ((window[0] - 1) * stride_bytes + row_bytes) / PAGE_BYTES + 1.0
    return ReadCost(math.ceil(n_windows * min(by_row, in_one) * PAGE_BYTES), 0, whole=False)


def _compressed(tile: Tile, plane: Plane, *, window: tuple[int, int], n_windows: int) -> ReadCost:
    """The blocks that windows at random places touch, on average; blocks of one row lie side by side."""
    assert plane.block_px is not None
    touched, there = [], []
    for size, block, length in zip(window, plane.block_px, tile.shape_px, strict=True):
        there.append(math.ceil(length / block))
        touched.append(min((size - 1) / block + 1.0, there[-1]))
    stored = plane.stored_bytes or _plain_bytes(tile, plane)
    share = touched[0] * touched[1] / (there[0] * there[1])
    rows_join = touched[1] == there[1]
    requests = n_windows * (1 if rows_join else math.ceil(touched[0]))
    return ReadCost(math.ceil(n_windows * share * stored), requests, whole=False)
