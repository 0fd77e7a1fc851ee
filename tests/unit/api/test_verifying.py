from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq

import galbatch


def test_a_catalog_with_a_torn_leaf(small: str, tmp_path: Path) -> None:
    shutil.copytree(Path(small).parent, tmp_path / "run")
    path, store = tmp_path / "run" / "catalog", tmp_path / "run" / "cutouts.zarr"
    assert galbatch.verify(path, store=store).is_good
    leaf = next((path / "dataset").rglob("Npix=*.parquet"))
    leaf.write_bytes(leaf.read_bytes()[:-200])
    torn = galbatch.verify(path)
    assert not torn.is_good
    assert leaf.name in " ".join(torn.problems)
    assert repr(torn).startswith(f"<Verification of {path}: ")
    assert leaf.name in torn._repr_html_()
    assert not galbatch.verify(tmp_path / "nothing").is_good


def test_a_report_of_paths(small: str, tmp_path: Path) -> None:
    written = galbatch.report(
        Path(small), tmp_path / "report.html", store=Path(small).parent / "cutouts.zarr"
    )
    assert written == str(tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()


def test_a_survey_in_a_folder(tmp_path: Path) -> None:
    survey = galbatch.simulate(tmp_path / "survey", n_objects=4, patches=1, bands="g", layout="stamps")
    assert survey.bands == ("g",)
    assert pq.read_metadata(tmp_path / "survey" / "truth.parquet").num_rows == survey.n_objects >= 4
    assert 'layout = "stamps"' in survey.run_toml
