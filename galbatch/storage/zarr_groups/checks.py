"""Checks of a whole tree of groups: every byte of it is read."""

from __future__ import annotations

from collections.abc import Iterator

from galbatch.core.pixels import HealpixPixel, split_path
from galbatch.errors import DamagedError
from galbatch.storage import files
from galbatch.storage.zarr_groups.tree import (
    DONE_PATH,
    group_file,
    group_path,
    list_done,
    parents_of,
    read_mark,
    read_root_attributes,
)

__all__ = ["find_damage", "group_of_file"]


def find_damage(root: str) -> dict[str, str]:
    """Return what is wrong, by the path below `root`, with the files of a tree's finished groups and the groups above them.

    Unfinished groups are none of its business: they count as not done already.
    """
    groups = list_done(root)
    found = dict(_tree_damage(root, {pixel for pixel, _ in groups}) if groups else ())
    for pixel, name in groups:
        below = files.join(pixel.path, name)
        for file, problem in _group_damage(group_path(root, pixel, name)):
            found[files.join(below, file)] = problem
    return found


def group_of_file(path: str) -> tuple[HealpixPixel, str] | None:
    """Return pixel and name of the group that a path below a tree's root belongs to; None for the groups above."""
    split = split_path(path)
    parts = split[1].split("/") if split is not None else []
    return (split[0], parts[1]) if split is not None and len(parts) > 2 else None


def _tree_damage(root: str, pixels: set[HealpixPixel]) -> Iterator[tuple[str, str]]:
    """Yield the files of the groups above others that are not as they were written."""
    try:
        if read_root_attributes(root) is None:
            yield "zarr.json", "is gone"
    except DamagedError as error:
        yield "zarr.json", error.problem
    for parent in parents_of(pixels):
        name = files.join(parent, "zarr.json")
        try:
            if files.read_bytes(files.join(root, name)) != group_file():
                yield name, "is not as it was written"
        except FileNotFoundError:
            yield name, "is gone"


def _group_damage(path: str) -> Iterator[tuple[str, str]]:
    """Yield the files of a finished group that are not as they were written; one is in memory at a time."""
    try:
        mark = read_mark(path)
    except DamagedError as error:
        yield DONE_PATH, error.problem
        return
    for name, checksum in mark.files.items() if mark is not None else ():
        try:
            problem = checksum.problem(files.read_bytes(files.join(path, name)))
        except FileNotFoundError:
            problem = "is gone"
        if problem:
            yield name, problem
