"""The tables of the paper for a bundle, at toy size: their rows beside the paper's numbers, and what is kept."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_both_tables_are_printed_and_kept(load_benchmark, monkeypatch, capsys, tmp_path):
    load_benchmark("harness")
    load_benchmark("reproduce_gampen")
    benchmark = load_benchmark("paper_tables")
    monkeypatch.setattr("sys.argv", ["paper_tables.py", "demo:gampen", "--galaxies", "24", "--passes", "4"])
    benchmark.main()
    kept = json.loads((tmp_path / "results" / "paper_tables_of_demo_gampen.json").read_text())
    assert (kept["galaxies"], kept["passes"]) == (24, 4)
    coverage = {(row["posterior"], row["parameter"], row["level"]): row for row in kept["table_2"]}
    assert len(coverage) == 18
    assert coverage["corrected", "flux_njy", 68.27]["paper"] == 78.7
    # The correction changes the posteriors, and the wider of two intervals holds no fewer.
    for posterior, parameter, level in coverage:
        if level == 68.27:
            assert (
                coverage[posterior, parameter, 99.73]["here"] >= coverage[posterior, parameter, level]["here"]
            )
    residuals = {row["quantity"]: row for row in kept["figure_12"]}
    assert residuals["mag, R^2"]["here"] > 0.9
    assert residuals["re_arcsec, percent"]["paper"] == 7.0
    assert "Table 2" in (told := capsys.readouterr().out)
    assert "Figure 12" in told
