"""The column kinds that object lists may have: whatever the reader accepts, every writer writes."""

from __future__ import annotations

import contextlib
import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from galbatch.catalog import leaf_schema
from galbatch.config import ObjectsConfig, RegionConfig
from galbatch.errors import UsageError
from galbatch.objects import read_objects, read_table, write_parquet, write_table

DAY = datetime.date(2026, 1, 31)
MOMENT = datetime.datetime(2026, 1, 31, 12, 30, 15)

# Three values of each kind; the matrix needs all of them in one order.
KINDS: dict[str, pa.Array] = {
    "bool": pa.array([True, False, True]),
    "bool_null": pa.array([True, None, False]),
    "int8": pa.array([-1, 2, None], pa.int8()),
    "int16": pa.array([-1, 2, None], pa.int16()),
    "int32": pa.array([-1, 2, None], pa.int32()),
    "int64": pa.array([-(2**62), 2, None], pa.int64()),
    "uint8": pa.array([1, 255, None], pa.uint8()),
    "uint16": pa.array([1, 2**16 - 1, None], pa.uint16()),
    "uint32": pa.array([1, 2**32 - 1, None], pa.uint32()),
    "uint64": pa.array([1, 2**64 - 1, None], pa.uint64()),
    "float16": pa.array([0.5, 1.5, None], pa.float32()).cast(pa.float16()),
    "float32": pa.array([0.5, 1.5, None], pa.float32()),
    "float64": pa.array([0.1, 1e300, None], pa.float64()),
    "decimal": pa.array([Decimal("1.25"), Decimal("-3.50"), None], pa.decimal128(9, 2)),
    "text": pa.array(["a", "\N{LATIN SMALL LETTER E WITH ACUTE}", None]),
    "large_string": pa.array(["a", "b", None], pa.large_string()),
    "string_view": pa.array(["a", "b", None], pa.string_view()),
    "dictionary": pa.array(["a", "b", None]).dictionary_encode(),
    "binary": pa.array([b"\x00\xff", b"a", None], pa.binary()),
    "date": pa.array([DAY, DAY, None]),
    "timestamp": pa.array([MOMENT, MOMENT, None], pa.timestamp("us")),
    "list": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32())),
    "ragged_list": pa.array([[1], [2, 3], None], pa.list_(pa.int64())),
    "fixed_list": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2)),
    "all_null": pa.nulls(3),
    "all_null_float": pa.nulls(3, pa.float32()),
    "struct": pa.array([{"a": 1}, {"a": 2}, None]),
}


def expected(kind: str, suffix: str) -> list[Any]:
    """Return the values of a kind after a table was written in a format and read again, by hand."""
    values = KINDS[kind].to_pylist()
    if suffix == "parquet":
        return values
    if kind in ("date", "timestamp"):
        # Arrow's CSV reader recognizes dates and times.
        return values if suffix == "csv" else [value and value.isoformat() for value in values]
    if kind == "bool_null" and suffix in ("fits", "vot"):
        return [1, None, 0]
    if kind == "binary":
        return ["00ff", "61", None]
    if kind in ("struct", "ragged_list") or (suffix == "csv" and "list" in kind):
        return [None if value is None else json.dumps(value) for value in values]
    if kind == "decimal":
        return [1.25, -3.5, None]
    if kind == "uint64":
        return [1.0, 2.0**64, None] if suffix == "csv" else ["1", str(2**64 - 1), None]
    if kind == "text" and suffix == "fits":
        return ["a", "\\xe9", None]
    return values


def read_kind(path: Path, kind: str) -> pa.Table:
    table = pa.table(
        {"object_id": [1, 2, 3], "ra_deg": [3.0, 2.0, 1.0], "dec_deg": [0.0] * 3, "c": KINDS[kind]}
    )
    pq.write_table(table, path)
    return read_objects(ObjectsConfig(path=str(path), keep=("c",)))[0].kept


