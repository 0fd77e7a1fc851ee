"""Object lists in files of HEALPix pixels: a HATS catalog is read pixel by pixel and means what a list means."""

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch.config import FlagsConfig, ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects import HatsSource, ListSource, SelectedObjects, hats, is_hats, open_objects

IDS = {
    "integers": lambda n: np.arange(n) + 36411452835238206,
    "text": lambda n: [f"J{i:05d}" for i in range(n)],
}


def rows(n=400, *, ids="integers", seed=1):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "object_id": rng.permutation(IDS[ids](n)).tolist(),
            "ra_deg": (359.5 + rng.uniform(0, 1, n)) % 360.0,
            "dec_deg": rng.uniform(-0.5, 0.5, n),
            "z_best": pa.array([None if i % 7 == 0 else i / n for i in range(n)]),
            "name": [f"galaxy {i}" for i in range(n)],
        }
    )


def with_rows(table, **columns):
    return pa.concat_tables([table, pa.table(columns, schema=table.schema)])


def opened(path, **changes):
    return open_objects(ObjectsConfig(path=str(path), keep=("z_best", "name"), **changes))


@pytest.fixture
def both(tmp_path, write_hats):
    """The same rows as a Parquet list and as a HATS catalog."""

    def make(table, *, order=None, **changes):
        pq.write_table(table, tmp_path / "list.parquet")
        write_hats(tmp_path / "hats", table, order=order)
        return [opened(tmp_path / name, **changes) for name in ("list.parquet", "hats")]

    return make


def everything(source):
    flags = FlagsConfig(neighbor_radius_arcsec=30.0)
    objects = SelectedObjects(source, ["z_best < 0.5"], flags)
    return objects.take(0, len(objects))


@pytest.mark.parametrize("ids", IDS)
def test_the_same_objects_as_from_a_list(both, ids):
    whole, chunked = both(rows(ids=ids))
    assert isinstance(whole, ListSource)
    assert isinstance(chunked, HatsSource)
    assert len(chunked.ranges) > 10
    a, b = everything(whole), everything(chunked)
    for name in ("object_id", "ra_deg", "dec_deg", "healpix_29"):
        np.testing.assert_array_equal(getattr(a.table, name), getattr(b.table, name))
        assert getattr(a.table, name).dtype == getattr(b.table, name).dtype
    assert a.table.kept == b.table.kept
    np.testing.assert_array_equal(a.flags, b.flags)
    np.testing.assert_array_equal(a.selected, b.selected)
    assert 0 < np.count_nonzero(a.flags) < 400
    assert chunked.rejected.num_rows == 0


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("n_buckets", [1, 64])
def test_ids_that_stand_in_two_pixels_are_found(both, ids, n_buckets, monkeypatch):
    monkeypatch.setattr(hats, "N_BUCKETS", n_buckets)
    table = rows(ids=ids)
    first = table["object_id"].to_pylist()[:3]
    table = with_rows(
        table,
        object_id=first,
        ra_deg=[10.0, 10.0, 200.0],
        dec_deg=[50.0, -50.0, 0.0],
        z_best=[0.1] * 3,
        name=["x"] * 3,
    )
    whole, chunked = both(table, invalid="drop")
    assert sum(chunked.counts) == sum(whole.counts) == 400
    a, b = everything(whole).table, everything(chunked).table
    assert sorted(a.object_id) == sorted(b.object_id)
    assert set(chunked.rejected["object_id"].to_pylist()) == set(first)
    assert set(chunked.rejected["reason"].to_pylist()) == {"duplicate id"}
    with pytest.raises(ObjectListError, match=r"3 of 403 rows cannot be used \(3 x duplicate id\)"):
        both(table)


def test_rows_without_a_position_or_an_id_are_dropped_or_refused(both):
    table = with_rows(
        rows(),
        object_id=[7, 8, None, 9],
        ra_deg=[None, float("nan"), 20.0, 30.0],
        dec_deg=[0.0, 0.0, 0.0, 91.0],
        z_best=[0.1] * 4,
        name=["x"] * 4,
    )
    whole, chunked = both(table.slice(0, 403), invalid="drop")
    assert sum(chunked.counts) == 400
    key = [("ra_deg", "ascending"), ("object_id", "ascending")]
    assert chunked.rejected.sort_by(key).to_pylist()[0] == whole.rejected.sort_by(key).to_pylist()[0]
    assert chunked.rejected.num_rows == whole.rejected.num_rows == 3
    with pytest.raises(ObjectListError, match="3 of 403 rows cannot be used"):
        both(table.slice(0, 403))


