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
from galbatch.core import sky
from galbatch.core.types import ObjectTable
from galbatch.errors import ConfigError, ObjectListError, OutputError
from galbatch.objects import read_objects, read_table, select, write_parquet, write_table

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


# --- every format ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_long_ids_come_back_exactly_from_every_format(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, {"object_id": IDS, "ra_deg": RA, "dec_deg": DEC, "z_best": REDSHIFT})
    table, rejected = read_objects(config(tmp_path / name, keep=("z_best",)))
    assert table.object_id.dtype == np.int64
    by_id = dict(zip(table.object_id.tolist(), table.kept["z_best"].to_pylist(), strict=True))
    assert by_id == dict(zip(IDS, REDSHIFT, strict=True))
    assert dict(zip(table.object_id.tolist(), table.ra_deg, strict=True)) == dict(zip(IDS, RA, strict=True))
    assert len(rejected) == 0


@pytest.mark.parametrize("name", WRITERS)
def test_text_ids_come_back_from_every_format(tmp_path: Path, name: str) -> None:
    ids = ["a-1", "b", "c", "long name"]
    WRITERS[name](tmp_path / name, {"object_id": ids, "ra_deg": RA, "dec_deg": DEC})
    table, _ = read_objects(config(tmp_path / name))
    assert set(table.object_id) == set(ids)


@pytest.mark.parametrize("name", WRITERS)
def test_a_hole_among_long_ids_does_not_turn_them_into_floats(tmp_path: Path, name: str) -> None:
    ids: Any = [*IDS[:3], None]
    if ".fits" in name or ".vot" in name:
        ids = MaskedColumn([*IDS[:3], 0], mask=[False, False, False, True])
    WRITERS[name](tmp_path / name, {"object_id": ids, "ra_deg": RA, "dec_deg": DEC})
    table, rejected = read_objects(config(tmp_path / name, invalid="drop"))
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
    table, rejected = read_objects(config(tmp_path / name, keep=("z_best",), invalid="drop"))
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
    table, _ = read_objects(config(path, keep=("kind", "note")))
    assert [field.type for field in table.kept.schema] == [pa.string(), pa.string()]
    assert sorted(table.kept["kind"].to_pylist(), key=str) == [None, "a", "a", "b"]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "fits", "vot"])
def test_a_table_is_written_and_read_back(tmp_path: Path, suffix: str) -> None:
    schema = pa.schema(
        [
            pa.field("object_id", pa.int64()),
            pa.field("flux_njy", pa.float32(), metadata={"unit": "nJy", "description": "total flux"}),
            pa.field("n", pa.int64()),
            pa.field("kind", pa.string()),
        ]
    )
    table = pa.table(
        [IDS, [1.5, 2.5, 3.5, float("nan")], [1, None, 3, 4], ["a", "bc", "def", "x"]], schema=schema
    )
    path = str(tmp_path / f"out.{suffix}")
    write_table(path, table)
    back = read_table(path)
    assert back["object_id"].to_pylist() == IDS
    assert back["flux_njy"].to_pylist()[:3] == [1.5, 2.5, 3.5]
    assert back["n"].to_pylist() == [1, None, 3, 4]
    assert back["kind"].to_pylist() == ["a", "bc", "def", "x"]
    if suffix != "csv":
        assert back.schema.field("flux_njy").metadata[b"unit"] == b"nJy"


def test_a_table_of_unknown_kind_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"out\.xlsx: unknown kind of table; known are \.parquet"):
        write_table(str(tmp_path / "out.xlsx"), pa.table({"a": [1]}))


def test_parquet_goes_to_s3_and_back(s3: str) -> None:
    table = pa.table({"object_id": IDS})
    write_parquet(f"{s3}/a.parquet", table)
    assert read_table(f"{s3}/a.parquet") == table


# --- object lists ----------------------------------------------------------------------------------------


