"""`galbatch objects check`: what it says is what a run does."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from galbatch.cli import app as cli
from galbatch.config import FlagsConfig, ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects import (
    Feeding,
    ListCheck,
    check_objects,
    object_flags,
    read_objects,
    report_lines,
    select,
)

FIRST_ID = 43158034708430849  # 17 digits


def hsc_list(path: Path, n: int = 200) -> Path:
    """As HSC's archive writes it: a # before the header, _isnull beside every column."""
    rng = np.random.default_rng(3)
    columns: dict[str, Any] = {
        "object_id": FIRST_ID + np.arange(n),
        "ra": 150.0 + 0.01 * np.arange(n) / np.cos(np.radians(2.0)),
        "dec": np.full(n, 2.0),
        "isprimary": np.ones(n, bool),
        "i_extendedness_value": np.ones(n),
        "g_extendedness_value": np.zeros(n),
        "i_cmodel_mag": rng.uniform(20, 24, n),
        "i_pixelflags_saturatedcenter": np.zeros(n, bool),
        "merge_peak_i": np.ones(n, bool),
    }
    columns["isprimary"][:12] = False
    columns["i_extendedness_value"][10:40] = 0.0
    columns["i_pixelflags_saturatedcenter"][100] = True
    columns["ra"][1] = columns["ra"][0]  # one measured twice
    nulls = {name: np.zeros(n, bool) for name in columns}
    nulls["ra"][[50, 51]] = True
    nulls["i_extendedness_value"][60] = True
    columns["object_id"][70] = FIRST_ID + 69
    table = Table()
    for name, values in columns.items():
        table[name], table[f"{name}_isnull"] = values, nulls[name]
    table.write(path, format="csv")
    path.write_text("# " + path.read_text())
    return path


@pytest.fixture
def checked(tmp_path: Path) -> ListCheck:
    return check_objects(ObjectsConfig(path=str(hsc_list(tmp_path / "hsc.csv"))))


def pasted(check: ListCheck, *, with_comments: bool = False) -> dict[str, Any]:
    lines = report_lines(check)
    section = [line.strip() for line in lines[lines.index("To paste into run.toml") + 1 :]]
    if with_comments:
        section = [line.removeprefix("# ") for line in section if not line.startswith("# all")]
        section = [line.replace("where =", "[[models]]\nwhere =") for line in section]
    return tomllib.loads("\n".join(section))


# --- a real list's troubles ------------------------------------------------------------------------------


def test_columns_are_guessed_and_ids_are_exact(checked: ListCheck) -> None:
    assert (checked.objects.id, checked.objects.ra, checked.objects.dec) == ("object_id", "ra", "dec")
    assert checked.guessed == ("id", "ra", "dec")
    assert checked.id_kind == "integers of up to 17 digits"
    assert (checked.n_rows, checked.n_columns) == (200, 18)


def test_what_is_refused_is_what_a_run_refuses(checked: ListCheck) -> None:
    assert {refusal.reason: refusal.n_rows for refusal in checked.refusals} == {
        "position is not finite": 2,
        "duplicate id": 1,
    }
    assert checked.n_refused == 3
    with pytest.raises(ObjectListError, match="3 of 200 rows cannot be used"):
        read_objects(checked.objects)
    table, rejected, _ = read_objects(checked.objects.model_copy(update={"invalid": "drop"}))
    assert len(rejected) == checked.n_refused
    assert len(table) == 197
    text = "\n".join(report_lines(checked))
    assert f"    id {FIRST_ID + 69}, ra " in text
    assert f"    id {FIRST_ID + 50}, ra nan, dec 2.0\n    id {FIRST_ID + 51}, ra nan, dec 2.0" in text


def test_usual_cuts_with_what_they_remove(checked: ListCheck) -> None:
    assert [(cut.where, cut.n_removed, cut.n_unknown) for cut in checked.cuts] == [
        ("isprimary", 12, 0),
        ("i_extendedness_value > 0.5", 31, 1),
        ("not i_pixelflags_saturatedcenter", 1, 0),
    ]
    # Two are cut twice: 12 + 31 + 1 - 2.
    assert checked.n_cut == 42


