"""Files of the local disk that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from galbatch.storage.base import Piece

__all__ = ["publish_file", "sync_files", "write_file"]

# Journaling file systems commit syncs that arrive together in one transaction.
SYNC_THREADS = 8


def publish_file(path: Path, data: bytes, *, staging: Path | None) -> None:
    """Write a file, sync it to the disk, rename it over `path`, and sync the rename.

    Parameters
    ----------
    staging : folder on the same file system for the file until it is whole; None: beside `path`, as a dot file
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = staging or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with _moved_to(path, folder) as temporary, open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def write_file(path: Path, pieces: Iterable[Piece]) -> None:
    """Write a file and rename it over `path`, without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _moved_to(path, path.parent) as temporary, open(temporary, "xb") as file:
        file.writelines(pieces)


def sync_files(paths: Sequence[Path], *, above: Path) -> None:
    """Sync files to the disk, and the folders that name them up to `above`."""
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(above)}
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        list(pool.map(_sync, paths))
        list(pool.map(_sync_folder, sorted(folders)))


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _moved_to(path: Path, folder: Path) -> Iterator[Path]:
    """Rename the temporary file in `folder`, which the caller writes, over `path`; remove it if anything goes wrong."""
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # also KeyboardInterrupt: nothing half-written stays
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync folders (EINVAL); they commit renames by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
