from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import hats
import lsdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_catalog

from galbatch import catalog, storage
from galbatch.catalog import finishing
from galbatch.core import sky
from galbatch.core.pixels import HealpixPixel, Partition
from galbatch.errors import CatalogError


def tree(path: str) -> list[str]:
    return sorted(p.relative_to(path).as_posix() for p in Path(path).rglob("*") if p.is_file())


def finish(path: str, partitions: list[Partition], n_rows: int = 400) -> int:
    return catalog.finish(
        path, partitions=partitions, properties={"obs_collection": "t"}, n_rows_expected=n_rows
    )


def test_what_is_written(finished: str, partitions: list[Partition]) -> None:
    assert tree(finished) == sorted(
        [
            "dataset/_common_metadata",
            "dataset/_metadata",
            "hats.properties",
            "partition_info.csv",
            "point_map.fits",
            "properties",
            "skymap.fits",
            *(f"dataset/{partition.path}.parquet" for partition in partitions),
            *(f"_checksums/{partition.path.replace('=', '_').lower()}.json" for partition in partitions),
        ]
    )
    assert not os.path.exists(f"{finished}/.staging")
    assert {name.split("/")[0] for name in tree(finished)} <= set(catalog.CATALOG_ENTRIES)


class Rows:
    """A sum of the footers' numbers of objects."""

    def __init__(self) -> None:
        self.n_objects = 0

    def add(self, footer: Mapping[str, str]) -> None:
        self.n_objects += int(footer["n_objects"])

    @property
    def properties(self) -> Mapping[str, str]:
        return {"galbatch_sum": str(self.n_objects)}


def test_footers_add_up_to_properties(finished: str, partitions: list[Partition]) -> None:
    catalog.finish(finished, partitions=partitions, properties={}, n_rows_expected=400, footers=Rows())
    assert catalog.read_properties(finished)["galbatch_sum"] == "400"


def test_hats_finds_it_strictly_valid(finished: str) -> None:
    assert is_valid_catalog(finished, strict=True)
    opened = hats.read_hats(finished)
    assert opened.catalog_info.total_rows == 400


def test_pandas_reads_columns_and_filters(finished: str, table: pa.Table) -> None:
    median = table["gampen_bt_q500"].to_numpy()
    frame = pd.read_parquet(
        f"{finished}/dataset",
        columns=["object_id", "gampen_bt_q500"],
        filters=[("gampen_bt_q500", "<", 0.25)],
    )
    assert set(frame["object_id"]) == set(table["object_id"].to_numpy()[median < 0.25])
    start, stop = HealpixPixel(8, int(table["_healpix_29"][200].as_py()) >> 42).index_range
    frame = pd.read_parquet(
        f"{finished}/dataset", filters=[("_healpix_29", ">=", start), ("_healpix_29", "<", stop)]
    )
    index = table["_healpix_29"].to_numpy()
    assert len(frame) == ((index >= start) & (index < stop)).sum() > 0


def test_lsdb_opens_it_and_searches_a_cone(finished: str, table: pa.Table) -> None:
    opened = lsdb.open_catalog(finished)
    assert len(opened) == 400
    inside = sky.separation_arcsec(150.0, 2.0, table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy()) < 1000
    found = opened.cone_search(ra=150.0, dec=2.0, radius_arcsec=1000).compute()
    assert sorted(found["object_id"]) == sorted(table["object_id"].to_numpy()[inside])
    assert inside.sum() > 3


def test_lsdb_crossmatches_it(finished: str) -> None:
    opened = lsdb.open_catalog(finished)
    with pytest.warns(RuntimeWarning, match="margin cache"):
        matched = opened.crossmatch(
            opened,
            radius_arcsec=0.01,
            suffixes=("_a", "_b"),
            suffix_method="all_columns",
            require_right_margin=False,
        )
    matched = matched.compute()
    assert len(matched) == 400
    assert (matched["object_id_a"] == matched["object_id_b"]).all()


def test_units_and_descriptions_are_in_the_common_metadata(finished: str) -> None:
    schema = pq.read_schema(f"{finished}/dataset/_common_metadata")
    flux = schema.field("gampen_flux_njy_q500").metadata
    assert (flux[b"unit"], flux[b"ucd"]) == (b"nJy", b"phot.flux;em.opt.V")
    assert flux[b"description"] == b"flux, median; NaN: see gampen_flags"
    assert b"<VOTABLE" in schema.metadata[b"IVOA.VOTable-Parquet.content"]
    # What is one leaf's own is not said of the catalog.
    assert not [key for key in schema.metadata if key.startswith(b"galbatch.")]


def test_metadata_names_every_leaf_in_the_order_of_the_sky(
    finished: str, partitions: list[Partition]
) -> None:
    metadata = pq.read_metadata(f"{finished}/dataset/_metadata")
    assert metadata.num_rows == 400
    paths = [metadata.row_group(i).column(0).file_path for i in range(metadata.num_row_groups)]
    assert paths == [f"{partition.path}.parquet" for partition in partitions]


