"""Committed Zarr v3 groups in a tree of HEALPix pixels. The cutout store and the kept pass outputs consist of them.

A group is done when its ``_done.json`` exists. That file is deleted before a group is rewritten, and written last, so a
group without it is unfinished, whatever other files exist. One task owns a whole group.

``_done.json`` holds the size and CRC-32C of every other file of the group, and a checksum of its own text. Files are read
whole and checked when they are read; a file that another program, a disk or a network changed raises `DamagedError`.

Zarr encodes and decodes in memory, and this package reads and writes the files. Zarr's own S3 store makes three requests
before it writes each of the 35 files of a small group, reads a missing or empty file as NaN without an error, and reads
the chunks of a shard one after the other.
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
