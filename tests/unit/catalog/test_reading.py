from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import catalog
from galbatch.catalog import reading, scanning
from galbatch.core import sky
from galbatch.core.pixels import Partition
from galbatch.errors import CatalogError, UsageError

from .conftest import write_catalog


def test_all_rows_come_in_the_order_of_the_sky(finished: str, table: pa.Table) -> None:
    pd.testing.assert_frame_equal(catalog.read_catalog(finished).to_pandas(), table.to_pandas())


def test_a_message_lists_few_columns() -> None:
    assert catalog.listed_columns("a", ["x", "y"]) == "x, y"
    many = [f"column_{number}" for number in range(120)]
    with pytest.raises(
        CatalogError,
        match=r"^a: no column colunm_7; did you mean column_\d+\? there are 120, which galbatch columns a",
    ):
        catalog.require_columns("a", many, ["column_3", "colunm_7"])


def test_columns_come_as_asked(leaves: str, table: pa.Table) -> None:
    found = catalog.read_catalog(leaves, columns=["gampen_bt_q500", "object_id"])
    assert found.column_names == ["gampen_bt_q500", "object_id"]
    assert found["object_id"] == table["object_id"]


def test_what_is_not_there(leaves: str) -> None:
    with pytest.raises(
        CatalogError, match=r"no column gampen_bt_q50; did you mean gampen_bt_q500\? there are _healpix"
    ):
        catalog.read_catalog(leaves, columns=["gampen_bt_q50"])
    for read in (catalog.read_catalog, lambda path: catalog.cone(path, ra_deg=1, dec_deg=1, radius_arcsec=1)):
        with pytest.raises(CatalogError, match="no leaf of a catalog found"):
            read(f"{leaves}/none")


@pytest.mark.parametrize("radius_arcsec", [0.0, 10.0, 500.0, 3000.0, 1e5, 180 * 3600.0, 1e9])
def test_a_cone_holds_what_is_near_and_nothing_else(
    finished: str, table: pa.Table, radius_arcsec: float
) -> None:
    ra, dec = table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy()
    separation = sky.separation_arcsec(ra[100], dec[100], ra, dec)
    near = np.argsort(separation)[: (separation <= radius_arcsec).sum()]
    found = catalog.cone(finished, ra_deg=ra[100], dec_deg=dec[100], radius_arcsec=radius_arcsec)
    assert len(near) >= 1
    # The nearest come first.
    assert found["object_id"].to_pylist() == table["object_id"].to_numpy()[near].tolist()
    np.testing.assert_allclose(found["separation_arcsec"].to_numpy(), separation[near], atol=1e-9)
    assert found.schema.field("separation_arcsec").metadata[b"unit"] == b"arcsec"
    # Another turn of right ascension is the same place.
    assert catalog.cone(finished, ra_deg=ra[100] - 360, dec_deg=dec[100], radius_arcsec=1e-4).num_rows == 1


def test_an_empty_cone_still_has_columns(finished: str, table: pa.Table) -> None:
    found = catalog.cone(finished, ra_deg=10.0, dec_deg=-80.0, radius_arcsec=60.0)
    assert (len(found), found.column_names) == (0, [*table.column_names, "separation_arcsec"])


def test_a_cone_of_some_columns(finished: str, table: pa.Table) -> None:
    ra, dec = table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy()
    names = ["gampen_bt_q500", "object_id"]
    found = catalog.cone(finished, ra_deg=ra[3], dec_deg=dec[3], radius_arcsec=500, columns=names)
    assert found.column_names == [*names, "separation_arcsec"]
    assert found["object_id"][0].as_py() == table["object_id"][3].as_py()
    with pytest.raises(CatalogError, match=r"no column gampen_bt_q50; did you mean gampen_bt_q500\?"):
        catalog.cone(finished, ra_deg=1, dec_deg=1, radius_arcsec=1, columns=["gampen_bt_q50"])


def test_objects_are_read_with_all_columns_in_the_order_asked_for(finished: str, table: pa.Table) -> None:
    rows = [250, 3, 7, 100]
    found = catalog.read_objects(finished, [str(table["object_id"][row]) for row in rows])
    pd.testing.assert_frame_equal(found.to_pandas(), table.take(rows).to_pandas())
    with pytest.raises(UsageError, match="no object has the id 1;"):
        catalog.read_objects(finished, ["1"])


