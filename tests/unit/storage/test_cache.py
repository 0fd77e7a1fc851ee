"""Copies of files on this machine."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from galbatch import storage
from galbatch.errors import TileError, UsageError


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


PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress}


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("name", ["a.gz", "a.bz2", "a.fits", "a"])
def test_content_decides_whether_a_file_is_unpacked(tmp_path: Path, packing: str, name: str) -> None:
    content = os.urandom(10) * 100_000
    for stored, found in ((PACKERS[packing](content), packing), (content, "")):
        (tmp_path / name).write_bytes(stored)
        opened = storage.open_content(str(tmp_path / name))
        with opened.file as file:
            assert (file.read(), opened.packing) == (content, found)


def test_what_was_packed_twice(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(bz2.compress(gzip.compress(b"content")))
    with storage.open_content(str(tmp_path / "a.gz")).file as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("packing", PACKERS)
def test_packed_files_that_are_cut_or_damaged(tmp_path: Path, packing: str) -> None:
    packed = PACKERS[packing](np.random.default_rng(1).bytes(300_000))
    path = tmp_path / "a.fits"
    for end in (len(packed) - 3, len(packed) // 2, 20):
        path.write_bytes(packed[:end])
        with pytest.raises(TileError, match=rf"a\.fits: ends within its {packing} stream; .*truncated"):
            storage.open_content(str(path))
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(TileError, match=rf"its {packing} stream is damaged"):
        storage.open_content(str(path))


@pytest.mark.parametrize(
    ("name", "pack"),
    [("xz", lzma.compress), ("zstd", lambda data: pa.Codec("zstd").compress(data, asbytes=True))],
)
def test_other_packings_are_refused_by_name(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a.fits").write_bytes(pack(b"SIMPLE  =" * 1000))
    with pytest.raises(TileError, match=f"is packed by {name}, which is not read; unpack it"):
        storage.open_content(str(tmp_path / "a.fits"))