def test_what_is_pasted_does_what_was_said(checked: ListCheck) -> None:
    plain = pasted(checked)
    assert set(plain) == {"objects"}  # nothing is applied silently: neither drop nor cuts
    assert "invalid" not in plain["objects"]
    whole = pasted(checked, with_comments=True)
    table, rejected, _ = read_objects(ObjectsConfig(**whole["objects"]))
    selected = select(table, whole["models"][0]["where"])
    assert len(rejected) == 3
    assert np.count_nonzero(~selected) == checked.n_cut


def test_neighbors_and_twins_are_counted(checked: ListCheck) -> None:
    assert (checked.n_neighbor, checked.n_duplicate) == (2, 2)
    text = "\n".join(report_lines(checked))
    assert "2 rows have another within 0.2 arcsec: they stay, flagged DUPLICATE_POSITION" in text
    assert "better left out by [objects] where" in text


def test_notes_tell_of_nulls_and_magnitudes(checked: ListCheck) -> None:
    assert checked.notes[0] == (
        "9 columns end in _isnull: where they are true, the value counts as null "
        "(0 in object_id, 2 in ra, 0 in dec)"
    )
    assert checked.notes[1].startswith("i_cmodel_mag: 20.0")


def test_a_good_list_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"object_id": [1, 2], "ra_deg": [10.0, 11.0], "dec_deg": [1.0, -2.5]}), path)
    check = check_objects(ObjectsConfig(path=str(path)))
    assert (check.refusals, check.cuts, check.notes) == ((), (), ())
    assert report_lines(check) == [
        f"{path}: 2 rows, 3 columns",
        "  id   object_id  integers of up to 1 digit (guessed by its name)",
        "  ra   ra_deg     10.00000 to 11.00000 deg (guessed by its name)",
        "  dec  dec_deg    -2.50000 to 1.00000 deg (guessed by its name)",
        "",
        "Accepted as it is: no row would be refused",
        "",
        "Usual cuts: none of the columns suggests one that would remove a row",
        "",
        "To paste into run.toml",
        "  [objects]",
        f'  path = "{path}"',
        '  id = "object_id"',
        '  ra = "ra_deg"',
        '  dec = "dec_deg"',
    ]


# --- names -----------------------------------------------------------------------------------------------


def write(path: Path, columns: dict[str, Any]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "objectId", "coord_ra", "coord_dec"], ("objectId", "coord_ra", "coord_dec")),
        (["id", "i_ra", "i_dec", "g_ra", "g_dec"], ("id", "i_ra", "i_dec")),
        (["object_id", "parent_id", "ira", "idec"], ("object_id", "ira", "idec")),
        (["SOURCE_ID", "RA_ICRS", "DE_ICRS"], ("SOURCE_ID", "RA_ICRS", "DE_ICRS")),
        (["NUMBER", "ALPHA_J2000", "DELTA_J2000"], ("NUMBER", "ALPHA_J2000", "DELTA_J2000")),
        (["ls_id", "ra", "dec", "ra_ivar"], ("ls_id", "ra", "dec")),
        # A right ascension without its declination is no position.
        (["ID", "ra_deg", "RA", "Dec"], ("ID", "RA", "Dec")),
    ],
)
def test_names_that_surveys_use(tmp_path: Path, names: list[str], expected: tuple[str, str, str]) -> None:
    check = check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", {name: [1, 2] for name in names})))
    assert (check.objects.id, check.objects.ra, check.objects.dec) == expected


def test_columns_that_are_given_are_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"key": ["a", "b"], "alpha": [1.0, 2.0], "dec": [1.0, 2.0]})
    with pytest.raises(
        ObjectListError, match="no column looks like the id; name it with --id; there are key"
    ):
        check_objects(ObjectsConfig(path=path))
    with pytest.raises(ObjectListError, match="no column looks like the ra; name it with --ra"):
        check_objects(ObjectsConfig(path=path, id="key"), guess=("ra", "dec"))
    check = check_objects(ObjectsConfig(path=path, id="key", ra="alpha", dec="dec"), guess=())
    assert (check.guessed, check.id_kind) == ((), "text")


