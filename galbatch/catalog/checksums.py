"""Checksums of leaves, in small files beside ``dataset/``: those of Parquet's own pages miss the footer."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from galbatch import storage
from galbatch.catalog import layout
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import DamagedError

__all__ = ["add_missing_checksums", "leaf_bytes", "leaf_damage", "publish_leaf", "remove_leaf"]

HASHING_THREADS = 8
"""Number of leaves without a checksum that are read at the same time: on S3 each takes 50 ms, most of it network delay."""


def publish_leaf(catalog_path: str, pixel: HealpixPixel, data: bytes) -> None:
    """Write a leaf atomically, and then its checksum.

    Raises
    ------
    LockLost
        The run does not hold its locks any more.
    """
    staging = storage.join(catalog_path, layout.STAGING)
    path = layout.leaf_path(catalog_path, pixel)
    with storage.committing():
        # That of an earlier leaf would declare this one damaged, should the process end in between.
        storage.remove(layout.checksum_path(path))
        storage.publish(path, data, staging=staging)
        _write_checksum(path, data)


def remove_leaf(catalog_path: str, pixel: HealpixPixel) -> None:
    """Remove a leaf, then its checksum; files that do not exist are ignored."""
    path = layout.leaf_path(catalog_path, pixel)
    storage.remove(path)
    storage.remove(layout.checksum_path(path))


def leaf_bytes(path: str) -> bytes:
    """Return the content of a leaf, checked against its checksum where there is one.

    Raises
    ------
    FileNotFoundError
        The leaf is not there.
    DamagedError
        The leaf, or the file with its checksum, is not as it was written.
    """
    data = storage.read_bytes(path)
    checksum = _read_checksum(path)
    if checksum is not None and (problem := checksum.problem(data)):
        raise DamagedError(path, problem)
    return data


def leaf_damage(catalog_path: str, pixel: HealpixPixel) -> str:
    """Return a message if a leaf differs from its checksum; "" if it does not, or if either file is missing."""
    try:
        leaf_bytes(layout.leaf_path(catalog_path, pixel))
    except DamagedError as error:
        return error.problem
    except FileNotFoundError:
        return ""
    return ""


def add_missing_checksums(catalog_path: str, leaves: Iterable[HealpixPixel]) -> None:
    """Write the checksums of leaves without one, whose writers ended between writing the two files."""
    folder = storage.join(catalog_path, layout.CHECKSUMS)
    there = {storage.join(folder, name) for name in storage.list_files(folder, suffix=".json")}
    paths = [layout.leaf_path(catalog_path, leaf) for leaf in leaves]
    missing = [path for path in paths if layout.checksum_path(path) not in there]

    def add(path: str) -> None:
        _write_checksum(path, storage.read_bytes(path))

    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        list(pool.map(add, missing))


def _write_checksum(path: str, data: bytes) -> None:
    checksum = storage.Checksum.of([data])
    value: dict[str, Any] = {"size_bytes": checksum.size_bytes, "content_crc32c": checksum.crc32c}
    storage.publish(layout.checksum_path(path), storage.sealed_bytes(value))


def _read_checksum(path: str) -> storage.Checksum | None:
    try:
        value = storage.read_sealed(layout.checksum_path(path))
    except DamagedError as error:
        # Which of the two is right cannot be known: a leaf is made again sooner than a wrong one is believed.
        raise DamagedError(path, f"the file with its checksum, {error.path}, {error.problem}") from None
    return None if value is None else storage.Checksum(value["size_bytes"], value["content_crc32c"])
