"""Writing files on the local disk so that each exists whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from galbatch.storage.base import Piece

__all__ = ["is_temporary", "publish_file", "sync_files", "write_file"]

# Journaling file systems commit syncs that arrive at the same time in one transaction.
SYNC_THREADS = 8

TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def is_temporary(name: str) -> bool:
    """Return whether a file of this name is a temporary one, which a process that was killed has left."""
    return TEMPORARY_NAME.fullmatch(name) is not None


def publish_file(path: Path, data: bytes, *, staging: Path | None) -> None:
    """Write a temporary file, sync it to the disk, rename it to `path`, and sync the rename.

    Parameters
    ----------
    path : Path
    data : bytes
        The content.
    staging : Path or None
        Folder for the temporary file, on the same file system. None: the folder of `path`, as a dot file.
    """
    # Renaming is atomic within one file system. Without the first sync a power cut could leave the new name with no data.
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = staging or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _moved_to(path, folder) as temporary, open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def write_file(path: Path, pieces: Iterable[Piece]) -> None:
    """Write a temporary file and rename it to `path`, without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _moved_to(path, path.parent) as temporary, open(temporary, "xb") as file:
        file.writelines(pieces)


def sync_files(paths: Sequence[Path], *, above: Path) -> None:
    """Sync files to the disk, and the folders that hold them, up to `above`."""
    # A file's name is stored in its folder, so a synced file in a folder that is not synced can still be lost.
    folders = {above}
    for path in paths:
        folder = path.parent
        while folder not in folders and folder.is_relative_to(above):
            folders.add(folder)
            folder = folder.parent
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        list(pool.map(_sync, paths))
        list(pool.map(_sync_folder, folders))


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _moved_to(path: Path, folder: Path) -> Iterator[Path]:
    """Yield a temporary path in `folder`, and rename the file that the caller writes there to `path`."""
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        # Renamed it is gone; else no temporary file stays, also after KeyboardInterrupt.
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync folders (EINVAL); they commit renames by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
