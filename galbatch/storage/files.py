"""Functions on files by their paths; each calls the file system that the path belongs to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from galbatch.core.types import FileIdentity
from galbatch.errors import OutputError
from galbatch.storage.base import FileSystem, Piece
from galbatch.storage.systems import file_system

__all__ = [
    "absolute",
    "append",
    "check_writable",
    "exists",
    "find_files",
    "find_identities",
    "has_local_path",
    "identities",
    "identity",
    "join",
    "json_bytes",
    "least_read_bytes",
    "list_files",
    "make_folder",
    "open_file",
    "overlaps_writes",
    "parse_json",
    "publish",
    "publish_json",
    "read_bytes",
    "read_files",
    "read_json",
    "read_ranges",
    "reader_options",
    "reads_by_request",
    "remove",
    "remove_if_empty",
    "remove_temporaries",
    "sync_files",
    "write_files",
]


# --- paths -------------------------------------------------------------------------------------------------


def join(path: str, *parts: str) -> str:
    """Return the path of `parts` below `path`, with single slashes between them."""
    return "/".join([path.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(path: str) -> str:
    """Return the absolute path, without a slash at its end."""
    return file_system(path).absolute(path)


def has_local_path(path: str) -> bool:
    """Return whether other programs on this machine can open the path, and map the file into memory."""
    return file_system(path).has_local_paths


def reads_by_request(path: str) -> bool:
    """Return whether each read of the file is a request over a network."""
    return file_system(path).reads_by_request


def least_read_bytes(path: str) -> int:
    """Return the number of bytes that the smallest read of the file transfers."""
    return file_system(path).least_read_bytes


def overlaps_writes(path: str) -> bool:
    """Return whether writing the file during other work saves time."""
    return file_system(path).overlaps_writes


def reader_options(path: str) -> Mapping[str, Any]:
    """Return the options with which other libraries open the path through fsspec."""
    return file_system(path).reader_options


# --- looking -----------------------------------------------------------------------------------------------


def exists(path: str) -> bool:
    """Return whether a file or folder exists; on S3 a folder is a prefix with objects below it."""
    return file_system(path).exists(path)


def identity(path: str) -> FileIdentity:
    """Return the size and version (S3: ETag; local: modification time in ns) of a file.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    """
    return file_system(path).identity(path)


def identities(paths: Sequence[str]) -> dict[str, FileIdentity | None]:
    """Return the identity of each file by its path, None if it does not exist; many on S3 by one listing of their folder."""
    # Each file system is called once, with all its own paths.
    found: dict[str, FileIdentity | None] = dict.fromkeys(paths)
    groups: dict[int, tuple[FileSystem, list[str]]] = {}
    for path in found:
        system = file_system(path)
        groups.setdefault(id(system), (system, []))[1].append(path)
    for system, own in groups.values():
        found |= system.identities(own)
    return found


def list_files(folder: str, *, suffix: str) -> list[str]:
    """Return the sorted paths, relative to `folder`, of the files below it that end with `suffix`; empty if it does not exist."""
    return file_system(folder).list_files(folder, suffix=suffix)


def find_files(pattern: str, *, suffixes: tuple[str, ...]) -> list[str]:
    """Return the sorted absolute paths of the files that `pattern` stands for; empty if nothing matches.

    Parameters
    ----------
    pattern : str
        A file; a folder, which stands for all files below it that end with one of `suffixes`, in any case; or a glob pattern
        (``**`` matches any number of folders), which stands for its matches with any suffix.
    suffixes : tuple of str
        In lower case.
    """
    return file_system(pattern).find_files(pattern, suffixes=suffixes)


def find_identities(pattern: str, *, suffixes: tuple[str, ...]) -> dict[str, FileIdentity]:
    """Return the identity of each file that `find_files` finds, by its path; on S3 taken from the listing."""
    return file_system(pattern).find_identities(pattern, suffixes=suffixes)


# --- reading -----------------------------------------------------------------------------------------------


def open_file(path: str, *, size_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading and seeking; from S3 the ranges that are read are fetched.

    Parameters
    ----------
    path : str
    size_bytes : int or None
        Size of the file if it is known, which saves a request.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    """
    return file_system(path).open_file(path, size_bytes=size_bytes)


def read_bytes(path: str) -> bytes:
    """Return the content of a file.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    """
    return file_system(path).read_bytes(path)