def test_the_sky_map_counts_every_row_where_it_is(finished: str, table: pa.Table) -> None:
    opened = hats.read_hats(finished)
    counts = hats.io.skymap.read_skymap(opened, None)
    expected = np.bincount(sky.pixel_of(table["_healpix_29"].to_numpy(), 8), minlength=12 * 4**8)
    np.testing.assert_array_equal(counts, expected)


def test_leaves_finer_than_the_sky_map_are_counted(tmp_path: Path, table: pa.Table) -> None:
    (index,) = table["_healpix_29"].to_pylist()[:1]
    partition = Partition(10, index >> 38, 0, 1)
    path = str(tmp_path / "catalog")
    catalog.write_leaf(path, partition, table.slice(0, 1), footer={})
    assert finish(path, [partition], 1) == 1
    counts = hats.io.skymap.read_skymap(hats.read_hats(path), None)
    assert np.flatnonzero(counts).tolist() == [index >> 42]


def test_finishing_again_changes_only_the_date(finished: str, partitions: list[Partition]) -> None:
    def contents() -> dict[str, bytes]:
        return {
            name: Path(finished, name).read_bytes() for name in tree(finished) if "properties" not in name
        }

    def properties() -> dict[str, str]:
        found = catalog.read_properties(finished)
        return {key: value for key, value in found.items() if key != "hats_creation_date"}

    before, said = contents(), properties()
    catalog.finish(
        finished,
        partitions=partitions[::-1],
        properties={"obs_collection": "test", "galbatch_objects": "400"},
        n_rows_expected=400,
    )
    assert contents() == before
    assert properties() == said


def test_properties_come_back(finished: str) -> None:
    properties = catalog.read_properties(finished)
    assert properties["obs_collection"] == "test"
    assert properties["hats_nrows"] == "400"
    assert properties["galbatch_complete"] == "true"
    assert properties["hats_order"] == "6"
    assert properties["hats_col_healpix"] == "_healpix_29"


def test_partitions_that_failed_are_left_out_and_said(leaves: str, partitions: list[Partition]) -> None:
    failed = partitions[1]
    storage.remove(f"{leaves}/dataset/{failed.path}.parquet")
    assert finish(leaves, partitions, 400 - failed.n_objects) == 400 - failed.n_objects
    assert catalog.read_properties(leaves)["galbatch_complete"] == "false"
    assert catalog.verify(leaves) == []
    assert len(lsdb.open_catalog(leaves)) == 400 - failed.n_objects


def test_a_run_that_finds_its_objects_incomplete_may_say_so(leaves: str, partitions: list[Partition]) -> None:
    catalog.finish(
        leaves, partitions=partitions, properties={"galbatch_complete": "false"}, n_rows_expected=400
    )
    assert catalog.read_properties(leaves)["galbatch_complete"] == "false"


def test_with_many_row_groups_there_is_no_metadata_and_lsdb_opens_it(
    finished: str, partitions: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "MAX_ROW_GROUPS_WITH_METADATA", 2)
    finish(finished, partitions)
    assert not os.path.exists(f"{finished}/dataset/_metadata")
    assert len(lsdb.open_catalog(finished).compute()) == 400
    assert is_valid_catalog(finished, strict=True)
    assert catalog.verify(finished) == []


def test_nothing_to_finish(tmp_path: Path, partitions: list[Partition]) -> None:
    with pytest.raises(CatalogError, match="no leaf found, so there is no catalog to finish"):
        finish(str(tmp_path / "none"), partitions)


def test_leaves_of_another_division(leaves: str, partitions: list[Partition]) -> None:
    with pytest.raises(
        CatalogError, match="1 leaves do not belong to the partitions of this run, the first Norder=5"
    ):
        finish(leaves, [p for p in partitions if p != partitions[0]])


def test_another_number_of_rows_and_the_catalog_stays_shut(
    finished: str, partitions: list[Partition]
) -> None:
    with pytest.raises(CatalogError, match="its leaves hold 400 rows, expected 399"):
        finish(finished, partitions, 399)
    with pytest.raises(CatalogError, match=r"no hats\.properties: no catalog, or one that is not finished"):
        catalog.read_properties(finished)


def test_leaves_whose_schemas_differ(leaves: str, table: pa.Table, partitions: list[Partition]) -> None:
    last = partitions[-1]
    rows = table.slice(last.start, last.n_objects)
    at = rows.schema.get_field_index("gampen_flags")
    drifted = rows.set_column(at, pa.field("gampen_flags", pa.int64()), rows["gampen_flags"].cast(pa.int64()))
    catalog.write_leaf(leaves, last, drifted, footer={})
    with pytest.raises(
        CatalogError, match="column gampen_flags is int64, expected int32; remove the wrong one"
    ):
        finish(leaves, partitions)


