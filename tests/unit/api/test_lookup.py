from __future__ import annotations

import pytest

from galbatch import api, catalog


def test_an_object_in_words(small: str) -> None:
    found = api.object_values(catalog.read_objects(small, ["43000000000000017"]))
    assert (found.object_id, found.ra_deg, found.dec_deg) == (43_000_000_000_000_017, 150.1, -2.2)
    assert [(flag.name, flag.flag_class) for flag in found.flags] == [
        ("BAD_CENTER", "quality"),
        ("MOSAICKED", "information"),
    ]
    assert found.kept == (("z_best", 0.5, ""),)
    (model,) = found.models
    assert (model.model, model.n_passes, model.flags) == ("net", 64, ())
    assert model.mc_error == pytest.approx(0.05)
    # Two digits of half the 68 % interval, 0.031.
    assert model.quantities.columns == ("", "median", "68 % interval", "95 % interval", "unit")
    assert model.quantities.rows == (("re_arcsec", "1.250", "1.219 to 1.281", "1.188 to 1.312", "arcsec"),)
    assert model.labels == (("re_arcsec", "small"),)


def test_an_object_without_values(small: str) -> None:
    (model,) = api.object_values(catalog.read_objects(small, ["43000000000000019"])).models
    assert (model.n_passes, model.mc_error, model.quantities.rows, model.labels) == (0, None, (), ())
    assert [flag.name for flag in model.flags] == ["NOT_SELECTED"]


def test_flags_are_counted(small: str) -> None:
    counts = {flag.name: number for number, flag in api.flag_counts(small, "net_flags")}
    assert (counts["EXTRAPOLATED"], counts["NOT_SELECTED"], counts["MODEL_FAILED"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0.02275, 0.15865, 0.5, 0.84135, 0.97725), (0.15865, 0.84135)),
        ((0.16, 0.5, 0.84), (0.16, 0.84)),
        ((0.1, 0.5, 0.9), None),
        ((), None),
    ],
)
def test_the_levels_of_an_interval(levels: tuple[float, ...], expected: tuple[float, float] | None) -> None:
    assert api.central_levels(levels, 0.6827) == expected


def test_a_narrow_table_shows_what_fits() -> None:
    names = ["object_id", "ra_deg", "dec_deg", "flags", "m_bt_q500", "m_re_arcsec_q500", "m_flags"]
    assert api.short_columns(names, width=120) == ["ra_deg", "dec_deg", "m_bt_q500", "m_re_arcsec_q500"]
    assert api.short_columns(names, width=80) == ["ra_deg", "dec_deg", "m_bt_q500"]


def test_positions_in_hours_and_degrees() -> None:
    assert api.sexagesimal(150.1, -0.05) == "10:00:24.00 -00:03:00.0"
