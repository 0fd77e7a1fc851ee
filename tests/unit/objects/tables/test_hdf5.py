"""Object lists in HDF5."""

from __future__ import annotations

import gzip
import subprocess
import sys

import fsspec
import h5py
import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from galbatch.cli import app as cli
from galbatch.config import ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects import read_objects, read_table

# 17 digits, as HSC's ids: as float64 all would become one.
IDS = np.array([43158034708430849, 43158034708430850, -43158034708430852])
COLUMNS = {
    "object_id": IDS,
    "ra": np.array([150.1, 359.99, 0.01]),
    "dec": np.array([2.1, -1.0, 1.0], ">f8"),
    "z": np.array([0.1, np.nan, 0.3], np.float32),
    "is_star": np.array([True, False, True]),
    "field": np.array([b"wide", b"deep", b"x"], "S4"),
    "note": np.array(["é", "", "b"], object),
    "mags": np.arange(15.0).reshape(3, 5),
    "image": np.zeros((3, 5, 4, 4), np.float32),
}


@pytest.fixture
def galaxies(tmp_path):
    """As GalaxiesML: magnitudes and redshifts beside the images."""
    path = tmp_path / "5x64x64.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in COLUMNS.items():
            file[name] = values
        file["n_bands"] = 5  # no column
        file["dec"].attrs["unit"] = "deg"
    return path


def config(path, **changes):
    return ObjectsConfig(path=str(path), ra="ra", dec="dec", **changes)


def expect_whole(path, **changes):
    table, rejected, _ = read_objects(config(path, keep=("z", "is_star", "field", "note", "mags"), **changes))
    assert not len(rejected)
    rows = dict(zip(table.object_id.tolist(), table.kept.to_pylist(), strict=True))
    assert sorted(rows) == sorted(IDS.tolist())
    at = {number: place for place, number in enumerate(IDS.tolist())}
    np.testing.assert_array_equal(table.dec_deg, COLUMNS["dec"][[at[i] for i in table.object_id.tolist()]])
    second = rows[IDS[1]]
    assert (second["is_star"], second["field"], second["note"], second["mags"]) == (
        False,
        "deep",
        "",
        [5.0, 6.0, 7.0, 8.0, 9.0],
    )
    assert second["z"] is None or np.isnan(second["z"])
    assert rows[IDS[2]]["z"] == np.float32(0.3)


def test_datasets_beside_images_are_columns(galaxies):
    expect_whole(galaxies)
    assert read_table(str(galaxies)).column_names == sorted(set(COLUMNS) - {"image"})


def test_gzipped_and_on_s3(galaxies, s3, tmp_path):
    packed = tmp_path / "a.h5.gz"
    packed.write_bytes(gzip.compress(galaxies.read_bytes()))
    expect_whole(packed)
    fsspec.filesystem("s3").put(str(galaxies), f"{s3}/list.hdf5")
    expect_whole(f"{s3}/list.hdf5")


def test_datasets_of_a_group(galaxies, tmp_path):
    path = tmp_path / "grouped.h5"
    with h5py.File(path, "w") as file, h5py.File(galaxies) as source:
        source.copy(source["/"], file, "tables/photometry")
    expect_whole(path, hdu="tables/photometry")
    with pytest.raises(
        ObjectListError, match=r"has no datasets of rows; there are tables \(group\); set .*hdu"
    ):
        read_objects(config(path))
    with pytest.raises(ObjectListError, match=r"hdu = 'photo' is no group or dataset.*tables \(group\)"):
        read_objects(config(path, hdu="photo"))


def test_a_table_that_astropy_wrote_with_its_units(tmp_path):
    path = tmp_path / "astropy.h5"
    table = Table({name: values for name, values in COLUMNS.items() if name not in ("image", "note")})
    table["ra"].unit, table["z"].unit = "deg", "mag"
    table.write(path, path="sources", serialize_meta=True)
    read = read_table(str(path), columns=["object_id", "z", "mags"])
    assert read["object_id"].to_pylist() == IDS.tolist()
    assert read.schema.field("z").metadata == {b"unit": b"mag"}
    assert read["mags"].to_pylist() == COLUMNS["mags"].tolist()
    table["ra"].unit = "hourangle"
    table.write(path, path="sources", serialize_meta=True, overwrite=True)
    # 359.99 hours are beyond what a right ascension can be, the others 15 times as many degrees.
    found, *_ = read_objects(config(path, invalid="drop"))
    assert dict(zip(found.object_id.tolist(), found.ra_deg, strict=True)) == pytest.approx({IDS[2]: 0.15})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"keep": ("image",)}, r"image is an array \(3, 5, 4, 4\), expected numbers.*galaxiesml"),
        ({"keep": ("photometry",)}, r"photometry is a group, expected a column: name a dataset"),
        ({"keep": ("long",)}, r"columns differ in length: .*object_id \(3 rows\).*long \(4 rows\)"),
        ({"keep": ("redshift",)}, r"no column redshift.*there are .*object_id"),
        ({"keep": ("n_bands",)}, r"no column n_bands"),
        ({"hdu": "ra"}, r"/ra is one array \(3,\), expected a table"),
    ],
)
def test_what_is_no_column_is_named(galaxies, asked, message):
    with h5py.File(galaxies, "a") as file:
        file["photometry/g"] = np.zeros(3)
        file["long"] = np.zeros(4)
    with pytest.raises(ObjectListError, match=message):
        read_objects(config(galaxies, **asked))


@pytest.mark.parametrize("keep_bytes", [0, 7, 100, 2000])
def test_a_truncated_file_is_named(galaxies, keep_bytes):
    galaxies.write_bytes(galaxies.read_bytes()[:keep_bytes])
    with pytest.raises(ObjectListError, match=r"5x64x64.hdf5: is no HDF5 file, or is damaged or truncated"):
        read_objects(config(galaxies))


def test_objects_check_reads_it(galaxies):
    done = CliRunner().invoke(cli.app, ["objects", "check", str(galaxies)])
    assert done.exit_code == 0
    assert "3 rows, 9 columns" in done.output
    assert "Accepted as it is" in done.output


def test_h5py_is_imported_by_who_needs_it():
    code = "import sys, galbatch.objects as o; o.read_table; sys.exit('h5py._hl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=250).returncode == 0
