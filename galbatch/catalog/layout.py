"""Where the files of a catalog are: all path words in one place."""

from __future__ import annotations

import re
from typing import Any

from galbatch import storage
from galbatch.core import sky

__all__ = [
    "CATALOG_ENTRIES",
    "COMMON_METADATA",
    "DATASET",
    "METADATA",
    "PARTITION_INFO",
    "POINT_MAP",
    "PROPERTIES",
    "SKYMAP",
    "STAGING",
    "hats_path",
    "leaf_path",
    "leaf_pixel",
    "list_leaves",
    "pixel_name",
    "sky_order",
    "stray_files",
]

DATASET = "dataset"
STAGING = ".staging"
COMMON_METADATA = f"{DATASET}/_common_metadata"
METADATA = f"{DATASET}/_metadata"
PARTITION_INFO = "partition_info.csv"
SKYMAP = "skymap.fits"
POINT_MAP = "point_map.fits"
PROPERTIES = ("properties", "hats.properties")
"""Two names of one file, from HATS' history; the second is read first, so it is written last."""

CATALOG_ENTRIES = (*PROPERTIES[::-1], DATASET, STAGING, PARTITION_INFO, SKYMAP, POINT_MAP)
"""All that this room writes in a catalog's folder, in the order in which to delete it."""

LEAF = re.compile(r"Norder=(\d+)/Dir=(\d+)/Npix=(\d+)\.parquet")


def leaf_path(catalog_path: str, healpix_order: int, healpix_pixel: int) -> str:
    """Path of a leaf."""
    folder = f"Norder={healpix_order}/Dir={healpix_pixel // 10_000 * 10_000}"
    return storage.join(catalog_path, DATASET, folder, f"Npix={healpix_pixel}.parquet")


def leaf_pixel(path: str) -> tuple[int, int] | None:
    """Order and pixel that a path below ``dataset/`` means; None if it is no leaf's."""
    match = LEAF.fullmatch(path)
    return (int(match[1]), int(match[3])) if match else None


def list_leaves(catalog_path: str) -> list[tuple[int, int]]:
    """(healpix_order, healpix_pixel) of the leaves that are there, sorted; empty if there is no catalog."""
    paths = storage.list_files(storage.join(catalog_path, DATASET), suffix=".parquet")
    return sorted(pixel for path in paths if (pixel := leaf_pixel(path)) is not None)


def hats_path(catalog_path: str) -> Any:
    """The path as hats takes it; hats reads S3 without credentials unless told otherwise."""
    # Imported here: hats takes two seconds and brings pyplot, which workers do not need.
    from hats.io.file_io import get_upath

    return get_upath(catalog_path, **({"anon": False} if storage.is_s3(catalog_path) else {}))


def stray_files(catalog_path: str) -> list[str]:
    """Files below ``dataset/`` that are neither leaves nor metadata: they break readers of the folder."""
    paths = storage.list_files(storage.join(catalog_path, DATASET), suffix="")
    own = {COMMON_METADATA, METADATA}
    return [path for path in paths if leaf_pixel(path) is None and f"{DATASET}/{path}" not in own]


def sky_order(pixel: tuple[int, int]) -> tuple[int, int]:
    """Sort key that puts the leaves of different orders in the order of their rows' HEALPix index."""
    return sky.pixel_range(*pixel)


def pixel_name(pixel: tuple[int, int]) -> str:
    """How messages name a leaf."""
    return f"Norder={pixel[0]}/Npix={pixel[1]}"
