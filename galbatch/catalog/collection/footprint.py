"""The footprint of a catalog as a MOC: where on the sky it has objects."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from galbatch import storage
from galbatch.catalog import layout
from galbatch.catalog.leaves import read_leaf
from galbatch.core import sky
from galbatch.core.columns import HEALPIX
from galbatch.core.pixels import HEALPIX_ORDER
from galbatch.core.prefetch import map_in_threads
from galbatch.errors import UsageError

__all__ = ["write_footprint"]

SKY_DEG2 = 4 * math.pi * (180 / math.pi) ** 2

READING_THREADS = 16
"""Number of leaves read at the same time: on S3 each takes 50 ms, most of it waiting for the network."""


def write_footprint(catalog_path: str, path: str, *, healpix_order: int) -> float:
    """Write a MOC of the HEALPix pixels that have objects, as FITS or JSON by the suffix, and return its area in square degrees.

    Parameters
    ----------
    catalog_path : str
        Finished or not.
    path : str
        Ends with ``.fits`` or ``.json``.
    healpix_order : int
        Order of the pixels, 0 to 29: those of order 12 are 52 arcsec wide.

    Raises
    ------
    CatalogError
        There is no leaf, or one cannot be read.
    UsageError
        The suffix is another one, or the order is not within 0..29.
    OutputError
        There is no space, or no permission to write.
    """
    from mocpy import MOC

    formats = {".fits": "fits", ".json": "json"}
    suffix = Path(path).suffix
    if suffix not in formats:
        raise UsageError(f"{path}: a MOC is written as .fits or .json")
    if not 0 <= healpix_order <= HEALPIX_ORDER:
        raise UsageError(f"MOC of order {healpix_order}: expected 0 to {HEALPIX_ORDER}")

    def covered(leaf_path: str) -> npt.NDArray[np.int64]:
        index = read_leaf(leaf_path, columns=[HEALPIX.name]).column(0).to_numpy()
        return np.unique(sky.pixel_of(index, healpix_order))

    paths = [layout.leaf_path(catalog_path, leaf) for leaf in layout.leaves_of(catalog_path)]
    pixels = np.unique(np.concatenate(list(map_in_threads(covered, paths, n_threads=READING_THREADS))))
    footprint = MOC.from_healpix_cells(
        pixels.astype(np.uint64), np.uint8(healpix_order), max_depth=healpix_order
    )
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, f"footprint{suffix}")
        footprint.save(local, format=formats[suffix])
        storage.publish(path, local.read_bytes())
    return float(footprint.sky_fraction) * SKY_DEG2
