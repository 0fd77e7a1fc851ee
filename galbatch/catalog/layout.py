"""Paths of the files in a catalog. All names of files and folders are defined here."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from galbatch import storage
from galbatch.core.pixels import HealpixPixel, split_path
from galbatch.errors import CatalogError

__all__ = [
    "CATALOG_ENTRIES",
    "CHECKSUMS",
    "COMMON_METADATA",
    "DATASET",
    "METADATA",
    "PARTITION_INFO",
    "POINT_MAP",
    "PROPERTIES",
    "SKYMAP",
    "STAGING",
    "checksum_path",
    "damaged_leaf",
    "hats_path",
    "leaf_path",
    "leaf_pixel",
    "leaves_of",
    "list_leaves",
    "stray_files",
]

DATASET = "dataset"
STAGING = ".staging"
CHECKSUMS = "_checksums"
"""Readers of a folder of Parquet pass over names that begin so."""
COMMON_METADATA = f"{DATASET}/_common_metadata"
METADATA = f"{DATASET}/_metadata"
PARTITION_INFO = "partition_info.csv"
SKYMAP = "skymap.fits"
POINT_MAP = "point_map.fits"
PROPERTIES = ("properties", "hats.properties")
"""Two names of one file: HATS renamed it, and older readers expect the first. hats tries the second first, so it is written last."""

CATALOG_ENTRIES = (*PROPERTIES[::-1], DATASET, CHECKSUMS, STAGING, PARTITION_INFO, SKYMAP, POINT_MAP)
"""All files and folders of a catalog, in the order in which to delete them: a catalog without properties cannot be opened."""

LEAF_SUFFIX = ".parquet"


def leaf_path(catalog_path: str, pixel: HealpixPixel) -> str:
    """Return the path of the leaf (Parquet file) of a pixel."""
    return storage.join(catalog_path, DATASET, pixel.path + LEAF_SUFFIX)


def checksum_path(leaf_path: str) -> str:
    """Return the path of the checksum of the leaf at a path, such as ``_checksums/norder_5/dir_0/npix_7.json``."""
    folder, _, name = leaf_path.rpartition(f"{DATASET}/")
    # hats takes all that is named Norder*/Dir*/Npix*, wherever it lies, for leaves.
    return f"{folder}{CHECKSUMS}/{name.removesuffix(LEAF_SUFFIX).replace('=', '_').lower()}.json"


def leaf_pixel(path: str) -> HealpixPixel | None:
    """Return the pixel of a leaf from its path relative to ``dataset/``; None if the path is not that of a leaf."""
    found = split_path(path)
    return found[0] if found is not None and found[1] == LEAF_SUFFIX else None


def damaged_leaf(path: str) -> HealpixPixel | None:
    """Return the pixel of the leaf at a path below the catalog; None if it is no leaf's."""
    return leaf_pixel(path.removeprefix(f"{DATASET}/"))


def list_leaves(catalog_path: str) -> list[HealpixPixel]:
    """Return the pixels of all leaves of a catalog, sorted by order and then by number; empty if there is no catalog."""
    paths = storage.list_files(storage.join(catalog_path, DATASET), suffix=LEAF_SUFFIX)
    return sorted(pixel for path in paths if (pixel := leaf_pixel(path)) is not None)


def leaves_of(catalog_path: str) -> list[HealpixPixel]:
    """Return the pixels of all leaves (at least one), sorted by the HEALPix index at order 29 of their rows.

    Raises
    ------
    CatalogError
        There is no leaf.
    """
    leaves = sorted(list_leaves(catalog_path), key=attrgetter("index_range"))
    if not leaves:
        raise CatalogError(f"{catalog_path}: no leaf of a catalog found; give the folder that holds dataset/")
    return leaves


def hats_path(catalog_path: str) -> Any:
    """Return a path object for hats with the credentials of S3, without which hats reads anonymously."""
    # Imported here, because hats takes two seconds to import and imports pyplot, which workers do not need.
    from hats.io.file_io import get_upath

    return get_upath(catalog_path, **storage.reader_options(catalog_path))


def stray_files(catalog_path: str) -> list[str]:
    """Return the files below ``dataset/`` that are neither leaves nor metadata, and which break readers of the folder."""
    paths = storage.list_files(storage.join(catalog_path, DATASET), suffix="")
    own = {COMMON_METADATA, METADATA}
    return [path for path in paths if leaf_pixel(path) is None and f"{DATASET}/{path}" not in own]
