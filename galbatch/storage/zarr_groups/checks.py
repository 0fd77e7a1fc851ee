"""The check of a whole tree of groups, which reads every byte of it."""

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
    """Return what is wrong with each damaged file of a tree, by its path below `root`.

    Finished groups and the groups above them are checked. Unfinished groups count as not done in any case.
    """
    # Without any finished group the files above may not exist yet.
    groups = list_done(root)
    found = dict(_tree_damage(root, {pixel for pixel, _ in groups}) if groups else ())
    for pixel, name in groups:
        below = files.join(pixel.path, name)
        for file, problem in _group_damage(group_path(root, pixel, name)):
            found[files.join(below, file)] = problem
    return found


def group_of_file(path: str) -> tuple[HealpixPixel, str] | None:
    """Return pixel and name of the group that a path below the root belongs to; None for files above the groups."""
    split = split_path(path)
    parts = split[1].split("/") if split is not None else []
    return (split[0], parts[1]) if split is not None and len(parts) > 2 else None


def _tree_damage(root: str, pixels: set[HealpixPixel]) -> Iterator[tuple[str, str]]:
    """Yield each damaged file of the groups above others, with what is wrong with it."""
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
    """Yield each damaged file of a finished group, with what is wrong with it; one file is in memory at a time."""
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
