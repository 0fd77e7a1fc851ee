from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import catalog
from galbatch.catalog import scanning
from galbatch.core import sky
from galbatch.core.pixels import HealpixPixel
from galbatch.errors import DamagedError

LEAVES = [HealpixPixel(2, 100), HealpixPixel(2, 101)]


@dataclass(frozen=True)
class Above:
    """Rows whose value is above a number."""

    number: float
    columns: tuple[str, ...] = ("value",)

    def may_hold(self, limits: catalog.RowLimits) -> bool:
        return "value" not in limits or limits["value"][1] > self.number

    def holds(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        return rows.column("value").to_numpy() > self.number


@pytest.fixture
def grouped(tmp_path: Path) -> str:
    """A catalog of two leaves of 40 rows, in row groups of 10; the column ``value`` counts them."""
    for number, leaf in enumerate(LEAVES):
        start, stop = leaf.index_range
        index = np.linspace(start, stop - 1, 40).astype(np.int64)
        ra, dec = sky.pixel_centers_deg(29, index)
        value = np.arange(40.0) + 40 * number
        table = pa.table(
            {"_healpix_29": index, "ra_deg": ra, "dec_deg": dec, "value": value, "other": -value}
        )
        path = tmp_path / "dataset" / f"{leaf.path}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=10)
    return str(tmp_path)


@pytest.fixture
def read_groups(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[int, tuple[str, ...]]]]:
    """The row groups that were read since the last call, with their columns, sorted."""
    read = []
    read_row_group = pq.ParquetFile.read_row_group

    def record(self: pq.ParquetFile, i: int, columns: list[str], *, use_threads: bool) -> pa.Table:
        read.append((i, tuple(columns)))
        return read_row_group(self, i, columns=columns, use_threads=use_threads)

    def since() -> list[tuple[int, tuple[str, ...]]]:
        found = sorted(read)
        read.clear()
        return found

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", record)
    return since


def test_only_row_groups_are_read_that_may_have_a_row(
    grouped: str, read_groups: Callable[[], list[tuple[int, tuple[str, ...]]]]
) -> None:
    found = pa.concat_tables(catalog.scan(grouped, LEAVES, [Above(65.0)], columns=["other", "value"]))
    assert found.column_names == ["other", "value"]
    assert found["other"].to_pylist() == [-one for one in range(66, 80)]
    # The third and fourth row group of the second leaf; other columns come after those of the conditions.
    assert read_groups() == [(2, ("other",)), (2, ("value",)), (3, ("other",)), (3, ("value",))]


def test_other_columns_are_read_only_where_a_row_remains(
    grouped: str, read_groups: Callable[[], list[tuple[int, tuple[str, ...]]]]
) -> None:
    ra, dec = (ends[0] for ends in sky.pixel_centers_deg(29, np.array([LEAVES[0].index_range[0]])))
    near = catalog.Cone(ra, dec, 1.0)
    assert [len(rows) for rows in catalog.scan(grouped, LEAVES, [near], columns=["other"])] == [1]
    assert read_groups() == [(0, ("other",)), (0, ("ra_deg", "dec_deg"))]
    # No row is both near and above.
    both = [near, Above(5.0)]
    assert [len(rows) for rows in catalog.scan(grouped, LEAVES, both, columns=["other"])] == [0]
    assert read_groups() == [(0, ("ra_deg", "dec_deg", "value"))]


def test_leaves_on_a_disk_are_read_by_as_many_threads_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n_hardware_threads, expected in ((None, 1), (1, 1), (12, 6), (256, 16)):
        monkeypatch.setattr("os.cpu_count", lambda n=n_hardware_threads: n)
        assert scanning.leaves_at_once("a/catalog") == expected
        assert scanning.leaves_at_once("s3://bucket/catalog") == 16


def test_row_groups_whose_text_excludes_the_values_are_not_read() -> None:
    condition = scanning.HasText(["a", "b"], ["m", "c"])
    assert not condition.may_hold({"a": ("d", "l"), "b": ("n", "z")})
    assert condition.may_hold({"a": ("d", "m"), "b": ("n", "z")})
    assert condition.may_hold({"a": ("d", "l")})
    rows = pa.table({"a": ["m", "x", None], "b": pa.array(["x", None, "c"], pa.large_string())})
    assert condition.holds(rows).tolist() == [True, False, True]


def test_without_conditions_all_rows_come_in_order(grouped: str) -> None:
    found = pa.concat_tables(catalog.scan(grouped, LEAVES, columns=["value"]))
    assert found["value"].to_pylist() == list(range(80))


def test_a_leaf_that_is_cut_short_is_named(grouped: str) -> None:
    path = Path(grouped) / "dataset" / f"{LEAVES[1].path}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedError, match=r"Npix=101.parquet: cannot be read as Parquet"):
        list(catalog.scan(grouped, LEAVES, [Above(65.0)]))
