"""Functions that ask a path's file system."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from galbatch import storage
from galbatch.errors import OutputError, UsageError


def test_join_does_not_double_slashes() -> None:
    assert storage.join("s3://bucket/a/", "b/", "/c") == "s3://bucket/a/b/c"
    assert storage.join("/", "a") == "/a"
    assert storage.join("a", "b") == "a/b"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_refuses_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission to write"):
        storage.check_writable(str(folder))


def test_check_writable_creates_the_folder_and_leaves_it_empty(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path / "a" / "b"))
    assert os.listdir(tmp_path / "a" / "b") == []


def test_json_goes_and_comes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    assert storage.read_json(path) is None
    storage.publish_json(path, {"b": 1, "a": [1.5, "é"]})
    assert storage.read_json(path) == {"a": [1.5, "é"], "b": 1}
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(OutputError, match="holds no JSON object"):
        storage.read_json(path)


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(
        UsageError, match="nowhere://x/y: nowhere:// is unknown; paths are local or begin with s3://"
    ):
        storage.exists("nowhere://x/y")


def test_a_scheme_without_its_package_names_it() -> None:
    if importlib.util.find_spec("gcsfs") is not None:
        pytest.skip("gcsfs is installed")
    with pytest.raises(UsageError, match="gs://x/y: gs:// needs the package gcsfs, which is not installed"):
        storage.exists("gs://x/y")
