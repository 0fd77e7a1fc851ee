"""Every corruption that verify says it finds is made here, and found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import catalog
from galbatch.catalog import checksum_path
from galbatch.core.pixels import Partition


@pytest.fixture
def leaf(finished: str, partitions: list[Partition]) -> Path:
    """File of the fullest leaf."""
    fullest = max(partitions, key=lambda p: p.n_objects)
    return Path(finished, "dataset", f"{fullest.path}.parquet")


def rewrite(
    leaf: Path,
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
    footer: dict[bytes, bytes] | None = None,
) -> None:
    """Rewrite a leaf with other rows or footer entries, as some other program might; its checksum goes."""
    Path(checksum_path(str(leaf))).unlink(missing_ok=True)
    table = pq.ParquetFile(leaf).read()
    metadata = {**(table.schema.metadata or {}), **(footer or {})}
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(metadata), leaf)


def put(table: pa.Table, name: str, row: int, value: float) -> pa.Table:
    """The table with one value changed; NaN is written as null."""
    values = table[name].to_numpy().copy()
    values[row] = value
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, from_pandas=True))


def refinish(path: str, partitions: list[Partition], n_rows: int) -> None:
    """Metadata made again, so that only the content can be wrong."""
    catalog.finish(path, partitions=partitions, properties={}, n_rows_expected=n_rows)


def said(path: str) -> str:
    problems = catalog.verify(path)
    assert all(problem.startswith(f"{path}: ") for problem in problems)
    return "\n".join(problems)


def test_a_good_catalog_has_no_problems(finished: str) -> None:
    assert catalog.verify(finished) == []


def test_rewriting_alone_is_no_problem(finished: str, leaf: Path) -> None:
    rewrite(leaf)
    assert catalog.verify(finished) == []


def test_no_catalog(tmp_path: Path) -> None:
    assert catalog.verify(str(tmp_path / "none")) == [f"{tmp_path}/none: no leaf of a catalog found"]


def test_not_finished(leaves: str) -> None:
    assert "hats' strict validation fails: properties file does not exist" in said(leaves)


def test_an_unsorted_leaf(finished: str, leaf: Path) -> None:
    order = np.arange(pq.read_metadata(leaf).num_rows)
    order[[2, 3]] = [3, 2]
    rewrite(leaf, lambda table: table.take(pa.array(order)))
    assert "row 3 is not in the order of _healpix_29" in said(finished)


def test_a_row_outside_its_pixel(finished: str, leaf: Path, table: pa.Table) -> None:
    rewrite(leaf, lambda rows: put(rows, "_healpix_29", -1, 11 * 4**29))
    assert "1 rows lie outside the pixel, first row" in said(finished)


def test_an_index_that_is_not_that_of_the_position(finished: str, leaf: Path) -> None:
    rewrite(leaf, lambda table: put(table, "ra_deg", 4, table["ra_deg"][4].as_py() + 1e-3))
    assert "1 rows have a _healpix_29 that does not match their position, first row 4" in said(finished)


def test_an_id_in_two_leaves(finished: str, leaf: Path, partitions: list[Partition], table: pa.Table) -> None:
    (other,) = [p for p in partitions if p.start == 0]
    twin = table["object_id"][other.start].as_py()
    rewrite(leaf, lambda rows: put(rows, "object_id", 0, twin))
    refinish(finished, partitions, 400)
    assert catalog.verify(finished) == [f"{finished}: 1 object ids occur more than once, the first {twin}"]


def test_a_missing_leaf(finished: str, leaf: Path) -> None:
    leaf.unlink()
    problems = said(finished)
    assert (
        f"1 leaves are missing, the first {leaf.parts[-3]}/{leaf.stem}; galbatch run does them again"
        in problems
    )
    assert "rows, the properties say 400" in problems


def test_a_leaf_too_many(finished: str, leaf: Path) -> None:
    stranger = leaf.parents[2] / "Norder=7" / "Dir=0" / "Npix=1.parquet"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(leaf.read_bytes())
    assert "1 leaves are not in partition_info.csv, the first Norder=7/Npix=1" in said(finished)


def test_a_leaf_inside_another(
    finished: str, leaf: Path, partitions: list[Partition], table: pa.Table
) -> None:
    outer = next(p for p in partitions if p.healpix_order == 5 and p.n_objects > 1)
    index = table["_healpix_29"][outer.start].as_py()
    inner = Partition(8, index >> 42, outer.start, outer.start + 1)
    catalog.write_leaf(finished, inner, table.slice(outer.start, 1), footer={})
    refinish(finished, [*partitions, inner], 401)
    assert f"leaf {inner.name} lies inside leaf {outer.name}" in said(finished)


def test_a_changed_row_count(finished: str, leaf: Path) -> None:
    n_rows = pq.read_metadata(leaf).num_rows
    rewrite(leaf, lambda table: table.slice(1))
    problems = said(finished)
    assert f"{n_rows - 1} rows, its footer says {n_rows}" in problems
    assert "its leaves hold 399 rows, the properties say 400" in problems


def test_a_catalog_that_says_it_is_complete_and_is_not(leaves: str, partitions: list[Partition]) -> None:
    catalog.finish(leaves, partitions=partitions, properties={"galbatch_objects": "401"}, n_rows_expected=400)
    assert catalog.verify(leaves) == [
        f"{leaves}: its properties say it is complete, but it has 400 of 401 objects"
    ]


def fingerprint(**parts: str) -> dict[bytes, bytes]:
    common = {"INFER_VERSION": "1", "posterior": "64 passes", "objects": "mine"}
    return {b"galbatch.fingerprint": json.dumps({"digest": "x", "parts": common | parts}).encode()}


@pytest.mark.parametrize(
    ("footer", "differing"),
    [
        (fingerprint(posterior="32 passes"), "posterior differ"),
        (fingerprint(INFER_VERSION="2", planes="image"), "INFER_VERSION, planes differ"),
        ({b"galbatch.bundles": b'{"gampen": "9c07"}'}, "bundles differ"),
        ({b"galbatch.fingerprint": b"torn"}, "INFER_VERSION, fingerprint, posterior differ"),
    ],
)
def test_mixed_runs(finished: str, leaf: Path, footer: dict[bytes, bytes], differing: str) -> None:
    rewrite(leaf, footer=footer)
    assert f"come from different runs: {differing}" in said(finished)


def test_a_leafs_own_parts_may_differ(finished: str, leaf: Path) -> None:
    rewrite(leaf, footer=fingerprint(objects="others", tiles="others", division="another"))
    assert catalog.verify(finished) == []


def test_quantiles_that_fall(finished: str, leaf: Path) -> None:
    rewrite(leaf, lambda table: put(table, "gampen_bt_q84135", 6, 0.0))
    assert "1 rows have quantiles of gampen_bt that decrease with their level, first row 6" in said(finished)


@pytest.mark.parametrize("name", ["gampen_bt_q500", "gampen_bt_q15865", "gampen_flux_njy_q500"])
def test_a_missing_value_without_a_flag(finished: str, leaf: Path, name: str) -> None:
    rewrite(leaf, lambda table: put(table, name, 6, np.nan))
    parameter = name.rpartition("_")[0]
    assert f"1 rows have no value of {parameter} and no flag that says why, first row 6" in said(finished)


def test_a_missing_value_with_a_flag_is_no_problem(finished: str, leaf: Path) -> None:
    rewrite(leaf, lambda table: put(put(table, "gampen_bt_q500", 6, np.nan), "gampen_flags", 6, 4))
    assert catalog.verify(finished) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns("z_best"), "its schema is not the catalog's: columns z_best"),
        (lambda t: t.select([*t.column_names[:4], *t.column_names[:3:-1]]), "columns in another order"),
        (
            lambda t: t.cast(t.schema.set(5, t.schema.field(5).with_type(pa.int64()))),
            "column flags is int64, expected int32",
        ),
        (
            lambda t: t.cast(t.schema.set(9, t.schema.field(9).with_metadata({"unit": "Jy"}))),
            "column gampen_flux_njy_q500 has another unit, description or ucd",
        ),
    ],
)
def test_another_schema(
    finished: str, leaf: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    rewrite(leaf, change)
    assert message in said(finished)


def test_a_torn_leaf(finished: str, leaf: Path) -> None:
    n_bytes = leaf.stat().st_size
    leaf.write_bytes(leaf.read_bytes()[:1000])
    assert f"{leaf.name}: holds 1000 bytes, {n_bytes} were written; galbatch run makes it again" in said(
        finished
    )
    Path(checksum_path(str(leaf))).unlink()
    assert "cannot be read as Parquet" in said(finished)


def test_a_leaf_with_a_damaged_page(finished: str, leaf: Path) -> None:
    damaged = bytearray(leaf.read_bytes())
    damaged[4:200] = bytes(196)
    leaf.write_bytes(damaged)
    assert f"leaf {leaf.parts[-3]}/{leaf.stem}: " in said(finished)


def test_a_stray_file(finished: str) -> None:
    Path(finished, "dataset", ".x.tmp").write_bytes(b"")
    assert "1 files below dataset/ do not belong to the catalog, the first .x.tmp; remove them" in said(
        finished
    )


@pytest.mark.parametrize(
    "name", ["dataset/_common_metadata", "dataset/_metadata", "partition_info.csv", "hats.properties"]
)
def test_torn_metadata(finished: str, name: str) -> None:
    Path(finished, name).write_bytes(b"torn")
    if name == "hats.properties":
        Path(finished, "properties").write_bytes(b"torn")
    assert catalog.verify(finished) != []


def test_stale_metadata(finished: str, partitions: list[Partition]) -> None:
    path = Path(finished, "dataset", "_metadata")
    groups = pq.read_metadata(path)
    pq.write_metadata(pq.read_schema(path), path, metadata_collector=None)
    assert groups.num_rows == 400
    assert "Partition pixels differ" in said(finished)


def test_the_logger_is_left_as_it_was(finished: str) -> None:
    import logging

    before = list(logging.getLogger().handlers)
    catalog.verify(finished)
    assert logging.getLogger().handlers == before
