"""The report's section on redshifts: figures, PIT and the table in bins."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch.core.photoz import RedshiftSample
from galbatch.errors import UsageError
from galbatch.reporting import report
from galbatch.reporting.contents import Quantity, read_contents
from galbatch.reporting.recovery import Comparison, compare_truth
from galbatch.reporting.redshifts import pit_shares, redshift_sections


@pytest.fixture(scope="module")
def known(redshifts):
    """The catalog's contents, and the table of known redshifts with a magnitude that the catalog lacks."""
    table = pq.read_table(redshifts / "spec.parquet")
    bright = pa.array(np.linspace(18.0, 24.0, len(table)))
    return read_contents(str(redshifts / "catalog")), table.append_column("mag_r", bright)


def section(known, magnitude):
    contents, table = known
    (found,) = redshift_sections(contents, compare_truth(contents, table), table, magnitude=magnitude)
    return found


def test_the_table_has_bins_of_the_estimate_and_of_a_magnitude_of_either_table(known, redshifts):
    own = pq.read_table(redshifts / "own.parquet").to_pandas()[3:]
    dz = ((own["z_phot"] - own["z_spec"]) / (1 + own["z_spec"])).to_numpy()
    for magnitude in ("mag_i", "mag_r"):
        found = section(known, magnitude)
        assert found.n == len(own)
        names = [name.split()[0] for name, *_ in found.rows]
        assert names == ["all", *["z_phot"] * 5, *[magnitude] * 5]
        for name in ("z_phot", magnitude):
            assert sum(n for text, n, _ in found.rows if text.startswith(name)) == len(own)
        assert found.headings[:3] == ("bias", "σ NMAD", "beyond 0.15")
        assert "CDE loss" in found.headings
        _, _, values = found.rows[0]
        nmad, error = map(float, values[1].split(" ± "))
        assert nmad == pytest.approx(1.4826 * np.median(np.abs(dz - np.median(dz))), rel=6e-3)
        assert 0 < error < 0.1 * nmad
    assert section(known, None).rows[-1][0].startswith("z_phot")


def test_objects_without_a_redshift_count_nowhere(known):
    contents, table = known
    (comparison,) = compare_truth(contents, table)
    # The first three are -99, NaN and -1.
    assert comparison.rows is not None
    assert sorted(contents.object_id[row] for row in comparison.rows) == list(range(3, 1500))
    none = table.set_column(1, "z", pa.array(np.full(len(table), -99.0)))
    assert redshift_sections(contents, compare_truth(contents, none), none, magnitude=None) == []


def test_what_is_not_known_of_few_objects_is_left_out(known):
    contents, table = known
    few = np.full(len(table), np.nan)
    few[[5, 7]] = 0.5, 1.0
    table = table.set_column(1, "z", pa.array(few))
    (found,) = redshift_sections(contents, compare_truth(contents, table), table, magnitude=None)
    assert [n for _, n, _ in found.rows] == [2, 1, 0, 0, 0, 1]
    texts = [values[0] for *_, values in found.rows]
    assert "±" in texts[0]
    assert "±" not in texts[1]
    assert float(texts[1].replace("−", "-")) != 0
    assert texts[2:5] == ["–"] * 3


def test_the_pit_of_right_densities_is_even_and_of_quantiles_alone_that_of_their_intervals(known):
    rng = np.random.default_rng(3)
    z_phot = rng.uniform(0.2, 1.4, 4000)
    levels = (0.15865, 0.5, 0.84135)
    quantity = Quantity(
        "net", "z", "", levels, z_phot[:, None] + 0.08 * np.array([-1.0, 0.0, 1.0]), "src.redshift"
    )
    comparison = Comparison(quantity, rng.normal(z_phot, 0.08))
    edges, shares = pit_shares(RedshiftSample.of_points(z_phot, comparison.truth), comparison)
    assert edges.tolist() == [0.0, *levels, 1.0]
    np.testing.assert_allclose(shares, np.diff(edges), atol=0.025)
    even = RedshiftSample.of_points(z_phot, comparison.truth, transform=(np.arange(4000) + 0.5) / 4000)
    edges, shares = pit_shares(even, comparison)
    np.testing.assert_allclose(shares, 0.05, atol=1e-9)
    assert len(edges) == 21


def test_the_report_shows_it(redshifts, tmp_path):
    out = tmp_path / "report.html"
    report(redshifts / "catalog", out, truth=redshifts / "spec.parquet", magnitude="mag_i")
    text = out.read_text()
    assert 'id="redshifts"' in text
    assert "z_phot against z_spec" in text
    assert "histogram of the PIT" in text
    report(redshifts / "catalog", out)
    assert 'id="redshifts"' not in out.read_text()


def test_a_magnitude_that_nobody_has_is_refused(known, redshifts, tmp_path):
    with pytest.raises(
        UsageError, match="--magnitude mag_z: neither the catalog nor the table of known values has it"
    ):
        section(known, "mag_z")
    with pytest.raises(
        UsageError, match="--magnitude mag_i: bins are of redshifts, and no compared quantity is one"
    ):
        report(redshifts / "catalog", tmp_path / "report.html", magnitude="mag_i")
