import numpy as np
import pyarrow as pa
import pytest

from galbatch.errors import ObjectListError
from galbatch.reporting import truth_recovery
from galbatch.reporting.contents import Quantity, read_contents
from galbatch.reporting.recovery import Comparison, compare_truth

N_USABLE = 400 - 4 - 1  # without the saturated ones and the one without values


@pytest.fixture(scope="module")
def rows(made):
    return {row.parameter: row for row in truth_recovery(made[0], made[1])}


def test_only_parameters_with_a_truth_are_compared(rows):
    assert list(rows) == ["bt", "re_arcsec", "mag"]
    assert {row.model for row in rows.values()} == {"gampen"}


def test_spoiled_objects_and_those_without_values_are_left_out(rows):
    assert [row.n for row in rows.values()] == [N_USABLE] * 3


def test_scatter_r2_and_coverage_are_those_of_the_invented_posterior(rows):
    row = rows["re_arcsec"]
    assert row.scatter == pytest.approx(0.1, rel=0.15)
    assert row.median_residual == pytest.approx(0, abs=0.02)
    assert row.r2 == pytest.approx(1 - 0.1**2 / (4.9**2 / 12), abs=0.002)
    assert row.coverage68 == pytest.approx(0.683, abs=0.07)
    assert row.coverage95 == pytest.approx(0.954, abs=0.03)


def test_true_shares_of_zero_do_not_count_for_coverage(rows):
    assert rows["bt"].n_coverage == 300
    assert rows["mag"].n_coverage == N_USABLE


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": [1], "bt": [0.5]}, "has no column object_id, by which objects are matched; it has id, bt"),
        (
            {"object_id": [1], "bt": ["bulge"]},
            "column bt holds string, expected numbers; 'bulge' is no number",
        ),
        (
            {"object_id": [1], "flux_njy": [[1.0]]},
            "column flux_njy holds list<item: double>, expected numbers",
        ),
    ],
    ids=["no id", "text", "lists"],
)
def test_known_values_that_cannot_be_compared_are_refused(made, table, message):
    with pytest.raises(ObjectListError, match=f"the table of known values: {message}"):
        compare_truth(read_contents(made[0]), pa.table(table))


def test_shares_between_quantiles_by_hand():
    levels = (0.16, 0.5, 0.84)
    quantity = Quantity("m", "x", "", levels, np.tile([-1.0, 0.0, 1.0], (4, 1)))
    observed, expected = Comparison(quantity, np.array([-2.0, -0.5, -0.4, 3.0])).between_quantiles()
    np.testing.assert_allclose(observed, [0.25, 0.5, 0.0, 0.25])
    np.testing.assert_allclose(expected, [0.16, 0.34, 0.34, 0.16])


def test_an_interval_the_catalog_lacks_is_not_invented():
    quantity = Quantity("m", "x", "", (0.25, 0.5, 0.75), np.tile([-1.0, 0.0, 1.0], (3, 1)))
    summary = Comparison(quantity, np.zeros(3)).summary()
    assert np.isnan(summary.coverage68)
    assert quantity.interval(0.5) is not None
    assert np.isnan(summary.r2)  # all truths equal