def test_positions_must_be_those_of_the_pixels(tmp_path, write_hats):
    table = rows()
    table = table.append_column("ra_gaia", pa.array(table["dec_deg"].to_numpy() + 120.0))
    write_hats(tmp_path / "hats", table)
    with pytest.raises(ObjectListError, match="400 x position outside the file's HEALPix pixel"):
        opened(tmp_path / "hats", ra="ra_gaia")


def test_the_properties_name_the_position_columns_and_the_config_goes_before_them(tmp_path, write_hats):
    table = rows()
    write_hats(tmp_path / "hats", table)
    for folder, columns in (
        ("hats", {"ra_deg": "RA", "dec_deg": "DEC"}),
        ("hats", {"ra_deg": "ra2", "dec_deg": "dec2"}),
    ):
        for leaf in (tmp_path / folder).rglob("Npix=*.parquet"):
            content = pq.read_table(leaf)
            for old, new in columns.items():
                content = content.append_column(new, content[old])
            pq.write_table(content, leaf)
    text = (tmp_path / "hats" / "hats.properties").read_text()
    (tmp_path / "hats" / "hats.properties").write_text(
        text.replace("=ra_deg", " = RA").replace("=dec_deg", " = DEC")
    )
    assert opened(tmp_path / "hats").config.ra == "RA"
    chosen = opened(tmp_path / "hats", ra="ra2", dec="dec2").config
    assert (chosen.ra, chosen.dec) == ("ra2", "dec2")


def test_a_file_that_is_missing_is_noticed(tmp_path, write_hats):
    write_hats(tmp_path / "hats", rows())
    leaf = sorted((tmp_path / "hats").rglob("Npix=*.parquet"))[3]
    n_rows = pq.read_metadata(leaf).num_rows
    leaf.unlink()
    with pytest.raises(
        ObjectListError, match=rf"hold {400 - n_rows} rows, its properties say hats_nrows = 400"
    ):
        opened(tmp_path / "hats")


def test_pixels_may_be_folders_of_files(tmp_path, write_hats):
    write_hats(tmp_path / "hats", rows())
    expected = everything(opened(tmp_path / "hats")).table
    for leaf in sorted((tmp_path / "hats").rglob("Npix=*.parquet"))[:4]:
        table = pq.read_table(leaf)
        leaf.unlink()
        folder = leaf.with_suffix("")
        folder.mkdir()
        pq.write_table(table.slice(0, 5), folder / "part0.parquet")
        pq.write_table(table.slice(5), folder / "part1.parquet")
    found = everything(opened(tmp_path / "hats")).table
    np.testing.assert_array_equal(found.object_id, expected.object_id)


def test_pixels_must_not_overlap_and_columns_must_agree(tmp_path, write_hats):
    write_hats(tmp_path / "hats", rows(), order=5)
    leaf = sorted((tmp_path / "hats").rglob("Npix=*.parquet"))[1]
    number = int(leaf.stem.partition("=")[2])
    table = pq.read_table(leaf)
    pq.write_table(table.set_column(3, "z_best", table["z_best"].cast(pa.string())), leaf)
    source = opened(tmp_path / "hats")
    pq.write_table(table.set_column(3, "z_best", pa.array(["high"] * len(table))), leaf)
    with pytest.raises(ObjectListError, match="its columns are not of the kinds of"):
        everything(source)
    inner = tmp_path / "hats" / "dataset" / "Norder=6" / "Dir=0" / f"Npix={4 * number}.parquet"
    inner.parent.mkdir(parents=True)
    pq.write_table(table, inner)
    with pytest.raises(
        ObjectListError, match=f"Norder=6/Npix={4 * number} lies inside Norder=5/Npix={number}"
    ):
        opened(tmp_path / "hats")


