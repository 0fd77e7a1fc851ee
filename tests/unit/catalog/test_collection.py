"""The collection beside a catalog, as LSDB's tutorials use it, and what tells that it is stale."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import astropy.units as u
import hats
import lsdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from hats.io.validation import is_valid_collection
from mocpy import MOC

import galbatch
from galbatch import catalog, cluster, storage
from galbatch.catalog.collection import index as index_module
from galbatch.core import sky
from galbatch.errors import CatalogError, DamagedError, UsageError

from .conftest import N_OBJECTS, divide, make_table, write_catalog

RADIUS_ARCSEC = 10.0
MEDIANS = ["gampen_bt_q500", "gampen_flux_njy_q500"]

pytestmark = [
    # LSDB's own: progress bars, and pandas' and nested-pandas' novelties.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*margin cache.*:RuntimeWarning"),
]


def finish(path: str, table: pa.Table, order: int) -> str:
    partitions = divide(table, order)
    write_catalog(path, table, partitions)
    catalog.finish(path, partitions=partitions, properties={}, n_rows_expected=len(table))
    return path


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """400 objects in 3 arcmin, so that 3 % of them are within 1 arcsec of a border."""
    return make_table(half_width_deg=0.025)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> str:
    """A catalog with pixels of orders 10 and 11, 3.4 and 1.7 arcmin wide, and its collection."""
    path = finish(str(tmp_path_factory.mktemp("made") / "catalog"), rows, order=10)
    with cluster.threads(2) as client:
        name, n_rows = catalog.make_margin(path, radius_arcsec=RADIUS_ARCSEC, client=client)
    assert name == "margin_10arcsec"
    assert n_rows > 0
    assert catalog.make_index(path) == N_OBJECTS
    return path


@pytest.fixture(scope="module")
def other(rows: pa.Table) -> Any:
    """The same objects 1 arcsec to the north, as another catalog in one partition, which has no border."""
    frame = pd.DataFrame({"other_id": rows["object_id"].to_numpy(), "ra": rows["ra_deg"].to_numpy()})
    frame["dec"] = rows["dec_deg"].to_numpy() + 1 / 3600
    found = lsdb.from_dataframe(frame, catalog_name="other", margin_threshold=None, lowest_order=5)
    assert found.npartitions == 1
    return found


def matched(left: Any, right: Any) -> int:
    """The number of objects that are matched with themselves within 2 arcsec."""
    found = left.crossmatch(
        right,
        radius_arcsec=2,
        suffixes=("_l", "_r"),
        suffix_method="overlapping_columns",
        require_right_margin=False,
    ).compute()
    return int((found["object_id"] == found["other_id"]).sum())


def test_the_collection_is_valid_and_points_to_the_catalog(made: str) -> None:
    path = catalog.collection_path(made)
    assert path == f"{made}_collection"
    assert is_valid_collection(path, strict=True)
    opened = hats.read_hats(path)
    assert opened.main_catalog_dir.resolve() == Path(made)
    assert (opened.default_margin, opened.all_indexes) == (
        "margin_10arcsec",
        {"object_id": "object_id_index"},
    )
    assert opened.get_margin_thresholds() == {"margin_10arcsec": RADIUS_ARCSEC}
    assert catalog.verify(made) == []


def test_both_can_be_moved_together(made: str, tmp_path: Path) -> None:
    for path in (made, catalog.collection_path(made)):
        shutil.copytree(path, tmp_path / Path(path).name)
    assert is_valid_collection(tmp_path / "catalog_collection", strict=True)
    for written in (tmp_path / "catalog_collection").rglob("*properties"):
        assert made not in written.read_text()


def test_the_margin_holds_all_objects_near_a_partition(made: str, rows: pa.Table) -> None:
    """Checked with astropy: an object that is within the radius of one in another leaf is in that leaf's margin."""
    margin = hats.read_hats(f"{catalog.collection_path(made)}/margin_10arcsec")
    places = SkyCoord(rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy(), unit=u.deg)
    index, ids = rows["_healpix_29"].to_numpy(), rows["object_id"].to_numpy()
    n_pairs = 0
    for leaf in catalog.list_leaves(made):
        own = (index >= leaf.index_range[0]) & (index < leaf.index_range[1])
        nearest_arcsec = places[~own].match_to_catalog_sky(places[own])[1].arcsec
        near = set(ids[~own][nearest_arcsec < RADIUS_ARCSEC].tolist())
        n_pairs += len(near)
        there = Path(str(margin.catalog_base_dir), "dataset", leaf.path + ".parquet")
        held = set(pq.read_table(there)["object_id"].to_pylist()) if there.exists() else set()
        assert near <= held
        assert not held & set(ids[own].tolist())
    assert n_pairs > 50


