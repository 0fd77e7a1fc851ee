"""The file systems, by the schemes of URLs."""

from __future__ import annotations

from galbatch.core.urls import scheme_of
from galbatch.storage.base import FileSystem
from galbatch.storage.fsspec_inputs import FsspecInputs, require_package
from galbatch.storage.local import LocalFileSystem
from galbatch.storage.s3 import S3FileSystem

__all__ = ["file_system"]

# File systems of further schemes, for inputs, are added when they are first needed.
_systems: dict[str, FileSystem] = {"": LocalFileSystem(), "s3": S3FileSystem()}


def file_system(path: str) -> FileSystem:
    """Return the file system of a path: the local one, S3, or for inputs any other that fsspec knows.

    Raises
    ------
    UsageError
        The scheme is unknown, or its package is not installed.
    """
    scheme = scheme_of(path)
    if scheme not in _systems:
        require_package(path, scheme)
        _systems[scheme] = FsspecInputs(scheme)
    return _systems[scheme]
