import numpy as np
import pytest

import galbatch
from galbatch.errors import UsageError
from galbatch.reporting.browsing.rows import BrowsedRows, nearest_point


@pytest.fixture(scope="module")
def rows(made):
    return BrowsedRows.read(galbatch.open_catalog(made[0]))


def test_columns_are_those_of_the_catalog(rows, made):
    frame = galbatch.open_catalog(made[0]).to_pandas()
    assert len(rows) == len(frame) == 400
    np.testing.assert_array_equal(rows.values("gampen_bt_q500"), frame["gampen_bt_q500"])
    np.testing.assert_array_equal(rows.values("ra_deg"), frame["ra_deg"])
    assert np.isnan(rows.values("gampen_bt_q500")).sum() == 1
    assert rows.label("gampen_re_arcsec_q500") == "gampen_re_arcsec_q500 (arcsec)"
    assert rows.first_columns == ("gampen_bt_q500", "gampen_re_arcsec_q500")
    assert "flags" not in rows.plottable
    assert {"ra_deg", "gampen_passes", "gampen_mag_q500"} <= set(rows.plottable)


def flag(rows, name):
    return next(one for one in rows.raised if one.flag.name == name)


def test_flags_filter(rows):
    saturated, neighbor = flag(rows, "SATURATED"), flag(rows, "NEIGHBOR")
    assert saturated.label == "flags: SATURATED (4)"
    assert rows.shown([], only=True).sum() == 400
    assert rows.shown([saturated], only=True).sum() == 4
    assert rows.shown([saturated, neighbor], only=True).sum() == 8
    assert rows.shown([saturated, neighbor], only=False).sum() == 392
    failed = flag(rows, "MODEL_FAILED")
    assert rows.shown([saturated, failed], only=False).sum() == 395
    assert {one.flag.name for one in rows.quality_flags} == {"SATURATED", "MODEL_FAILED"}


def test_an_id_is_found_and_listed(rows):
    row = rows.row_of("40000000000000123")
    assert rows.ids(np.array([row])) == [40000000000000123]
    listed = rows.listed(np.array([row, 0]))
    assert listed.column_names == ["object_id", "ra_deg", "dec_deg"]
    assert listed["object_id"][0].as_py() == 40000000000000123
    with pytest.raises(UsageError, match="no object 7 among the 400 rows"):
        rows.row_of("7")
    with pytest.raises(UsageError, match="galaxy"):
        rows.row_of("galaxy")


def test_the_nearest_is_judged_on_the_screen():
    """x spans 100 and y 1: a step of 10 in x is as long as one of 0.1 in y."""
    x, y = np.array([0.0, 8.0, np.nan]), np.array([0.09, 0.0, 0.0])
    assert nearest_point(x, y, (0, 0), (100, 1), reach=0.2) == 1
    assert nearest_point(x, y, (0, 0), (100, 100), reach=0.2) == 0
    assert nearest_point(x, y, (50, 0.5), (100, 1), reach=0.2) is None
    assert nearest_point(x[2:], y[2:], (0, 0), (1, 1), reach=9) is None


class AcrossMidnight:
    """Stands in for a catalog about 0 h."""

    path, models = "catalog", ()
    columns = ("object_id", "ra_deg", "dec_deg", "flags")

    def to_arrow(self, names):
        import pyarrow as pa

        values = {
            "object_id": [1, 2, 3], "ra_deg": [359.9, 0.1, 359.8], "dec_deg": [0.0, 0.0, 0.0],
            "flags": pa.array([0, 0, 0], pa.int32()),
        }  # fmt: skip
        return pa.table({name: values[name] for name in names})


def test_positions_on_both_sides_of_zero_hours_are_beside_each_other(monkeypatch):
    monkeypatch.setattr("galbatch.reporting.browsing.rows.read_schema", lambda path: None)
    rows = BrowsedRows.read(AcrossMidnight())
    assert rows.ra_turns
    np.testing.assert_allclose(rows.values("ra_deg"), [-0.1, 0.1, -0.2])