def test_a_crossmatch_loses_no_pair_on_either_side(made: str, other: Any, rows: pa.Table) -> None:
    opened = lsdb.open_catalog(catalog.collection_path(made))
    here, there = (
        SkyCoord(table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy() + north, unit=u.deg)
        for table, north in ((rows, 0), (rows, 1 / 3600))
    )
    # For some the nearest is another object, which astropy tells.
    own = np.arange(N_OBJECTS)
    assert matched(opened, other) == (here.match_to_catalog_sky(there)[0] == own).sum()
    expected = (there.match_to_catalog_sky(here)[0] == own).sum()
    assert expected > 350
    assert matched(other, opened) == expected
    # Without the margin pairs across borders are lost.
    assert matched(other, lsdb.open_catalog(made)) < expected - 3


def test_ids_are_found(made: str, rows: pa.Table) -> None:
    opened = lsdb.open_catalog(catalog.collection_path(made))
    ids = rows["object_id"].to_pylist()[::100]
    found = opened.id_search(values={"object_id": ids})
    assert 0 < found.npartitions < opened.npartitions
    assert sorted(found.compute()["object_id"]) == sorted(ids)


def test_default_columns_are_few(made: str) -> None:
    few = ["object_id", "ra_deg", "dec_deg", "flags", *MEDIANS, "gampen_flags"]
    for path in (made, catalog.collection_path(made)):
        opened = lsdb.open_catalog(path)
        assert list(opened.columns) == few
        assert "gampen_bt_q15865" in lsdb.open_catalog(path, columns="all").columns
    assert list(opened.margin.columns) == few


@pytest.mark.slow
def test_the_steps_of_the_tutorials(made: str, rows: pa.Table, tmp_path: Path) -> None:
    """Searches, queries, functions on partitions, writing: the notebooks of LSDB's documentation, on our catalog."""
    opened = lsdb.open_catalog(catalog.collection_path(made))
    ra, dec = rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy()
    inside = sky.separation_arcsec(150.0, 2.0, ra, dec) <= 30
    assert len(opened.cone_search(ra=150.0, dec=2.0, radius_arcsec=30).compute()) == inside.sum() > 3
    box = (ra >= 149.99) & (ra <= 150.01) & (dec >= 1.99) & (dec <= 2.01)
    assert len(opened.box_search(ra=(149.99, 150.01), dec=(1.99, 2.01)).compute()) == box.sum() > 3
    cone = lsdb.ConeSearch(ra=150.0, dec=2.0, radius_arcsec=30)
    assert len(lsdb.open_catalog(made, search_filter=cone, columns=["object_id"]).compute()) == inside.sum()
    bt = rows["gampen_bt_q500"].to_numpy()
    assert len(opened.query("gampen_bt_q500 > 0.5").compute()) == (bt > 0.5).sum() > 0
    filtered = lsdb.open_catalog(made, filters=[("gampen_bt_q500", ">", 0.5)]).compute()
    assert len(filtered) == (bt > 0.5).sum()
    assert len(opened.head(7)) == 7
    assert list(opened[["object_id", "gampen_bt_q500"]].head(1).columns) == ["object_id", "gampen_bt_q500"]
    lengths = opened.map_partitions(lambda frame: pd.DataFrame({"n": [len(frame)]})).compute()
    assert lengths["n"].sum() == N_OBJECTS
    assert len(opened.random_sample(5, seed=1)) == 5
    assert (opened.per_partition_statistics(include_columns=["object_id"]).shape[0]) == opened.npartitions
    opened.write_catalog(tmp_path / "written", catalog_name="written")
    assert len(lsdb.open_catalog(tmp_path / "written").compute()) == N_OBJECTS


@pytest.mark.slow
def test_coverage_is_plotted(made: str) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    opened = lsdb.open_catalog(catalog.collection_path(made))
    figure, axes = opened.plot_coverage()
    assert axes.patches
    plt.close(figure)