def test_objects_are_sorted_by_index_then_id(tmp_path: Path) -> None:
    twins = {"object_id": [5, 3, 4, 1], "ra_deg": [10.0, 10.0, 200.0, 10.0], "dec_deg": [5.0] * 4}
    table, _ = read_objects(config(write_list(tmp_path / "a.parquet", **twins)))
    assert (np.diff(table.healpix_29) >= 0).all()
    assert table.object_id.tolist() == [1, 3, 5, 4]
    np.testing.assert_array_equal(table.healpix_29, sky.healpix_29(table.ra_deg, table.dec_deg))


@pytest.mark.parametrize("as_text", [False, True])
def test_many_rows_at_few_positions_equal_a_slow_reference(tmp_path: Path, as_text: bool) -> None:
    rng = np.random.default_rng(5)
    ids = rng.integers(-400, 400, 1000).tolist()
    ids = [f"n{i}" for i in ids] if as_text else ids
    ra, dec = rng.choice([10.0, 11.0, 12.0], 1000), rng.choice([-5.0, 5.0, 91.0], 1000)
    path = write_list(tmp_path / "a.parquet", object_id=ids, ra_deg=ra, dec_deg=dec, z_best=range(1000))
    table, rejected = read_objects(config(path, keep=("z_best",), invalid="drop"))
    first: dict[Any, int] = {}
    for row in range(1000):
        if dec[row] < 90:
            first.setdefault(ids[row], row)
    index = sky.healpix_29(ra, np.minimum(dec, 90.0))
    expected = sorted(first.values(), key=lambda row: (index[row], ids[row]))
    assert table.kept["z_best"].to_pylist() == expected
    assert table.object_id.tolist() == [ids[row] for row in expected]
    assert rejected["reason"].to_pylist() == [
        "declination outside -90..90" if dec[row] > 90 else "duplicate id"
        for row in range(1000)
        if row not in first.values()
    ]


