from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table

from galbatch.config import ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects import read_objects, read_table

# 17 digits, as HSC's ids: as float64 all four would become two.
IDS = [43158034708430849, 43158034708430850, 43158034708430851, -43158034708430852]
RA = [150.1, 150.2, 359.99, 0.01]
DEC = [2.1, 2.2, -1.0, 1.0]
REDSHIFT = [0.1, 0.2, 0.3, 0.4]


def as_parquet(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)


def as_csv(path: Path, columns: dict[str, Any]) -> None:
    rows = zip(*columns.values(), strict=True)
    text = [",".join(columns), *(",".join("" if v is None else str(v) for v in row) for row in rows)]
    path.write_text("\n".join(text) + "\n")


def as_hsc_csv(path: Path, columns: dict[str, Any]) -> None:
    as_csv(path, columns)
    path.write_text("# " + path.read_text())


def as_astropy(path: Path, columns: dict[str, Any]) -> None:
    kind = "fits" if path.suffix == ".fits" else "votable"
    Table(columns).write(path, format=kind)


def as_gzip(path: Path, columns: dict[str, Any]) -> None:
    plain = path.with_suffix("")
    WRITERS["b.csv" if plain.suffix == ".csv" else f"a{plain.suffix}"](plain, columns)
    path.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()


WRITERS = {
    "a.parquet": as_parquet,
    "a.csv": as_csv,
    "b.csv": as_hsc_csv,
    "a.fits": as_astropy,
    "a.vot": as_astropy,
    "a.csv.gz": as_gzip,
    "a.fits.gz": as_gzip,
    "a.vot.gz": as_gzip,
}


def config(path: Path, **changes: Any) -> ObjectsConfig:
    return ObjectsConfig(path=str(path), **changes)


def write_list(path: Path, **changes: Any) -> Path:
    as_parquet(path, {"object_id": IDS, "ra_deg": RA, "dec_deg": DEC, "z_best": REDSHIFT} | changes)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_long_ids_come_back_exactly_from_every_format(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, {"object_id": IDS, "ra_deg": RA, "dec_deg": DEC, "z_best": REDSHIFT})
    table, rejected, _ = read_objects(config(tmp_path / name, keep=("z_best",)))
    assert table.object_id.dtype == np.int64
    by_id = dict(zip(table.object_id.tolist(), table.kept["z_best"].to_pylist(), strict=True))
    assert by_id == dict(zip(IDS, REDSHIFT, strict=True))
    assert dict(zip(table.object_id.tolist(), table.ra_deg, strict=True)) == dict(zip(IDS, RA, strict=True))
    assert len(rejected) == 0


@pytest.mark.parametrize("name", WRITERS)
def test_text_ids_come_back_from_every_format(tmp_path: Path, name: str) -> None:
    ids = ["a-1", "b", "c", "long name"]
    WRITERS[name](tmp_path / name, {"object_id": ids, "ra_deg": RA, "dec_deg": DEC})
    table, *_ = read_objects(config(tmp_path / name))
    assert set(table.object_id) == set(ids)


@pytest.mark.parametrize("name", WRITERS)
def test_a_hole_among_long_ids_does_not_turn_them_into_floats(tmp_path: Path, name: str) -> None:
    ids: Any = [*IDS[:3], None]
    if ".fits" in name or ".vot" in name:
        ids = MaskedColumn([*IDS[:3], 0], mask=[False, False, False, True])
    WRITERS[name](tmp_path / name, {"object_id": ids, "ra_deg": RA, "dec_deg": DEC})
    table, rejected, _ = read_objects(config(tmp_path / name, invalid="drop"))
    assert sorted(table.object_id.tolist()) == sorted(IDS[:3])
    assert rejected["reason"].to_pylist() == ["no id"]


def test_an_hsc_csv_with_remarks_above_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("# made by CAS\n# 4 rows\nobject_id,ra_deg,dec_deg\n1,2.0,3.0\n")
    assert read_table(str(tmp_path / "a.csv")).to_pylist() == [
        {"object_id": 1, "ra_deg": 2.0, "dec_deg": 3.0}
    ]


def test_a_csv_whose_index_stands_before_the_hash(tmp_path: Path) -> None:
    # As pandas writes again what it read from HSC's archive.
    (tmp_path / "a.csv").write_text(f",# object_id, ra_deg,dec_deg\n0,{IDS[0]},2.0,3.0\n")
    table = read_table(str(tmp_path / "a.csv"), columns=["object_id", "ra_deg"])
    assert table.to_pylist() == [{"object_id": IDS[0], "ra_deg": 2.0}]