# --- stale collections -----------------------------------------------------------------------------------


def test_a_catalog_made_anew_makes_the_collection_stale(made: str, tmp_path: Path) -> None:
    for path in (made, catalog.collection_path(made)):
        shutil.copytree(path, tmp_path / Path(path).name)
    moved = str(tmp_path / "catalog")
    table = make_table(half_width_deg=0.025)
    assert catalog.verify(moved) == []
    # Finished again with the same rows it is what it was.
    finish(moved, table, order=10)
    assert catalog.verify(moved) == []
    fewer = divide(table, 10)[1:]
    catalog.remove_leaf(moved, divide(table, 10)[0].pixel)
    n_rows = sum(partition.n_objects for partition in fewer)
    catalog.finish(moved, partitions=fewer, properties={}, n_rows_expected=n_rows)
    collection = catalog.collection_path(moved)
    assert catalog.verify(moved) == [
        f"{collection}/margin_10arcsec: made from an earlier state of the catalog; make it again by "
        "galbatch catalog margin --radius 10arcsec",
        f"{collection}/object_id_index: made from an earlier state of the catalog; make it again by galbatch catalog index",
    ]
    # A stale index is not asked.
    assert catalog.find_objects(moved, [str(catalog.leaf_ids(moved, fewer[0])[0])])
    assert catalog.make_index(moved) == n_rows
    assert len(catalog.collection_problems(moved)) == 1


# --- damage ------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(made: str, tmp_path: Path) -> str:
    for path in (made, catalog.collection_path(made)):
        shutil.copytree(path, tmp_path / Path(path).name)
    return str(tmp_path / "catalog")


def test_a_flipped_byte_anywhere_in_the_collection_is_named(copied: str) -> None:
    rng = np.random.default_rng(5)
    files = [path for path in sorted(Path(catalog.collection_path(copied)).rglob("*")) if path.is_file()]
    assert len(files) > 12
    for path in files:
        data = path.read_bytes()
        for at in rng.integers(len(data), size=2):
            damaged = bytearray(data)
            damaged[at] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            # Properties that say of another state are stale; their file or that of the part is named.
            problems = catalog.collection_problems(copied)
            assert problems, (path, at)
            assert all("make it again by galbatch catalog " in problem for problem in problems)
            assert any(name in problem for problem in problems for name in (str(path), path.parent.name))
        path.write_bytes(data)
    assert catalog.collection_problems(copied) == []


def test_what_is_damaged_or_gone_is_named_with_the_command_that_makes_it_again(copied: str) -> None:
    collection = catalog.collection_path(copied)
    part = next(Path(collection, "object_id_index", "dataset", "index").glob("part.*.parquet"))
    part.unlink()
    leaf = next(Path(collection, "margin_10arcsec").rglob("Npix=*.parquet"))
    leaf.write_bytes(b"")
    assert catalog.collection_problems(copied) == [
        f"{leaf} is empty; make it again by galbatch catalog margin --radius 10arcsec",
        f"{part} is gone; make it again by galbatch catalog index",
    ]
    catalog.make_index(copied)
    assert len(catalog.collection_problems(copied)) == 1


def test_a_collection_without_checksums_is_still_checked_by_hats(copied: str) -> None:
    for path in Path(catalog.collection_path(copied)).glob("*.checksums.json"):
        path.unlink()
    assert catalog.collection_problems(copied) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PosixUPath on python")
def test_a_collection_on_s3(s3: str, rows: pa.Table) -> None:
    path = finish(f"{s3}/catalog", rows, order=10)
    with cluster.threads(2) as client:
        catalog.make_margin(path, radius_arcsec=RADIUS_ARCSEC, client=client)
    assert catalog.make_index(path) == N_OBJECTS
    assert catalog.verify(path) == []
    ids = rows["object_id"].to_pylist()[::100]
    assert catalog.read_objects(path, list(map(str, ids)))["object_id"].to_pylist() == ids
    opened = lsdb.open_catalog(
        catalog.collection_path(path), storage_options=dict(storage.reader_options(path))
    )
    assert opened.margin is not None
    assert sorted(opened.id_search(values={"object_id": ids}).compute()["object_id"]) == sorted(ids)


# --- the index -------------------------------------------------------------------------------------------