def test_right_ascension_is_wrapped(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", object_id=[1, 2, 3, 4], ra_deg=[-10.0, 360.0, -1e-20, 725.0])
    table, _ = read_objects(config(path))
    assert dict(zip(table.object_id.tolist(), table.ra_deg, strict=True)) == {
        1: 350.0,
        2: 0.0,
        3: 0.0,
        4: 5.0,
    }


def test_other_column_names(tmp_path: Path) -> None:
    as_parquet(tmp_path / "a.parquet", {"id": [7], "RA": [1.0], "DEC": [2.0], "z": [0.1], "mag": [20.0]})
    table, _ = read_objects(
        config(tmp_path / "a.parquet", id="id", ra="RA", dec="DEC", keep=("z",)), also=["mag", "z"]
    )
    assert table.kept.column_names == ["z", "mag"]
    assert (table.object_id[0], table.ra_deg[0], table.dec_deg[0]) == (7, 1.0, 2.0)


def test_psf_widths_of_the_list(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", g_seeing=[0.8, None, -1.0, 0.9], r_seeing=[1, 2, 3, 4])
    table, _ = read_objects(config(path, psf_fwhm_arcsec={"g": "g_seeing", "des_r": "r_seeing"}))
    assert {band: width.dtype for band, width in table.psf_fwhm_arcsec.items()} == dict.fromkeys(
        ("g", "des_r"), np.dtype(np.float32)
    )
    of_id = {
        key: (float(g), float(r))
        for key, g, r in zip(
            table.object_id.tolist(), table.psf_fwhm_arcsec["g"], table.psf_fwhm_arcsec["des_r"], strict=True
        )
    }
    assert of_id[IDS[0]] == pytest.approx((0.8, 1))
    assert of_id[IDS[3]] == pytest.approx((0.9, 4))
    assert of_id[IDS[1]] == pytest.approx((np.nan, 2), nan_ok=True)
    assert of_id[IDS[2]] == pytest.approx((np.nan, 3), nan_ok=True)
    assert table.kept.column_names == []


def test_psf_widths_stay_with_their_objects_when_rows_are_dropped(tmp_path: Path) -> None:
    path = write_list(
        tmp_path / "a.parquet", ra_deg=[np.nan, 150.2, 359.99, 0.01], seeing=[0.1, 0.2, 0.3, 0.4]
    )
    table, rejected = read_objects(config(path, psf_fwhm_arcsec={"g": "seeing"}, invalid="drop"))
    by_id = dict(zip(table.object_id.tolist(), table.psf_fwhm_arcsec["g"].tolist(), strict=True))
    assert by_id == pytest.approx(dict(zip(IDS[1:], [0.2, 0.3, 0.4], strict=True)))
    assert rejected.column_names == ["object_id", "ra_deg", "dec_deg", "reason"]


def test_columns_that_networks_take(tmp_path: Path) -> None:
    """Float32 beside the kept columns, sorted with the objects; null, NaN and what float32 does not hold is no number."""
    path = write_list(tmp_path / "a.parquet", ebv=[0.1, None, 1e39, 0.4], n=[1, 2, 3, 4], name=list("abcd"))
    table, _ = read_objects(config(path, keep=("n",)), inputs=("ebv", "n"))
    assert table.kept.column_names == ["n"]
    assert {name: values.dtype for name, values in table.inputs.items()} == dict.fromkeys(
        ("ebv", "n"), np.dtype(np.float32)
    )
    rank = [IDS.index(key) for key in table.object_id.tolist()]
    expected = np.array([0.1, np.nan, np.inf, 0.4], np.float32)[rank]
    np.testing.assert_array_equal(table.inputs["ebv"], expected)
    np.testing.assert_array_equal(table.inputs["n"], np.array(rank) + 1)
    taken = table.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.inputs["ebv"], expected[[2, 0]])
    with pytest.raises(
        ObjectListError, match="column name holds string, expected numbers, as a network's auxiliary input"
    ):
        read_objects(config(path), inputs=("name",))
    with pytest.raises(ObjectListError, match="no column evb; the nearest is ebv"):
        read_objects(config(path), inputs=("evb",))


@pytest.mark.parametrize(("unit", "name"), [("rad", "rad"), ("hourangle", "15deg"), ("arcsec", "arcsec")])
def test_angles_in_other_units_are_refused(tmp_path: Path, unit: str, name: str) -> None:
    table = Table({"object_id": IDS, "ra_deg": RA, "dec_deg": DEC})
    table["ra_deg"].unit = unit
    table.write(tmp_path / "a.vot", format="votable")
    with pytest.raises(ObjectListError, match=f"column ra_deg is in {name}, expected degrees; convert it"):
        read_objects(config(tmp_path / "a.vot"))


def test_angles_in_degrees_are_taken(tmp_path: Path) -> None:
    table = Table({"object_id": IDS, "ra_deg": RA, "dec_deg": DEC})
    table["ra_deg"].unit = table["dec_deg"].unit = "deg"
    table.write(tmp_path / "a.fits")
    assert len(read_objects(config(tmp_path / "a.fits"))[0]) == 4


def test_negative_and_unsigned_ids(tmp_path: Path) -> None:
    for ids in ([-5, -4, 0, 7], np.array([1, 2, 3, 2**63 - 1], np.uint64)):
        table, _ = read_objects(config(write_list(tmp_path / "a.parquet", object_id=ids)))
        assert sorted(table.object_id.tolist()) == sorted(int(i) for i in ids)


BAD: dict[str, Any] = {
    "object_id": [1, 1, 1, 2, 3, 4, None],
    "ra_deg": [np.nan, 10.0, 11.0, np.inf, 5.0, 6.0, 1.0],
    "dec_deg": [0.0, 0.0, 0.0, 0.0, 90.5, -90.0, 1.0],
    "z_best": [0.0] * 7,
}


def test_bad_rows_are_refused_with_count_and_first_five(tmp_path: Path) -> None:
    with pytest.raises(ObjectListError) as caught:
        read_objects(config(write_list(tmp_path / "a.parquet", **BAD)))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        f"{tmp_path}/a.parquet: 5 of 7 rows cannot be used (2 x position is not finite, 1 x duplicate id, "
        "1 x declination outside -90..90, 1 x no id); the first:"
    )
    assert lines[1:6] == [
        "  id 1, ra nan, dec 0.0: position is not finite",
        "  id 1, ra 11.0, dec 0.0: duplicate id",
        "  id 2, ra inf, dec 0.0: position is not finite",
        "  id 3, ra 5.0, dec 90.5: declination outside -90..90",
        "  id None, ra 1.0, dec 1.0: no id",
    ]
    assert 'set [objects] invalid = "drop"' in lines[6]


