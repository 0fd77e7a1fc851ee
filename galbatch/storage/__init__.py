"""Files on a disk or an object store; no other folder of galbatch imports fsspec or s3fs.

Every file that galbatch writes exists whole or not at all. Outputs lie on a disk or on S3; inputs may also lie on any
file system that an installed fsspec package reads. The scheme of a path's URL selects its file system (`file_system`),
and the functions here call it.

Groups of Zarr, as the cutout store and the kept pass outputs are made of, are in `galbatch.storage.zarr_groups`.
"""

from galbatch.storage.access_log import FileAccessLog
from galbatch.storage.base import FileSystem, Piece
from galbatch.storage.cache import Content, fetch, local_copy, open_content, sha256_of
from galbatch.storage.checksums import (
    Checksum,
    damage_path,
    read_damage,
    read_sealed,
    record_damage,
    sealed_bytes,
)
from galbatch.storage.files import (
    absolute,
    append,
    check_writable,
    exists,
    find_files,
    find_identities,
    has_local_path,
    identities,
    identity,
    join,
    json_bytes,
    least_read_bytes,
    list_files,
    make_folder,
    open_file,
    overlaps_writes,
    publish,
    publish_json,
    read_bytes,
    read_files,
    read_json,
    read_ranges,
    reader_options,
    reads_by_request,
    remove,
    remove_if_empty,
    remove_temporaries,
    write_files,
)
from galbatch.storage.fsspec_inputs import LISTED_FROM
from galbatch.storage.local import PAGE_BYTES, LocalFileSystem
from galbatch.storage.locks import Clock, Lock, LockHandle, committing, end_commits, guarded
from galbatch.storage.ranges import BLOCK_BYTES, PIECE_BYTES, RangedFile
from galbatch.storage.s3 import S3FileSystem
from galbatch.storage.systems import file_system

__all__ = [
    "BLOCK_BYTES",
    "LISTED_FROM",
    "PAGE_BYTES",
    "PIECE_BYTES",
    "Checksum",
    "Clock",
    "Content",
    "FileAccessLog",
    "FileSystem",
    "LocalFileSystem",
    "Lock",
    "LockHandle",
    "Piece",
    "RangedFile",
    "S3FileSystem",
    "absolute",
    "append",
    "check_writable",
    "committing",
    "damage_path",
    "end_commits",
    "exists",
    "fetch",
    "file_system",
    "find_files",
    "find_identities",
    "guarded",
    "has_local_path",
    "identities",
    "identity",
    "join",
    "json_bytes",
    "least_read_bytes",
    "list_files",
    "local_copy",
    "make_folder",
    "open_content",
    "open_file",
    "overlaps_writes",
    "publish",
    "publish_json",
    "read_bytes",
    "read_damage",
    "read_files",
    "read_json",
    "read_ranges",
    "read_sealed",
    "reader_options",
    "reads_by_request",
    "record_damage",
    "remove",
    "remove_if_empty",
    "remove_temporaries",
    "sealed_bytes",
    "sha256_of",
    "write_files",
]