def read_files(folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of files, by their paths below `folder`; from S3 they are fetched at the same time.

    Raises
    ------
    FileNotFoundError
        One of them does not exist.
    """
    return file_system(folder).read_files(folder, names)


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes ``start <= i < stop`` of each of `ranges`, in that order; from S3 many are fetched at a time.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    OSError
        The file ends before a range does, or cannot be read now.
    """
    return file_system(path).read_ranges(path, ranges)


def read_json(path: str) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is no such file.

    Raises
    ------
    OutputError
        The file is no JSON object.
    """
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    value = parse_json(data)
    if value is None:
        raise OutputError(f"{path}: holds no JSON object; galbatch did not write it so: remove it")
    return value


def parse_json(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `data`; None if it holds anything else."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


# --- writing -----------------------------------------------------------------------------------------------


def publish(path: str, data: bytes, *, staging: str | None = None) -> None:
    """Write a file, whole or not at all.

    On S3 this is one PUT. On a local disk a temporary file is written, synced and renamed to `path`. If anything goes
    wrong, the temporary file is removed and `path` is not changed.

    Parameters
    ----------
    path : str
    data : bytes
        The content.
    staging : str or None
        Folder for the temporary file, on the same file system. None: the folder of `path`.

    Raises
    ------
    OutputError
        There is no space or no permission.
    UsageError
        The file system is for inputs only.
    OSError
        Any other fault of disk or network: another attempt may help.
    """
    file_system(path).publish(path, data, staging=staging)


def publish_json(path: str, value: dict[str, Any], *, staging: str | None = None) -> None:
    """Write `value` as JSON with sorted keys, whole or not at all; raises as `publish` does."""
    publish(path, json_bytes(value), staging=staging)


def json_bytes(value: dict[str, Any]) -> bytes:
    """Return the content that `publish_json` writes."""
    # Sorted keys: equal values give equal bytes, which checksums and comparisons rely on.
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def append(path: str, data: bytes, *, part: str) -> None:
    """Add data to the end of a file, which is made, with its folder, if it does not exist.

    Object stores cannot: they write the data to a file of its own, ``path/part``.

    Raises
    ------
    OutputError
        There is no space or no permission.
    OSError
        Any other fault of disk or network.
    """
    file_system(path).append(path, data, part=part)


def write_files(folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
    """Write files, given in pieces by their paths below `folder`, each whole or not at all; to S3 at the same time.

    Unlike `publish` it does not wait until the disk has stored them. It is for parts of something larger, such as a Zarr
    group, that a published file declares complete.

    Raises
    ------
    OutputError
        There is no space or no permission.
    OSError
        Any other fault of disk or network: some of the files may exist, and another attempt may help.
    """
    file_system(folder).write_files(folder, contents)


def sync_files(folder: str, names: Sequence[str]) -> None:
    """Wait until the disk has files that `write_files` wrote; on S3 they are safe once written.

    Raises
    ------
    OSError
        A fault of the disk, or a file is gone.
    """
    file_system(folder).sync_files(folder, names)


def remove(path: str) -> None:
    """Remove a file, or a folder with everything below it; does nothing if it does not exist.

    Raises
    ------
    OutputError
        There is no permission.
    """
    file_system(path).remove(path)


def remove_if_empty(folder: str) -> None:
    """Remove a local folder if it is empty."""
    file_system(folder).remove_if_empty(folder)


def remove_temporaries(folder: str) -> None:
    """Remove the temporary files that processes left in an output, or next to it, when they were killed.

    Parameters
    ----------
    folder : str
        An output. Nobody else may be writing it.

    Raises
    ------
    OutputError
        There is no permission.
    """
    file_system(folder).remove_temporaries(folder)


def make_folder(path: str) -> None:
    """Create a local folder and its parents; on S3 there is nothing to create.

    Raises
    ------
    OutputError
        No space, no permission, or a file is in the way.
    """
    file_system(path).make_folder(path)


def check_writable(folder: str) -> None:
    """Create `folder` if needed, and raise an error if files cannot be written in it.

    Raises
    ------
    OutputError
        A file cannot be written.
    UsageError
        The file system is for inputs only.
    """
    # A file is written and removed: permissions alone do not tell of full disks and read-only buckets.
    probe = join(folder, f".galbatch-probe-{uuid.uuid4().hex}")
    try:
        make_folder(folder)
        publish(probe, b"")
        remove(probe)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error}; choose another path") from error
