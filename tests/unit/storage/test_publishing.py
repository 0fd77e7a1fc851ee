"""Files of the local disk that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from galbatch import storage
from galbatch.errors import OutputError


def test_publish_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b" / "file")
    storage.publish(path, b"one")
    storage.publish(path, b"two", staging=str(tmp_path / "staging"))
    assert storage.read_bytes(path) == b"two"
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["file"]


def test_published_files_follow_the_umask(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "file"), b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_fault_while_publishing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    storage.publish(str(path), b"old")

    def fault(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, fault)
    with pytest.raises(KeyboardInterrupt):
        storage.publish(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    storage.publish(str(tmp_path / "file"), b"")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left; free some"),
        (errno.EDQUOT, "no space left"),
        (errno.EACCES, "no permission to write; choose another path"),
        (errno.EROFS, "no permission to write"),
    ],
)
def test_disk_full_and_permission_are_output_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def fault(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fault)
    with pytest.raises(OutputError, match=message):
        storage.publish(str(tmp_path / "file"), b"x")
    assert os.listdir(tmp_path) == []


def test_a_passing_fault_stays_an_oserror_that_may_be_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fault)
    with pytest.raises(OSError, match="Input/output error"):
        storage.publish(str(tmp_path / "file"), b"x")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", lambda *_: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"))
    with pytest.raises(OutputError, match="no space left"):
        storage.publish(str(tmp_path / "file"), b"x" * 10_000_000)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="a file is in the way"):
        storage.publish(str(tmp_path / "file" / "below"), b"")
    with pytest.raises(OutputError, match="a file is in the way"):
        storage.check_writable(str(tmp_path / "file"))


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    output, left = tmp_path / "cutouts.zarr", "0123456789abcdef" * 2
    kept = [
        output / "zarr.json",
        output / ".zattrs",
        output / f".zarr.json.{left}",
        output / f"zarr.json.{left}.tmp",
        output / "a" / ".notes.tmp",
        tmp_path / f".other.zarr_lock.json.{left}.tmp",
        tmp_path / "cutouts.zarr_lock.json",
    ]
    temporary = [
        output / f".zarr.json.{left}.tmp",
        output / "Norder=1" / "Dir=0" / f".zarr.json.{left}.tmp",
        tmp_path / f".cutouts.zarr_damaged.json.{left}.tmp",
    ]
    for path in (*kept, *temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    storage.remove_temporaries(str(output))
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_names_of_temporary_files_are_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed before the rename: the rename is left out, and what should tidy up."""
    with monkeypatch.context() as killed:
        killed.setattr(os, "replace", lambda *_: None)
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        storage.publish(str(tmp_path / "catalog" / "file"), b"")
    assert len(list((tmp_path / "catalog").iterdir())) == 1
    storage.remove_temporaries(str(tmp_path / "catalog"))
    assert list((tmp_path / "catalog").iterdir()) == []
