"""Paths local and ``s3://``, atomic publish, locks: the only door to fsspec and s3fs.

Everything galbatch writes is there whole or not at all. S3 credentials and endpoint come from where
botocore looks for them (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...); ``FSSPEC_S3_ANON=true`` reads public
buckets without credentials.
"""

from __future__ import annotations

import bisect
import bz2
import contextlib
import errno
import glob
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import fsspec
import lazy_loader
from botocore.exceptions import BotoCoreError, NoCredentialsError  # type: ignore[import-untyped]

from galbatch.core.types import FileIdentity
from galbatch.core.urls import scheme_of
from galbatch.errors import LockedError, OutputError, UsageError

aiohttp = lazy_loader.load("aiohttp")  # with s3fs, when something is on S3

__all__ = [
    "BLOCK_BYTES",
    "LISTED_FROM",
    "PAGE_BYTES",
    "PIECE_BYTES",
    "Lock",
    "Piece",
    "RangedFile",
    "absolute",
    "check_writable",
    "exists",
    "fetch",
    "find_files",
    "find_identities",
    "has_local_path",
    "identities",
    "identity",
    "join",
    "least_read_bytes",
    "list_files",
    "local_copy",
    "make_folder",
    "open_file",
    "overlaps_writes",
    "publish",
    "publish_json",
    "read_bytes",
    "read_files",
    "read_json",
    "read_ranges",
    "reader_options",
    "reads_by_request",
    "remove",
    "remove_if_empty",
    "sha256_of",
    "unpack",
    "write_files",
]

Piece = bytes | bytearray | memoryview
"""A part of a file's content."""

HASH_CHUNK_BYTES = 2**20

BLOCK_BYTES = 64 * 1024
"""The least that is fetched from S3 where it is not said what will be read: a FITS header with its cards."""

PAGE_BYTES = 4096
"""What the kernel reads at least of a local file."""

PIECE_BYTES = 16 * 2**20
"""Larger ranges are fetched from S3 in pieces of this size, several at a time: one connection gives 50 to 90 MB/s."""

# From so many files on a listing, of 1000 names a request, is cheaper than a request for each.
LISTED_FROM = 20

# Requests of this process under way at once: a range takes about 25 ms, whatever its size.
PARALLEL_REQUESTS = 64
PARALLEL_PIECES = 4

# Trying again does not mend these: somebody must free space or grant a right.
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}

# By these numbers OSError makes an error of the same kind.
NUMBER_OF_ERROR: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
}


def is_s3(path: str) -> bool:
    """Whether `path` is on S3.

    Raises
    ------
    UsageError
        The path has a scheme other than ``s3://``.
    """
    scheme = scheme_of(path)
    if scheme not in ("", "s3"):
        raise UsageError(f"{path}: paths are local or begin with s3://; {scheme}:// is not supported")
    return bool(scheme)


def has_local_path(path: str) -> bool:
    """Return whether any program of this machine can open the path, and map the file into memory."""
    return not is_s3(path)


def reads_by_request(path: str) -> bool:
    """Return whether each read is a request over a network, which takes some 25 ms whatever it brings.

    Such files are read in few large ranges, many at a time; the others through the kernel, page by page.
    """
    return is_s3(path)


def least_read_bytes(path: str) -> int:
    """Return how many bytes the smallest read brings: a block of `BLOCK_BYTES` by a request, else a page of memory."""
    return BLOCK_BYTES if is_s3(path) else PAGE_BYTES


def overlaps_writes(path: str) -> bool:
    """Return whether writing beside other work pays: the process waits for the network, not for its own processor."""
    return is_s3(path)


def absolute(path: str) -> str:
    """Return the path in full, without a slash at its end."""
    return path.rstrip("/") if is_s3(path) else os.path.abspath(path)


def reader_options(path: str) -> dict[str, Any]:
    """Return the options with which other libraries open the path through fsspec; s3fs reads without credentials unless told."""
    return {"anon": False} if is_s3(path) else {}


