"""The benchmark of many leaves, at toy size: each step sees every leaf, and each is measured."""

import dataclasses
import json

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def leaves(load_benchmark):
    return load_benchmark("leaves")


def test_each_step_is_measured_on_every_leaf(leaves, tmp_path, capsys):
    leaves.main([20])
    rows = json.loads((tmp_path / "results" / "leaves.json").read_text())["measured"]
    assert [18 <= row["leaves"] <= 20 for row in rows] == [True]
    steps = ("plan", "progress", "finish", "verify")
    measures = [f"{step}_{what}" for step in steps for what in ("s", "processor_s", "added_mib")]
    assert [sorted(row) for row in rows] == [sorted(["leaves", *measures])]
    assert capsys.readouterr().out.startswith("leaves ")


def test_a_leaf_that_is_missing_ends_the_benchmark(leaves, monkeypatch):
    write_all = leaves.write_leaves
    monkeypatch.setattr(leaves, "write_leaves", lambda config, plan: write_all(config, _without_last(plan)))
    with pytest.raises(SystemExit, match="count as done"):
        leaves.measure(20)


def _without_last(plan):
    return dataclasses.replace(plan, partitions=plan.partitions[:-1])
