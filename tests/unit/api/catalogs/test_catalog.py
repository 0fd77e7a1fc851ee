from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import astropy.units as u
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.utils.masked import Masked

import galbatch
from galbatch import catalog, storage
from galbatch.catalog import scanning
from galbatch.core import sky
from galbatch.core.pixels import Partition
from galbatch.errors import CatalogError, UsageError
from tests.unit.api.conftest import IDS
from tests.unit.catalog.conftest import N_OBJECTS, divide, make_table, write_catalog

BT = "gampen_bt_q500"


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return make_table()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> galbatch.Catalog:
    """A finished catalog of 400 objects in several leaves."""
    path = str(tmp_path_factory.mktemp("wide") / "catalog")
    write_catalog(path, rows, divide(rows))
    catalog.finish(path, partitions=divide(rows), properties={}, n_rows_expected=N_OBJECTS)
    return galbatch.open_catalog(path)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the leaves whose rows were read, as they are read."""
    found = []

    def recording(reader: Callable[..., object]) -> Callable[..., object]:
        def record(path: str, **options: object) -> object:
            found.append(Path(path).name)
            return reader(path, **options)

        return record

    for name in ("open_leaf", "read_leaf"):
        monkeypatch.setattr(scanning, name, recording(getattr(scanning, name)))
    return found


def test_nothing_is_read_before_a_table_is_asked_for(
    wide: galbatch.Catalog, rows: pa.Table, read: list[str]
) -> None:
    opened = galbatch.open_catalog(wide.path)
    center = SkyCoord(rows["ra_deg"][100].as_py(), rows["dec_deg"][100].as_py(), unit="deg")
    near = opened.good().where(f"{BT} > 0").cone(center, 1 * u.arcsec)
    box = opened.box((149, 151) * u.deg, (1, 3) * u.deg).ids([rows["object_id"][100].as_py()])
    assert (len(opened), bool(near), "400 objects" in repr(near)) == (N_OBJECTS, True, True)
    assert read == []
    # A cone of an arcsecond lies in one leaf, and so does one id.
    assert near.table()["object_id"].tolist() == [rows["object_id"][100].as_py()]
    assert len(read) == 1
    assert len(box) == 1
    assert len(read) == 2
    # Each method returned a narrower catalog, and left the one it was called on as it was.
    assert len(opened.to_arrow([BT])) == N_OBJECTS


@pytest.mark.parametrize("radius", [10 * u.arcsec, 0.2 * u.deg, 3 * u.deg])
def test_a_cone_has_the_nearest_first(wide: galbatch.Catalog, rows: pa.Table, radius: u.Quantity) -> None:
    ra, dec = rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy()
    separation = SkyCoord(ra[100], dec[100], unit="deg").separation(SkyCoord(ra, dec, unit="deg")).arcsec
    near = np.argsort(separation)[: (separation <= radius.to_value(u.arcsec)).sum()]
    # The center may be given in any frame.
    found = wide.cone(SkyCoord(ra[100], dec[100], unit="deg").galactic, radius).table()
    assert found["object_id"].tolist() == rows["object_id"].to_numpy()[near].tolist()
    assert found["separation_arcsec"].unit == u.arcsec
    np.testing.assert_allclose(found["separation_arcsec"].value, separation[near], atol=1e-4)


def test_a_box_is_what_its_limits_say(wide: galbatch.Catalog, rows: pa.Table) -> None:
    ra, dec = rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy()
    inside = (ra >= 149.3) & (ra <= 150.2) & (dec >= 1.5) & (dec <= 1.9)
    found = wide.box((149.3, 150.2) * u.deg, (90, 114) * u.arcmin).to_arrow(["object_id"])
    assert found["object_id"].to_pylist() == rows["object_id"].to_numpy()[inside].tolist()
    assert 10 < inside.sum() < 100
    assert len(wide.box((350, 149.3) * u.deg, (-90, 90) * u.deg)) == (ra <= 149.3).sum()
    assert len(wide.box((0, 360) * u.deg, (-90, 90) * u.deg)) == N_OBJECTS


def test_ids_come_in_their_order_and_unknown_ones_are_named(wide: galbatch.Catalog, rows: pa.Table) -> None:
    wanted = [rows["object_id"][row].as_py() for row in (250, 3, 100, 3)]
    assert wide.ids(wanted).table(["object_id"])["object_id"].tolist() == wanted[:3]
    assert wide.ids(np.int64(wanted[0])).to_arrow(["object_id"])["object_id"].to_pylist() == wanted[:1]
    with pytest.raises(UsageError, match="no object has the id 7;"):
        len(wide.ids([wanted[0], 7]))
    with pytest.raises(UsageError, match="64-bit integers, which excludes M31"):
        wide.ids("M31")


def test_of_no_ids_or_none_within_a_cone_no_rows_come(wide: galbatch.Catalog, rows: pa.Table) -> None:
    one = rows["object_id"][3].as_py()
    elsewhere = wide.cone(SkyCoord(150, -80, unit="deg"), 1 * u.arcsec)
    for found in (wide.ids([]), elsewhere.ids([one])):
        assert found.to_arrow(["object_id"]).num_rows == 0
        assert len(found) == 0


def test_conditions_are_joined(wide: galbatch.Catalog, rows: pa.Table) -> None:
    ra, bt = rows["ra_deg"].to_numpy(), rows[BT].to_numpy()
    expected = (ra < 150.0) & (bt > 0.5) & (rows["gampen_flags"].to_numpy() == 0)
    narrowed = wide.where("ra_deg < 150").good()
    found = narrowed.to_arrow([BT, "object_id"], where=f"{BT} > 0.5")
    assert found.column_names == [BT, "object_id"]
    assert found["object_id"].to_pylist() == rows["object_id"].to_numpy()[expected].tolist()
    assert 50 < expected.sum() < 200
    # Row 7 was not selected: it has no values, and the flag of class information leaves it out nevertheless.
    assert (len(wide.good()), len(wide.good("gampen"))) == (N_OBJECTS - 1, N_OBJECTS - 1)


def test_a_table_has_units_masks_descriptions_and_ucds(small: str) -> None:
    table = galbatch.open_catalog(small).table()
    assert isinstance(table, QTable)
    radius = table["net_re_arcsec_q500"]
    assert (type(radius), radius.unit) == (Masked(u.Quantity), u.arcsec)
    assert dict(zip(table["object_id"].tolist(), radius.mask.tolist(), strict=True)) == {
        IDS[0]: False,
        IDS[1]: False,
        IDS[2]: True,
    }
    assert radius.unmasked[table["object_id"] == -5].value.tolist() == [3.0]
    assert table["ra_deg"].unit == u.deg
    assert table["ra_deg"].info.description.startswith("right ascension")
    assert table["ra_deg"].info.meta["ucd"] == "pos.eq.ra;meta.main"
    assert "8 BAD_CENTER" in table["flags"].info.description


def test_pandas_has_nan_and_keeps_integers(small: str) -> None:
    frame = galbatch.open_catalog(small).to_pandas(["object_id", "net_re_arcsec_q500", "net_passes"])
    assert [str(kind) for kind in frame.dtypes] == ["int64", "float32", "int32"]
    pd.testing.assert_series_equal(
        frame.set_index("object_id")["net_re_arcsec_q500"].sort_index(),
        pd.Series(np.array([3.0, 1.25, np.nan], np.float32), index=sorted(IDS), name="net_re_arcsec_q500"),
        check_index_type=False,
        check_names=False,
    )


def test_integers_with_missing_values_lose_no_digit(tmp_path: Path, small: str) -> None:
    rows = catalog.read_catalog(small)
    big = pa.array([43_000_000_000_000_017, None, 3])
    place = rows.schema.get_field_index("z_best")
    rows = rows.set_column(place, "n_visits", big)
    partition = divide_one(rows)
    catalog.write_leaf(str(tmp_path), partition, rows, footer={})
    catalog.finish(str(tmp_path), partitions=[partition], properties={}, n_rows_expected=3)
    frame = galbatch.open_catalog(str(tmp_path)).to_pandas()
    assert str(frame["n_visits"].dtype) == "Int64"
    assert (frame["n_visits"][0], bool(frame["n_visits"].isna()[1])) == (43_000_000_000_000_017, True)
    assert list(frame.columns).index("n_visits") == place


def divide_one(rows: pa.Table) -> Partition:
    pixel = int(sky.pixel_of(rows["_healpix_29"].to_numpy(), 4)[0])
    return Partition(4, pixel, 0, len(rows))


def test_intervals_are_quantiles_of_the_catalog(small: str, wide: galbatch.Catalog, rows: pa.Table) -> None:
    found = galbatch.open_catalog(small).ids(IDS).interval("net_re_arcsec", 0.95)
    assert found.colnames == ["object_id", "lower", "median", "upper"]
    np.testing.assert_allclose(found["lower"].unmasked.value[:2], [1.188, 2.0])
    np.testing.assert_allclose(found["upper"].unmasked.value[:2], [1.312, 4.0])
    assert found["upper"].mask.tolist() == [False, False, True]
    assert found["lower"].unit == u.arcsec
    lower = wide.interval("bt")["lower"]
    np.testing.assert_array_equal(lower.filled(np.nan), rows["gampen_bt_q15865"].to_numpy())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.table(["net_re_arcsec_q50"]), "no column net_re_arcsec_q50; did you mean net_re_arcsec_q500"),
        (lambda c: c.where("z_bst > 1"), r"no column z_bst; did you mean z_best\?"),
        (lambda c: c.where("z_best >"), "is no expression"),
        (lambda c: c.good("nett"), r"no model nett; did you mean net\?; there are net"),
        (lambda c: c.interval("re_arsec"), r"no quantity re_arsec; did you mean re_arcsec\?"),
        (lambda c: c.interval("re_arcsec", 0.9), "the catalog has those of 0.6827, 0.9545"),
        (lambda c: c.interval("re_arcsec", model="other"), "no quantity re_arcsec of model other"),
        (lambda c: c.cone((150.1, -2.2), 1 * u.arcsec), "expected one position as a SkyCoord"),
        (lambda c: c.cone(SkyCoord(1, 2, unit="deg"), 3), "expected an angle with its unit"),
        (lambda c: c.cone(SkyCoord(1, 2, unit="deg"), -3 * u.arcsec), "a radius of 0 or more"),
        (lambda c: c.box((1, 2), (3, 4)), "box: ra .* expected two angles with their unit"),
        (lambda c: c.box((1, 2) * u.deg, (5, 4) * u.deg), "expected the lowest and the highest declination"),
        (lambda c: c.object(7), "no object has the id 7"),
    ],
)  # fmt: skip
def test_errors_say_what_was_found_and_what_was_expected(
    small: str, call: Callable[[galbatch.Catalog], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        call(galbatch.open_catalog(small))


def test_a_folder_without_a_catalog_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no leaf of a catalog found"):
        galbatch.open_catalog(str(tmp_path))


def test_a_catalog_that_is_not_finished_says_so_and_can_be_read(small: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    shutil.copytree(small, path)
    for name in ("hats.properties", "properties"):
        (path / name).unlink()
    storage.publish_json(f"{path}_progress.json", {"state": "running", "text": "infer 40 of 120"})
    with pytest.warns(UserWarning, match="not finished: it has the 1 leaves .* running .*infer 40 of 120"):
        opened = galbatch.open_catalog(str(path))
    assert (opened.is_finished, len(opened)) == (False, 3)
    assert repr(opened) == f"<Catalog {path}: not finished, model net>"
    assert "not finished" in opened._repr_html_()
    with pytest.raises(UsageError, match="LSDB opens finished catalogs only"):
        opened.to_lsdb()


def test_a_catalog_with_failed_partitions_says_so(small: str, tmp_path: Path) -> None:
    path = tmp_path / "catalog"
    shutil.copytree(small, path)
    properties = (path / "hats.properties").read_text()
    (path / "hats.properties").write_text(
        properties.replace("galbatch_complete=true", "galbatch_complete=false")
    )
    with pytest.warns(UserWarning, match="not complete: partitions failed"):
        galbatch.open_catalog(str(path))


def test_notebooks_show_what_is_known_without_reading(small: str, read: list[str]) -> None:
    opened = galbatch.open_catalog(small)
    html = opened.where("z_best < 0.3")._repr_html_()
    for text in ("narrowed from 3", "<dd>net</dd>", "net_re_arcsec", "z_best &lt; 0.3"):
        assert text in html
    assert read == []


@pytest.fixture(scope="module")
def lsdb_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # LSDB says at each start that Dask has no client.
        warnings.simplefilter("ignore")
        yield


def test_lsdb_has_the_same_rows(wide: galbatch.Catalog, rows: pa.Table, lsdb_warnings: None) -> None:
    center = SkyCoord(rows["ra_deg"][100].as_py(), rows["dec_deg"][100].as_py(), unit="deg")
    narrowed = wide.cone(center, 0.4 * u.deg).good().where(f"{BT} > 0.3")
    expected = sorted(narrowed.to_arrow(["object_id"])["object_id"].to_pylist())
    found = narrowed.to_lsdb(["object_id", BT]).compute()
    assert sorted(found["object_id"].tolist()) == expected
    assert 10 < len(expected) < 100
    assert set(found.columns) == {"object_id", BT, "ra_deg", "dec_deg"}
    whole = wide.ids(expected[:3]).to_lsdb().compute()
    assert sorted(whole["object_id"].tolist()) == expected[:3]
    assert set(wide.columns) - {"_healpix_29"} <= set(whole.columns)


def test_lsdb_opens_the_collection_where_it_is_current(
    wide: galbatch.Catalog, rows: pa.Table, tmp_path: Path, lsdb_warnings: None
) -> None:
    """Only a catalog that was opened from its collection has the index that `id_search` needs."""
    shutil.copytree(wide.path, tmp_path / "wide")
    opened = galbatch.open_catalog(str(tmp_path / "wide"))
    expected = rows["object_id"][:2].to_pylist()
    with pytest.raises(TypeError, match="index"):
        opened.to_lsdb().id_search(values={"object_id": expected})
    catalog.make_index(opened.path)
    found = opened.to_lsdb().id_search(values={"object_id": expected}).compute()
    assert sorted(found["object_id"].tolist()) == sorted(expected)
    # The catalog of a later run: its rows are read, not those of the old index.
    for name in ("properties", "hats.properties"):
        with (tmp_path / "wide" / name).open("a") as file:
            file.write("galbatch_fingerprint=of another run\n")
    with pytest.raises(TypeError, match="index"):
        opened.to_lsdb().id_search(values={"object_id": expected})


def test_a_catalog_and_its_store_on_s3(s3: str, small: str) -> None:
    folder = Path(small).parent
    for file in (one for one in folder.rglob("*") if one.is_file()):
        storage.publish(f"{s3}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    opened = galbatch.open_catalog(f"{s3}/catalog")
    found = opened.cone(SkyCoord(150.1, -2.2, unit="deg"), 10 * u.arcsec).table(["object_id"])
    assert found["object_id"].tolist() == [IDS[0], IDS[1]]
    assert opened.object(-5).cutout("r").data.max() == pytest.approx(200.0)
    assert len(galbatch.open_store(f"{s3}/cutouts.zarr")) == 3
