"""The examples in the docstrings of the public API print what they say, on the small catalog of these tests."""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path

import pytest

MODULES = [
    "galbatch.api.catalogs.catalog",
    "galbatch.api.catalogs.objects",
    "galbatch.api.stores",
    "galbatch.models.bundle.files",
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_say(
    module: str, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("catalog", "cutouts.zarr"):
        shutil.copytree(Path(small).parent / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testmod(importlib.import_module(module), optionflags=options)
    assert found.attempted >= 2
    assert found.failed == 0