def test_a_csv_from_another_system(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"object_id","note, free"\r\n1,"a, b"\r\n')
    assert read_table(str(tmp_path / "a.csv")).to_pylist() == [{"object_id": 1, "note, free": "a, b"}]


def test_a_csv_column_that_begins_otherwise_than_it_goes_on(tmp_path: Path) -> None:
    # The kind of a column is guessed from the first MiB: here nothing, and whole numbers.
    n = 200_000
    rows = [f"{i},," for i in range(n)] + [f"{n},0.5,1.25"]
    rows[:n] = [f"{i},,3" for i in range(n)]
    (tmp_path / "a.csv").write_text("object_id,z_best,size\n" + "\n".join(rows) + "\n")
    assert (tmp_path / "a.csv").stat().st_size > 2**20
    table = read_table(str(tmp_path / "a.csv"))
    assert len(table) == n + 1
    assert table.slice(n).to_pylist() == [{"object_id": n, "z_best": 0.5, "size": 1.25}]
    assert table["z_best"].null_count == n


def test_a_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"object_id,ra_deg\n" + b"1,2.0\n" * 1000)
    (tmp_path / "a.csv.gz").write_bytes(whole[:-12])
    with pytest.raises(ObjectListError, match=r"cannot be read as \.csv\.gz: the gzipped data are damaged"):
        read_table(str(tmp_path / "a.csv.gz"))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("spelled", [(False, True), ("f", "t"), ("False", "True"), (0, 1)])
def test_what_isnull_says_is_null(tmp_path: Path, name: str, spelled: tuple[Any, Any]) -> None:
    # HSC's archive writes 0 or NaN where a value is null, and says so in a column of its own.
    false, true = spelled
    columns = {
        "object_id": IDS,
        "object_id_isnull": [false, false, false, true],
        "ra_deg": RA,
        "dec_deg": [2.1, 0.0, -1.0, 1.0],
        "dec_deg_isnull": [false, true, false, false],
        "z_best": [0.1, 0.2, 0.0, 0.4],
        "z_best_isnull": [false, false, true, false],
    }
    WRITERS[name](tmp_path / name, columns)
    table, rejected, _ = read_objects(config(tmp_path / name, keep=("z_best",), invalid="drop"))
    assert dict(zip(table.object_id.tolist(), table.kept["z_best"].to_pylist(), strict=True)) == {
        IDS[0]: 0.1,
        IDS[2]: None,
    }
    assert table.kept.column_names == ["z_best"]
    assert rejected["reason"].to_pylist() == ["position is not finite", "no id"]


def test_units_and_descriptions_come_along(tmp_path: Path) -> None:
    table = Table({"object_id": IDS})
    table["flux"] = np.ones(4, np.float32)
    table["flux"].unit, table["flux"].description = "nJy", "total flux"
    table.write(tmp_path / "a.vot", format="votable")
    field = read_table(str(tmp_path / "a.vot")).schema.field("flux")
    assert field.type == pa.float32()
    assert field.metadata == {b"unit": b"nJy", b"description": b"total flux"}


def test_fits_numbers_are_in_the_machines_byte_order(tmp_path: Path) -> None:
    Table({"id": np.array([1, 2], ">i4"), "pair": np.array([[1.0, 2.0], [3.0, 4.0]], ">f8")}).write(
        tmp_path / "a.fits"
    )
    table = read_table(str(tmp_path / "a.fits"))
    assert table.to_pydict() == {"id": [1, 2], "pair": [[1.0, 2.0], [3.0, 4.0]]}


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet")
    assert read_table(str(path), columns=["z_best", "ra_deg"]).column_names == ["z_best", "ra_deg"]


def test_dictionaries_and_large_strings_become_plain(tmp_path: Path) -> None:
    kind = pa.array(["a", "b", "a", None]).dictionary_encode()
    path = write_list(tmp_path / "a.parquet", kind=kind, note=pa.array(["x"] * 4, pa.large_string()))
    table, *_ = read_objects(config(path, keep=("kind", "note")))
    assert [field.type for field in table.kept.schema] == [pa.string(), pa.string()]
    assert sorted(table.kept["kind"].to_pylist(), key=str) == [None, "a", "a", "b"]


def test_files_that_are_not_there_or_not_what_they_say(tmp_path: Path) -> None:
    with pytest.raises(ObjectListError, match="there is no such file"):
        read_table(str(tmp_path / "absent.parquet"))
    with pytest.raises(ObjectListError, match=r"unknown kind of table; known are \.parquet"):
        read_table(str(tmp_path / "list.xlsx"))
    for suffix in ("parquet", "fits", "vot", "csv"):
        (tmp_path / f"torn.{suffix}").write_bytes(b"\x00\xffno table\n\x01,\x02,3")
        with pytest.raises(ObjectListError, match=rf"torn\.{suffix}: cannot be read as \.{suffix}"):
            read_table(str(tmp_path / f"torn.{suffix}"))


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_columns_of_one_name_are_refused_where_they_are_read(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".csv"):
        path.write_text("object_id,ra_deg,ra_deg,dec_deg\n1,150.0,151.0,2.0\n")
    else:
        arrays = [pa.array([1]), pa.array([150.0]), pa.array([151.0]), pa.array([2.0])]
        pq.write_table(pa.Table.from_arrays(arrays, ["object_id", "ra_deg", "ra_deg", "dec_deg"]), path)
    assert read_table(str(path), columns=["object_id"]).column_names == ["object_id"]
    for columns in (["ra_deg", "dec_deg"], None):
        with pytest.raises(ObjectListError, match="2 columns are called ra_deg; rename all but the one"):
            read_table(str(path), columns=columns)
