"""Copies of files on this machine: fetched whole, a part of them, or unpacked."""

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

HASH_CHUNK_BYTES = 2**20


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    with files.open_file(path) as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def local_copy(path: str, *, sha256: str | None) -> Path:
    """Return a file on this machine with the content of `path`.

    A local path is returned as it is. Another file is fetched once into this machine's temporary folder
    (``TMPDIR``) and kept there for the other processes and later runs.

    Parameters
    ----------
    sha256 : str or None
        The hash the content must have, checked on every call; None: not checked.

    Raises
    ------
    UsageError
        The content has another hash.
    """
    if files.has_local_path(path):
        copy = Path(path)
    else:
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
    """Return a folder on this machine's own disk that only this user can write."""
    folder = Path(tempfile.gettempdir()) / f"galbatch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise OutputError(f"{folder}: belongs to somebody else; set TMPDIR to a folder of your own")
    return folder


def fetch(path: str, start: int, stop: int) -> BinaryIO:
    """Return a file of this machine with the bytes ``start <= i < stop`` of `path`; see `fetch_range`."""
    return fetch_range(file_system(path), path, start, stop)


def unpack(path: str) -> BinaryIO:
    """Return a file of this machine with what a ``.gz`` or ``.bz2`` file holds, in ``TMPDIR``; it goes when it is closed.

    Raises
    ------
    OutputError
        No space there.
    EOFError, OSError
        The packed file is cut or damaged, or cannot be read now.
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
