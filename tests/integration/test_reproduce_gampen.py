"""The reproduction of the GaMPEN paper at toy size: all stages, stopped and gone on with."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from galbatch.core.types import njy_per_unit
from galbatch.models.inference import run_passes
from galbatch.simulation import draw_population, draw_stamps

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOY = [
    "--objects",
    "240",
    "--size-px",
    "40",
    "--width",
    "0.0625",
    "--epochs",
    "2",
    "--batch",
    "32",
    "--learning-rate",
    "1e-3",
    "--passes",
    "4",
]


@pytest.fixture(scope="module")
def reproduction():
    sys.path.insert(0, str(BENCHMARKS))
    import reproduce_gampen

    yield reproduce_gampen
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def finished(reproduction, tmp_path_factory):
    """Plan, and what was written, of a run that was stopped once before each stage."""
    folder = tmp_path_factory.mktemp("gampen")
    arguments = ["--workdir", str(folder), *TOY]
    assert reproduction.main([*arguments, "--seconds", "0"]) == reproduction.UNFINISHED
    assert not (folder / "simulated.txt").exists()
    assert reproduction.main([*arguments, "--stage", "simulate"]) == 0
    assert reproduction.main([*arguments, "--seconds", "0"]) == reproduction.UNFINISHED  # after one epoch
    assert (folder / "checkpoint.pt").exists()
    assert not (folder / "bundle.pt").exists()
    assert reproduction.main([*arguments, "--stage", "train"]) == 0
    assert reproduction.main([*arguments, "--seconds", "0"]) == reproduction.UNFINISHED
    assert reproduction.main(arguments) == 0
    given = reproduction.read_arguments(arguments)
    plan = reproduction.plan_of(given)
    return plan, json.loads((folder / "reproduce_gampen_toy.json").read_text())


def test_the_galaxies_are_the_simulators(finished, reproduction):
    plan, _ = finished
    seed = reproduction.SIMULATION_SEED
    truth = draw_population(240, bands=("g",), population="paper", seed=seed)
    some = draw_stamps(truth.slice(100, 3), bands=("g",), size_px=40, seed=seed)
    np.testing.assert_array_equal(plan.images()[100:103], some)
    np.testing.assert_array_equal(plan.labels()[:, 2], truth.column("flux_njy").to_numpy())


def test_it_is_judged_on_objects_that_nothing_has_seen(finished):
    plan, found = finished
    parts = plan.parts
    assert found["n_test"] == len(parts.test)
    assert found["training"]["n_training"] == len(parts.training)
    rows = np.concatenate([parts.training, parts.validation, parts.test])
    assert sorted(rows.tolist()) == list(range(240))


def test_its_passes_are_galbatchs(finished, reproduction):
    plan, _ = finished
    bundle, rows = plan.bundle(), plan.parts.test
    outputs = reproduction.run_passes(
        plan, bundle, rows, "test", reproduction.Clock(0.0)
    )  # read from the files
    unit = np.float32(njy_per_unit(27.0))
    expected = run_passes(bundle, plan.images()[rows] / unit, outputs.keys, batch=16)
    np.testing.assert_allclose(outputs.numbers, expected.outputs, rtol=1e-4, atol=1e-5)


def test_the_rows_are_those_of_the_paper(finished):
    _, found = finished
    assert len(found["table_2"]) == 2 * 3 * 3
    first = found["table_2"][0]
    assert (first["parameter"], first["level"], first["paper"]) == ("bt", 68.27, 71.8)
    published = {row["quantity"]: row["paper"] for row in found["figure_12"]}
    assert published == {
        "bt": 0.1,
        "re_arcsec": 0.17,
        "re_arcsec, percent": 7.0,
        "re_arcsec, R^2": 0.98,
        "flux_njy": 6.3e4,
        "flux_njy, percent": 1.0,
        "mag": 0.051,
        "mag, R^2": 0.998,
    }
    # A network of 2 epochs and 240 galaxies is far from the paper's.
    assert not any(row["reached"] for row in found["figure_12"])


def test_reached_is_measured_against_the_paper(reproduction):
    residual = np.random.default_rng(1).normal(0.0, 1.0, 4000)
    for scale, bias, expected in ((0.09, 0.0, True), (0.11, 0.0, False), (0.09, 0.09, False)):
        row = reproduction._residual_row("bt", scale * residual + bias, 0.1, relative=False)
        assert row["reached"] is expected
        assert row["here"] == pytest.approx(scale, rel=0.03)


def test_stamps_of_another_size_in_the_folder_are_refused(finished, reproduction):
    plan, _ = finished
    with pytest.raises(SystemExit, match=r"images\.npy: holds .240, 1, 40, 40., asked for .240, 1, 48, 48."):
        reproduction.main(["--workdir", str(plan.workdir), *TOY, "--size-px", "48"])
