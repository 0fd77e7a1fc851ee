from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import parse as parse_votable

from galbatch import catalog
from galbatch.catalog import checksum_path
from galbatch.core.columns import Column
from galbatch.core.pixels import Partition
from galbatch.errors import CatalogError, ConfigError, DamagedError, OutputError


@pytest.fixture
def partition(partitions: list[Partition]) -> Partition:
    return max(partitions, key=lambda p: p.n_objects)


@pytest.fixture
def rows(table: pa.Table, partition: Partition) -> pa.Table:
    return table.slice(partition.start, partition.n_objects)


def files(path: Path) -> list[str]:
    return [name for _, _, names in os.walk(path) for name in names]


# --- schema ----------------------------------------------------------------------------------------------


def test_the_schema_begins_with_index_id_and_position(table: pa.Table) -> None:
    assert table.schema.names[:6] == ["_healpix_29", "object_id", "ra_deg", "dec_deg", "z_best", "flags"]
    assert table.schema.field("ra_deg").metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    # What Parquet notes of its own is not the column's.
    assert table.schema.field("z_best").metadata == {b"description": b"redshift"}


@pytest.mark.parametrize("name", ["z_best", "object_id", "Npix"])
def test_a_name_stands_once(name: str) -> None:
    kept = pa.schema([pa.field("z_best", pa.float64())])
    with pytest.raises(ConfigError, match=f"catalog columns {name}: the name is taken"):
        catalog.leaf_schema([Column(name, "float32", "", "")], id_type=pa.int64(), kept=kept)


def test_the_votable_in_the_footer_describes_every_column(
    leaves: str, partition: Partition, table: pa.Table
) -> None:
    metadata = pq.read_metadata(f"{leaves}/dataset/{partition.path}.parquet").metadata
    assert metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    document = parse_votable(io.BytesIO(metadata[b"IVOA.VOTable-Parquet.content"]), verify="exception")
    fields = {field.name: field for field in document.get_first_table().fields}
    assert list(fields) == table.schema.names
    flux = fields["gampen_flux_njy_q500"]
    assert (flux.datatype, str(flux.unit), flux.ucd) == ("float", "nJy", "phot.flux;em.opt.V")
    assert (fields["object_id"].datatype, fields["flags"].datatype) == ("long", "int")
    assert str(fields["ra_deg"].unit) == "deg"


def test_text_lists_and_dates_have_their_place_in_the_votable(tmp_path: Path) -> None:
    kept = pa.schema([("name", pa.string()), ("when", pa.timestamp("s")), ("ok", pa.bool_())])
    schema = catalog.leaf_schema([], id_type=pa.string(), kept=kept)
    index = 1 << 50
    table = pa.table([[index], ["a"], [45.0], [10.0], ["x"], [pd.Timestamp(0)], [True]], schema=schema)
    partition = Partition(0, index >> 58, 0, 1)
    catalog.write_leaf(str(tmp_path), partition, table, footer={})
    metadata = pq.read_metadata(tmp_path / f"dataset/{partition.path}.parquet").metadata
    document = parse_votable(io.BytesIO(metadata[b"IVOA.VOTable-Parquet.content"]), verify="exception")
    kinds = [(field.name, field.datatype) for field in document.get_first_table().fields][3:]
    # VOTable has no dates: astropy could not join what stands in their place with the column.
    assert kinds == [("dec_deg", "double"), ("name", "unicodeChar"), ("ok", "boolean")]


# --- what is written -------------------------------------------------------------------------------------


def test_a_leaf_comes_back_as_it_was_given(leaves: str, partition: Partition, rows: pa.Table) -> None:
    back = pq.ParquetFile(f"{leaves}/dataset/{partition.path}.parquet").read()
    pd.testing.assert_frame_equal(back.to_pandas(), rows.to_pandas())
    assert back.schema.field("gampen_bt_q500").type == pa.float32()
    assert catalog.read_footer(leaves, partition)["n_objects"] == str(partition.n_objects)


def test_leaves_are_listed_and_absent_ones_have_no_footer(leaves: str, partitions: list[Partition]) -> None:
    expected = sorted(p.pixel for p in partitions)
    assert catalog.list_leaves(leaves) == expected
    assert catalog.list_leaves(f"{leaves}/none") == []
    assert catalog.read_footer(leaves, Partition(9, 1, 0, 1)) is None


def test_a_leaf_that_is_no_parquet(leaves: str, partition: Partition) -> None:
    path = Path(leaves, "dataset", f"{partition.path}.parquet")
    n_bytes = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedError, match=r"cannot be read as Parquet .*; galbatch run makes it again"):
        catalog.read_footer(leaves, partition)
    with pytest.raises(DamagedError, match=f"holds {n_bytes - 20} bytes, {n_bytes} were written"):
        catalog.read_catalog(leaves)
    Path(checksum_path(str(path))).unlink()
    with pytest.raises(DamagedError, match="cannot be read as Parquet"):
        catalog.read_catalog(leaves)