@pytest.mark.parametrize("suffix", ["parquet", "csv", "fits", "vot"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_reader_accepts_every_writer_writes(tmp_path: Path, kind: str, suffix: str) -> None:
    kept = read_kind(tmp_path / "a.parquet", kind)
    for name, column in (("kept", kept["c"]), ("raw", KINDS[kind])):
        path = str(tmp_path / f"{name}.{suffix}")
        write_table(path, pa.table({"object_id": [1, 2, 3], "c": column}))
        back = read_table(path)
        assert back["object_id"].to_pylist() == [1, 2, 3]
        # Text has no null in VOTable: it is empty.
        values = [None if value == "" else value for value in back["c"].to_pylist()]
        assert values == expected(kind, suffix)


STATED = {
    "unit": "nJy",
    "description": "a long text: " + "flux of the bulge, " * 9 + "no more",
    "ucd": "phot.flux.density;em.opt.B",
}


@pytest.mark.parametrize("suffix", ["parquet", "ecsv", "fits", "vot"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_has_unit_description_and_ucd_of_every_kind(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    """As astropy reads them; structs are the one kind of Parquet that it cannot read."""
    path = str(tmp_path / f"out.{suffix}")
    schema = pa.schema([pa.field("object_id", pa.int64()), pa.field("c", KINDS[kind].type, metadata=STATED)])
    write_table(path, pa.table([[1, 2, 3], KINDS[kind]], schema=schema))
    if suffix == "parquet":
        assert pq.read_schema(path).field("c").metadata == schema.field("c").metadata
        if kind in ("struct", *WITH_NULL_TEXT):
            return
    if suffix == "fits":
        header = fits.getheader(path, 1)
        assert (header["TUNIT2"], header["TCOMM2"], header["TUCD2"]) == tuple(STATED.values())
    read = Table.read(path)
    column = read["c"]
    assert column.unit == "nJy"
    assert " ".join(column.description.split()) == STATED["description"]
    assert column.meta["ucd"] == STATED["ucd"]
    if suffix != "parquet":
        n_missing = int(np.ma.count_masked(np.ma.asarray(column))) if column.ndim == 1 else 0
        empty = int((np.asarray(column) == "").sum()) if column.dtype.kind in "US" else 0
        # Text has no null in FITS and VOTable.
        assert n_missing in ((KINDS[kind].null_count,) if not empty else (0, KINDS[kind].null_count))


WITH_NULL_TEXT = ("text", "large_string", "string_view", "dictionary", "binary")


@pytest.mark.parametrize("kind", KINDS)
def test_a_leaf_holds_every_kind(tmp_path: Path, kind: str) -> None:
    kept = read_kind(tmp_path / "a.parquet", kind)
    schema = leaf_schema([], id_type=pa.int64(), kept=kept.schema)
    own = [pa.array([1, 2, 3]), pa.array([1, 2, 3]), pa.array([0.0] * 3), pa.array([0.0] * 3)]
    write_parquet(str(tmp_path / "leaf.parquet"), pa.table([*own, kept["c"]], schema=schema))
    assert pq.read_table(tmp_path / "leaf.parquet")["c"].to_pylist() == kept["c"].to_pylist()


@pytest.mark.parametrize("kind", KINDS)
def test_rejected_rows_are_listed_beside_every_kind(tmp_path: Path, kind: str) -> None:
    columns = {"object_id": [1, 1, 3], "ra_deg": [1.0, 2.0, None], "dec_deg": [0.0] * 3, "c": KINDS[kind]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    config = ObjectsConfig(path=str(tmp_path / "a.parquet"), keep=("c",), invalid="drop")
    table, rejected, _ = read_objects(config)
    write_parquet(str(tmp_path / "rejected.parquet"), rejected)
    assert read_table(str(tmp_path / "rejected.parquet"))["reason"].to_pylist() == [
        "duplicate id",
        "position is not finite",
    ]
    assert table.kept["c"].to_pylist() == KINDS[kind].to_pylist()[:1]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_chosen_beside_and_by_every_kind(tmp_path: Path, kind: str) -> None:
    """Kept columns of every kind stay with the rows that `where` and `region` choose, and what `where` reads may be of any."""
    columns = {"object_id": [1, 2, 3], "ra_deg": [3.0, 2.0, 1.0], "dec_deg": [0.0] * 3, "c": KINDS[kind]}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=1)
    region = RegionConfig(box_deg=(1.5, 10, -1, 1))
    config = ObjectsConfig(path=str(path), where="object_id != 2", region=region, keep=("c",))
    table, _, counts = read_objects(config)
    assert (counts.n_listed, counts.n_in_region, counts.n_chosen) == (3, 2, 1)
    first = pa.chunked_array([table.kept["c"]]).to_pylist()
    assert first == KINDS[kind].slice(0, 1).to_pylist()
    for suffix in ("parquet", "csv", "fits", "vot"):
        write_table(str(tmp_path / f"b.{suffix}"), table.kept)
    by_kind = config.model_copy(update={"where": "c == c", "region": None})
    # Lists are not compared; of a column without a value none is known.
    is_known = kind not in ("list", "ragged_list", "fixed_list", "struct", "all_null", "all_null_float")
    refused = pytest.raises(UsageError, match=r"unlike kinds are compared|is true for none of its 3 rows")
    with contextlib.nullcontext() if is_known else refused:
        _, _, counts = read_objects(by_kind)
        assert counts.n_chosen == 3 - KINDS[kind].null_count
