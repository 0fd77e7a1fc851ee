"""What files were looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from galbatch import storage
from galbatch.core.types import FileIdentity


def test_accesses_are_recorded_and_files_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, absent = str(tmp_path / "file"), str(tmp_path / "absent")
    (tmp_path / "file").write_bytes(b"abc")
    known = FileIdentity(7, "told")
    files = storage.FileAccessLog({"s3://bucket/known": known})
    before = files.identity(path)
    assert not files.exists(absent)
    with pytest.raises(FileNotFoundError):
        files.identity(absent)
    assert files.identity("s3://bucket/known") == known
    (tmp_path / "file").write_bytes(b"longer")
    assert files.identity(path) == before
    assert files.recorded == {path: before, absent: None, "s3://bucket/known": known}
    assert storage.identity(path).size_bytes == 6