def test_only_leaves_near_the_cone_are_read(
    finished: str, partitions: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    open_leaf = scanning.open_leaf

    def record(path: str) -> AbstractContextManager[pq.ParquetFile]:
        read.append(path)
        return open_leaf(path)

    monkeypatch.setattr(scanning, "open_leaf", record)
    target = partitions[2]
    (ra,), (dec,) = sky.pixel_centers_deg(target.healpix_order, target.healpix_pixel)
    catalog.cone(finished, ra_deg=ra, dec_deg=dec, radius_arcsec=1.0)
    assert [Path(path).relative_to(finished).as_posix() for path in read] == [
        f"dataset/{target.path}.parquet"
    ]


@pytest.mark.parametrize(
    "bad", [{"ra_deg": np.nan}, {"dec_deg": 91.0}, {"dec_deg": np.nan}, {"radius_arcsec": -1.0}]
)
def test_a_cone_that_is_none(finished: str, bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected a finite right ascension"):
        catalog.cone(finished, **({"ra_deg": 1.0, "dec_deg": 1.0, "radius_arcsec": 1.0} | bad))


def test_objects_are_found_by_their_ids_in_the_order_asked_for(
    finished: str, table: pa.Table, partitions: list[Partition]
) -> None:
    ids = [table["object_id"][row].as_py() for row in (250, 3, 100)]
    found = catalog.find_objects(finished, [str(one) for one in [*ids, ids[0]]])
    assert [one.object_id for one in found] == ids
    for one in found:
        assert one.object_id in catalog.leaf_ids(finished, one.pixel)
        assert set(one.values) == {"_healpix_29", "object_id", "flags", "gampen_flags"}


def test_ids_that_are_not_there_are_all_named(finished: str, table: pa.Table) -> None:
    there = str(table["object_id"][0].as_py())
    with pytest.raises(UsageError, match=r"no object has the id -5, 99999999999; ids are those of"):
        catalog.find_objects(finished, ["-5", there, "99999999999"])
    with pytest.raises(
        UsageError, match=r"its ids are 64-bit integers, which excludes M31, 7.0, 9223372036854775808"
    ):
        catalog.find_objects(finished, ["M31", there, "7.0", str(2**63)])
    with pytest.raises(UsageError, match=r"which excludes .*0000"):
        catalog.find_objects(finished, ["1" + "0" * 5000])


def test_objects_are_found_by_names_in_kept_columns_of_text(
    tmp_path: Path, table: pa.Table, partitions: list[Partition]
) -> None:
    path, n_rows = str(tmp_path / "catalog"), len(table)
    names = [f"NGC {row}" if row % 50 else None for row in range(n_rows)]
    kinds = ["disk" if row % 2 else "NGC 401" if row == 2 else "" for row in range(n_rows)]
    named = table.add_column(4, "name", pa.array(names)).add_column(5, "kind", pa.array(kinds))
    write_catalog(path, named, partitions)
    ids = table["object_id"].to_pylist()
    asked = ["NGC 251", str(ids[3]), "NGC 401", "NGC 251"]
    assert [one.object_id for one in catalog.find_objects(path, asked)] == [ids[251], ids[3], ids[2]]
    assert catalog.read_objects(path, asked)["object_id"].to_pylist() == [ids[251], ids[3], ids[2]]
    with pytest.raises(
        UsageError, match=r"no object has M31, NGC 50 as its id, a 64-bit integer, or in .*\(name, kind\)"
    ):
        catalog.find_objects(path, ["NGC 50", "NGC 1", "M31"])
    with pytest.raises(UsageError, match=rf"disk is the name of 200 objects, such as {min(ids[1::2])}, "):
        catalog.read_objects(path, ["disk"])


def test_leaves_whose_footers_exclude_an_id_are_not_read(
    finished: str, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    read_leaf = reading.read_leaf

    def record(path: str, columns: list[str] | None = None) -> pa.Table:
        read.append(path)
        return read_leaf(path, columns=columns)

    monkeypatch.setattr(reading, "read_leaf", record)
    with pytest.raises(UsageError, match="no object"):
        catalog.find_objects(finished, [str(max(table["object_id"].to_pylist()) + 1)])
    assert read == []
