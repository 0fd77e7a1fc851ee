"""Releases: checksums of all files, and descriptions of the columns that others' readers take."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import ascii as tables

from galbatch import catalog, reporting, storage
from galbatch.core import sky
from galbatch.core.columns import PIXEL_FLAGS, ColumnKey, Statistic
from galbatch.core.fingerprint import Fingerprint
from galbatch.core.pixels import Partition
from galbatch.errors import CatalogError

N_OBJECTS = 7


@pytest.fixture
def released(tmp_path):
    """A catalog of seven objects, of which one has no values, and its table."""
    ra, dec = 150 + np.arange(N_OBJECTS) / 1e3, np.full(N_OBJECTS, -2.25)
    index = sky.healpix_29(ra, dec)
    order = np.argsort(index)
    columns = [
        PIXEL_FLAGS,
        ColumnKey(Statistic.QUANTILE, "re_arcsec", level=0.5).column("net", unit="arcsec", what="a radius"),
        ColumnKey(Statistic.PASSES).column("net"),
        ColumnKey(Statistic.FLAGS).column("net"),
    ]
    size = np.array([np.pi, 1e-7, 0.1, np.nan, 3e8, 2.5, 1 / 3], np.float32)
    values = {
        "_healpix_29": index,
        "object_id": 40_000_000_000_000_001 + np.arange(N_OBJECTS),
        "ra_deg": ra,
        "dec_deg": dec,
        "field": np.array(["a", "bb", "", "dddd", "e", "f", "g"], object),
        "flags": np.arange(N_OBJECTS),
        "net_re_arcsec_q500": size,
        "net_passes": np.full(N_OBJECTS, 64),
        "net_flags": np.where(np.isnan(size), 2, 0),
    }
    schema = catalog.leaf_schema(columns, id_type=pa.int64(), kept=pa.schema([("field", pa.string())]))
    table = pa.table([pa.array(values[f.name][order]).cast(f.type) for f in schema], schema=schema)
    partition = Partition(0, int(index[0] >> 58), 0, N_OBJECTS)
    path = str(tmp_path / "catalog")
    footer = {
        "fingerprint": json.dumps(Fingerprint({}).as_json()),
        "n_objects": str(N_OBJECTS),
        "bundles": '{"net": "3fa1"}',
    }
    catalog.write_leaf(path, partition, table, footer=footer)
    properties = {
        "galbatch_passes": "64",
        "galbatch_method": "mixture",
        "galbatch_seed": "1",
        "galbatch_bundle_net": "3fa1",
        "galbatch_engine_net": "torchscript-float32",
        "galbatch_citation_net": "Ghosh et al. 2022",
        "galbatch_layouts": "hsc",
        "galbatch_doi": "10.5281/zenodo.1",
        "galbatch_authors": "A. Author, B. Author",
    }
    catalog.finish(path, partitions=[partition], properties=properties, n_rows_expected=N_OBJECTS)
    return path, catalog.read_catalog(path)


def test_checksums_are_of_every_file(released):
    path, _ = released
    written = reporting.write_release(path)
    lines = Path(written.folder, "SHA256SUMS").read_text().splitlines()
    found = dict(reversed(line.split("  ")) for line in lines)
    assert sorted(found) == sorted(storage.list_files(path, suffix=""))
    assert written.n_files == len(found) > 5
    for name, digest in found.items():
        assert hashlib.sha256(Path(path, name).read_bytes()).hexdigest() == digest


def test_the_readme_describes_the_table_byte_by_byte(released):
    path, rows = released
    folder = Path(reporting.write_release(path, with_table=True).folder)
    assert max(map(len, (folder / "ReadMe").read_text().splitlines())) <= 80
    found = tables.read(folder / "catalog.dat", readme=folder / "ReadMe", format="cds")
    assert found.colnames == rows.column_names
    assert found["object_id"].tolist() == rows["object_id"].to_pylist()
    assert found["ra_deg"].tolist() == rows["ra_deg"].to_pylist()
    size = rows["net_re_arcsec_q500"]
    assert str(found["net_re_arcsec_q500"].unit) == "arcsec"
    assert found["net_re_arcsec_q500"].mask.tolist() == size.is_null().to_pylist()
    # 9 digits give a float32 back.
    known = ~found["net_re_arcsec_q500"].mask
    assert np.array_equal(np.asarray(found["net_re_arcsec_q500"], np.float32)[known], size.to_numpy()[known])
    assert [str(text) if text is not np.ma.masked else "" for text in found["field"]] == rows[
        "field"
    ].to_pylist()


def test_the_felis_schema_has_every_column(released):
    path, rows = released
    text = Path(reporting.write_release(path).folder, "felis.yaml").read_text()
    (table,) = json.loads(text)["tables"]
    assert [column["name"] for column in table["columns"]] == rows.column_names
    kinds = {column["name"]: column for column in table["columns"]}
    assert kinds["net_re_arcsec_q500"]["datatype"] == "float"
    assert kinds["net_re_arcsec_q500"]["ivoa:unit"] == "arcsec"
    assert kinds["field"]["length"] == 4
    assert not kinds["object_id"]["nullable"]
    felis = pytest.importorskip("felis.datamodel", reason="lsst-felis is not installed")
    assert felis.Schema.model_validate(json.loads(text)).name == "galbatch"


def test_texts_cite_catalog_data_networks_and_software(released):
    folder = Path(reporting.write_release(released[0]).folder)
    cited = (folder / "citations.md").read_text()
    for text in (
        "A. Author, B. Author, galbatch, doi 10.5281/zenodo.1",
        "Aihara et al. 2022",
        "net: Ghosh et al. 2022",
    ):
        assert text in cited
    methods = (folder / "methods.md").read_text()
    assert f"The catalog has {N_OBJECTS} objects in 9 columns" in methods
    assert "net is the bundle with sha256 3fa1, run by the engine torchscript-float32" in methods


def test_what_does_not_verify_is_not_released(released):
    path, _ = released
    (leaf,) = Path(path, "dataset").rglob("Npix=*.parquet")
    data = bytearray(leaf.read_bytes())
    data[100] ^= 1
    leaf.write_bytes(data)
    with pytest.raises(CatalogError, match=r"is not released: .* problem"):
        reporting.write_release(path)
    assert not Path(reporting.release_folder(path)).exists()


@pytest.mark.parametrize("key", ["object_id", "objectId", "ls_id"])
def test_object_tables_of_surveys_are_joined_by_id(released, key, tmp_path):
    """Ids of 17 digits and more stay whole: as floats, two of three would be equal."""
    path, rows = released
    theirs = pa.table({key: rows["object_id"].to_numpy()[::-2], "mag": np.arange(4.0)})
    pq.write_table(theirs, tmp_path / "theirs.parquet")
    ours = pq.read_table(f"{path}/dataset", columns=["object_id", "net_passes"])
    joined = ours.join(pq.read_table(tmp_path / "theirs.parquet"), keys="object_id", right_keys=key)
    found = dict(zip(joined["object_id"].to_pylist(), joined["mag"].to_pylist(), strict=True))
    expected = dict(zip(theirs[key].to_pylist(), theirs["mag"].to_pylist(), strict=True))
    assert found == {one: expected.get(one) for one in rows["object_id"].to_pylist()}
