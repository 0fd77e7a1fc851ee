"""The local file system: the disks of this machine, and file systems that it mounts."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from galbatch.core.types import FileIdentity
from galbatch.storage import publishing
from galbatch.storage.base import Piece, output_errors, require_lengths

__all__ = ["PAGE_BYTES", "LocalFileSystem", "temporary_file"]

PAGE_BYTES = 4096
"""The smallest number of bytes that the kernel reads from a file."""


class LocalFileSystem:
    """The file system of paths without a scheme; the methods are those of `FileSystem`."""

    has_local_paths = True
    reads_by_request = False
    least_read_bytes = PAGE_BYTES
    overlaps_writes = False
    reader_options: Mapping[str, Any] = MappingProxyType({})

    def absolute(self, path: str) -> str:
        return os.path.abspath(path)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def identity(self, path: str) -> FileIdentity:
        status = os.stat(path)
        return FileIdentity(status.st_size, str(status.st_mtime_ns))

    def identities(self, paths: Sequence[str]) -> dict[str, FileIdentity | None]:
        found: dict[str, FileIdentity | None] = dict.fromkeys(paths)
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[path] = self.identity(path)
        return found

    def list_files(self, folder: str, *, suffix: str) -> list[str]:
        return sorted(name for name in _walk(folder) if name.endswith(suffix))

    def find_files(self, pattern: str, *, suffixes: tuple[str, ...]) -> list[str]:
        if os.path.isfile(pattern):
            found: Iterable[str] = [pattern]
        elif os.path.isdir(pattern):
            names = (name for name in _walk(pattern) if name.lower().endswith(suffixes))
            found = (os.path.join(pattern, name) for name in names)
        else:
            found = (path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
        return sorted(map(os.path.abspath, found))

    def find_identities(self, pattern: str, *, suffixes: tuple[str, ...]) -> dict[str, FileIdentity]:
        return {path: self.identity(path) for path in self.find_files(pattern, suffixes=suffixes)}

    def open_file(self, path: str, *, size_bytes: int | None = None) -> BinaryIO:
        return open(path, "rb")

    def read_bytes(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def read_files(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        return {name: Path(folder, name).read_bytes() for name in names}

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with open(path, "rb") as file:
            # pread does not move the file's position, so the ranges need no seek each.
            found = [os.pread(file.fileno(), stop - start, start) for start, stop in ranges]
        require_lengths(path, found, ranges)
        return found

    def publish(self, path: str, data: bytes, *, staging: str | None = None) -> None:
        with output_errors(path):
            publishing.publish_file(Path(path), data, staging=Path(staging) if staging else None)

    def append(self, path: str, data: bytes, *, part: str) -> None:
        with output_errors(path):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "ab", buffering=0) as file:
                file.write(data)

    def write_files(self, folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
        with output_errors(folder):
            for name, pieces in contents.items():
                publishing.write_file(Path(folder, name), pieces)

    def sync_files(self, folder: str, names: Sequence[str]) -> None:
        with output_errors(folder):
            publishing.sync_files([Path(folder, name) for name in names], above=Path(folder).parent)

    def remove(self, path: str) -> None:
        with output_errors(path), contextlib.suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def remove_if_empty(self, folder: str) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(folder)

    def remove_temporaries(self, folder: str) -> None:
        beside = Path(folder).parent.glob(f".{Path(folder).name}_*")
        for path in (*(Path(folder, name) for name in _walk(folder)), *beside):
            if publishing.is_temporary(path.name):
                with output_errors(str(path)):
                    path.unlink(missing_ok=True)

    def make_folder(self, path: str) -> None:
        with output_errors(path):
            os.makedirs(path, exist_ok=True)

    def create(self, path: str, data: bytes) -> bool:
        with output_errors(path):
            try:
                with open(path, "xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        return True

    def renew(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        # In place: POSIX has no rename that replaces a file only if it is still the one that was read. Were another process
        # to move the file away meanwhile, this one would write into a file without a name.
        with output_errors(path):
            try:
                with open(path, "r+b", buffering=0) as file:
                    if file.read() != content:
                        return False
                    file.seek(0)
                    file.write(data)
            except FileNotFoundError:
                return False
        return True

    def take_over(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        aside = f"{path}.{uuid.uuid4().hex}"
        try:
            # Of several processes only one can move the file away.
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        is_same = Path(aside).read_bytes() == content
        if not is_same:
            # Another process replaced the file in between, so this one is its lock: it is put back.
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        os.unlink(aside)
        return is_same and self.create(path, data)


def _walk(folder: str) -> Iterator[str]:
    """Yield the paths of the files below `folder`, relative to it."""
    # Links are followed, as archives of surveys are often trees of links.
    for parent, _, names in os.walk(folder, followlinks=True):
        # A Path for each of a catalog's leaves would take most of the time of a cone search.
        below = "" if parent == folder else f"{os.path.relpath(parent, folder)}/"
        yield from (below + name for name in names)


def temporary_file(parts: Iterable[bytes]) -> BinaryIO:
    """Return a temporary file with these parts, open for reading; closing it deletes it.

    Raises
    ------
    OutputError
        There is no space in ``TMPDIR``.
    """
    # The name is removed at once, so the space is freed even if the process is killed.
    descriptor, path = tempfile.mkstemp(prefix="galbatch-")
    try:
        with open(descriptor, "wb") as file:
            for data in parts:
                with output_errors(tempfile.gettempdir()):
                    file.write(data)
            with output_errors(tempfile.gettempdir()):
                file.flush()
        return open(path, "rb")
    finally:
        os.unlink(path)