def test_bad_rows_are_dropped_with_their_reason(tmp_path: Path) -> None:
    table, rejected = read_objects(config(write_list(tmp_path / "a.parquet", **BAD), invalid="drop"))
    # Of id 1 the first row that has a position stays.
    assert dict(zip(table.object_id.tolist(), table.ra_deg, strict=True)) == {1: 10.0, 4: 6.0}
    assert rejected.column_names == ["object_id", "ra_deg", "dec_deg", "reason"]
    assert rejected["object_id"].to_pylist() == [1, 1, 2, 3, None]
    assert len(table) + len(rejected) == 7


def test_duplicate_text_ids_are_found(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", object_id=["a", "b", "a", ""])
    table, rejected = read_objects(config(path, invalid="drop"))
    assert set(table.object_id) == {"a", "b"}
    assert rejected["reason"].to_pylist() == ["duplicate id", "no id"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"object_id": [1.0, 2.0, 3.0, 4.0]},
            r"column object_id holds double; .* none is above 2\^53, .* convert the column to integers \(int64\)",
        ),
        (
            {"object_id": [43158034708430849.0, -43158034708430851.0, None, 4.0]},
            r"column object_id holds double; .* up to 43158034708430848 they are above 2\^53, where a float64 has "
            "lost digits: get the list again",
        ),
        (
            {"object_id": [True, False, True, False]},
            "column object_id holds bool; ids must be integers or text",
        ),
        (
            {"object_id": pa.array([2**63, 1, 2, 3], pa.uint64())},
            "ids must fit 64 bits with sign, or be text: Integer value 9223372036854775808 not in range",
        ),
        ({"ra_deg": ["10:00:00"] * 4}, "column ra_deg holds string, expected degrees as numbers"),
        ({"dec_deg": [None] * 4}, "column dec_deg holds null, expected degrees"),
        (
            {"dec_deg": pa.array([None] * 4, pa.float64())},
            "4 of 4 rows cannot be used .4 x position is not finite",
        ),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectListError, match=message):
        read_objects(config(write_list(tmp_path / "a.parquet", **changes)))


def test_a_missing_column_names_the_nearest_and_all(tmp_path: Path) -> None:
    with pytest.raises(
        ObjectListError,
        match="no column z_bset; the nearest is z_best; there are object_id, ra_deg, dec_deg, z_best",
    ):
        read_objects(config(write_list(tmp_path / "a.parquet"), keep=("z_bset",)))


def test_a_list_without_rows(tmp_path: Path) -> None:
    pq.write_table(pq.read_table(write_list(tmp_path / "a.parquet")).slice(0, 0), tmp_path / "a.parquet")
    with pytest.raises(ObjectListError, match=r"a\.parquet: holds no objects"):
        read_objects(config(tmp_path / "a.parquet"))
    (tmp_path / "a.csv").write_text("# object_id,ra_deg,dec_deg\n")
    with pytest.raises(ObjectListError, match=r"a\.csv: holds no objects"):
        read_objects(config(tmp_path / "a.csv"))