def test_properties_come_last(
    leaves: str, partitions: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    publish = storage.publish

    def record(path: str, data: bytes, *, staging: str | None = None) -> None:
        written.append(path.removeprefix(f"{leaves}/"))
        publish(path, data, staging=staging)

    monkeypatch.setattr(storage, "publish", record)
    finish(leaves, partitions)
    assert written[-2:] == ["properties", "hats.properties"]
    assert len(written) == 7


def test_text_ids(tmp_path: Path, table: pa.Table, partitions: list[Partition]) -> None:
    ids = pa.array([f"obj-{i}" for i in range(len(table))])
    named = table.set_column(1, table.schema.field("object_id").with_type(pa.string()), ids)
    path = str(tmp_path / "catalog")
    for p in partitions:
        catalog.write_leaf(path, p, named.slice(p.start, p.n_objects), footer={})
    finish(path, partitions)
    assert catalog.verify(path) == []
    assert sorted(lsdb.open_catalog(path).compute()["object_id"]) == sorted(ids.to_pylist())


def test_on_s3(s3: str, table: pa.Table, partitions: list[Partition]) -> None:
    path = f"{s3}/catalog"
    for p in partitions:
        catalog.write_leaf(path, p, table.slice(p.start, p.n_objects), footer={"n_objects": str(p.n_objects)})
    assert finish(path, partitions) == 400
    assert catalog.list_leaves(path) == sorted(p.pixel for p in partitions)
    assert catalog.read_footer(path, partitions[0]) == {"n_objects": str(partitions[0].n_objects)}
    assert catalog.read_properties(path)["hats_nrows"] == "400"
    assert catalog.read_catalog(path, columns=["object_id"])["object_id"] == table["object_id"]
    assert len(catalog.cone(path, ra_deg=150, dec_deg=2, radius_arcsec=10_000)) == 400
    assert catalog.verify(path) == []


def test_few_leaves_are_in_memory_at_a_time(
    finished: str, partitions: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The footer of a leaf of 120 columns takes 460 kB: of 100,000 leaves they would take 46 GB."""
    alive, most = [], 0
    read = finishing._OpenedLeaf.read

    def counted(path: str, pixel: HealpixPixel) -> finishing._OpenedLeaf:
        nonlocal most
        opened = read(path, pixel)
        alive.append(weakref.ref(opened))
        most = max(most, sum(one() is not None for one in alive))
        return opened

    monkeypatch.setattr(finishing, "LEAF_THREADS", 1)
    monkeypatch.setattr(finishing._OpenedLeaf, "read", counted)
    finish(finished, partitions)
    assert len(alive) == len(partitions) > 4
    assert most <= 4


def test_footers_are_freed_without_a_search_for_circles(finished: str, partitions: list[Partition]) -> None:
    def n_footers() -> int:
        return sum(type(one) is pq.FileMetaData for one in gc.get_objects())

    finish(finished, partitions)
    gc.collect()
    before = n_footers()
    gc.disable()
    try:
        finish(finished, partitions)
        assert n_footers() == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("catalog_path", "store", "stated"),
    [
        ("{}/run/catalog", "{}/run/cutouts.zarr", "../cutouts.zarr"),
        ("{}/run/catalog", "{}/scratch/v2.zarr", "../../scratch/v2.zarr"),
        ("s3://bucket/run/catalog", "s3://bucket/cutouts.zarr", "../../cutouts.zarr"),
        ("s3://bucket/run/catalog", "s3://other/cutouts.zarr", "s3://other/cutouts.zarr"),
        ("s3://bucket/run/catalog", "/data/cutouts.zarr", "/data/cutouts.zarr"),
    ],
)
def test_the_store_is_stated_from_the_catalogs_folder(tmp_path, catalog_path, store, stated):
    paths = [path.format(tmp_path) for path in (catalog_path, store)]
    assert catalog.store_property(*paths) == {"galbatch_store": stated}


@pytest.mark.parametrize("stated", ["/data/cutouts.zarr", "s3://other/cutouts.zarr"])
def test_a_store_to_which_no_path_leads_is_read_as_it_is_stated(monkeypatch, stated):
    monkeypatch.setattr(finishing.storage, "exists", lambda path: True)
    monkeypatch.setattr(finishing.objects, "read_properties", lambda path: {"galbatch_store": stated})
    assert catalog.stated_store("s3://bucket/run/catalog") == stated


def test_a_stated_store_moves_with_the_catalog(tmp_path):
    folder = tmp_path / "moved" / "catalog"
    folder.mkdir(parents=True)
    assert catalog.stated_store(str(folder)) is None
    (folder / "hats.properties").write_text("a=b\ngalbatch_store=../v=2.zarr\n", encoding="utf-8")
    assert catalog.stated_store(str(folder)) == str(tmp_path / "moved" / "v=2.zarr")


def test_ranges_of_training_are_read_as_they_are_written():
    ranges = {"bt": (0.0, 1.0), "mag": (14.123456789, 23.0)}
    written = catalog.trained_property("gampen", ranges)
    assert written == {"galbatch_trained_gampen": "bt 0 1, mag 14.1234568 23"}
    assert catalog.trained_ranges(written, "gampen")["mag"] == pytest.approx((14.1234568, 23.0))
    assert catalog.trained_ranges(written, "sfnet") == {}
    # Of a merged catalog whose networks of one name differ.
    assert catalog.trained_ranges({"galbatch_trained_gampen": "bt 0 1 | bt 0 2"}, "gampen") == {}
    assert catalog.trained_property("gampen", {}) == {}
