"""The file systems, by the schemes of URLs."""

from __future__ import annotations

from galbatch.core.urls import scheme_of, without_secrets
from galbatch.errors import UsageError
from galbatch.storage.base import FileSystem
from galbatch.storage.fsspec_inputs import FsspecInputs, require_package
from galbatch.storage.local import LocalFileSystem
from galbatch.storage.s3 import S3FileSystem

__all__ = ["file_system"]

# File systems of further schemes are added when they are first needed.
_systems: dict[str, FileSystem] = {"": LocalFileSystem()}


def refuse_secrets(path: str) -> None:
    """Raise UsageError if a URL holds credentials: paths stand in messages, logs and tables of tiles."""
    hidden = without_secrets(path)
    if hidden != path:
        raise UsageError(
            f"{hidden}: the URL holds credentials, which would stand in logs and outputs; give them in the environment, or in "
            "fsspec's configuration (FSSPEC_<PROTOCOL> or ~/.config/fsspec), and leave them out of the URL"
        )


def file_system(path: str) -> FileSystem:
    """Return the file system of a path: the local one, S3, or for inputs any other that fsspec knows.

    Raises
    ------
    UsageError
        The scheme is unknown, its package is not installed, the URL holds a password or a signature, or the path has a
        null byte.
    """
    if "\0" in path:
        raise UsageError(f"{path!r}: has a null byte, which no path may have; correct it")
    scheme = scheme_of(path)
    if scheme:
        refuse_secrets(path)
    if scheme not in _systems:
        require_package(path, scheme)
        _systems[scheme] = S3FileSystem() if scheme == "s3" else FsspecInputs(scheme)
    return _systems[scheme]