@pytest.mark.parametrize(
    ("column", "values", "where", "n_removed"),
    [
        ("isprimary", ["t", "f", "t", "t"], "isprimary in ['t']", 1),
        ("detect_isPrimary", [1, 0, 0, 1], "detect_isPrimary != 0", 2),
        ("is_star", ["False", "True", "False", None], "is_star not in ['True']", 2),
        ("type", ["PSF", "DEV", "EXP", "PSF"], "type != 'PSF'", 2),
        ("type", [3, 6, 3, 3], None, 0),
        ("CLASS_STAR", [0.1, 0.9, 0.2, float("nan")], "CLASS_STAR < 0.5", 2),
        ("refExtendedness", [1.0, 0.0, 1.0, 1.0], "refExtendedness > 0.5", 1),
        ("maskbits", [0, 2, 0, 1], "maskbits == 0", 2),
        ("deblend_nChild", [0, 0, 3, 0], "deblend_nChild == 0", 1),
        ("iflags_pixel_bright_object_center", [True, False, False, False], None, 1),
        ("i-pixelflags_edge", [True, False, False, False], "not `i-pixelflags_edge`", 1),
        ("i_mask_brightstar_halo", [False] * 4, None, 0),
        ("flags", [1, 2, 3, 4], None, 0),
        ("i_extendedness_flag", [True] * 4, None, 0),
    ],
)
def test_each_rule(tmp_path: Path, column: str, values: list[Any], where: str | None, n_removed: int) -> None:
    columns = {"id": [1, 2, 3, 4], "ra": [1.0, 20.0, 30.0, 40.0], "dec": [1.0, 2.0, 3.0, 4.0], column: values}
    check = check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", columns)))
    assert sum(cut.n_removed for cut in check.cuts) == check.n_cut == n_removed
    if where is not None:
        assert [cut.where for cut in check.cuts] == [where]


def test_radians_are_asked_about(tmp_path: Path) -> None:
    columns = {"id": [1, 2], "coord_ra": [2.6, 2.7], "coord_dec": [0.04, 0.05]}
    (note,) = check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", columns))).notes
    assert "are coord_ra and coord_dec in radians (as in the LSST pipelines' source tables)?" in note
    columns = {"id": [1, 2], "coord_ra": [150.6, 150.7], "coord_dec": [0.04, 0.05]}
    assert check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", columns))).notes == ()


@pytest.mark.parametrize("values", [[2.6, 2.7], [0.01, 0.02]])
def test_radians_that_are_stated_are_converted_and_not_asked_about(
    tmp_path: Path, values: list[float]
) -> None:
    table = Table({"id": [1, 2], "coord_ra": values, "coord_dec": [0.01, 0.02]})
    table["coord_ra"].unit = table["coord_dec"].unit = "rad"
    table.write(tmp_path / "a.fits")
    check = check_objects(ObjectsConfig(path=str(tmp_path / "a.fits")))
    assert check.positions.ra_deg == pytest.approx(np.degrees(values), rel=1e-12)
    assert check.notes == ()


