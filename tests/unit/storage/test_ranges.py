"""Files that are read range by range."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from galbatch import storage


def test_ranges_come_in_the_order_asked(tmp_path: Path, s3: str) -> None:
    content = bytes(range(256)) * 1000
    for path in (f"{s3}/file", str(tmp_path / "file")):
        storage.publish(path, content)
        found = storage.read_ranges(path, [(5000, 5010), (0, 3), (255_990, 256_000)])
        assert found == [content[5000:5010], content[:3], content[-10:]]
        assert storage.read_ranges(path, []) == []
        with pytest.raises(OSError, match="10 bytes came from 255990 on, expected 20"):
            storage.read_ranges(path, [(255_990, 256_010)])


def test_a_file_on_s3_reads_like_a_local_one(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(300_000)
    storage.publish(f"{s3}/file", content)
    fetched = []
    read_ranges = storage.S3FileSystem.read_ranges

    def counted(system: storage.S3FileSystem, path: str, ranges: list[tuple[int, int]]) -> list[bytes]:
        fetched.extend(ranges)
        return read_ranges(system, path, ranges)

    monkeypatch.setattr(storage.S3FileSystem, "read_ranges", counted)
    with storage.open_file(f"{s3}/file") as file:
        assert isinstance(file, storage.RangedFile)
        assert file.read(10) == content[:10]
        assert file.read(10) == content[10:20]
        assert fetched == [(0, storage.BLOCK_BYTES)]
        assert file.seek(-5, os.SEEK_END) == 299_995
        assert file.read(100) == content[-5:]
        assert file.read(100) == b""
        file.prefetch([(200_000, 200_100), (100_000, 100_050)])
        file.seek(100_010)
        assert file.read(40) == content[100_010:100_050]
        file.seek(200_000)
        assert file.read(100) == content[200_000:200_100]
        assert len(fetched) == 4
        file.keep(150_000, 190_000)
        file.seek(160_000)
        assert file.read(1000) == content[160_000:161_000]
        assert len(fetched) == 5
        file.seek(0)
        assert file.read() == content
    with pytest.raises(FileNotFoundError):
        storage.open_file(f"{s3}/absent")


def test_large_ranges_are_fetched_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galbatch.storage.ranges.PIECE_BYTES", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = os.urandom(1050)
    (tmp_path / "file").write_bytes(content)
    with storage.fetch(str(tmp_path / "file"), 20, 1045) as fetched:
        assert fetched.read() == content[20:1045]
        assert os.listdir(tmp_path) == ["file"]  # no name, so nothing stays behind
    with pytest.raises(OSError, match="expected 100"):
        storage.fetch(str(tmp_path / "file"), 20, 2000)
    assert os.listdir(tmp_path) == ["file"]