def test_the_same_leaf_has_the_same_bytes(tmp_path: Path, partition: Partition, rows: pa.Table) -> None:
    for name in ("a", "b"):
        catalog.write_leaf(str(tmp_path / name), partition, rows, footer={"k": "v"})
    path = f"dataset/{partition.path}.parquet"
    assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


# --- what is refused -------------------------------------------------------------------------------------


def test_tables_that_are_not_the_partitions(tmp_path: Path, partition: Partition, rows: pa.Table) -> None:
    healpix = rows["_healpix_29"].to_numpy().copy()
    healpix[3] += 4**29
    swapped = np.arange(len(rows))
    swapped[[4, 5]] = [5, 4]
    bad: dict[str, Any] = {
        f"{len(rows) - 1} rows, expected the partition's {len(rows)} objects": rows.slice(1),
        "row 5 is not in the order of _healpix_29": rows.take(pa.array(swapped)),
        "is not in the order of": rows.set_column(0, rows.schema.field(0), pa.array(healpix)),
        "a leaf begins with _healpix_29 int64": rows.select(rows.schema.names[1:]),
        "found _healpix_29 int64, object_id double": rows.set_column(
            1, "object_id", rows["object_id"].cast(pa.float64(), safe=False)
        ),
    }
    for message, table in bad.items():
        with pytest.raises(CatalogError, match=f"{partition.name}: .*{message}"):
            catalog.write_leaf(str(tmp_path), partition, table, footer={})
    assert files(tmp_path) == []


def test_rows_outside_the_pixel(tmp_path: Path, partition: Partition, rows: pa.Table) -> None:
    other = Partition(partition.healpix_order, partition.healpix_pixel + 1, 0, len(rows))
    with pytest.raises(CatalogError, match=f"{len(rows)} rows lie outside the pixel, first row 0"):
        catalog.write_leaf(str(tmp_path), other, rows, footer={})
    assert files(tmp_path) == []


# --- commit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError, OSError])
def test_an_exception_while_encoding_leaves_nothing(
    tmp_path: Path,
    partition: Partition,
    rows: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
    fault: type[BaseException],
) -> None:
    write = pq.ParquetWriter.write_table

    def write_then_fail(self: pq.ParquetWriter, table: pa.Table, *arguments: Any, **keywords: Any) -> None:
        # Half of the rows are in the file, and closing the writer makes it a valid one.
        write(self, table.slice(0, len(table) // 2), *arguments, **keywords)
        raise fault("in the middle")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_then_fail)
    with pytest.raises(fault):
        catalog.write_leaf(str(tmp_path), partition, rows, footer={})
    assert files(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, partition: Partition, rows: pa.Table, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fault(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fault)
    with pytest.raises(OutputError, match=r"Npix=\d+.parquet: no space left; free some and run again"):
        catalog.write_leaf(str(tmp_path), partition, rows, footer={})
    assert files(tmp_path) == []


def test_a_leaf_on_its_way_lies_outside_dataset(
    tmp_path: Path, partition: Partition, rows: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    replace = os.replace

    def look(source: str, target: str) -> None:
        seen.append(Path(source).relative_to(tmp_path).parts[0])
        if ".staging" in str(source):
            assert files(tmp_path / "dataset") == []
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    catalog.write_leaf(str(tmp_path), partition, rows, footer={})
    # The checksum comes after the leaf.
    assert seen == [".staging", "_checksums"]
    assert files(tmp_path / "dataset") == [f"Npix={partition.healpix_pixel}.parquet"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
def test_a_leaf_is_read_without_threads_of_pyarrow(
    tmp_path: Path, rows: pa.Table, partition: Partition
) -> None:
    """They would let go of Python's bytes after the read has returned, and abort a program that ends just then."""
    catalog.write_leaf(str(tmp_path / "catalog"), partition, rows, footer={})
    path = catalog.leaf_path(str(tmp_path / "catalog"), partition.pixel)
    program = f"""
from pathlib import Path
from galbatch import catalog
from galbatch.catalog.leaves import read_leaf
def n_threads():
    # pyarrow's allocator has a thread of its own, which never sees Python's objects.
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum(not name.startswith("jemalloc") for name in names)
catalog.read_schema({str(tmp_path / "catalog")!r})
before = n_threads()
whole = read_leaf({path!r})
part = read_leaf({path!r}, columns=whole.column_names[:3])
print(whole.num_rows, part.num_columns, n_threads() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.split() == [str(partition.n_objects), "3", "0"]
