"""Redshifts whose statistics are known, in a catalog with their densities."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from galbatch.cli.app import app
from galbatch.errors import UsageError
from galbatch.reporting import ComparisonOptions, compare

N, WIDTH = 1500, 0.08


@pytest.fixture(scope="module")
def folder(redshifts):
    return redshifts


@pytest.fixture(scope="module")
def compared(folder):
    options = ComparisonOptions(
        bins=["mag_i:4", "z"], target=str(folder / "target.parquet"), target_columns=["mag_i"]
    )
    return compare(str(folder / "catalog"), str(folder / "spec.parquet"), options=options)


def test_the_statistics_are_those_of_the_formulas(compared, folder):
    (found,) = compared.redshifts
    own = pq.read_table(folder / "own.parquet").to_pandas()[3:]
    dz = ((own["z_phot"] - own["z_spec"]) / (1 + own["z_spec"])).to_numpy()
    measured = found.bins[0].measured
    named = measured.named()
    assert measured.n == N - 3
    assert named["bias"][0] == pytest.approx(np.median(dz), abs=1e-6)
    assert named["sigma_nmad"][0] == pytest.approx(1.4826 * np.median(np.abs(dz - np.median(dz))), rel=1e-5)
    assert named["outliers_05"][0] == pytest.approx(np.mean(np.abs(dz) > 0.05), abs=1e-3)
    error = named["bias"][1]
    assert error == pytest.approx(np.sqrt(np.pi / 2) * dz.std() / np.sqrt(N), rel=0.35)
    # Of the densities on the grid.
    assert named["crps"][0] == pytest.approx(WIDTH / np.sqrt(np.pi), abs=4 * named["crps"][1])
    assert named["cde_loss"][0] == pytest.approx(
        -1 / (2 * WIDTH * np.sqrt(np.pi)), abs=4 * named["cde_loss"][1]
    )
    assert named["log_score"][0] == pytest.approx(
        -0.5 * np.log(2 * np.pi * np.e * WIDTH**2), abs=4 * named["log_score"][1]
    )
    assert named["pit_std"][0] == pytest.approx(1 / np.sqrt(12), abs=4 * named["pit_std"][1])


def test_bins_are_of_the_estimate_and_the_columns_but_never_of_the_known_redshift(compared):
    (found,) = compared.redshifts
    assert [one.name for one in found.bins] == ["", *["z_phot"] * 5, *["mag_i"] * 4]
    assert sum(one.measured.n for one in found.bins if one.name == "mag_i") == N - 3
    # dz is divided by 1 + z.
    nmads = [one.measured.named()["sigma_nmad"][0] for one in found.bins if one.name == "z_phot"]
    assert nmads[-1] < 0.75 * nmads[0]


def test_weights_give_the_statistics_of_the_targets_objects(compared, folder):
    (found,) = compared.redshifts
    own = pq.read_table(folder / "own.parquet").to_pandas()[3:]
    far = own[own["z_phot"] > 0.9]
    dz = ((far["z_phot"] - far["z_spec"]) / (1 + far["z_spec"])).to_numpy()
    weighted = found.weighted.measured
    assert weighted.n_effective == pytest.approx(len(far), rel=0.15)
    assert weighted.named()["sigma_nmad"][0] == pytest.approx(
        1.4826 * np.median(np.abs(dz - np.median(dz))), rel=0.1
    )


def test_weights_make_up_for_the_objects_without_a_known_redshift(folder, tmp_path):
    """Of the far half of the target two in three have no z_spec: those that have one count for the others."""
    spec = pq.read_table(folder / "spec.parquet").to_pandas()
    own = pq.read_table(folder / "own.parquet").to_pandas()
    is_far = own["z_phot"] > 1.15
    spec.loc[is_far & (spec.index % 3 > 0), "z"] = np.nan
    pq.write_table(pa.Table.from_pandas(spec[["object_id", "z"]]), tmp_path / "spec.parquet")
    options = ComparisonOptions(
        bins=(), target=str(folder / "target.parquet"), target_columns=["mag_i"], n_bootstrap=0
    )
    (found,) = compare(str(folder / "catalog"), str(tmp_path / "spec.parquet"), options=options).redshifts
    n_near, n_far = (
        np.count_nonzero(spec["z"].notna() & chosen) for chosen in (own["z_phot"].between(0.9, 1.15), is_far)
    )
    # Both halves of the target weigh the same: (sum w)^2 / sum w^2 of weights 1 / n.
    expected = 4 / (1 / n_near + 1 / n_far)
    assert found.weighted.measured.n_effective == pytest.approx(expected, rel=0.1)


def test_the_command_prints_them_and_writes_their_table(folder, tmp_path):
    done = CliRunner().invoke(
        app,
        [
            *("compare", str(folder / "catalog"), "--with", str(folder / "spec.parquet"), "--bins", "none"),
            *("--redshifts", str(tmp_path / "z.parquet")),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "net z as a redshift, dz = (z_phot - z_spec) / (1 + z_spec):" in done.output
    table = pq.read_table(tmp_path / "z.parquet").to_pandas()
    assert table["objects"].tolist()[0] == "all"
    assert len(table) == 6
    assert table["n"].iloc[0] == N - 3
    assert table["cde_loss"].notna().all()


def test_a_target_without_its_columns_or_with_unknown_ones_is_refused(folder):
    paths = str(folder / "catalog"), str(folder / "spec.parquet")
    target = str(folder / "target.parquet")
    with pytest.raises(UsageError, match="--target and --target-columns go together"):
        compare(*paths, options=ComparisonOptions(target=target))
    with pytest.raises(UsageError, match="column colour: neither the catalog nor"):
        compare(*paths, options=ComparisonOptions(target=target, target_columns=["colour"]))