def test_a_hats_catalog_is_checked_as_the_same_rows_in_a_file(tmp_path: Path, write_hats: Any) -> None:
    """Neighbors and twins across pixels, ids that stand in two, cuts, magnitudes and ranges."""
    n = 400
    rng = np.random.default_rng(5)
    ra, dec = 44.9 + 0.2 * rng.random(n), -0.1 + 0.2 * rng.random(n)
    ra[200:230], dec[200:230] = ra[:30] + 1.5 / 3600, dec[:30]
    primary, mag = rng.choice(["t", "f"], n), rng.uniform(20, 24, n)
    mag[rng.random(n) < 0.1] = np.nan
    # The last ten have the ids of others. Of these a list keeps the first row and a catalog the first along the sky: all
    # but their positions is the same.
    primary[390:], mag[390:] = primary[90:100], mag[90:100]
    table = pa.table(
        {
            "objectId": np.where(np.arange(n) < 390, np.arange(n) + FIRST_ID, np.arange(n) + FIRST_ID - 300),
            "ra_deg": ra,
            "dec_deg": np.where(np.arange(n) == 7, np.nan, dec),
            "isprimary": primary,
            "i_cmodel_mag": mag,
            "ebv": np.where(np.arange(n) % 50 == 0, np.nan, 0.1),
        }
    )
    (tmp_path / "hats").mkdir()
    folder = write_hats(tmp_path / "hats", table, max_rows=60)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=37)
    table.to_pandas().to_csv(tmp_path / "a.csv", index=False)
    feeding = Feeding(
        {"ebv": None}, {"all": None, "bright": "i_cmodel_mag < 22"}, FlagsConfig(neighbor_radius_arcsec=2.0)
    )
    found = {}
    for path in (folder, tmp_path / "a.parquet", tmp_path / "a.csv"):
        objects = ObjectsConfig(
            path=str(path), where="i_cmodel_mag < 23", keep=("i_cmodel_mag",), invalid="drop"
        )
        check = found[path.name] = check_objects(objects, guess=("id",), feeding=feeding)
        assert dataclasses.replace(check, objects=objects, refusals=()) == dataclasses.replace(
            found["hats"], objects=objects, refusals=(), n_columns=check.n_columns
        )
        assert {refusal.reason: refusal.n_rows for refusal in check.refusals} == {
            refusal.reason: refusal.n_rows for refusal in found["hats"].refusals
        }
    hats = found["hats"]
    assert check_objects(objects.model_copy(update={"path": str(folder)})).guessed == ("id",)
    assert len(list((folder / "dataset").rglob("*.parquet"))) > 4
    rows = read_objects(found["a.parquet"].objects)
    assert (hats.counts, hats.n_refused) == (rows[2], len(rows[1]))
    assert hats.n_selected == {
        "all": len(rows[0]),
        "bright": np.count_nonzero(select(rows[0], "i_cmodel_mag < 22")),
    }
    bits = object_flags(rows[0], feeding.flags)
    assert (hats.n_neighbor, hats.n_duplicate) == (np.count_nonzero(bits & 256 > 0), 0)
    assert hats.n_neighbor > 10
    assert hats.notes == found["a.parquet"].notes
    assert any(note.startswith("ebv: ") and "rows hold no number" in note for note in hats.notes)


