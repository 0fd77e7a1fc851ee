"""The commands galbatch catalog index, moc and hips, and what verify says of what they made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mocpy import MOC

import galbatch.cli
from galbatch.cli import collections
from tests.unit.api.conftest import write_catalog


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = str(tmp_path_factory.mktemp("collections") / "catalog")
    write_catalog(found)
    return found


def test_the_index_and_the_footprint(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collections.index(path)
    collections.moc(path, str(tmp_path / "x.fits"), 10)
    printed = capsys.readouterr().out.split("\n")
    assert printed[0] == f"{path}_collection: index of 3 ids"
    assert (Path(f"{path}_collection") / "object_id_index" / "hats.properties").exists()
    footprint = MOC.load(tmp_path / "x.fits", format="fits")
    # Two of the three objects share a pixel; one of order 10 has 0.00328 square degrees.
    assert footprint.max_order == 10
    assert f"{footprint.sky_fraction * 41252.96:.4g} square degrees have objects" in " ".join(printed)


@pytest.mark.parametrize("radius", ["0", "2deg", "x"])
def test_wrong_radii_are_exit_code_2(
    path: str, radius: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["galbatch", "catalog", "margin", path, "--radius", radius])
    with pytest.raises(SystemExit) as ended:
        galbatch.cli.main()
    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err
