"""Local copies of files: whole files, ranges of bytes, and unpacked files."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from galbatch.errors import OutputError, UsageError
from galbatch.storage import files
from galbatch.storage.local import temporary_file
from galbatch.storage.ranges import PIECE_BYTES, fetch_range
from galbatch.storage.systems import file_system

__all__ = ["fetch", "local_copy", "sha256_of", "unpack"]

# Files are read in pieces of 1 MiB: a bundle of 540 MB need not fit into memory.
HASH_CHUNK_BYTES = 2**20


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


def unpack(path: str) -> BinaryIO:
    """Return an open temporary file with the unpacked content of a ``.gz`` or ``.bz2`` file; closing it deletes it.

    Raises
    ------
    OutputError
        There is no space in ``TMPDIR``.
    EOFError, OSError
        The packed file is truncated or damaged, or cannot be read now.
    """
    return temporary_file(_unpacked(path))


def _unpacked(path: str) -> Iterator[bytes]:
    opened: Any = gzip.open if path.endswith(".gz") else bz2.open
    with (
        files.open_file(path) as packed,
        io.BufferedReader(cast(Any, packed), PIECE_BYTES) as buffered,
        opened(buffered) as content,
    ):
        while data := content.read(HASH_CHUNK_BYTES):
            yield data