def test_a_list_of_which_nothing_is_left(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", ra_deg=[np.nan] * 4)
    with pytest.raises(ObjectListError, match="none of its 4 rows is an object; 4 x position is not finite"):
        read_objects(config(path, invalid="drop"))


def test_files_that_are_not_there_or_not_what_they_say(tmp_path: Path) -> None:
    with pytest.raises(ObjectListError, match="there is no such file"):
        read_table(str(tmp_path / "absent.parquet"))
    with pytest.raises(ObjectListError, match=r"unknown kind of table; known are \.parquet"):
        read_table(str(tmp_path / "list.xlsx"))
    for suffix in ("parquet", "fits", "vot", "csv"):
        (tmp_path / f"torn.{suffix}").write_bytes(b"\x00\xffno table\n\x01,\x02,3")
        with pytest.raises(ObjectListError, match=rf"torn\.{suffix}: cannot be read as \.{suffix}"):
            read_table(str(tmp_path / f"torn.{suffix}"))


def test_kept_columns_cannot_have_the_catalogs_names(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", flags=[1, 2, 3, 4])
    with pytest.raises(ConfigError, match="keep: flags: the catalog has a column of its own"):
        read_objects(config(path, keep=("flags",)))
    table, _ = read_objects(config(path, keep=("object_id", "z_best")))
    assert table.kept.column_names == ["z_best"]


# --- select ----------------------------------------------------------------------------------------------


@pytest.fixture
def objects() -> ObjectTable:
    kept = pa.table(
        {
            "z_best": pa.array([0.1, 0.3, float("nan"), None, 0.25]),
            "n": pa.array([1, 2, 3, None, 5]),
            "kind": ["gal", "star", None, "gal", "qso"],
            "is_good": pa.array([True, False, True, None, True]),
            "odd name": [1, 2, 3, 4, 5],
        }
    )
    dec = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    ids = np.array([43158034708430849, 43158034708430850, 43158034708430851, 4, 5])
    return ObjectTable(ids, np.arange(5.0), dec, np.arange(5), kept)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, [1, 1, 1, 1, 1]),
        (" ", [1, 1, 1, 1, 1]),
        ("z_best < 0.25", [1, 0, 0, 0, 0]),
        # What is not known is not selected, whichever way it is asked.
        ("not z_best < 0.25", [0, 1, 0, 0, 1]),
        ("z_best != 0.1", [0, 1, 0, 0, 1]),
        ("z_best < 0.25 or dec_deg > -5", [1, 1, 1, 1, 1]),
        ("0.1 < z_best <= 0.3 and n > 1", [0, 1, 0, 0, 1]),
        ("(z_best < 0.2) | (n == 3)", [1, 0, 1, 0, 0]),
        ("(z_best < 0.28) & ~(n == 1)", [0, 0, 0, 0, 1]),
        ("kind == 'gal'", [1, 0, 0, 1, 0]),
        ("kind in ['gal', 'qso']", [1, 0, 0, 1, 1]),
        ("kind not in ('gal', 'qso')", [0, 1, 0, 0, 0]),
        ("is_good", [1, 0, 1, 0, 1]),
        ("n / 2 > 1", [0, 0, 1, 0, 1]),
        ("-n + 2 ** 2 < 1/2", [0, 0, 0, 0, 1]),
        ("-dec_deg > 0.5", [1, 1, 0, 0, 0]),
        ("1 / dec_deg > -10", [1, 1, 1, 1, 1]),
        ("`odd name` > 3", [0, 0, 0, 1, 1]),
        ("object_id == 43158034708430851", [0, 0, 1, 0, 0]),
        ("object_id in [43158034708430850, 5]", [0, 1, 0, 0, 1]),
    ],
)
def test_what_is_selected(objects: ObjectTable, where: str | None, expected: list[int]) -> None:
    selected = select(objects, where)
    assert selected.dtype == np.bool_
    assert selected.astype(int).tolist() == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "z_bset < 1",
            "no column z_bset; did you mean z_best.; known are object_id, ra_deg, dec_deg, z_best, n",
        ),
        ("z_best <", "is no expression"),
        ("z_best", "is not true or false; compare a column, as in z_best < 0.25"),
        ("1 < 2", "is not true or false"),
        ("kind < 3", "unlike kinds are compared"),
        ("kind + 1 > 2", "unlike kinds"),
        ("n in ['a']", "unlike kinds"),
        ("not n", "unlike kinds"),
        ("__import__('os').system('true')", "is not allowed; compare columns only"),
        ("z_best.__class__ == 1", "z_best.__class__ is not allowed"),
        ("[x for x in kind]", "is not allowed"),
        ("n % 2 == 0", "this operator is not allowed"),
        ("n is 3", "this comparison is not allowed"),
        ("n == None", "None is not allowed; write numbers or text"),
    ],
)
def test_what_cannot_be_selected(objects: ObjectTable, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(objects, where)


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
