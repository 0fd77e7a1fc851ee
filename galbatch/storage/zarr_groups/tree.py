"""The tree of groups: paths, ``_done.json`` files, and the groups above those of pixels."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zarr.errors import UnstableSpecificationWarning, ZarrUserWarning

from galbatch.core.pixels import ORDER_FOLDERS, HealpixPixel, split_path
from galbatch.errors import DamagedError
from galbatch.storage import files
from galbatch.storage.base import Piece
from galbatch.storage.checksums import Checksum, read_sealed, sealed_bytes

__all__ = [
    "DONE_PATH",
    "GROUP_ENTRIES",
    "Mark",
    "group_file",
    "group_path",
    "ignore_unspecified",
    "list_done",
    "list_pixels",
    "parents_of",
    "read_done",
    "read_mark",
    "read_root_attributes",
    "remove_pixel",
    "root_file",
    "unspecified",
    "write_root",
]

DONE_PATH = "object_id/_done.json"
"""Path of ``_done.json`` in a group. It lies in an array's folder, as Zarr and xarray warn of unknown files in a group's."""

MARK_SUFFIX = "_done.json"

ROOT_SEAL = "crc32c"
"""Attribute of the root with the checksum of its ``zarr.json``."""

GROUP_ENTRIES = ("zarr.json", *ORDER_FOLDERS)
"""Everything in the folder of a tree of groups, in the order in which it is deleted."""


@dataclass(frozen=True)
class Mark:
    """The content of a group's ``_done.json``.

    Attributes
    ----------
    done : the values given to `GroupWriter.finish`, such as the fingerprint
    files : checksum of each other file of the group, by its path below the group
    """

    done: Mapping[str, Any]
    files: Mapping[str, Checksum]

    def as_bytes(self) -> bytes:
        """Return the content of the file."""
        listed = {name: [one.size_bytes, one.crc32c] for name, one in self.files.items()}
        return sealed_bytes({**self.done, "files": listed})

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Mark:
        """Return the mark from the value in the file."""
        listed = value.pop("files", {})
        return cls(value, {name: Checksum(*one) for name, one in listed.items()})


def group_path(root: str, pixel: HealpixPixel, name: str) -> str:
    """Return the path of the group `name` of a pixel in the tree at `root`."""
    return files.join(root, pixel.path, name)


def parents_of(pixels: Iterable[HealpixPixel]) -> list[str]:
    """Return the sorted paths of the groups above those of `pixels`, without the root."""
    return sorted(
        {parent for pixel in pixels for parent in itertools.accumulate(pixel.path.split("/"), files.join)}
    )


def write_root(root: str, attributes: Mapping[str, Any], pixels: Iterable[HealpixPixel]) -> None:
    """Write the root of a tree and the groups above those of `pixels`.

    The client does this before it submits tasks, which then write only their own groups.
    """
    # Files that exist are written again, which takes one request each; asking first takes four.
    contents: dict[str, Sequence[Piece]] = {"zarr.json": [root_file(attributes)]}
    contents |= {f"{parent}/zarr.json": [group_file()] for parent in parents_of(pixels)}
    files.write_files(root, contents)


def group_file(attributes: Mapping[str, Any] | None = None) -> bytes:
    """Return the ``zarr.json`` of a group; the same attributes give the same bytes with any version of Zarr."""
    return files.json_bytes({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})})


def root_file(attributes: Mapping[str, Any]) -> bytes:
    """Return the ``zarr.json`` of the root, with an attribute that holds the checksum of the file without this attribute."""
    return group_file({**attributes, ROOT_SEAL: Checksum.of([group_file(attributes)]).crc32c})


def read_root_attributes(root: str) -> dict[str, Any] | None:
    """Return the attributes of the root that `write_root` wrote; None if there is no root.

    Raises
    ------
    DamagedError
        The file has changed since it was written.
    """
    path = files.join(root, "zarr.json")
    try:
        data = files.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    attributes: Any = (files.parse_json(data) or {}).get("attributes")
    attributes = dict(attributes) if isinstance(attributes, dict) else {}
    attributes.pop(ROOT_SEAL, None)
    if root_file(attributes) != data:
        raise DamagedError(path, "is not as it was written" if data else "is empty")
    return attributes


def read_mark(path: str) -> Mark | None:
    """Return the mark of the group at `path`; None if the group is unfinished or does not exist.

    Raises
    ------
    DamagedError
        The file has changed since it was written.
    """
    value = read_sealed(files.join(path, DONE_PATH))
    return None if value is None else Mark.from_json(value)


def read_done(path: str) -> dict[str, Any] | None:
    """Return the values that `GroupWriter.finish` wrote for the group at `path`; None if it is unfinished or does not exist.

    Raises
    ------
    DamagedError
        The file has changed since it was written.
    """
    mark = read_mark(path)
    return None if mark is None else dict(mark.done)


def list_done(root: str) -> list[tuple[HealpixPixel, str]]:
    """Return the pixel and name of each finished group of a tree."""
    found = (split_path(path) for path in files.list_files(root, suffix=MARK_SUFFIX))
    return [(pixel, rest.split("/")[1]) for pixel, rest in filter(None, found)]


def list_pixels(root: str) -> set[HealpixPixel]:
    """Return the pixels with any file in the tree, finished or not."""
    found = (split_path(path) for path in files.list_files(root, suffix=""))
    return {pixel for pixel, _ in filter(None, found)}


def remove_pixel(root: str, pixel: HealpixPixel) -> None:
    """Remove all groups of a pixel; does nothing if there are none."""
    path = files.join(root, pixel.path)
    # Marks go first, so that groups whose removal is interrupted count as unfinished.
    for mark in files.list_files(path, suffix=MARK_SUFFIX):
        files.remove(files.join(path, mark))
    files.remove(path)


# --- warnings ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unspecified() -> Iterator[None]:
    """Silence Zarr's warnings of two features that the v3 specification lacks; zarr-python and xarray read both.

    They are text of fixed length, for ids, and consolidated metadata, with which one request opens a group instead of
    thirty.
    """
    with warnings.catch_warnings():
        ignore_unspecified()
        yield


def ignore_unspecified() -> None:
    """Silence the same warnings in the whole process, for workers with several threads."""
    # The filters that warnings.catch_warnings restores are shared by all threads.
    warnings.simplefilter("ignore", UnstableSpecificationWarning)
    warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
