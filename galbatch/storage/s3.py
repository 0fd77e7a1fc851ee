"""S3 and object stores with the same protocol, through s3fs.

Credentials and endpoint are found by botocore (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ...); with
``FSSPEC_S3_ANON=true`` public buckets are read without credentials.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import fsspec

from galbatch.errors import OutputError, UsageError
from galbatch.storage.base import Piece, output_errors
from galbatch.storage.fsspec_inputs import PARALLEL_REQUESTS, FsspecInputs

__all__ = ["S3FileSystem"]

PREFIX = "s3://"

ATTEMPTS = 5
"""How often a request is made that the store answers with 429 or 5xx, or not at all.

botocore waits between them for a random time of up to 1, 2, 4 and 8 s, so that workers do not come back all at once, and
stops trying where most requests of a process fail: then the run pauses."""

# s3fs repeats whole requests once more, without chance in its waits. Of these repeats only that of a body that was cut off
# is needed, as botocore does not see bodies; more would multiply botocore's own.
S3FS_ATTEMPTS = 2

# botocore's errors that say whose fault it is; all others count as input/output errors.
NUMBER_OF_BOTO_ERROR = {
    "EndpointConnectionError": errno.ECONNREFUSED,
    "ConnectTimeoutError": errno.ETIMEDOUT,
    "ReadTimeoutError": errno.ETIMEDOUT,
}


class S3FileSystem(FsspecInputs):
    """The file system of ``s3://`` paths; the methods are those of `FileSystem`."""

    # Without this option s3fs would read without credentials.
    reader_options: Mapping[str, Any] = MappingProxyType({"anon": False})

    def __init__(self) -> None:
        super().__init__("s3")

    def _client(self) -> Any:
        # Listings are not cached: other processes write, and a stale listing would hide their work.
        client = fsspec.filesystem(
            "s3",
            use_listings_cache=False,
            config_kwargs={
                "max_pool_connections": PARALLEL_REQUESTS,
                "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
            },
        )
        client.retries = S3FS_ATTEMPTS
        return client

    def _name(self, path: str) -> str:
        return path.removeprefix(PREFIX)

    def _url(self, name: str) -> str:
        return PREFIX + name

    @contextlib.contextmanager
    def _plain_errors(self, path: str) -> Iterator[None]:
        # Here, as galbatch also works on a disk where the packages of S3 are not installed.
        from botocore.exceptions import (  # type: ignore[import-untyped]
            BotoCoreError,
            NoCredentialsError,
        )

        try:
            with super()._plain_errors(path):
                yield
        except NoCredentialsError:
            raise UsageError(
                f"{path}: no S3 credentials found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for public buckets"
            ) from None
        except BotoCoreError as error:
            names = (kind.__name__ for kind in type(error).__mro__)
            number = next(
                (NUMBER_OF_BOTO_ERROR[name] for name in names if name in NUMBER_OF_BOTO_ERROR), errno.EIO
            )
            raise OSError(number, f"{path}: {error}") from error

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        try:
            with output_errors(path), self._plain_errors(path):
                yield
        except FileNotFoundError as error:
            raise OutputError(f"{path}: there is no such bucket ({error}); create it first") from error

    def publish(self, path: str, data: bytes, *, staging: str | None = None) -> None:
        with self._writing(path):
            # One PUT, so the object exists whole or not at all.
            self._client().pipe_file(path, data)

    def append(self, path: str, data: bytes, *, part: str) -> None:
        self.publish(f"{path}/{part}", data)

    def write_files(self, folder: str, contents: Mapping[str, Sequence[Piece]]) -> None:
        root = folder.rstrip("/")
        with self._writing(folder):
            self._client().pipe({f"{root}/{name}": b"".join(pieces) for name, pieces in contents.items()})

    def sync_files(self, folder: str, names: Sequence[str]) -> None:
        """Do nothing: S3 answers a PUT when it has the object."""

    def remove(self, path: str) -> None:
        with self._writing(path), contextlib.suppress(FileNotFoundError):
            self._client().rm(path, recursive=True)

    def remove_if_empty(self, folder: str) -> None:
        """Do nothing: S3 has no empty folders."""

    def make_folder(self, path: str) -> None:
        """Do nothing: a folder exists with its first object."""

    def create(self, path: str, data: bytes) -> bool:
        with self._writing(path):
            try:
                # The request has the header If-None-Match: *, so S3 refuses it if the object exists.
                self._client().pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True

    def renew(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        bucket, _, key = path.removeprefix(PREFIX).partition("/")
        try:
            with self._plain_errors(path):
                self._client().call_s3(
                    "put_object", Bucket=bucket, Key=key, Body=data, IfMatch=f'"{version}"'
                )
        except OSError as error:
            # s3fs raises EINVAL for status 412 (the object has changed) and FileNotFoundError for 404 (it is gone).
            if error.errno == errno.EINVAL or isinstance(error, FileNotFoundError):
                return False
            raise
        return True

    def take_over(self, path: str, data: bytes, *, content: bytes, version: str) -> bool:
        return self.renew(path, data, content=content, version=version)
