"""A record of the files from which something was made; if one of them changes, it must be made again."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from galbatch.core.types import FileIdentity
from galbatch.storage import files

__all__ = ["FileAccessLog"]


class FileAccessLog:
    """Looks up the identities of files, each once, and records which files were looked up, including missing ones.

    A result that was made from these files can be used again until one of them changes, disappears or appears.

    Parameters
    ----------
    known : mapping of str to FileIdentity or None
        Identities that are known already, by path; None for files that do not exist.

    Attributes
    ----------
    packed : set of str
        Paths of files that were read and found to be packed as a whole: no part of them can be read without what lies
        before it.
    """

    def __init__(self, known: Mapping[str, FileIdentity | None] | None = None) -> None:
        self.known = dict(known or {})
        self.recorded: dict[str, FileIdentity | None] = {}
        self.packed: set[str] = set()

    def record_access(self, path: str) -> FileIdentity | None:
        """Return the identity of a file, None if it does not exist, and record the access."""
        if path not in self.known:
            self.known[path] = files.identities([path])[path]
        self.recorded[path] = self.known[path]
        return self.recorded[path]

    def exists(self, path: str) -> bool:
        """Return whether a file exists, and record the access."""
        return self.record_access(path) is not None

    def identity(self, path: str) -> FileIdentity:
        """Return the identity of a file and record the access; raise FileNotFoundError if it does not exist."""
        found = self.record_access(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found
