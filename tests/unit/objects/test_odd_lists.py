"""Lists as people write them: what is read, what is refused, and that nothing is silently wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from galbatch.config import ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects import check_objects, read_objects


def read(path: Path, **keys: Any) -> tuple[list[Any], list[float], list[str]]:
    """Ids and right ascensions in the order of the ids, and why rows were left out."""
    objects = ObjectsConfig(
        path=str(path), **{"id": "id", "ra": "ra", "dec": "dec", "invalid": "drop"} | keys
    )
    table, rejected, _ = read_objects(objects)
    order = np.argsort(table.object_id.astype(str))
    ids, ra = table.object_id[order].tolist(), table.ra_deg[order].tolist()
    return ids, ra, rejected.column("reason").to_pylist()


def csv(folder: Path, text: str) -> Path:
    path = folder / "a.csv"
    path.write_text(text, encoding="utf-8")
    return path


# --- positions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ra", "wrapped"),
    [(-179.0, 181.0), (360.0, 0.0), (361.0, 1.0), (-360.0, 0.0), (725.0, 5.0), (0.0, 0.0)],
)
def test_a_right_ascension_a_turn_away_is_wrapped(tmp_path, ra, wrapped):
    assert read(csv(tmp_path, f"id,ra,dec\n1,{ra},2\n2,150,2\n")) == ([1, 2], [wrapped, 150.0], [])


@pytest.mark.parametrize("ra", [-999.0, 999.0, 9999.0, 1e6, 900.0001, 1e300])
def test_a_right_ascension_that_stands_for_none_cannot_be_used(tmp_path, ra):
    path = csv(tmp_path, f"id,ra,dec\n1,{ra},2\n2,150,2\n")
    assert read(path) == ([2], [150.0], ["right ascension outside -900..900"])
    with pytest.raises(ObjectListError, match="1 of 2 rows cannot be used"):
        read(path, invalid="refuse")


def test_a_declination_beyond_the_pole_by_a_hair_cannot_be_used(tmp_path):
    path = csv(tmp_path, "id,ra,dec\n1,10.0,90.000000001\n2,11,-90\n")
    assert read(path) == ([2], [11.0], ["declination outside -90..90"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raB1950", "the equinox B1950"),
        ("RA_1950", "the equinox B1950"),
        ("glon", "another frame"),
        ("GAL_LON", "another frame"),
        ("l", "another frame"),
    ],
)
def test_a_name_that_says_another_frame_is_refused(tmp_path, name, said):
    path = csv(tmp_path, f"id,{name},dec\n1,2.5,2\n")
    with pytest.raises(ObjectListError, match=f"its name says {said}, expected ICRS in degrees"):
        read(path, ra=name)


@pytest.mark.parametrize(
    "name", ["ra", "ra_deg", "RAJ2000", "RA (deg)", "RA[deg]", "ALPHA_J2000", "ra_h", "i_ra", "ra_gal"]
)
def test_a_name_that_says_degrees_or_nothing_is_taken(tmp_path, name):
    assert read(csv(tmp_path, f"id,{name},dec\n1,150.5,2\n"), ra=name) == ([1], [150.5], [])


def test_hours_without_a_unit_are_asked_about(tmp_path):
    path = csv(tmp_path, "id,ra,dec\n1,10.0,22\n2,23.2,-12\n3,0.1,3\n")
    (note,) = check_objects(ObjectsConfig(path=str(path))).notes
    assert note == (
        "all right ascensions lie within 0..24: is ra in hours? A run takes degrees, or the unit that the file states for the "
        "column (hourangle)"
    )
    # A field of some degrees is more likely than hours that do not go round.
    path = csv(tmp_path, "id,ra,dec\n1,10.0,22\n2,11.2,-12\n3,12.1,3\n")
    assert check_objects(ObjectsConfig(path=str(path))).notes == ()


@pytest.mark.parametrize("text", ["\N{MINUS SIGN}2.5", '"2,5"', "+02:12:21", "1_0", "-"])
def test_a_number_that_is_none_is_shown(tmp_path, text):
    with pytest.raises(ObjectListError) as refused:
        read(csv(tmp_path, f"id,ra,dec\n1,10.0,{text}\n2,11,2\n"))
    assert "column dec holds string, expected degrees as numbers" in str(refused.value)
    assert repr(text.strip('"')) in str(refused.value)


# --- ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\x85", "b\u2028c", "c\u2029", "a\0", "a\nb"])
def test_ids_that_no_line_shows_cannot_be_used(tmp_path, text):
    pq.write_table(pa.table({"id": [text, "e"], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == (["e"], [2.0], ["control characters in the id"])


def test_ids_of_other_scripts_are_read(tmp_path):
    ids = ["SDSS J10+02", "β Pic", "星1"]
    pq.write_table(
        pa.table({"id": ids, "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0]}), tmp_path / "a.parquet"
    )
    assert read(tmp_path / "a.parquet")[0] == ids


def test_ids_in_hexadecimal_digits_are_no_decimal_numbers(tmp_path):
    """Arrow reads 0x1F as 31."""
    path = csv(tmp_path, "id,ra,dec\n0x1F,150,2\n0x20,151,2\n")
    with pytest.raises(
        ObjectListError, match=r"2 of 2 ids begin with a zero, which an integer loses: '0x1F'"
    ):
        read(path)
    assert read(path, id_type="text")[0] == ["0x1F", "0x20"]


@pytest.mark.parametrize("ids", [("1e5", "2E05"), ("1.0", "2.0"), ("+1.5", "7")])
def test_ids_that_look_like_decimal_numbers_are_text_if_one_says_so(tmp_path, ids):
    path = csv(tmp_path, "id,ra,dec\n" + "".join(f"{one},150,{n}\n" for n, one in enumerate(ids)))
    with pytest.raises(
        ObjectListError, match=r'id_type = "text" for ids of a CSV file that only look like numbers'
    ):
        read(path)
    assert sorted(read(path, id_type="text")[0]) == sorted(ids)


@pytest.mark.parametrize("first", [2**53 + 1, 2**62 + 1])
def test_ids_beyond_what_a_float_holds_are_exact(tmp_path, first):
    path = csv(tmp_path, f"id,ra,dec\n{first},150,2\n{first + 2},151,2\n")
    assert read(path)[0] == [first, first + 2]


# --- CSV -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "\t", "|", " "])
def test_other_separators_are_told(tmp_path, separator):
    path = csv(tmp_path, "id,ra,dec\n1,150.5,2\n".replace(",", separator))
    with pytest.raises(ObjectListError, match=r"its columns are separated by '.+', expected commas"):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        "\r\n\nid,ra,dec\n1,150.5,2\n",
        "id,ra,dec\n\n1,150.5,2\n\n",
        'id,"ra","dec"\r\n"1","150.5","2"\r\n',
        "id, ra, dec\n 1, 150.5, 2\n",
        "id,ra,dec,\n1,150.5,2,\n",
        "# 1,2,3\nid,ra,dec\n1,150.5,2",
        'id,ra,dec,note\n1,150.5,2,"a, ""b""\nc"\n',
    ],
)
def test_ways_to_write_the_same_rows(tmp_path, text):
    assert read(csv(tmp_path, text)) == ([1], [150.5], [])


def test_a_list_without_rows_is_called_so(tmp_path):
    for refused in (lambda path: read(path), lambda path: check_objects(ObjectsConfig(path=str(path)))):
        with pytest.raises(ObjectListError, match="holds no objects"):
            refused(csv(tmp_path, "id,ra,dec\n"))


# --- errors of reading -----------------------------------------------------------------------------------


def test_files_of_a_folder_that_differ_are_told(tmp_path):
    for number, kept in enumerate(([1, 2], ["a", "b"])):
        table = pa.table({"id": [2 * number, 2 * number + 1], "ra": [1.0, 2.0], "dec": [1.0, 2.0], "k": kept})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    assert read(tmp_path)[0] == [0, 1, 2, 3]
    with pytest.raises(
        ObjectListError, match=r"parts of it, differ: .*k has incompatible types: int64 vs string"
    ):
        read(tmp_path, keep=("k",))


@pytest.mark.parametrize("name", ["a.parquet", "a.fits"])
def test_a_lack_of_memory_is_not_called_damage(tmp_path, monkeypatch, name):
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 745. GiB for an array")

    columns = {"id": [1, 2], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}
    if name == "a.fits":
        Table(columns).write(tmp_path / name)
        monkeypatch.setattr("galbatch.objects.tables.formats.Table.read", fails)
    else:
        pq.write_table(pa.table(columns), tmp_path / name)
        monkeypatch.setattr(pq.ParquetFile, "read_row_groups", fails)
    with pytest.raises(ObjectListError) as refused:
        read(tmp_path / name)
    assert "takes more memory than there is: Unable to allocate 745. GiB" in str(refused.value)
    assert "cannot be read as" not in str(refused.value)


@pytest.mark.parametrize("error", [AttributeError, TypeError, KeyError, AssertionError, ZeroDivisionError])
def test_a_fault_of_galbatch_is_not_called_a_damaged_file(tmp_path, monkeypatch, error):
    """Only astropy's own errors of that kind stand for damage."""

    def fails(*_: Any, **__: Any) -> None:
        raise error("a fault")

    Table({"id": [1, 2], "ra": [1.0, 2.0], "dec": [1.0, 2.0]}).write(tmp_path / "a.fits")
    with monkeypatch.context() as patched:
        patched.setattr("galbatch.objects.tables.formats.with_plain_types", fails)
        with pytest.raises(error, match="a fault"):
            read(tmp_path / "a.fits")
    monkeypatch.setattr("galbatch.objects.tables.formats.Table.read", fails)
    with pytest.raises(ObjectListError, match=r"a\.fits: cannot be read as \.fits: .*a fault"):
        read(tmp_path / "a.fits")
