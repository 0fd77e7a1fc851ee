from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from galbatch.config import ObjectsConfig
from galbatch.core import sky
from galbatch.errors import ConfigError, ObjectListError
from galbatch.objects import read_objects

# 17 digits, as HSC's ids: as float64 all four would become two.
IDS = [43158034708430849, 43158034708430850, 43158034708430851, -43158034708430852]
RA = [150.1, 150.2, 359.99, 0.01]
DEC = [2.1, 2.2, -1.0, 1.0]
REDSHIFT = [0.1, 0.2, 0.3, 0.4]


def config(path: Path, **changes: Any) -> ObjectsConfig:
    return ObjectsConfig(path=str(path), **changes)


def as_parquet(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)


def write_list(path: Path, **changes: Any) -> Path:
    as_parquet(path, {"object_id": IDS, "ra_deg": RA, "dec_deg": DEC, "z_best": REDSHIFT} | changes)
    return path


def test_objects_are_sorted_by_index_then_id(tmp_path: Path) -> None:
    twins = {"object_id": [5, 3, 4, 1], "ra_deg": [10.0, 10.0, 200.0, 10.0], "dec_deg": [5.0] * 4}
    table, *_ = read_objects(config(write_list(tmp_path / "a.parquet", **twins)))
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
    table, rejected, _ = read_objects(config(path, keep=("z_best",), invalid="drop"))
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
    table, *_ = read_objects(config(path))
    assert dict(zip(table.object_id.tolist(), table.ra_deg, strict=True)) == {
        1: 350.0,
        2: 0.0,
        3: 0.0,
        4: 5.0,
    }


def test_other_column_names(tmp_path: Path) -> None:
    as_parquet(tmp_path / "a.parquet", {"id": [7], "RA": [1.0], "DEC": [2.0], "z": [0.1], "mag": [20.0]})
    table, *_ = read_objects(
        config(tmp_path / "a.parquet", id="id", ra="RA", dec="DEC", keep=("z",)), also=["mag", "z"]
    )
    assert table.kept.column_names == ["z", "mag"]
    assert (table.object_id[0], table.ra_deg[0], table.dec_deg[0]) == (7, 1.0, 2.0)


def test_psf_widths_of_the_list(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", g_seeing=[0.8, None, -1.0, 0.9], r_seeing=[1, 2, 3, 4])
    table, *_ = read_objects(config(path, psf_fwhm_arcsec={"g": "g_seeing", "des_r": "r_seeing"}))
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
    table, rejected, _ = read_objects(config(path, psf_fwhm_arcsec={"g": "seeing"}, invalid="drop"))
    by_id = dict(zip(table.object_id.tolist(), table.psf_fwhm_arcsec["g"].tolist(), strict=True))
    assert by_id == pytest.approx(dict(zip(IDS[1:], [0.2, 0.3, 0.4], strict=True)))
    assert rejected.column_names == ["object_id", "ra_deg", "dec_deg", "reason"]


def test_columns_that_networks_take(tmp_path: Path) -> None:
    """Float32 beside the kept columns, sorted with the objects; null, NaN and what float32 does not hold is no number."""
    path = write_list(tmp_path / "a.parquet", ebv=[0.1, None, 1e39, 0.4], n=[1, 2, 3, 4], name=list("abcd"))
    table, *_ = read_objects(config(path, keep=("n",)), inputs={"ebv": None, "n": None})
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
        read_objects(config(path), inputs={"name": None})
    with pytest.raises(ObjectListError, match="no column evb; the nearest is ebv"):
        read_objects(config(path), inputs={"evb": None})


def test_angles_in_degrees_are_taken(tmp_path: Path) -> None:
    table = Table({"object_id": IDS, "ra_deg": RA, "dec_deg": DEC})
    table["ra_deg"].unit = table["dec_deg"].unit = "deg"
    table.write(tmp_path / "a.fits")
    assert len(read_objects(config(tmp_path / "a.fits"))[0]) == 4


def test_negative_and_unsigned_ids(tmp_path: Path) -> None:
    for ids in ([-5, -4, 0, 7], np.array([1, 2, 3, 2**63 - 1], np.uint64)):
        table, *_ = read_objects(config(write_list(tmp_path / "a.parquet", object_id=ids)))
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
    table, rejected, _ = read_objects(config(write_list(tmp_path / "a.parquet", **BAD), invalid="drop"))
    # Of id 1 the first row that has a position stays.
    assert dict(zip(table.object_id.tolist(), table.ra_deg, strict=True)) == {1: 10.0, 4: 6.0}
    assert rejected.column_names == ["object_id", "ra_deg", "dec_deg", "reason"]
    assert rejected["object_id"].to_pylist() == [1, 1, 2, 3, None]
    assert len(table) + len(rejected) == 7


def test_duplicate_text_ids_are_found(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", object_id=["a", "b", "a", ""])
    table, rejected, _ = read_objects(config(path, invalid="drop"))
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


def test_kept_columns_cannot_have_the_catalogs_names(tmp_path: Path) -> None:
    path = write_list(tmp_path / "a.parquet", flags=[1, 2, 3, 4])
    with pytest.raises(ConfigError, match="keep: flags: the catalog has a column of its own"):
        read_objects(config(path, keep=("flags",)))
    table, *_ = read_objects(config(path, keep=("object_id", "z_best")))
    assert table.kept.column_names == ["z_best"]


def test_ids_with_control_characters_are_no_ids(tmp_path: Path) -> None:
    """numpy drops a NUL at the end of a text: a and a with a NUL would be one object."""
    ids = ["a", "a\x00", "b\x1b[2J", "c\nd", "e\u202e", "../f"]
    path = tmp_path / "list.parquet"
    as_parquet(path, {"object_id": ids, "ra_deg": [10.0 + i for i in range(6)], "dec_deg": [0.0] * 6})
    table, rejected, _ = read_objects(config(path, invalid="drop"))
    assert set(table.object_id) == {"a", "e\u202e", "../f"}
    assert rejected["object_id"].to_pylist() == ids[1:4]
    assert set(rejected["reason"].to_pylist()) == {"control characters in the id"}
