"""Inputs on any file system that fsspec opens. Tiles, object lists and bundles may lie there, outputs may not.

Outputs are locked, and a lock needs a write that fails if another process was faster. fsspec has no such write, so a
file system for outputs, such as S3, needs a class of its own.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn, cast

import fsspec
from fsspec.registry import known_implementations

from galbatch.core.types import FileIdentity
from galbatch.errors import UsageError
from galbatch.storage.base import Piece, require_lengths
from galbatch.storage.ranges import BLOCK_BYTES, RangedFile

__all__ = ["LISTED_FROM", "PARALLEL_REQUESTS", "FsspecInputs", "require_package"]

LISTED_FROM = 20
"""For this number of files and more, a listing (1000 names per request) is cheaper than a request for each file."""

PARALLEL_REQUESTS = 64
"""Largest number of requests of this process at the same time; a request takes about 25 ms for a range of any size."""

# Names under which file systems give the version of a file; the first one that exists is taken.
VERSION_KEYS = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created")

# OSError(number, message) makes an error of the subclass that belongs to the number.
NUMBER_OF_ERROR: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
}


def _http_errors() -> tuple[type[Exception], ...]:
    """Return the errors of aiohttp; none if no file system has loaded it, which then cannot have raised them."""
    # Importing it takes 0.2 s, and file systems that do not use it need not install it.
    aiohttp = sys.modules.get("aiohttp")
    return () if aiohttp is None else (aiohttp.ClientError,)


def require_package(path: str, scheme: str) -> None:
    """Raise an error if fsspec does not know the scheme of `path`, or if the package for it is not installed.

    Raises
    ------
    UsageError
        The message names the package.
    """
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package = known_implementations[scheme]["class"].split(".")[0]
        needs = f"the package {package}" if package != "fsspec" else "a package"
        raise UsageError(f"{path}: {scheme}:// needs {needs}, which is not installed ({error})") from None
    except ValueError:
        raise UsageError(
            f"{path}: {scheme}:// is unknown; paths are local or begin with s3://, those of inputs with any scheme that "
            "fsspec knows, such as gs:// or https://"
        ) from None


class FsspecInputs:
    """A file system for inputs, for one scheme; the methods are those of `FileSystem`."""

    has_local_paths = False
    reads_by_request = True
    least_read_bytes = BLOCK_BYTES
    overlaps_writes = True
    reader_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme

    def _client(self) -> Any:
        # Without a cache of listings, which would hide files that other processes write.
        return fsspec.filesystem(self.scheme, use_listings_cache=False)

    def _name(self, path: str) -> str:
        """Return the name by which the client knows the path."""
        return str(fsspec.url_to_fs(path, use_listings_cache=False)[1])

    def _url(self, name: str) -> str:
        return str(self._client().unstrip_protocol(name))

    @contextlib.contextmanager
    def _plain_errors(self, path: str) -> Iterator[None]:
        """Turn the errors of clients into OSErrors with a number."""
        # Callers take an OSError without a number for a damaged file, which would not be tried again.
        try:
            yield
        except OSError as error:
            if error.errno is not None:
                raise
            number = next((n for kind, n in NUMBER_OF_ERROR.items() if isinstance(error, kind)), errno.EIO)
            raise OSError(number, f"{path}: {error}") from error
        except _http_errors() as error:
            # The content of a file was cut off in all attempts of the client.
            raise OSError(errno.EIO, f"{path}: {error}") from error

    # --- looking -----------------------------------------------------------------------------------------

    def absolute(self, path: str) -> str:
        return path.rstrip("/")

    def exists(self, path: str) -> bool:
        with self._plain_errors(path):
            return bool(self._client().exists(path))

    def identity(self, path: str) -> FileIdentity:
        with self._plain_errors(path):
            return _identity_of(self._client().info(path))

    def identities(self, paths: Sequence[str]) -> dict[str, FileIdentity | None]:
        names = {path: self._name(path) for path in paths}
        folder = os.path.commonprefix(list(names.values())).rpartition("/")[0]  # noqa: RUF071  (cut at a slash)
        found: dict[str, FileIdentity | None] = dict.fromkeys(paths)
        # Without a common folder the files are in several buckets, which cannot be listed together.
        if len(paths) >= LISTED_FROM and folder:
            with self._plain_errors(folder), contextlib.suppress(FileNotFoundError):
                infos = self._client().find(folder, detail=True)
                found |= {path: _identity_of(infos[name]) for path, name in names.items() if name in infos}
            return found
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[path] = self.identity(path)
        return found

    def list_files(self, folder: str, *, suffix: str) -> list[str]:
        root = self._name(folder).rstrip("/") + "/"
        with self._plain_errors(folder), contextlib.suppress(FileNotFoundError):
            found = (str(path) for path in self._client().find(root))
            return sorted(path.removeprefix(root) for path in found if path.endswith(suffix))
        return []

    def find_files(self, pattern: str, *, suffixes: tuple[str, ...]) -> list[str]:
        return sorted(self._found(pattern, suffixes))

    def find_identities(self, pattern: str, *, suffixes: tuple[str, ...]) -> dict[str, FileIdentity]:
        return {path: _identity_of(info) for path, info in sorted(self._found(pattern, suffixes).items())}

    def _found(self, pattern: str, suffixes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """Return the client's information about each file that `pattern` stands for, by its path."""
        client, name = self._client(), self._name(pattern)
        with self._plain_errors(pattern), contextlib.suppress(FileNotFoundError):
            # Names that end with a slash are markers of folders, which some programs write.
            if any(character in pattern for character in "*?["):
                infos = client.glob(name, detail=True).values()
                files = [i for i in infos if i["type"] == "file" and i["name"][-1] != "/"]
            elif not pattern.endswith("/") and client.isfile(name):
                return {pattern: client.info(name)}
            else:
                below = client.find(name, detail=True).values()
                files = [info for info in below if info["name"].lower().endswith(suffixes)]
            return {self._url(info["name"]): info for info in files}
        return {}

    # --- reading -----------------------------------------------------------------------------------------

    def open_file(self, path: str, *, size_bytes: int | None = None) -> BinaryIO:
        return cast(BinaryIO, RangedFile(self, path, size_bytes=size_bytes))

    def read_bytes(self, path: str) -> bytes:
        with self._plain_errors(path):
            return bytes(self._client().cat_file(path))

    def read_files(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        root = self._name(folder).rstrip("/")
        paths = {name: f"{root}/{name}" for name in names}
        with self._plain_errors(folder):
            found = self._client().cat(list(paths.values())) if paths else {}
        # Clients return a single file as bytes, several as a dict by their paths.
        return {name: found if isinstance(found, bytes) else found[path] for name, path in paths.items()}

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        with self._plain_errors(path):
            found: list[bytes] = self._client().cat_ranges(
                [path] * len(ranges), starts, stops, batch_size=PARALLEL_REQUESTS, on_error="raise"
            )
        require_lengths(path, found, ranges)
        return found

    # --- writing, refused ----------------------------------------------------------------------------------

    def _refuse(self, path: str) -> NoReturn:
        raise UsageError(
            f"{path}: outputs lie on a disk or on s3://: a run locks them by conditional writes, which galbatch has not "
            f"for {self.scheme}://; inputs may lie there, choose another path for outputs"
        )

    def publish(self, path: str, data: bytes, *, staging: str | None = None) -> None:
        self._refuse(path)

    def append(self, path: str, data: bytes, *, part: str) -> None:
        self._refuse(path)

    def write_files(self, folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
        self._refuse(folder)

    def sync_files(self, folder: str, names: Sequence[str]) -> None:
        self._refuse(folder)

    def remove(self, path: str) -> None:
        self._refuse(path)

    def remove_if_empty(self, folder: str) -> None:
        self._refuse(folder)

    def remove_temporaries(self, folder: str) -> None:
        """Do nothing: objects appear whole."""

    def make_folder(self, path: str) -> None:
        self._refuse(path)

    def create(self, path: str, data: bytes) -> bool:
        self._refuse(path)

    def renew(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        self._refuse(path)

    def take_over(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        self._refuse(path)


def _identity_of(info: Mapping[str, Any]) -> FileIdentity:
    if info.get("size") is None:
        raise OSError(errno.EIO, f"{info.get('name')}: its server does not tell its size")
    version = next((info[key] for key in VERSION_KEYS if info.get(key)), "")
    # The same time may be a datetime in one answer and a number in another, and both must be equal versions.
    if isinstance(version, datetime.datetime):
        version = version.timestamp()
    return FileIdentity(int(info["size"]), str(version).strip('"'))
