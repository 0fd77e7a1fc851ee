"""The contract of a file system: what the local disk and object stores have in common, and how they differ."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from galbatch.core.types import FileIdentity
from galbatch.errors import OutputError

__all__ = ["FileSystem", "Piece", "output_errors", "require_lengths"]

Piece = bytes | bytearray | memoryview
"""A part of a file's content."""

# Trying again does not mend these: somebody must free space or grant a right.
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


class FileSystem(Protocol):
    """Where files are: paths are full, with the scheme of their URL.

    Reading raises FileNotFoundError where nothing is there, and OSError for any fault that another try may mend.
    Writing raises OutputError for what an operator must mend, such as a full disk, and UsageError where outputs cannot
    lie at all.
    """

    @property
    def has_local_paths(self) -> bool:
        """Whether any program of this machine can open the paths, and map the files into memory."""

    @property
    def reads_by_request(self) -> bool:
        """Whether each read is a request over a network, which takes some 25 ms whatever it brings.

        Such files are read in few large ranges, many at a time; the others through the kernel, page by page.
        """

    @property
    def least_read_bytes(self) -> int:
        """Number of bytes that the smallest read brings."""

    @property
    def overlaps_writes(self) -> bool:
        """Whether writing beside other work pays: the process then waits for a network, not for its own processor."""

    @property
    def reader_options(self) -> Mapping[str, Any]:
        """Options with which other libraries open the same paths through fsspec."""

    # --- looking -----------------------------------------------------------------------------------------

    def absolute(self, path: str) -> str:
        """Return the path in full, without a slash at its end."""

    def exists(self, path: str) -> bool:
        """Return whether a file or folder is there; a folder of an object store is a prefix with objects below it."""

    def identity(self, path: str) -> FileIdentity:
        """Return the size and version of a file."""

    def identities(self, paths: Sequence[str]) -> dict[str, FileIdentity | None]:
        """Return the identity of each file, None where nothing is there."""

    def list_files(self, folder: str, *, suffix: str) -> list[str]:
        """Return the paths below `folder` that end with `suffix`, relative to it, sorted; none if it is absent."""

    def find_files(self, pattern: str, *, suffixes: tuple[str, ...]) -> list[str]:
        """Return the sorted full paths of a file, of all files of a folder that end with a suffix, or of a glob's matches."""

    def find_identities(self, pattern: str, *, suffixes: tuple[str, ...]) -> dict[str, FileIdentity]:
        """Return what `find_files` finds with the identity of each, by as few requests as a listing takes."""

    # --- reading -----------------------------------------------------------------------------------------

    def open_file(self, path: str, *, size_bytes: int | None = None) -> BinaryIO:
        """Open a file for reading, seekable; a size that is known saves a request."""

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file."""

    def read_files(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of files by their paths below `folder`."""

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes ``start <= i < stop`` of each range, in that order."""

    # --- writing -----------------------------------------------------------------------------------------

    def publish(self, path: str, data: bytes, *, staging: str | None = None) -> None:
        """Write a file whole or not at all, and wait until the disk has it."""

    def write_files(self, folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
        """Write files by their paths below `folder`, each whole or not at all, without waiting for the disk."""

    def sync_files(self, folder: str, names: Sequence[str]) -> None:
        """Wait until the disk has files that `write_files` wrote, and the folders they are in."""

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all below it; absent is fine."""

    def remove_if_empty(self, folder: str) -> None:
        """Remove a folder that holds nothing, where folders are something of their own."""

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents, where folders are something of their own."""

    # --- what locks are made of ----------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless there is one, in one step; return whether it was written."""

    def renew(self, path: str, data: bytes, *, version: str) -> bool:
        """Replace a file of ours, where that can be asked for only if it has still this version; return whether it was."""

    def take_over(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        """Replace the file that had this content and version; of several processes that try, one returns True."""

    def half_written_since(self, path: str) -> float | None:
        """Return when a file was created that may still be without its content, None where that is never seen."""


def require_lengths(path: str, found: Sequence[bytes], ranges: Sequence[tuple[int, int]]) -> None:
    """Raise OSError unless every range came whole: the file ends before, or was cut while it was read."""
    for data, (start, stop) in zip(found, ranges, strict=True):
        if len(data) != stop - start:
            raise OSError(
                errno.EIO, f"{path}: {len(data)} bytes came from {start} on, expected {stop - start}"
            )


@contextlib.contextmanager
def output_errors(path: str) -> Iterator[None]:
    """Turn faults that an operator must mend into OutputError; other OSErrors pass."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path}: a file is in the way ({error}); choose another path") from error
    except OSError as error:
        if error.errno in NO_SPACE:
            raise OutputError(f"{path}: no space left; free some and run again: done work is kept") from error
        if isinstance(error, PermissionError) or error.errno in NO_PERMISSION:
            raise OutputError(f"{path}: no permission to write; choose another path") from error
        raise
