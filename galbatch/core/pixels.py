"""HEALPix pixels, partitions, and their paths in a HATS catalog. Such paths are made and parsed only here."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

__all__ = [
    "HEALPIX_ORDER",
    "ORDER_FOLDERS",
    "PATH_COLUMNS",
    "HealpixPixel",
    "OlderOutput",
    "Partition",
    "PixelIndex",
    "split_path",
]

HEALPIX_ORDER = 29
"""Order of the HEALPix index of each object: the highest, at which 12 * 4**29 pixels still fit into an int64."""

PATH_COLUMNS = ("Norder", "Dir", "Npix")
"""Keys in the path of a pixel. Readers of partitioned Parquet add a column for each, so no other column may have the name."""

ORDER_FOLDERS = tuple(f"Norder={healpix_order}" for healpix_order in range(HEALPIX_ORDER + 1))
"""All possible first folders in the path of a pixel."""

# HATS puts no more than 10,000 pixels into a folder.
PIXELS_PER_FOLDER = 10_000

# Dir follows from Npix, so it is matched but not read. The last group is the suffix of a leaf, or empty.
PATH = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)(.*)")


@dataclass(frozen=True, slots=True, order=True)
class HealpixPixel:
    """A HEALPix pixel in the NESTED scheme. Pixels compare by order first, then by number."""

    healpix_order: int
    healpix_pixel: int

    @property
    def path(self) -> str:
        """Path of the pixel relative to a cutout store, or with ``.parquet`` relative to ``dataset/`` of a catalog."""
        directory = self.healpix_pixel // PIXELS_PER_FOLDER * PIXELS_PER_FOLDER
        return f"Norder={self.healpix_order}/Dir={directory}/Npix={self.healpix_pixel}"

    @property
    def name(self) -> str:
        """Name in messages, such as ``Norder=5/Npix=7123``."""
        return f"Norder={self.healpix_order}/Npix={self.healpix_pixel}"

    @property
    def index_range(self) -> tuple[int, int]:
        """Half-open range of the indices at order 29 inside the pixel. Sorting by it gives the order of rows in the catalog."""
        # Each order divides a pixel into four, which adds two bits to the index.
        shift = 2 * (HEALPIX_ORDER - self.healpix_order)
        return self.healpix_pixel << shift, (self.healpix_pixel + 1) << shift

    @classmethod
    def from_path(cls, path: str) -> HealpixPixel | None:
        """Return the pixel whose `path` equals `path`, or None if there is none."""
        found = split_path(path)
        return found[0] if found is not None and not found[1] else None


class PixelIndex:
    """HEALPix pixels that do not overlap, such as the leaves of a catalog, searched by place.

    Parameters
    ----------
    pixels : iterable of HealpixPixel
    """

    def __init__(self, pixels: Iterable[HealpixPixel]) -> None:
        self._pixels = sorted(pixels, key=attrgetter("index_range"))
        self._starts = [pixel.index_range[0] for pixel in self._pixels]

    def __len__(self) -> int:
        return len(self._pixels)

    def __iter__(self) -> Iterator[HealpixPixel]:
        return iter(self._pixels)

    def overlapping(self, pixel: HealpixPixel) -> tuple[HealpixPixel, ...]:
        """Return those that share sky with `pixel`: one that holds it, or all that it holds, in HEALPix order."""
        start, stop = pixel.index_range
        # The last that begins before the pixel or with it may hold it.
        first = max(bisect_right(self._starts, start) - 1, 0)
        near = self._pixels[first : bisect_left(self._starts, stop)]
        return tuple(one for one in near if one.index_range[1] > start)


def split_path(path: str) -> tuple[HealpixPixel, str] | None:
    """Return the pixel at the start of a path and the rest, such as ``.parquet``; None if the path does not start with one."""
    match = PATH.fullmatch(path)
    return (HealpixPixel(int(match[1]), int(match[2])), match[3]) if match else None


@dataclass(frozen=True, slots=True)
class OlderOutput:
    """An older store or catalog, from which a run takes what would be the same, as far as it shares sky with a partition.

    Attributes
    ----------
    path : path of the store or the catalog
    pixels : HEALPix pixels of its groups or leaves
    """

    path: str
    pixels: tuple[HealpixPixel, ...]


@dataclass(frozen=True, slots=True, order=True)
class Partition(HealpixPixel):
    """A HEALPix pixel and its objects: the unit in which a run works, retries, resumes and writes.

    Attributes
    ----------
    start, stop : int
        Half-open range of its rows in the sorted object table.
    """

    start: int
    stop: int

    @property
    def pixel(self) -> HealpixPixel:
        """The pixel without the rows, which identifies the partition's leaf and Zarr groups."""
        return HealpixPixel(self.healpix_order, self.healpix_pixel)

    @property
    def n_objects(self) -> int:
        """Number of objects."""
        return self.stop - self.start
