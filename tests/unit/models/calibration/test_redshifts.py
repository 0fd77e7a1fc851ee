"""Tables of redshifts whose posteriors are known."""

import dataclasses

import numpy as np
import pytest

from galbatch.models import ParameterInfo
from galbatch.models.calibration import HeldOut, PassSettings, judge, run_held_out
from galbatch.models.calibration.redshifts import redshift_tables

from .test_evaluation import images_of, oracle_of

Z = ParameterInfo("z", "", "redshift", "identity")
WIDTH = 0.05


@pytest.fixture(scope="module")
def evaluation(gampen_bundle):
    """Right posteriors N(z, 0.05), of objects that are fainter the farther they are."""
    rng = np.random.default_rng(3)
    mean = rng.uniform(0.2, 1.0, 1500)
    truth = rng.normal(mean, WIDTH)
    magnitude = 20 + 3 * mean
    weights = (mean > 0.6).astype(float)
    bundle = oracle_of(gampen_bundle, Z, width=WIDTH)
    held_out = HeldOut(
        images_of(mean), truth[:, None], strata={"magnitude": magnitude}, weights=weights / weights.mean()
    )
    return judge(run_held_out(bundle, held_out, PassSettings(1)), bundle.metadata, held_out)


def rows_of(evaluation):
    (table,) = redshift_tables(evaluation)
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_the_table_has_the_statistics_of_right_posteriors(evaluation):
    row = rows_of(evaluation)["all"]
    z_phot, z_spec = evaluation.median[:, 0], evaluation.labels[:, 0]
    dz = (z_phot - z_spec) / (1 + z_spec)
    assert row["n"] == row["n effective"] == 1500
    assert row["bias"] == pytest.approx(np.median(dz), abs=1e-5)
    assert row["σ NMAD"] == pytest.approx(1.4826 * np.median(np.abs(dz - np.median(dz))), rel=1e-3)
    assert row["beyond 0.05"] == pytest.approx(np.mean(np.abs(dz) > 0.05), rel=1e-3)
    assert row["CDE loss"] == pytest.approx(-1 / (2 * WIDTH * np.sqrt(np.pi)), rel=0.08)
    assert row["CRPS"] == pytest.approx(WIDTH / np.sqrt(np.pi), rel=0.05)
    assert row["ln p"] == pytest.approx(-0.5 * np.log(2 * np.pi * np.e * WIDTH**2), rel=0.05)
    assert row["PIT mean"] == pytest.approx(0.5, abs=0.03)


def test_bins_are_of_the_estimate_and_of_the_magnitude_not_of_the_truth(evaluation):
    names = list(rows_of(evaluation))
    assert [name.split(" 0")[0] for name in names[2:7]] == ["estimate"] * 5
    assert all(name.startswith("true magnitude 2") for name in names[7:])
    assert len(names) == 12
    # dz is divided by 1 + z: far objects have smaller ones.
    rows = rows_of(evaluation)
    assert rows[names[6]]["σ NMAD"] < 0.85 * rows[names[2]]["σ NMAD"]


def test_weights_to_a_target_change_the_numbers_as_its_objects_would(evaluation):
    row = rows_of(evaluation)["all, weighted to the target"]
    far = evaluation.median[:, 0] > 0.6
    dz = (evaluation.median[:, 0] - evaluation.labels[:, 0]) / (1 + evaluation.labels[:, 0])
    assert row["n effective"] == far.sum()
    assert row["σ NMAD"] == pytest.approx(1.4826 * np.median(np.abs(dz[far] - np.median(dz[far]))), rel=1e-3)


def test_a_network_without_redshift_has_no_table(evaluation, gampen_bundle):
    other = dataclasses.replace(Z, name="mass", unit="")
    mean = np.linspace(0, 1, 60)
    bundle = oracle_of(gampen_bundle, other)
    held_out = HeldOut(images_of(mean), mean[:, None])
    found = judge(run_held_out(bundle, held_out, PassSettings(1)), bundle.metadata, held_out)
    assert found.densities == {}
    assert redshift_tables(found) == ()
    stated = dataclasses.replace(
        bundle.metadata, parameters=(dataclasses.replace(other, ucd="src.redshift"),)
    )
    found = judge(run_held_out(bundle, held_out, PassSettings(1)), stated, held_out)
    assert len(redshift_tables(found)) == 1
