"""HEALPix pixels and partitions, and the paths that HATS gives them: made and parsed here alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "HEALPIX_ORDER",
    "ORDER_FOLDERS",
    "PATH_COLUMNS",
    "HealpixPixel",
    "Partition",
    "split_path",
]

HEALPIX_ORDER = 29
"""The highest HEALPix order: that of the index which every object has. 12 * 4**29 pixels fit in an int64."""

PATH_COLUMNS = ("Norder", "Dir", "Npix")
"""Keys of a pixel's path, which readers of partitioned Parquet take for columns."""

ORDER_FOLDERS = tuple(f"Norder={healpix_order}" for healpix_order in range(HEALPIX_ORDER + 1))
"""First folders of all paths of pixels."""

# HATS puts no more than 10,000 pixels into a folder.
PIXELS_PER_FOLDER = 10_000

PATH = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)(.*)")


@dataclass(frozen=True, slots=True, order=True)
class HealpixPixel:
    """A NESTED HEALPix pixel; pixels sort by order, then number."""

    healpix_order: int
    healpix_pixel: int

    @property
    def path(self) -> str:
        """Path below the store and, with ``.parquet``, below ``dataset/`` of the catalog."""
        directory = self.healpix_pixel // PIXELS_PER_FOLDER * PIXELS_PER_FOLDER
        return f"Norder={self.healpix_order}/Dir={directory}/Npix={self.healpix_pixel}"

    @property
    def name(self) -> str:
        """Name in messages, such as ``Norder=5/Npix=7123``."""
        return f"Norder={self.healpix_order}/Npix={self.healpix_pixel}"

    @property
    def index_range(self) -> tuple[int, int]:
        """Half-open range of the indices of order 29 inside the pixel; sorting by it follows the sky."""
        shift = 2 * (HEALPIX_ORDER - self.healpix_order)
        return self.healpix_pixel << shift, (self.healpix_pixel + 1) << shift

    @classmethod
    def from_path(cls, path: str) -> HealpixPixel | None:
        """Return the pixel whose `path` this is, or None if it is no pixel's."""
        found = split_path(path)
        return found[0] if found is not None and not found[1] else None


def split_path(path: str) -> tuple[HealpixPixel, str] | None:
    """Split a path into its pixel and what follows, such as ``.parquet``; None if it does not begin with a pixel's."""
    match = PATH.fullmatch(path)
    return (HealpixPixel(int(match[1]), int(match[2])), match[3]) if match else None


@dataclass(frozen=True, slots=True, order=True)
class Partition(HealpixPixel):
    """One HEALPix pixel of the run: the unit of work, of retry, of resume, of output.

    `start` and `stop` are its rows in the sorted object table.
    """

    start: int
    stop: int

    @property
    def pixel(self) -> HealpixPixel:
        """The pixel without the rows, as leaves and groups are listed by."""
        return HealpixPixel(self.healpix_order, self.healpix_pixel)

    @property
    def n_objects(self) -> int:
        """Number of objects."""
        return self.stop - self.start
