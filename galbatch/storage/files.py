"""Files by their paths, whatever file system they are on: each function asks the one that the path belongs to."""

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
    "sync_files",
    "write_files",
]


# --- paths -------------------------------------------------------------------------------------------------


def join(path: str, *parts: str) -> str:
    """Return `path` with `parts` below it; slashes are not doubled."""
    return "/".join([path.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(path: str) -> str:
    """Return the path in full, without a slash at its end."""
    return file_system(path).absolute(path)


def has_local_path(path: str) -> bool:
    """Return whether any program of this machine can open the path, and map the file into memory."""
    return file_system(path).has_local_paths


def reads_by_request(path: str) -> bool:
    """Return whether each read of the file is a request over a network; see `FileSystem`."""
    return file_system(path).reads_by_request


def least_read_bytes(path: str) -> int:
    """Return how many bytes the smallest read of the file brings."""
    return file_system(path).least_read_bytes


def overlaps_writes(path: str) -> bool:
    """Return whether writing the file beside other work pays; see `FileSystem`."""
    return file_system(path).overlaps_writes


def reader_options(path: str) -> Mapping[str, Any]:
    """Return the options with which other libraries open the path through fsspec."""
    return file_system(path).reader_options


# --- looking -----------------------------------------------------------------------------------------------


def exists(path: str) -> bool:
    """Return whether a file or folder is there; on S3 a folder is a prefix with objects below it."""
    return file_system(path).exists(path)


def identity(path: str) -> FileIdentity:
    """Return size and version (S3: ETag; local: modification time in ns) of a file.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    return file_system(path).identity(path)


def identities(paths: Sequence[str]) -> dict[str, FileIdentity | None]:
    """Return the identity of each file, None where nothing is there; many on S3 by one listing of the folder they share."""
    found: dict[str, FileIdentity | None] = dict.fromkeys(paths)
    groups: dict[int, tuple[FileSystem, list[str]]] = {}
    for path in found:
        system = file_system(path)
        groups.setdefault(id(system), (system, []))[1].append(path)
    for system, own in groups.values():
        found |= system.identities(own)
    return found


def list_files(folder: str, *, suffix: str) -> list[str]:
    """Return the paths below `folder` that end with `suffix`, relative to it, sorted; none if `folder` is absent."""
    return file_system(folder).list_files(folder, suffix=suffix)


def find_files(pattern: str, *, suffixes: tuple[str, ...]) -> list[str]:
    """Return the files that `pattern` means, as sorted absolute paths; none if nothing matches.

    Parameters
    ----------
    pattern : str
        A single file; a folder, then all files below it that end with one of `suffixes`; or a glob
        (``**`` goes down any number of folders), then its matches, whatever their suffix.
    """
    return file_system(pattern).find_files(pattern, suffixes=suffixes)


def find_identities(pattern: str, *, suffixes: tuple[str, ...]) -> dict[str, FileIdentity]:
    """Return what `find_files` does with the identity of each: on S3 from the listing, not by a request for each file."""
    return file_system(pattern).find_identities(pattern, suffixes=suffixes)


# --- reading -----------------------------------------------------------------------------------------------


def open_file(path: str, *, size_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading, seekable; on S3 ranges are fetched as they are asked for.

    Parameters
    ----------
    size_bytes : size of the file where it is known, which saves a request

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    return file_system(path).open_file(path, size_bytes=size_bytes)


def read_bytes(path: str) -> bytes:
    """Return the content of a file.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    return file_system(path).read_bytes(path)


def read_files(folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of files by their paths below `folder`; on S3 fetched all at once.

    Raises
    ------
    FileNotFoundError
        One of them is not there.
    """
    return file_system(folder).read_files(folder, names)


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes ``start <= i < stop`` of each of `ranges`, in that order; on S3 many at a time.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
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
    """Return the JSON object, None if it is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


# --- writing -----------------------------------------------------------------------------------------------


def publish(path: str, data: bytes, *, staging: str | None = None) -> None:
    """Write a file whole or not at all.

    On S3 this is one PUT. Locally a temporary file is written, synced to disk and renamed over `path`;
    it lies in the folder `staging` (which must be on the same file system), or beside `path` as a dot
    file. Whatever goes wrong, the temporary file is removed and `path` stays what it was.

    Raises
    ------
    OutputError
        No space, or no permission.
    UsageError
        Outputs cannot lie there.
    OSError
        Any other fault of disk or network: trying again may help.
    """
    file_system(path).publish(path, data, staging=staging)


def publish_json(path: str, value: dict[str, Any], *, staging: str | None = None) -> None:
    """Write `value` as JSON with sorted keys, whole or not at all; raises as `publish` does."""
    publish(path, json_bytes(value), staging=staging)


def json_bytes(value: dict[str, Any]) -> bytes:
    """Return the file that `publish_json` writes."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def write_files(folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
    """Write files, given in pieces by their paths below `folder`, each whole or not at all; on S3 all at once.

    Unlike `publish` it does not wait until the disk has them: for parts of something that one published
    file declares complete, and whose loss shows when it is read.

    Raises
    ------
    OutputError
        No space, or no permission.
    OSError
        Any other fault of disk or network: some of the files may be there, and trying again may help.
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
    """Remove a file or a folder with all below it; absent is fine.

    Raises
    ------
    OutputError
        No permission.
    """
    file_system(path).remove(path)


def remove_if_empty(folder: str) -> None:
    """Remove a local folder that holds nothing; another one, or one on S3, stays."""
    file_system(folder).remove_if_empty(folder)


def make_folder(path: str) -> None:
    """Create a local folder and its parents; on S3 there is nothing to create.

    Raises
    ------
    OutputError
        No space, no permission, or a file is in the way.
    """
    file_system(path).make_folder(path)


def check_writable(folder: str) -> None:
    """Find out, before anything is started, that files can be written in `folder`; creates it.

    Raises
    ------
    OutputError
        A file cannot be written there.
    UsageError
        Outputs cannot lie there.
    """
    probe = join(folder, f".galbatch-probe-{uuid.uuid4().hex}")
    try:
        make_folder(folder)
        publish(probe, b"")
        remove(probe)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error}; choose another path") from error
