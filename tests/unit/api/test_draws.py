"""Tables and names of what was drawn."""

import dataclasses

import numpy as np
import pytest

from galbatch.api import Drawn, as_table, correlation, plot_paths, summary_tables, thumbnail_path
from galbatch.core.columns import Column


def drawn(object_id=7, model="gampen", **samples):
    of_flux = {"mag": "flux_njy"} if "mag" in samples else {}
    units = {name: {"mag": "mag", "flux_njy": "nJy"}.get(name, "") for name in samples}
    columns = {
        name: Column(f"{model}_{name}", "float64", unit, f"draw of {name}") for name, unit in units.items()
    }
    return Drawn(
        object_id, model, {n: np.asarray(v, float) for n, v in samples.items()}, columns, of_flux, 64
    )


def test_models_stand_side_by_side_and_objects_below_each_other():
    first = [drawn(7, bt=[0.1, 0.2]), drawn(7, "sfnet", mag_r=[20.0, 21.0])]
    table = as_table([*first, drawn(9, bt=[0.3, 0.4])])
    assert table.column_names == ["object_id", "draw", "gampen_bt", "sfnet_mag_r"]
    assert table["object_id"].to_pylist() == [7, 7, 9, 9]
    assert table["draw"].to_pylist() == [0, 1, 0, 1]
    assert table["gampen_bt"].to_pylist() == [0.1, 0.2, 0.3, 0.4]
    assert table["sfnet_mag_r"].to_pylist() == [20.0, 21.0, None, None]


def test_units_and_ids_of_text_stay():
    table = as_table([drawn("M 31", flux_njy=[1.0], mag=[31.4])])
    assert table["object_id"].to_pylist() == ["M 31"]
    assert table.schema.field("gampen_flux_njy").metadata == {
        b"unit": b"nJy",
        b"description": b"draw of flux_njy",
    }
    assert table.schema.field("object_id").metadata[b"ucd"] == b"meta.id;meta.main"


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([drawn(7, bt=[1])], ["a/c.png"]),
        ([drawn(7, bt=[1]), drawn(7, "sfnet", bt=[1])], ["a/c_7_gampen.png", "a/c_7_sfnet.png"]),
        (
            [drawn("x/1 b", bt=[1]), drawn("x_1_b", bt=[1])],
            ["a/c_x_1_b_gampen_0.png", "a/c_x_1_b_gampen_1.png"],
        ),
        # The same file on disks of macOS and Windows.
        ([drawn("J1a", bt=[1]), drawn("J1A", bt=[1])], ["a/c_J1a_gampen_0.png", "a/c_J1A_gampen_1.png"]),
    ],
)
def test_each_plot_has_a_name_of_its_own(objects, expected):
    assert plot_paths("a/c.png", objects) == expected


def test_correlations_are_of_ranks_without_what_is_derived():
    x = np.linspace(1, 5, 99)
    one = drawn(bt=np.exp(x), flux_njy=1 / x, mag=x, re=np.ones(99))
    names, found = correlation(one)
    assert names == ["bt", "flux_njy", "re"]
    assert found[0, 1] == pytest.approx(-1)
    assert np.isnan(found[2]).all()  # it does not vary
    summary, correlations = summary_tables(one)
    assert correlations.rows == (("flux_njy", "-1.00", None), ("re", None, None))
    assert summary.caption == "object 7, gampen, 99 draws of 64 passes"
    assert summary.rows[2] == ("gampen_mag", "mag", "3", "1.6346", "4.3654", "3", "1.1664")


def test_density_of_the_prior_is_a_column_of_its_own():
    one = drawn(7, bt=[0.1, 0.2])
    stated = dataclasses.replace(one, log_prior=np.array([-1.5, -2.5]))
    table = as_table([stated, drawn(9, bt=[0.3, 0.4])])
    assert table.column_names == ["object_id", "draw", "gampen_bt", "gampen_log_prior"]
    assert table["gampen_log_prior"].to_pylist() == [-1.5, -2.5, None, None]
    assert b"training labels of gampen" in table.schema.field("gampen_log_prior").metadata[b"description"]
    assert summary_tables(stated)[0].rows == summary_tables(one)[0].rows


def test_each_object_shown_has_a_picture_of_its_own():
    paths = {thumbnail_path("catalog", one) for one in ("J1a", "J1A", "J1/a", "J1_a")}
    assert len({path.casefold() for path in paths}) == 4
    assert thumbnail_path("catalog", "J1a") in paths
