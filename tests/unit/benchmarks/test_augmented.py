"""The benchmark of training on spoiled images at toy size: rows of two networks side by side, by shift, width and coverage."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_a_network_beside_itself(load_benchmark, monkeypatch, capsys, tmp_path):
    for name in ("harness", "spoiled_scenes", "spoiled_tile", "spoiled"):
        load_benchmark(name)
    benchmark = load_benchmark("augmented")
    bundle = "demo:gampen_survey"
    monkeypatch.setattr("sys.argv", ["augmented.py", bundle, bundle, "--galaxies", "8"])
    benchmark.main()
    (path,) = (tmp_path / "results").iterdir()
    kept = json.loads(path.read_text())
    assert kept["galaxies"] == 8
    assert set(kept["rows"]) == set(benchmark.TRAINED_ON)
    for row in kept["rows"].values():
        assert set(row) == {"bt", "re_arcsec", "flux_njy"}
        assert all(both["before"] == both["after"] for both in row.values())
    assert kept["rows"]["clean"]["flux_njy"]["before"]["shift"] == 0
    assert kept["rows"]["sky +5 nJy a pixel"]["flux_njy"]["before"]["shift"] > 2
    assert "sky +5 nJy a pixel" in capsys.readouterr().out
