"""The interface of a file system, which the local disk and object stores implement, and errors that they share."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from galbatch.core.types import FileIdentity
from galbatch.errors import OutputError, ResourceError

__all__ = ["FileSystem", "Piece", "output_errors", "require_lengths"]

Piece = bytes | bytearray | memoryview
"""A part of the content of a file."""

# Another attempt does not help against these: somebody must free space or give a permission.
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


class FileSystem(Protocol):
    """A file system. Paths are given in full, with the scheme of their URL.

    Reading raises FileNotFoundError if a file does not exist, and OSError for faults that another attempt may overcome.
    Writing raises ResourceError, an OutputError, for faults that somebody must repair, such as a full disk, and UsageError if
    the file system is for inputs only.
    """

    @property
    def has_local_paths(self) -> bool:
        """Whether other programs on this machine can open the paths, and map the files into memory."""

    @property
    def reads_by_request(self) -> bool:
        """Whether each read is a request over a network, which takes about 25 ms for any size.

        Such files are read in few large ranges, many at the same time; other files by the kernel, page by page.
        """

    @property
    def least_read_bytes(self) -> int:
        """Number of bytes that the smallest read transfers."""

    @property
    def overlaps_writes(self) -> bool:
        """Whether writing during other work saves time, because writing waits for a network and not for the processor."""

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options (``storage_options``) with which other libraries open the same paths through fsspec."""

    # --- looking -----------------------------------------------------------------------------------------

    def absolute(self, path: str) -> str:
        """Return the absolute path, without a slash at its end."""

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists; a folder of an object store is a prefix with objects below it."""

    def identity(self, path: str) -> FileIdentity:
        """Return the size and version of a file."""

    def identities(self, paths: Sequence[str]) -> dict[str, FileIdentity | None]:
        """Return the identity of each file, by its path; None for files that do not exist."""

    def list_files(self, folder: str, *, suffix: str) -> list[str]:
        """Return the sorted paths, relative to `folder`, of the files below it that end with `suffix`; empty if it does not exist."""

    def find_files(self, pattern: str, *, suffixes: tuple[str, ...]) -> list[str]:
        """Return sorted full paths: of one file, of a folder's files that end with a suffix, or of the matches of a glob pattern."""

    def find_identities(self, pattern: str, *, suffixes: tuple[str, ...]) -> dict[str, FileIdentity]:
        """Return the identity of each file that `find_files` finds, by its path, with as few requests as a listing takes."""

    # --- reading -----------------------------------------------------------------------------------------

    def open_file(self, path: str, *, size_bytes: int | None = None) -> BinaryIO:
        """Open a file for reading and seeking; giving its size saves a request."""

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file."""

    def read_files(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of files, by their paths below `folder`."""

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes ``start <= i < stop`` of each range, in that order."""

    # --- writing -----------------------------------------------------------------------------------------

    def publish(self, path: str, data: bytes, *, staging: str | None = None) -> None:
        """Write a file, whole or not at all, and wait until the disk has stored it."""

    def append(self, path: str, data: bytes, *, part: str) -> None:
        """Add data to the end of a file; object stores, which cannot, write it to the file `part` below `path`."""

    def write_files(self, folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
        """Write files, given by their paths below `folder`, each whole or not at all; does not wait for the disk."""

    def sync_files(self, folder: str, names: Sequence[str]) -> None:
        """Wait until the disk has files that `write_files` wrote, and the folders they are in."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with everything below it; does nothing if it does not exist."""

    def remove_if_empty(self, folder: str) -> None:
        """Remove a folder if it is empty; object stores have no empty folders."""

    def remove_temporaries(self, folder: str) -> None:
        """Remove temporary files that killed processes have left in an output or next to it; object stores have none."""

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; object stores do nothing."""

    # --- what locks are made of ----------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists, in one atomic step; return whether it was written."""

    def renew(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        """Replace the file if it still has this content and version; return whether it was replaced.

        Both contents are of one length. Only the process that wrote the content may call it.
        """

    def take_over(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        """Replace another process' file with this content and version; if several processes try, one of them returns True."""


def require_lengths(path: str, found: Sequence[bytes], ranges: Sequence[tuple[int, int]]) -> None:
    """Raise OSError unless every range was read whole."""
    # The file may be shorter than expected, or may have been cut while it was read.
    for data, (start, stop) in zip(found, ranges, strict=True):
        if len(data) != stop - start:
            raise OSError(
                errno.EIO, f"{path}: {len(data)} bytes came from {start} on, expected {stop - start}"
            )


@contextlib.contextmanager
def output_errors(path: str) -> Iterator[None]:
    """Turn faults that somebody must repair into OutputError, or its subclass ResourceError; other OSErrors are passed on."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path}: a file is in the way ({error}); choose another path") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise OutputError(f"{path}: the file is larger than its file system or a limit allows") from error
        problem = os.strerror(error.errno or 0)
        if error.errno in NO_SPACE:
            raise ResourceError(
                f"{path}: no space left; free some and run again: done work is kept", problem=problem
            ) from error
        if isinstance(error, PermissionError) or error.errno in NO_PERMISSION:
            raise ResourceError(
                f"{path}: no permission to write; choose another path", problem=problem
            ) from error
        raise
