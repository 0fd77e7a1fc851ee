from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table

from galbatch.errors import OutputError
from galbatch.objects import astropy_table, read_table, write_parquet, write_table

IDS = [43158034708430849, 43158034708430850, 43158034708430851, -43158034708430852]


@pytest.mark.parametrize("suffix", ["parquet", "fits", "vot"])
def test_unit_description_and_ucd_come_back(tmp_path: Path, suffix: str) -> None:
    stated = {"unit": "nJy", "description": "total flux in g", "ucd": "phot.flux.density;em.opt.B"}
    schema = pa.schema([pa.field("n", pa.int64()), pa.field("flux", pa.float32(), metadata=stated)])
    path = str(tmp_path / f"out.{suffix}")
    write_table(path, pa.table([[1, 2], [1.5, None]], schema=schema))
    back = read_table(path)
    assert back.schema.field("flux").metadata == schema.field("flux").metadata
    assert not back.schema.field("n").metadata
    assert back["flux"].to_pylist() == [1.5, None]


@pytest.mark.parametrize("unit", ["counts", "mag(AB)", "%", "furlong^x"])
@pytest.mark.parametrize("suffix", ["parquet", "ecsv", "fits", "vot"])
def test_units_that_a_format_does_not_know_are_no_fault(tmp_path: Path, suffix: str, unit: str) -> None:
    schema = pa.schema([pa.field("c", pa.float32(), metadata={"unit": unit, "description": "c"})])
    path = tmp_path / f"out.{suffix}"
    write_table(str(path), pa.table([[1.5]], schema=schema))
    if suffix != "ecsv":
        assert read_table(str(path))["c"].to_pylist() == [1.5]
    assert unit.encode() in path.read_bytes() or suffix == "fits"


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


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32(), 3), pa.list_(pa.float16(), 3), pa.list_(pa.float64())]
)
def test_vectors_with_nulls_are_masked_arrays(tmp_path: Path, kind: pa.DataType) -> None:
    """A missing vector is a list of nulls in a catalog, and may be null itself in what is kept of a list; NaN is a value."""
    rows = [[1.0, None, 3.0], None, [None, None, None], [4.0, 5.0, float("nan")]]
    fields = [pa.field("object_id", pa.int64()), pa.field("v", kind, metadata={"unit": "nJy"})]
    table = pa.table([pa.array([1, 2, 3, 4]), pa.array(rows, kind)], pa.schema(fields))
    vectors = astropy_table(table)["v"]
    assert vectors.mask.tolist() == [[False, True, False], [True] * 3, [True] * 3, [False] * 3]
    assert vectors.data[0, [0, 2]].tolist() == [1.0, 3.0]
    assert np.isnan(vectors.data.data[3, 2])
    quantity = QTable(astropy_table(table))["v"]
    assert quantity[3, 1].unmasked == 5.0 * u.nJy
    for suffix in ("fits", "vot", "ecsv", "parquet", "csv"):
        write_table(str(tmp_path / f"a.{suffix}"), table)
        assert read_table(str(tmp_path / f"a.{suffix}"))["object_id"].to_pylist() == [1, 2, 3, 4]
    for suffix in ("fits", "vot"):
        back = Table.read(tmp_path / f"a.{suffix}")["v"]
        values = np.ma.filled(np.ma.asarray(back), np.nan)
        expected = [[1, np.nan, 3], [np.nan] * 3, [np.nan] * 3, [4, 5, np.nan]]
        np.testing.assert_array_equal(values, expected)
    empty = astropy_table(table.slice(1, 2).filter(pa.array([False, False])))
    assert len(empty) == 0


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int8(), 3),
        pa.list_(pa.int16(), 3),
        pa.list_(pa.int64()),
        pa.list_(pa.uint8(), 3),
        pa.list_(pa.uint32()),
    ],
)
def test_vectors_of_integers_with_nulls_are_masked_arrays(tmp_path: Path, kind: pa.DataType) -> None:
    limits = np.iinfo(kind.value_type.to_pandas_dtype())
    rows = [[limits.max, None, 3], None, [None] * 3, [limits.min, 5, 6]]
    table = pa.table({"object_id": [1, 2, 3, 4], "v": pa.array(rows, kind)})
    vectors = astropy_table(table, for_file=False)["v"]
    assert vectors.dtype == kind.value_type.to_pandas_dtype()
    masked = [[limits.max, None, 3], [None] * 3, [None] * 3, [limits.min, 5, 6]]
    assert vectors.tolist() == masked
    for suffix in ("fits", "vot", "ecsv"):
        path = str(tmp_path / f"a.{suffix}")
        write_table(path, table)
        assert Table.read(path)["v"].tolist() == masked
        assert read_table(path)["v"].to_pylist()[0] == masked[0]


def test_vectors_of_large_integers_are_masked_in_memory_and_text_in_files(tmp_path: Path) -> None:
    rows = [[2**63 + 1, None, 3], None, [4, 5, 6]]
    table = pa.table({"v": pa.array(rows, pa.list_(pa.uint64(), 3))})
    assert astropy_table(table, for_file=False)["v"].tolist() == [rows[0], [None] * 3, rows[2]]
    for suffix in ("fits", "vot", "ecsv"):
        write_table(str(tmp_path / f"a.{suffix}"), table)
        assert Table.read(tmp_path / f"a.{suffix}")["v"][0] == f"[{2**63 + 1}, null, 3]"


@pytest.mark.parametrize("suffix", ["fits", "vot"])
def test_a_missing_integer_is_none_that_the_column_has(tmp_path: Path, suffix: str) -> None:
    """The null value that astropy's writers state by default, 999999, and the least of the type are ids like others."""
    values = [999999, -(2**31), -(2**31) + 1, None, 0]
    path = str(tmp_path / f"a.{suffix}")
    write_table(
        path,
        pa.table({"id": pa.array(values, pa.int32()), "byte": pa.array([0, 1, 2, None, 255], pa.uint8())}),
    )
    back = Table.read(path)
    assert back["id"].tolist() == values
    assert back["byte"].tolist() == [0, 1, 2, None, 255]
    if suffix == "fits":
        assert fits.getheader(path, 1)["TNULL1"] == -(2**31) + 2


def test_integers_and_booleans_keep_their_types_in_memory() -> None:
    table = pa.table(
        {
            "large": pa.array([2**64 - 1, None], pa.uint64()),
            "small": pa.array([-7, 3], pa.int8()),
            "flag": pa.array([True, None]),
        }
    )
    found = astropy_table(table, for_file=False)
    assert [found[name].dtype.str for name in found.colnames] == ["<u8", "|i1", "|b1"]
    assert found["large"].tolist() == [2**64 - 1, None]
    assert found["flag"].tolist() == [True, None]
    assert found["small"].tolist() == [-7, 3]
