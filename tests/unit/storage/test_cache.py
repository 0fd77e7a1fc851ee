"""Copies of files on this machine."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from galbatch import storage
from galbatch.errors import UsageError


def test_local_copy_of_a_local_file_is_the_file_with_its_hash_checked(tmp_path: Path) -> None:
    path = tmp_path / "bundle.pt"
    path.write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    assert storage.local_copy(str(path), sha256=right) == path
    with pytest.raises(UsageError, match=r"its sha256 is .*, expected 000000000000"):
        storage.local_copy(str(path), sha256="0" * 64)


def test_s3_local_copy_is_fetched_once_and_mended(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    sha256 = hashlib.sha256(b"weights").hexdigest()
    storage.publish(f"{s3}/bundle.pt", b"weights")
    copy = storage.local_copy(f"{s3}/bundle.pt", sha256=sha256)
    assert copy.name == f"{sha256}.pt"
    copy.write_bytes(b"torn")
    assert storage.local_copy(f"{s3}/bundle.pt", sha256=sha256).read_bytes() == b"weights"
    storage.publish(f"{s3}/bundle.pt", b"others")
    assert storage.local_copy(f"{s3}/bundle.pt", sha256=sha256).read_bytes() == b"weights"
    with pytest.raises(UsageError, match="its sha256 is"):
        storage.local_copy(f"{s3}/bundle.pt", sha256="0" * 64)


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    content = os.urandom(10) * 100_000
    for name, pack in (("a.gz", gzip.compress), ("a.bz2", bz2.compress)):
        (tmp_path / name).write_bytes(pack(content))
        with storage.unpack(str(tmp_path / name)) as file:
            assert file.read() == content
    (tmp_path / "cut.gz").write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(EOFError):
        storage.unpack(str(tmp_path / "cut.gz"))
