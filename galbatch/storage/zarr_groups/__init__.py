"""Committed groups of Zarr v3 in the tree of HEALPix pixels: the cutout store and the kept pass outputs are made of them.

A group is done when its ``_done.json`` exists: that is deleted before anything is rewritten and written last, so a group
without it is unfinished whatever lies there. One task owns a whole group.

``_done.json`` holds size and CRC-32C of every other file of the group, and a checksum of its own text. Files are read whole,
and checked against it as they are read: what another program, a disk or a network changed raises `DamagedError`.

Zarr codes and decodes in memory, and whole files are moved here. Zarr's own way to S3 asks three times before each of the
35 files of a small group, reads NaN where a file is gone or empty, without a word, and asks for the chunks of an unfinished
shard one after another.
"""

from galbatch.storage.zarr_groups.checks import find_damage, group_of_file
from galbatch.storage.zarr_groups.reading import GroupReader, chunk_files
from galbatch.storage.zarr_groups.tree import (
    GROUP_ENTRIES,
    group_path,
    ignore_unspecified,
    list_done,
    list_pixels,
    read_done,
    read_root_attributes,
    remove_pixel,
    unspecified,
    write_root,
)
from galbatch.storage.zarr_groups.writing import GroupWriter

__all__ = [
    "GROUP_ENTRIES",
    "GroupReader",
    "GroupWriter",
    "chunk_files",
    "find_damage",
    "group_of_file",
    "group_path",
    "ignore_unspecified",
    "list_done",
    "list_pixels",
    "read_done",
    "read_root_attributes",
    "remove_pixel",
    "unspecified",
    "write_root",
]
