"""The simulation of large runs: what it counts adds up, and the run's own queue loses nothing."""

import dataclasses
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def survey_scale(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import survey_scale

    return survey_scale


@pytest.fixture
def faultless(survey_scale):
    return survey_scale.Rates(
        slow=0.0,
        scatter=0.0,
        passing=0.0,
        broken=0.0,
        lost_every_h=1e9,
        start_s=0.0,
        start_cutting_s=0.0,
        cutouts_per_s=1e9,
    )


def test_without_faults_the_gpus_are_busy_and_nothing_is_lost(survey_scale, faultless):
    found = survey_scale.run(2_000_000, 8, 5_000, rates=faultless)
    assert (found["share_lost"], found["partitions_failed"], found["workers_lost"]) == (0.0, 0, 0)
    # 2 million galaxies of 44 passes at 10,000 a second.
    assert found["gpu_hours_without_faults"] == pytest.approx(2e6 * 44 / 1e4 / 3600, rel=0.01)
    # 740 partitions on 8 GPUs: at the end some wait for the last one.
    assert found["gpu_hours"] == pytest.approx(found["gpu_hours_without_faults"], rel=0.02)


def test_faults_cost_what_was_begun_and_lose_no_galaxy(survey_scale, faultless):
    """A worker is lost every two minutes, a tenth of the tasks fail once, a hundredth of the partitions always."""
    rates = dataclasses.replace(faultless, lost_every_h=1 / 30, back_after_h=1 / 60, passing=0.1, broken=0.01)
    found = survey_scale.run(2_000_000, 8, 5_000, rates=rates)
    again = survey_scale.run(2_000_000, 8, 5_000, rates=rates)
    assert {key: value for key, value in found.items() if key != "queue_ms_a_task"} == {
        key: value for key, value in again.items() if key != "queue_ms_a_task"
    }
    # A tenth fails at its end; of a task of 12 s on average half is lost every 120 s.
    assert 0.1 < found["share_lost"] < 0.2
    assert 0 < found["partitions_failed"] < 20
    assert found["workers_lost"] > 50


def test_measured_rates_are_those_of_the_kept_runs(survey_scale, monkeypatch, tmp_path):
    times = {
        "ingest": {"start_s": 0.5, "object_s": 0.004, "scatter": 0.2},
        "infer": {"start_s": 1.5, "object_s": 0.01, "scatter": 0.1},
    }
    (tmp_path / "task_times.json").write_text(json.dumps({"measured": times}))
    (tmp_path / "stopping_of_full_width.json").write_text(json.dumps({"learned": {"mean_passes": 32.0}}))
    monkeypatch.setattr(survey_scale, "RESULTS", tmp_path)
    rates = survey_scale.Rates.measured()
    assert (rates.passes, rates.cutouts_per_s, rates.scatter) == (32.0, 250.0, 0.2)
    assert (rates.start_s, rates.start_cutting_s) == (1.5, 0.5)
    # The others are the assumptions.
    changed = {
        name
        for name, value in dataclasses.asdict(rates).items()
        if value != getattr(survey_scale.Rates(), name)
    }
    assert changed <= set(survey_scale.MEASURED)