def test_right_ascensions_that_are_wrapped_are_counted(tmp_path: Path) -> None:
    columns = {"id": [1, 2, 3], "ra": [-0.5, 360.0, 10.0], "dec": [40.0, 50.0, 60.0]}
    lines = report_lines(check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", columns))))
    assert "  2 right ascensions lie outside 0..360 and are wrapped" in lines


def test_ids_of_bricks_are_explained(tmp_path: Path) -> None:
    columns = {"brickid": [1, 2], "objid": [7, 7], "ra": [10.0, 20.0], "dec": [40.0, 50.0]}
    check = check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", columns)))
    assert check.refusals[0].reason == "duplicate id"
    assert check.notes[0].startswith("objid is unique within a brick only")


# --- the command -----------------------------------------------------------------------------------------


def test_exit_codes(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", {"id": [1, 2], "ra": [10.0, 20.0], "dec": [1.0, 2.0]})
    runner = CliRunner()
    assert runner.invoke(cli.app, ["objects", "check", good]).exit_code == 0
    bad = runner.invoke(cli.app, ["objects", "check", str(hsc_list(tmp_path / "hsc.csv"))])
    assert bad.exit_code == 1
    assert "Refused: 3 of 200 rows cannot be used" in bad.stdout
    unreadable = runner.invoke(cli.app, ["objects", "check", str(tmp_path / "absent.csv")])
    assert isinstance(unreadable.exception, ObjectListError)  # main turns it into a line and exit code 2


def test_the_real_list_of_the_stamps(realdata: Path) -> None:
    check = check_objects(ObjectsConfig(path=str(realdata / "hsc_pdr2_stamps" / "star_cat_correct.csv")))
    assert (check.objects.id, check.objects.ra, check.objects.dec) == ("object_id", "ira", "idec")
    assert (check.n_rows, check.n_refused, check.id_kind) == (10, 0, "integers of up to 17 digits")
    assert [cut.column for cut in check.cuts] == [
        "iflags_pixel_bright_object_center",
        "iflags_pixel_bright_object_any",
    ]
    assert check.n_cut == 2
    assert check.notes == ("imag_psf: 17.98 to 19.52 mag, half brighter than 19.11",)


def test_one_of_a_kind_is_in_the_singular(tmp_path: Path) -> None:
    columns = {"id": [1], "ra": [-0.5], "dec": [40.0], "ra_isnull": [False]}
    lines = report_lines(check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", columns))))
    assert lines[0].endswith("a.parquet: 1 row, 4 columns")
    assert "  1 right ascension lies outside 0..360 and is wrapped" in lines
    assert any(
        "  1 column ends in _isnull: where it is true, the value counts as null (" in line for line in lines
    )


def test_a_list_without_a_usable_row_has_no_range(tmp_path: Path) -> None:
    columns = {"id": [1, 2], "ra": [1.0, 2.0], "dec": [95.0, 96.0]}
    lines = report_lines(check_objects(ObjectsConfig(path=write(tmp_path / "a.parquet", columns))))
    assert "  ra   ra   no row that could be used (guessed by its name)" in lines


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ObjectListError, match=r"a\.csv: is empty; a line of column names"):
        check_objects(ObjectsConfig(path=str(tmp_path / "a.csv")))


def test_it_reads_what_a_run_reads(tmp_path: Path) -> None:
    """Options are the keys of [objects]; a run.toml is taken as it is, and the options go before it."""
    columns = {
        "id": ["007", "7", "8"],
        "ra": [10.0, 20.0, 30.0],
        "dec": [1.0, 2.0, 95.0],
        "mag": [20.0, 21.0, 22.0],
    }
    (tmp_path / "a.csv").write_text(
        "\n".join(
            [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        )
    )
    runner = CliRunner()

    def check(*arguments: str) -> tuple[int, list[str], str]:
        done = runner.invoke(cli.app, ["objects", "check", *arguments])
        return done.exit_code, done.stdout.splitlines(), str(done.exception)

    path = str(tmp_path / "a.csv")
    assert "begin with a zero" in check(path)[2]
    code, lines, _ = check(path, "--id-type", "text")
    assert (code, lines[0]) == (1, f"{path}: 3 rows, 4 columns")
    assert "Refused: 1 of 3 rows cannot be used" in lines
    assert '  id_type = "text"' in lines
    code, lines, _ = check(
        path, "--id-type", "text", "--where", "mag < 22", "--region", "circle_deg = [10, 1, 5]"
    )
    assert code == 0
    assert lines[1:3] == [
        "  1 of them in the region {circle_deg = [10.0, 1.0, 5.0]}",
        "  1 of these where mag < 22",
    ]
    for line in ('  where = "mag < 22"', "  region = { circle_deg = [10, 1, 5] }"):
        assert line in lines
    pasted = tomllib.loads("\n".join(lines[lines.index("To paste into run.toml") + 1 :]))
    assert read_objects(ObjectsConfig(**pasted["objects"]))[0].object_id.tolist() == ["007"]
    run_toml = tmp_path / "run.toml"
    run_toml.write_text(
        '[survey]\nlayout = "hsc"\ntiles = "t"\nbands = ["g"]\n[[models]]\nname = "m"\nbundle = "demo:gampen"\n'
        '[objects]\npath = "a.csv"\nid = "id"\nra = "ra"\ndec = "dec"\nid_type = "text"\ninvalid = "drop"\nkeep = ["mag"]\n'
    )
    code, lines, _ = check(str(run_toml))
    assert code == 0
    assert "Left out: 1 of 3 rows cannot be used" in lines
    assert '  invalid = "drop"' in lines
    assert check(str(run_toml), "--where", "mag > 20.5")[1][1] == "  2 of them where mag > 20.5"
    run_toml.write_text(run_toml.read_text().replace('"mag"', '"magg"'))
    assert "no column magg; the nearest is mag" in check(str(run_toml))[2]
    assert "id_type" in check(path, "--id-type", "words")[2]
    assert (
        "give the run.toml that names them" in check(path, "--id-type", "text", "--region", "tracts = [3]")[2]
    )
