"""The local disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from galbatch import storage


def test_files_are_found_by_glob_folder_and_name(tmp_path: Path) -> None:
    for name in ("a/9813/4,4/x.fits", "a/9813/4,5/y.fits", "a/notes.txt", "a[1]/z.fits"):
        storage.publish(str(tmp_path / name), b"")
    x, y, z = (str(tmp_path / name) for name in ("a/9813/4,4/x.fits", "a/9813/4,5/y.fits", "a[1]/z.fits"))
    assert storage.find_files(f"{tmp_path}/**/*.fits", suffixes=()) == [x, y, z]
    assert storage.find_files(str(tmp_path / "a"), suffixes=(".fits", ".fz")) == [x, y]
    assert storage.find_files(x, suffixes=()) == [x]
    # Brackets that are part of a name, not a pattern.
    assert storage.find_files(str(tmp_path / "a[1]"), suffixes=(".fits",)) == [z]
    assert storage.find_files(str(tmp_path / "none*"), suffixes=(".fits",)) == []


def test_list_files_is_sorted_and_relative(tmp_path: Path) -> None:
    for name in ("b/2.parquet", "a/1.parquet", "a/1.txt"):
        storage.publish(str(tmp_path / name), b"")
    assert storage.list_files(str(tmp_path), suffix=".parquet") == ["a/1.parquet", "b/2.parquet"]
    assert storage.list_files(str(tmp_path / "absent"), suffix="") == []


def test_remove_takes_files_trees_and_nothing(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "tree" / "a"), b"")
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("tree", "link", "absent"):
        storage.remove(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["kept"]


def test_only_an_empty_folder_is_removed(tmp_path: Path) -> None:
    storage.publish(str(tmp_path / "full" / "a"), b"")
    (tmp_path / "empty").mkdir()
    for name in ("full", "empty", "absent"):
        storage.remove_if_empty(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["full"]


def test_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    before = storage.identity(str(path))
    os.utime(path, ns=(0, 12345))
    assert before.size_bytes == 3
    assert storage.identity(str(path)).version == "12345"
    with pytest.raises(FileNotFoundError):
        storage.identity(str(tmp_path / "absent"))
