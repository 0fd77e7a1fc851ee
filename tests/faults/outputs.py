"""The outputs of a run as files with names and bytes, on a disk or on S3."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Protocol

import boto3

# They tell of runs and change with each; all other files of two finished runs have the same names.
TOLD = ("catalog_log.jsonl", "catalog_progress.json")


class Outputs(Protocol):
    """Files by their names below one place."""

    url: str

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def clear(self) -> None: ...


class OnDisk:
    """Outputs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)

    def names(self) -> list[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def clear(self) -> None:
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)


class OnS3:
    """Outputs in a bucket, reached without the proxy that the run goes through."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.client.create_bucket(Bucket=bucket)
        self.bucket = bucket
        self.url = f"s3://{bucket}"

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", ()))

    def read(self, name: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        return body

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=name, Body=data)

    def clear(self) -> None:
        for name in self.names():
            self.remove(name)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=name)


def copy(source: Outputs, target: Outputs) -> None:
    for name in source.names():
        target.write(name, source.read(name))


def lasting_names(outputs: Outputs) -> list[str]:
    """The names of all files but those that tell of runs."""
    return [name for name in outputs.names() if not name.startswith(TOLD)]


def shorten_locks(outputs: Outputs) -> None:
    """Make the locks of a run that was killed state a short period, for which the next run watches them: it is 30 s."""
    for name in outputs.names():
        if name.endswith("_lock.json"):
            values = json.loads(outputs.read(name)) | {"period_s": 0.5}
            outputs.write(name, json.dumps(values).encode())