def test_other_folders_are_no_hats_catalogs(tmp_path):
    (tmp_path / "folder").mkdir()
    assert not is_hats(str(tmp_path / "folder"))
    assert not is_hats(str(tmp_path / "list.parquet"))
    with pytest.raises(
        ObjectListError, match=r"is neither a table .* nor the folder of a HATS catalog"
    ) as caught:
        opened(tmp_path / "folder")
    assert "collection" not in str(caught.value)
    (tmp_path / "folder" / "collection.properties").write_text("hats_primary_table_url = objects\n")
    with pytest.raises(ObjectListError, match=f"it is a HATS collection: give {tmp_path}/folder/objects"):
        opened(tmp_path / "folder")
    (tmp_path / "folder" / "partition_info.csv").write_text("Norder,Npix\n")
    assert is_hats(str(tmp_path / "folder"))
    with pytest.raises(ObjectListError, match="HATS catalog without files"):
        opened(tmp_path / "folder")


def test_at_most_two_pixels_are_in_memory(tmp_path, write_hats, monkeypatch):
    """Bounded memory: nothing reads more than one pixel, nothing holds more than two."""
    write_hats(tmp_path / "hats", rows(3000), max_rows=60)
    read = []

    def counting(path, objects, columns, *, region):
        table, counts = real(path, objects, columns, region=region)
        read.append(len(table))
        return table, counts

    real = hats.read_list
    monkeypatch.setattr(hats, "read_list", counting)
    source = opened(tmp_path / "hats")
    objects = SelectedObjects(source, [None], FlagsConfig())
    held = []
    for start in range(0, 3000, 20):
        assert len(objects.take(start, start + 20)) == 20
        held.append(sum(len(chunk.table) for chunk in objects.chunks.kept))
    assert max(read) <= 60
    assert 60 < max(held) <= 120
    assert len(source.ranges) > 50


def test_it_reads_from_s3(tmp_path, write_hats, s3):
    write_hats(tmp_path / "hats", rows())
    client = boto3.client("s3")
    for path in (tmp_path / "hats").rglob("*"):
        if path.is_file():
            client.upload_file(
                str(path), s3.removeprefix("s3://"), f"list/{path.relative_to(tmp_path / 'hats')}"
            )
    a, b = (everything(opened(path)).table for path in (tmp_path / "hats", f"{s3}/list"))
    np.testing.assert_array_equal(a.object_id, b.object_id)
    assert a.kept == b.kept


def test_a_hats_catalog_without_kept_columns(tmp_path, write_hats):
    table = rows()
    write_hats(tmp_path / "hats", table)
    source = open_objects(ObjectsConfig(path=str(tmp_path / "hats")))
    taken = SelectedObjects(source, [None], FlagsConfig()).take(0, len(table))
    assert sorted(taken.table.object_id.tolist()) == sorted(table["object_id"].to_pylist())
    assert taken.table.kept.column_names == []


def test_columns_that_networks_take_come_from_both(tmp_path, write_hats):
    table = rows()
    pq.write_table(table, tmp_path / "list.parquet")
    write_hats(tmp_path / "hats", table)
    found = []
    for name in ("list.parquet", "hats"):
        source = open_objects(ObjectsConfig(path=str(tmp_path / name)), inputs={"z_best": None})
        objects = SelectedObjects(source, [None], FlagsConfig())
        found.append(objects.take(0, len(objects)).table)
    assert len(source.files) > 1
    first, second = found
    assert first.kept.column_names == second.kept.column_names == []
    np.testing.assert_array_equal(first.inputs["z_best"], second.inputs["z_best"])
    listed = dict(zip(table["object_id"].to_pylist(), table["z_best"].to_pylist(), strict=True))
    expected = np.array([listed[key] for key in second.object_id.tolist()], np.float32)
    np.testing.assert_array_equal(second.inputs["z_best"], expected)
    for wrong, message in (
        ("name", "column name holds string"),
        ("zbest", "no column zbest; the nearest is z_best"),
    ):
        with pytest.raises(ObjectListError, match=message):
            open_objects(ObjectsConfig(path=str(tmp_path / "hats")), inputs={wrong: None})
