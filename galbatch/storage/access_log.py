"""A record of the files that something was made of, by which it is known whether it still holds."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from galbatch.core.types import FileIdentity
from galbatch.storage import files

__all__ = ["FileAccessLog"]


class FileAccessLog:
    """Looks at files, each once, and records which were looked at, also those that are not there.

    What was made of some files can be used again as long as none of them has changed, gone or come.

    Parameters
    ----------
    known : identities by path that need no look any more; None where there is no file
    """

    def __init__(self, known: Mapping[str, FileIdentity | None] | None = None) -> None:
        self.known = dict(known or {})
        self.recorded: dict[str, FileIdentity | None] = {}

    def record_access(self, path: str) -> FileIdentity | None:
        """Return the file's identity, None if there is no file, and record that it was asked for."""
        if path not in self.known:
            self.known[path] = files.identities([path])[path]
        self.recorded[path] = self.known[path]
        return self.recorded[path]

    def exists(self, path: str) -> bool:
        """Return whether there is such a file, and record that it was asked for."""
        return self.record_access(path) is not None

    def identity(self, path: str) -> FileIdentity:
        """Return the file's identity and record it; FileNotFoundError if there is no file."""
        found = self.record_access(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found