def join(path: str, *parts: str) -> str:
    """`path` with `parts` below it; slashes are not doubled."""
    return "/".join([path.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(path: str) -> bool:
    """Whether a file or folder is there; on S3 a folder is a prefix with objects below it."""
    if is_s3(path):
        with _plain_errors(path):
            return bool(_s3().exists(path))
    return os.path.exists(path)


def open_file(path: str, *, size_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading, seekable; on S3 ranges are fetched as they are asked for.

    Parameters
    ----------
    size_bytes : size of the file where it is known, which saves a request

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    return cast(BinaryIO, RangedFile(path, size_bytes=size_bytes)) if is_s3(path) else open(path, "rb")


def read_ranges(path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Bytes ``start <= i < stop`` of each of `ranges`, in that order; on S3 many at a time.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    OSError
        The file ends before a range does, or cannot be read now.
    """
    if is_s3(path):
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        with _plain_errors(path):
            found: list[bytes] = _s3().cat_ranges(
                [path] * len(ranges), starts, stops, batch_size=PARALLEL_REQUESTS, on_error="raise"
            )
    else:
        with open(path, "rb") as file:
            found = [os.pread(file.fileno(), stop - start, start) for start, stop in ranges]
    for data, (start, stop) in zip(found, ranges, strict=True):
        if len(data) != stop - start:
            raise OSError(
                errno.EIO, f"{path}: {len(data)} bytes came from {start} on, expected {stop - start}"
            )
    return found


def _in_pieces(start: int, stop: int) -> list[tuple[int, int]]:
    return [(first, min(first + PIECE_BYTES, stop)) for first in range(start, stop, PIECE_BYTES)]


class RangedFile(io.RawIOBase):
    """A file on S3, open for reading: fetches what is asked for, `BLOCK_BYTES` at least, and what is told in advance.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """

    MAX_BLOCKS = 16  # headers of a file's HDUs, and the tables of its compressed blocks

    def __init__(self, path: str, *, size_bytes: int | None = None) -> None:
        self.path = path
        self.size_bytes = identity(path).size_bytes if size_bytes is None else size_bytes
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._prefetched: dict[object, tuple[list[int], list[bytes]]] = {}
        self._kept: list[tuple[int, int, BinaryIO]] = []

    def close(self) -> None:
        """Let go of what was fetched."""
        for _, _, file in self._kept:
            file.close()
        self._kept.clear()
        self._prefetched.clear()
        super().close()

    def keep(self, start: int, stop: int) -> None:
        """Fetch a range into a file of this machine, where all further reads of it go; raises as `fetch` does."""
        self._kept.append((start, stop, fetch(self.path, start, stop)))

    def prefetch(self, ranges: Iterable[tuple[int, int]], *, owner: object = None) -> None:
        """Fetch ranges that do not overlap, all at once; those fetched before for the same owner are forgotten.

        The planes of one file are owners of their own: what one fetches does not drive out another's.
        """
        wanted = sorted(ranges)
        self._prefetched.pop(owner, None)  # first: two blocks of pixels need not fit
        self._prefetched[owner] = ([start for start, _ in wanted], read_ranges(self.path, wanted))

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place in the file."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the file goes."""
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self.size_bytes)
        n_bytes = max(0, stop - self._position)
        if n_bytes:
            view[:n_bytes] = self._bytes(self._position, stop)
        self._position += n_bytes
        return n_bytes

    def readall(self) -> bytes:
        """From here to the end."""
        return self.read(max(0, self.size_bytes - self._position)) or b""

    def _bytes(self, start: int, stop: int) -> bytes:
        for first, last, file in self._kept:
            if first <= start and stop <= last:
                return os.pread(file.fileno(), stop - start, start - first)
        for starts, fetched in self._prefetched.values():
            at = bisect.bisect_right(starts, start) - 1
            if at >= 0 and stop <= starts[at] + len(fetched[at]):
                return fetched[at][start - starts[at] : stop - starts[at]]
        for first, block in self._blocks.items():
            if first <= start and stop <= first + len(block):
                self._blocks.move_to_end(first)
                return block[start - first : stop - first]
        end = min(max(stop, start + BLOCK_BYTES), self.size_bytes)
        data = b"".join(read_ranges(self.path, _in_pieces(start, end)))
        if len(data) <= 4 * BLOCK_BYTES:  # larger ones are read once
            self._blocks[start] = data
            while len(self._blocks) > self.MAX_BLOCKS:
                self._blocks.popitem(last=False)
        return data[: stop - start]


def fetch(path: str, start: int, stop: int) -> BinaryIO:
    """A file of this machine with the bytes ``start <= i < stop`` of `path`, in ``TMPDIR``; it goes when it is closed.

    Raises
    ------
    OutputError
        No space there.
    OSError
        `path` ends before, or cannot be read now.
    """
    pieces = _in_pieces(start, stop)
    groups = (pieces[i : i + PARALLEL_PIECES] for i in range(0, len(pieces), PARALLEL_PIECES))
    return _temporary(data for group in groups for data in read_ranges(path, group))


def unpack(path: str) -> BinaryIO:
    """A file of this machine with what a ``.gz`` or ``.bz2`` file holds, in ``TMPDIR``; it goes when it is closed.

    Raises
    ------
    OutputError
        No space there.
    EOFError, OSError
        The packed file is cut or damaged, or cannot be read now.
    """
    return _temporary(_unpacked(path))


def _unpacked(path: str) -> Iterator[bytes]:
    opened: Any = gzip.open if path.endswith(".gz") else bz2.open
    with (
        open_file(path) as packed,
        io.BufferedReader(cast(Any, packed), PIECE_BYTES) as buffered,
        opened(buffered) as content,
    ):
        while data := content.read(HASH_CHUNK_BYTES):
            yield data


def _temporary(parts: Iterable[bytes]) -> BinaryIO:
    """A file with these parts that no folder names any more, open for reading."""
    descriptor, path = tempfile.mkstemp(prefix="galbatch-")
    try:
        with open(descriptor, "wb") as file:
            for data in parts:
                with _output_errors(tempfile.gettempdir()):
                    file.write(data)
            with _output_errors(tempfile.gettempdir()):
                file.flush()
        return open(path, "rb")
    finally:
        os.unlink(path)


def read_bytes(path: str) -> bytes:
    """Content of a file.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    if is_s3(path):
        with _plain_errors(path):
            return cast(bytes, _s3().cat_file(path))
    return Path(path).read_bytes()


def read_files(folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of files by their paths below `folder`; on S3 fetched all at once.

    Raises
    ------
    FileNotFoundError
        One of them is not there.
    """
    if not is_s3(folder):
        return {name: Path(folder, name).read_bytes() for name in names}
    paths = {name: join(folder, name).removeprefix("s3://") for name in names}
    with _plain_errors(folder):
        found = _s3().cat(list(paths.values())) if paths else {}
    # s3fs gives a single file as bytes, several by their paths.
    return {name: found if isinstance(found, bytes) else found[path] for name, path in paths.items()}


def publish(path: str, data: bytes, *, staging: str | None = None) -> None:
    """Write a file whole or not at all.

    On S3 this is one PUT. Locally a temporary file is written, synced to disk and renamed over `path`;
    it lies in the folder `staging` (which must be on the same file system), or beside `path` as a dot
    file. Whatever goes wrong, the temporary file is removed and `path` stays what it was.

    Raises
    ------
    OutputError
        No space, or no permission.
    OSError
        Any other fault of disk or network: trying again may help.
    """
    with _output_errors(path):
        if is_s3(path):
            with _plain_errors(path):
                _s3().pipe_file(path, data)
        else:
            _publish_local(Path(path), data, Path(staging) if staging else None)


def _publish_local(path: Path, data: bytes, staging: Path | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = staging or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{uuid.uuid4().hex}.tmp"
    with _moved_to(path, temporary), open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


@contextlib.contextmanager
def _moved_to(path: Path, temporary: Path) -> Iterator[None]:
    """Rename `temporary`, which the caller writes, over `path`; remove it if anything goes wrong."""
    try:
        yield
        os.replace(temporary, path)
    except BaseException:  # also KeyboardInterrupt: nothing half-written stays
        temporary.unlink(missing_ok=True)
        raise


def write_files(folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
    """Write files, given in pieces by their paths below `folder`, each whole or not at all; on S3 all at once.

    Unlike `publish` it does not wait until the disk has them: for parts of something that one published
    file declares complete, and whose loss shows when it is read.

    Raises
    ------
    OutputError
        No space, or no permission.
    OSError
        Any other fault of disk or network: some of the files may be there, and trying again may help.
    """
    with _output_errors(folder):
        if is_s3(folder):
            with _plain_errors(folder):
                _s3().pipe({join(folder, name): b"".join(pieces) for name, pieces in contents.items()})
        else:
            for name, pieces in contents.items():
                _write_local(Path(folder, name), pieces)


def _write_local(path: Path, pieces: Iterable[Piece]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    with _moved_to(path, temporary), open(temporary, "xb") as file:
        file.writelines(pieces)


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


def read_json(path: str) -> dict[str, Any] | None:
    """Object in a JSON file; None if there is no such file.

    Raises
    ------
    OutputError
        The file is no JSON object.
    """
    try:
        data = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    value = _parse_json(data)
    if value is None:
        raise OutputError(f"{path}: holds no JSON object; galbatch did not write it so: remove it")
    return value


def _parse_json(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def publish_json(path: str, value: dict[str, Any], *, staging: str | None = None) -> None:
    """Write `value` as JSON with sorted keys, whole or not at all; raises as `publish` does."""
    publish(path, _json_bytes(value), staging=staging)


def _json_bytes(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def remove(path: str) -> None:
    """Remove a file or a folder with all below it; absent is fine.

    Raises
    ------
    OutputError
        No permission.
    """
    with _output_errors(path), contextlib.suppress(FileNotFoundError):
        if is_s3(path):
            with _plain_errors(path):
                _s3().rm(path, recursive=True)
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def list_files(folder: str, *, suffix: str) -> list[str]:
    """Paths below `folder` that end with `suffix`, relative to it, sorted; empty if `folder` is absent."""
    if is_s3(folder):
        root = folder.removeprefix("s3://").rstrip("/") + "/"
        with _plain_errors(folder), contextlib.suppress(FileNotFoundError):
            found = (str(path) for path in _s3().find(root))
            return sorted(path.removeprefix(root) for path in found if path.endswith(suffix))
        return []
    return sorted(path.relative_to(folder).as_posix() for path in _walk(folder) if path.name.endswith(suffix))


def _walk(folder: str) -> Iterator[Path]:
    """Files below `folder`, links followed: survey archives are often trees of links."""
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (Path(parent, name) for name in names)


def find_files(pattern: str, *, suffixes: tuple[str, ...]) -> list[str]:
    """Files that `pattern` means, as sorted absolute paths.

    Parameters
    ----------
    pattern : str
        A single file; a folder, then all files below it that end with one of `suffixes`; or a glob
        (``**`` goes down any number of folders), then its matches, whatever their suffix. Local or S3.

    Returns
    -------
    list of str
        Empty if nothing matches.
    """
    if is_s3(pattern):
        return sorted(_found_on_s3(pattern, suffixes))
    return sorted(_found_here(pattern, suffixes))


def find_identities(pattern: str, *, suffixes: tuple[str, ...]) -> dict[str, FileIdentity]:
    """As `find_files`, with the identity of each: on S3 from the listing, not by a request for each file."""
    if is_s3(pattern):
        found = _found_on_s3(pattern, suffixes)
        return {path: _s3_identity(found[path]) for path in sorted(found)}
    return {path: identity(path) for path in sorted(_found_here(pattern, suffixes))}


def _found_here(pattern: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    if os.path.isfile(pattern):
        found: Iterable[str] = [pattern]
    elif os.path.isdir(pattern):
        found = (str(path) for path in _walk(pattern) if path.name.endswith(suffixes))
    else:
        found = (path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    return map(os.path.abspath, found)


def _found_on_s3(pattern: str, suffixes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What S3 says of each file, by its path."""
    with _plain_errors(pattern), contextlib.suppress(FileNotFoundError):
        if any(character in pattern for character in "*?["):
            infos = _s3().glob(pattern, detail=True).values()
            return {f"s3://{i['name']}": i for i in infos if i["type"] == "file" and i["name"][-1] != "/"}
        if not pattern.endswith("/") and _s3().isfile(pattern):
            return {pattern: _s3().info(pattern)}
        infos = _s3().find(pattern, detail=True).values()
        return {f"s3://{info['name']}": info for info in infos if info["name"].endswith(suffixes)}
    return {}


def _s3_identity(info: dict[str, Any]) -> FileIdentity:
    return FileIdentity(int(info["size"]), str(info.get("ETag", "")).strip('"'))


def remove_if_empty(folder: str) -> None:
    """Remove a local folder that holds nothing; another one, or one on S3, stays."""
    if not is_s3(folder):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def identity(path: str) -> FileIdentity:
    """Size and version (S3: ETag; local: modification time in ns) of a file.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    if is_s3(path):
        with _plain_errors(path):
            return _s3_identity(_s3().info(path))
    status = os.stat(path)
    return FileIdentity(status.st_size, str(status.st_mtime_ns))


def _identity_or_none(path: str) -> FileIdentity | None:
    try:
        return identity(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def identities(paths: Sequence[str]) -> dict[str, FileIdentity | None]:
    """Identity of each file, None where nothing is there; many on S3 by one listing of the folder they share."""
    remote = [path for path in paths if is_s3(path)]
    folder = os.path.commonprefix(remote).rpartition("/")[0] + "/"  # noqa: RUF071  (cut at a slash)
    if len(remote) < LISTED_FROM or folder.count("/") < 3:  # few, or of several buckets
        return {path: _identity_or_none(path) for path in paths}
    listed = find_identities(folder, suffixes=("",))
    return {path: listed.get(path) if is_s3(path) else _identity_or_none(path) for path in paths}


def make_folder(path: str) -> None:
    """Create a local folder and its parents; on S3 there is nothing to create.

    Raises
    ------
    OutputError
        No space, no permission, or a file is in the way.
    """
    if not is_s3(path):
        with _output_errors(path):
            os.makedirs(path, exist_ok=True)


def check_writable(folder: str) -> None:
    """Find out, before anything is started, that files can be written in `folder`; creates it.

    Raises
    ------
    OutputError
        A file cannot be written there.
    """
    probe = join(folder, f".galbatch-probe-{uuid.uuid4().hex}")
    try:
        make_folder(folder)
        publish(probe, b"")
        remove(probe)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error}; choose another path") from error


def sha256_of(path: str) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def local_copy(path: str, *, sha256: str | None) -> Path:
    """A file on this machine with the content of `path`.

    A local path is returned as it is. From S3 it is fetched once into this machine's temporary folder
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
    if not is_s3(path):
        _check_hash(path, path, sha256)
        return Path(path)
    name = sha256 or hashlib.sha256(f"{path} {identity(path)}".encode()).hexdigest()
    copy = _cache_folder() / (name + os.path.splitext(path)[1])
    if not copy.exists() or (sha256 is not None and sha256_of(str(copy)) != sha256):
        publish(str(copy), read_bytes(path))
    _check_hash(str(copy), path, sha256)
    return copy


def _check_hash(copy: str, path: str, sha256: str | None) -> None:
    if sha256 is not None and (found := sha256_of(copy)) != sha256:
        raise UsageError(
            f"{path}: its sha256 is {found[:12]}.., expected {sha256[:12]}..; the file is another one than "
            "the run was planned with: put the old one back, or start the run again"
        )


def _cache_folder() -> Path:
    """Folder on this machine's own disk that only this user can write."""
    folder = Path(tempfile.gettempdir()) / f"galbatch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise OutputError(f"{folder}: belongs to somebody else; set TMPDIR to a folder of your own")
    return folder


def _s3() -> Any:
    # Listings are not cached: other processes write, and a stale listing would hide their work.
    return fsspec.filesystem(
        "s3", use_listings_cache=False, config_kwargs={"max_pool_connections": PARALLEL_REQUESTS}
    )


@contextlib.contextmanager
def _plain_errors(path: str) -> Iterator[None]:
    """Turn botocore's own exceptions, which are no OSError, into what callers expect."""
    try:
        yield
    except NoCredentialsError:
        raise UsageError(
            f"{path}: no S3 credentials found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for public buckets"
        ) from None
    except BotoCoreError as error:
        raise OSError(errno.EIO, f"{path}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # s3fs numbers no refused or late request; readers of files take an error without a number for damage.
        number = next((n for kind, n in NUMBER_OF_ERROR.items() if isinstance(error, kind)), errno.EIO)
        raise OSError(number, f"{path}: {error}") from error
    except aiohttp.ClientError as error:  # a body that was cut off, after all of s3fs's tries
        raise OSError(errno.EIO, f"{path}: {error}") from error


@contextlib.contextmanager
def _output_errors(path: str) -> Iterator[None]:
    """Turn faults that an operator must mend into OutputError; other OSErrors pass."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path}: a file is in the way ({error}); choose another path") from error
    except OSError as error:
        if error.errno in NO_SPACE:
            raise OutputError(f"{path}: no space left; free some and run again: done work is kept") from error
        if isinstance(error, PermissionError) or error.errno in NO_PERMISSION:
            raise OutputError(f"{path}: no permission to write; choose another path") from error
        if is_s3(path) and isinstance(error, FileNotFoundError):
            raise OutputError(f"{path}: there is no such bucket ({error}); create it first") from error
        raise


class Lock:
    """Holds an output for one run, as a context manager.

    The file says who holds it: owner, host, pid, started, heartbeat. It is created only if nobody has
    created it (``O_EXCL``; on S3 ``If-None-Match: *``). A thread renews the heartbeat. A lock whose
    heartbeat is older than `stale_after_s`, or whose process is dead on this host, is taken over. On exit
    it is removed, if it is still ours.

    Parameters
    ----------
    path : str
        Path of the lock's file, local or S3, beside or in the output: ``catalog_lock.json``,
        ``catalog/_lock.json``.
    stale_after_s, heartbeat_s : float
        Seconds after which a silent lock counts as abandoned, and between two heartbeats.

    Raises
    ------
    LockedError
        On entering: another run holds the output.
    """

    def __init__(self, path: str, *, stale_after_s: float = 120.0, heartbeat_s: float = 20.0) -> None:
        self.path = path
        self.stale_after_s = stale_after_s
        self.heartbeat_s = heartbeat_s
        self._owner = uuid.uuid4().hex
        self._started = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lock:
        self._started = time.time()
        if not self._create() and not self._take_over():
            raise self._locked()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="galbatch-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self.is_ours():
            remove(self.path)

    def is_ours(self) -> bool:
        """Whether the output is still held by this lock; False after somebody took it over."""
        held = self._read()
        return held is not None and held[0].get("owner") == self._owner

    def _content(self) -> bytes:
        return _json_bytes(
            {
                "owner": self._owner,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self._started,
                "heartbeat": time.time(),
            }
        )

    def _create(self) -> bool:
        """Create the file unless it is there; True if we did."""
        make_folder(os.path.dirname(self.path) or ".")
        with _output_errors(self.path):
            try:
                if is_s3(self.path):
                    with _plain_errors(self.path):
                        _s3().pipe_file(self.path, self._content(), mode="create")
                else:
                    with open(self.path, "xb") as file:
                        file.write(self._content())
            except FileExistsError:
                return False
        return True

    def _read(self) -> tuple[dict[str, Any], str] | None:
        """What the file says and its version (S3: the ETag); None if there is none."""
        try:
            # The version first: if the file changes in between, replacing it by that version fails.
            version = identity(self.path).version
            data = read_bytes(self.path)
        except FileNotFoundError:
            return None
        # Empty: its owner is between creating and writing it. The file's age then stands for the heartbeat.
        return _parse_json(data) or {"heartbeat": self._age_stamp()}, version

    def _age_stamp(self) -> float:
        return time.time() if is_s3(self.path) else os.stat(self.path).st_mtime

    def _is_stale(self, held: dict[str, Any]) -> bool:
        if held.get("host") == socket.gethostname() and not _is_alive(int(held.get("pid", 0))):
            return True
        return time.time() - float(held.get("heartbeat", 0.0)) > self.stale_after_s

    def _take_over(self) -> bool:
        """Replace an abandoned lock; of several runs that try, one wins."""
        held = self._read()
        if held is None:
            return self._create()
        if not self._is_stale(held[0]):
            return False
        if is_s3(self.path):
            return self._put_if_unchanged(held[1])
        return self._move_away(held[0].get("owner")) and self._create()

    def _put_if_unchanged(self, version: str) -> bool:
        """Replace the object only if it is the one with ETag `version`."""
        bucket, _, key = self.path.removeprefix("s3://").partition("/")
        try:
            with _plain_errors(self.path):
                _s3().call_s3(
                    "put_object", Bucket=bucket, Key=key, Body=self._content(), IfMatch=f'"{version}"'
                )
        except OSError as error:
            # s3fs gives 412 (changed) as EINVAL and 404 (gone) as FileNotFoundError.
            if error.errno == errno.EINVAL or isinstance(error, FileNotFoundError):
                return False
            raise
        return True

    def _move_away(self, owner: str | None) -> bool:
        """Rename the abandoned lock of `owner`; only one of several runs can."""
        aside = f"{self.path}.{self._owner}"
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return False
        moved = _parse_json(Path(aside).read_bytes()) or {}
        if moved.get("owner") != owner:
            # A faster run had taken over in between, and this is its lock: put it back.
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        os.unlink(aside)
        return moved.get("owner") == owner

    def _locked(self) -> LockedError:
        held = (self._read() or ({}, ""))[0]
        age_s = time.time() - float(held.get("heartbeat", time.time()))
        output = self.path.removesuffix("_lock.json").rstrip("/")
        return LockedError(
            f"{output}: held by the run of process {held.get('pid', '?')} on {held.get('host', '?')}, last heard of "
            f"{age_s:.0f} s ago; wait for it to end or stop it. If it is dead, its lock is taken over when it "
            f"has been silent for {self.stale_after_s:.0f} s"
        )

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_s):
            # A missed beat does no harm: the next one comes, and others wait for several.
            with contextlib.suppress(OSError, OutputError):
                held = self._read()
                if held is None or held[0].get("owner") != self._owner:
                    return
                if is_s3(self.path):
                    self._put_if_unchanged(held[1])
                else:
                    publish(self.path, self._content())


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return True  # not known
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
