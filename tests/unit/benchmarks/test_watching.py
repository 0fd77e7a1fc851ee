"""The benchmark of the dashboard's cost, at toy size: each side's share is the sum of its parts."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_shares_are_those_of_the_parts(load_benchmark, tmp_path):
    watching = load_benchmark("watching")
    watching.main([2, 3], 3)
    sides = json.loads((tmp_path / "results" / "watching.json").read_text())["sides"]
    assert list(sides) == [
        "a worker",
        "the run",
        "the scheduler of 2 workers",
        "the scheduler of 3 workers",
    ]
    run = sides["the run"]
    assert run["percent_of_a_core"] == pytest.approx(run["news_ms"] / 2 / 10)
    assert all(one["percent_of_a_core"] > 0 for one in sides.values())
