"""Local copies of files: whole files, ranges of bytes, and the contents of packed files."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from galbatch.errors import OutputError, TileError, UsageError
from galbatch.storage import files
from galbatch.storage.local import temporary_file
from galbatch.storage.ranges import BLOCK_BYTES, PIECE_BYTES, fetch_range
from galbatch.storage.systems import file_system

__all__ = ["Content", "fetch", "local_copy", "open_content", "sha256_of"]

# Files are read in pieces of 1 MiB: a bundle of 540 MB need not fit into memory.
HASH_CHUNK_BYTES = 2**20

# The first bytes tell how a file is packed: names are changed, and servers add or drop a suffix.
PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2"}
OTHER_PACKINGS = {
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x9d": "compress",
}


# How often one file is unpacked; a file that is packed again and again is a trap.
MAX_PACKED = 3


@dataclass(frozen=True, slots=True)
class Content:
    """The unpacked content of a file, open for reading and seeking.

    Attributes
    ----------
    file : binary file
        The file itself, or an open temporary file that is deleted when it is closed.
    packing : str
        ``gzip`` or ``bzip2``; "" for a file that is not packed.
    """

    file: BinaryIO
    packing: str


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    with files.open_file(path) as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def local_copy(path: str, *, sha256: str | None) -> Path:
    """Return the path of a file on this machine with the content of `path`.

    A local path is returned unchanged. Any other file is copied once to this machine's temporary folder (``TMPDIR``),
    where other processes and later runs find it.

    Parameters
    ----------
    sha256 : str or None
        The hash that the content must have, checked at every call. None: not checked.

    Raises
    ------
    UsageError
        The content has another hash.
    """
    if files.has_local_path(path):
        copy = Path(path)
    else:
        # Without a hash the copy is named by path and version, so that a file that changed is copied again.
        name = sha256 or hashlib.sha256(f"{path} {files.identity(path)}".encode()).hexdigest()
        copy = _cache_folder() / (name + os.path.splitext(path)[1])
        if not copy.exists() or (sha256 is not None and sha256_of(str(copy)) != sha256):
            files.publish(str(copy), files.read_bytes(path))
    if sha256 is not None and (found := sha256_of(str(copy))) != sha256:
        raise UsageError(
            f"{path}: its sha256 is {found[:12]}.., expected {sha256[:12]}..; the file is another one than "
            "the run was planned with: put the old one back, or start the run again"
        )
    return copy


def _cache_folder() -> Path:
    """Return the folder for copies in this machine's temporary folder, which only this user can write."""
    folder = Path(tempfile.gettempdir()) / f"galbatch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Another user could have made the folder first, with a bundle that runs their program.
    if folder.stat().st_uid != os.getuid():
        raise OutputError(f"{folder}: belongs to somebody else; set TMPDIR to a folder of your own")
    return folder


def fetch(path: str, start: int, stop: int) -> BinaryIO:
    """Return an open local file with the bytes ``start <= i < stop`` of `path`; raises as `fetch_range` does."""
    return fetch_range(file_system(path), path, start, stop)


def open_content(path: str, *, size_bytes: int | None = None) -> Content:
    """Open a file for reading, unpacked if its first bytes say that it is packed, whatever its name is.

    Parameters
    ----------
    size_bytes : int or None
        Size of the file if it is known, which saves a request.

    Raises
    ------
    TileError
        The packed content ends early or is damaged, or the packing is one that is not read.
    OutputError
        There is no space in ``TMPDIR``.
    FileNotFoundError, OSError
        There is no such file, or it cannot be read now.
    """
    content = Content(files.open_file(path, size_bytes=size_bytes), "")
    # Servers pack what was packed already.
    for _ in range(MAX_PACKED):
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(content.file.close)
            first = content.file.read(BLOCK_BYTES)
            content.file.seek(0)
            packing = next((name for magic, name in PACKINGS.items() if first.startswith(magic)), "")
            other = next((name for magic, name in OTHER_PACKINGS.items() if first.startswith(magic)), "")
            if other:
                raise TileError(
                    f"{path}: is packed by {other}, which is not read; unpack it, or pack it by gzip"
                )
            if packing:
                continued = _Continued(first, content.file)
                content = Content(temporary_file(_unpacked(path, continued, packing)), packing)
                continue
            on_failure.pop_all()
            break
    return content


class _Continued(io.RawIOBase):
    """A file whose first bytes were read already: a request for them is not made again."""

    def __init__(self, first: bytes, file: BinaryIO) -> None:
        self._first = first
        self._file = file
        file.seek(len(first))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._first[: len(view)] or self._file.read(len(view))
        self._first = self._first[len(view) :]
        view[: len(data)] = data
        return len(data)


def _unpacked(path: str, packed: io.RawIOBase, packing: str) -> Iterator[bytes]:
    """Yield the content of a packed file in pieces."""
    opened: Any = gzip.open if packing == "gzip" else bz2.open
    advice = "fetch it again or exclude it"
    with io.BufferedReader(packed, PIECE_BYTES) as buffered, opened(buffered) as content:
        try:
            while data := content.read(HASH_CHUNK_BYTES):
                yield data
        except EOFError:
            raise TileError(
                f"{path}: ends within its {packing} stream; the file is probably truncated: {advice}"
            ) from None
        except (OSError, zlib.error) as error:
            if (
                isinstance(error, OSError) and error.errno is not None
            ):  # the disk or the network: worth another try
                raise
            raise TileError(f"{path}: its {packing} stream is damaged ({error}); {advice}") from None
