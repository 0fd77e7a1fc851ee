"""The benchmark of ingest, at toy size: whole runs and the cut alone make all cutouts."""

import json
from pathlib import Path

import pytest

from galbatch.core.types import Grid

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def contenders(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import harness
    import ingest_contenders
    import ingest_data

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(ingest_contenders, "GRID", Grid(24, 0.168))
    monkeypatch.setattr(ingest_contenders, "_fill_page_cache", lambda path: None)
    # One patch of 4200 px would be 53 MB a plane.
    monkeypatch.setattr(ingest_data, "PATCH_PX", 300)
    monkeypatch.setattr(ingest_data, "STEP_PX", 280)
    return ingest_contenders


def test_whole_runs_and_the_cut_alone_make_all_cutouts(contenders, tmp_path):
    data = contenders.make_data(tmp_path / "tiles", 40)
    contenders.compare_in_memory(data, store=tmp_path / "store.zarr")
    # A run whose partitions fail ends the benchmark.
    contenders.compare_runs(data, output=tmp_path / "output", peers_python=None, workers=1, rounds=1)
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert sorted(kept) == [
        "cutting_and_writing_against_cutout2d",
        "cutting_in_memory_against_cutout2d",
        "ingest_of_24_px_cutouts__1_workers__whole_runs",
    ]
    [whole] = [one for name, one in kept.items() if "whole" in name]
    assert whole["items"] == 40
    assert [row["name"].split(",")[0] for row in whole["measured"]] == 3 * ["galbatch"] + [
        "plain write of the images' bytes"
    ]