@pytest.fixture
def opened_leaves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read of leaves: a row group, or the leaf as a whole."""
    names: list[str] = []
    read = pq.ParquetFile.read_row_groups
    whole = pq.ParquetFile.read

    def read_group(self: Any, *args: Any, **kwargs: Any) -> pa.Table:
        # The index itself has row groups, too, and no positions.
        names.extend(["group"] * ("ra_deg" in self.schema_arrow.names))
        return read(self, *args, **kwargs)

    def read_all(self: Any, *args: Any, **kwargs: Any) -> pa.Table:
        names.append("leaf")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", read_group)
    monkeypatch.setattr(pq.ParquetFile, "read", read_all)
    return names


@pytest.mark.parametrize("id_type", ["int64", "string"])
def test_an_index_in_several_files_finds_every_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, id_type: str
) -> None:
    monkeypatch.setattr(index_module, "PART_ROWS", 90)
    monkeypatch.setattr(index_module, "INDEX_GROUP_ROWS", 16)
    monkeypatch.setattr(index_module, "SAMPLED", 3)
    table = make_table()
    ids = np.random.default_rng(3).permutation(table["object_id"].to_numpy()) - 43_000_000_000_000_100
    place = table.column_names.index("object_id")
    column = pa.array(ids).cast(id_type)
    table = table.set_column(place, table.schema.field("object_id").with_type(column.type), column)
    path = finish(str(tmp_path / "catalog"), table, order=5)
    assert catalog.make_index(path) == N_OBJECTS
    files = sorted(Path(catalog.collection_path(path)).rglob("part.*.parquet"))
    assert len(files) == 5
    read = [pq.ParquetFile(file).read() for file in files]
    assert all(len(part) < 180 for part in read)
    whole = pa.concat_tables(read)
    assert whole.column_names == ["object_id", "_healpix_29", "Norder", "Npix"]
    assert whole["object_id"].to_pylist() == sorted(column.to_pylist())
    assert is_valid_collection(catalog.collection_path(path), strict=True)
    some = column.to_pylist()[::7]
    found = catalog.read_objects(path, [str(one) for one in some])
    assert found["object_id"].to_pylist() == some
    assert found["ra_deg"].to_pylist() == table["ra_deg"].to_pylist()[::7]


def test_with_the_index_only_the_leaf_of_an_object_is_read(
    made: str, rows: pa.Table, opened_leaves: list[str], tmp_path: Path
) -> None:
    ids = rows["object_id"].to_pylist()
    assert catalog.read_objects(made, [str(ids[5])])["object_id"].to_pylist() == [ids[5]]
    assert opened_leaves == ["group"]
    assert galbatch.open_catalog(made).ids(ids[5]).to_arrow().num_rows == 1
    assert opened_leaves == ["group"] * 2
    opened_leaves.clear()
    shutil.copytree(made, tmp_path / "catalog")
    assert catalog.find_objects(str(tmp_path / "catalog"), [str(ids[5])])
    assert "leaf" in opened_leaves


def test_unknown_ids_are_refused_with_the_index_too(made: str) -> None:
    with pytest.raises(UsageError, match="no object has the id 5, 7; ids are those"):
        catalog.find_objects(made, ["5", "7"])
    with pytest.raises(UsageError, match="64-bit integers, which excludes abc"):
        catalog.find_objects(made, ["abc"])


def test_the_note_says_how_to_make_an_index(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "FEW_LEAVES", 2)
    assert catalog.index_note(made) == ""
    shutil.copytree(made, tmp_path / "catalog")
    moved = str(tmp_path / "catalog")
    command = f"galbatch catalog index {moved}"
    assert (
        catalog.index_note(moved) == f"ids of all leaves are read, as there is no index; {command} makes it"
    )
    shutil.copytree(catalog.collection_path(made), catalog.collection_path(moved))
    assert catalog.index_note(moved) == ""
    properties = tmp_path / "catalog" / "hats.properties"
    properties.write_text(properties.read_text().replace("hats_nrows=400", "hats_nrows=401"))
    assert catalog.index_note(moved) == (
        f"ids of all leaves are read, as the index is of an earlier state of the catalog; {command} makes it again"
    )
    properties.unlink()
    assert catalog.index_note(moved) == ""


def test_a_damaged_index_is_told(made: str, tmp_path: Path, rows: pa.Table) -> None:
    for path in (made, catalog.collection_path(made)):
        shutil.copytree(path, tmp_path / Path(path).name)
    moved = str(tmp_path / "catalog")
    (part,) = Path(catalog.collection_path(moved)).rglob("part.0.parquet")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DamagedError, match=f"object_id_index.*galbatch catalog index {moved} makes it again"):
        catalog.find_objects(moved, [str(rows["object_id"][0])])


# --- refused, before anything is written -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("radius_arcsec", "message"),
    [
        (0, "expected a radius above 0"),
        (7200, "up to 3600 arcsec"),
        (200, "the smallest partitions are of HEALPix order 11, which allows 32 arcsec at most"),
    ],
)
def test_margins_that_do_not_fit_are_refused(made: str, radius_arcsec: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        catalog.make_margin(made, radius_arcsec=radius_arcsec, client=None)


def test_a_catalog_that_is_not_finished_has_no_collection(leaves: str) -> None:
    with pytest.raises(CatalogError, match=r"no hats.properties"):
        catalog.make_index(leaves)
    with pytest.raises(CatalogError, match=r"no hats.properties"):
        catalog.make_margin(leaves, radius_arcsec=1, client=None)
    assert not Path(catalog.collection_path(leaves)).exists()


# --- footprint -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["fits", "json"])
def test_the_footprint_is_where_objects_are(
    finished: str, table: pa.Table, tmp_path: Path, suffix: str
) -> None:
    path = str(tmp_path / f"footprint.{suffix}")
    area_deg2 = catalog.write_footprint(finished, path, healpix_order=9)
    read = MOC.load(path, format=suffix)
    index = table["_healpix_29"].to_numpy()
    pixels = np.unique(sky.pixel_of(index, 9))
    assert read == MOC.from_healpix_cells(pixels.astype(np.uint64), np.uint8(9), max_depth=9)
    # A pixel of order 9 is 41252.96 / (12 * 4**9) square degrees.
    assert area_deg2 == pytest.approx(len(pixels) * 41252.96 / (12 * 4**9), rel=1e-4)
    assert read.contains_lonlat(table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg).all()


def test_other_footprints_are_refused(finished: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x.moc: a MOC is written as .fits or .json"):
        catalog.write_footprint(finished, str(tmp_path / "x.moc"), healpix_order=9)
    with pytest.raises(UsageError, match="expected 0 to 29"):
        catalog.write_footprint(finished, str(tmp_path / "x.fits"), healpix_order=30)


def test_join_to_the_surveys_own_hats_catalog(made: str, rows: pa.Table, tmp_path: Path) -> None:
    """As the docs of releases show it: each row finds the survey's row of its id, whatever the survey's partitions are."""
    ids = rows["object_id"].to_numpy()
    frame = pd.DataFrame({"objectId": ids, "coord_ra": rows["ra_deg"].to_numpy()})
    frame["coord_dec"] = rows["dec_deg"].to_numpy()
    frame["i_cModelMag"] = 20.0 + np.arange(len(ids)) / 100
    path = tmp_path / "lsst_objects"
    # Two thirds of the objects, in another order, in partitions of their own.
    lsdb.from_dataframe(
        frame.sample(frac=2 / 3, random_state=1),
        catalog_name="lsst_objects",
        ra_column="coord_ra",
        dec_column="coord_dec",
        margin_threshold=None,
        lowest_order=8,
        highest_order=9,
        partition_rows=200,
    ).write_catalog(path)
    with cluster.threads(2):
        joined = (
            lsdb.open_catalog(made, columns=["object_id", *MEDIANS])
            .join(
                lsdb.open_catalog(path, columns="all"),
                left_on="object_id",
                right_on="objectId",
                suffixes=("", "_lsst"),
                suffix_method="overlapping_columns",
            )
            .compute()
        )
    assert len(joined) == round(len(ids) * 2 / 3)
    assert (joined["object_id"] == joined["objectId"]).all()
    magnitude = frame.set_index("objectId")["i_cModelMag"]
    assert joined["i_cModelMag"].to_numpy() == pytest.approx(magnitude[joined["object_id"]].to_numpy())
    medians = rows.to_pandas().set_index("object_id")[MEDIANS[0]]
    assert joined[MEDIANS[0]].to_numpy() == pytest.approx(
        medians[joined["object_id"]].to_numpy(), nan_ok=True
    )
