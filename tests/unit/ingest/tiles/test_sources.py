"""Tables of tiles; globs and folders are under the layouts' contract test."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pyarrow as pa
import pytest

from galbatch import storage
from galbatch.errors import TileError
from galbatch.objects import write_table


@pytest.fixture
def patch(tmp_path, write_calexp, tan):
    """A patch, its path relative to `tmp_path`."""
    path = write_calexp(tmp_path, image=np.zeros((20, 20)), wcs=tan(crpix=(500.5, 600.5)))
    return str(path.relative_to(tmp_path))


@pytest.fixture
def table(tmp_path):
    """Write a table of tiles."""

    def write(name="tiles.parquet", **columns):
        write_table(str(tmp_path / name), pa.table(columns))
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["tiles.parquet", "tiles.csv"])
def test_rows_complete_and_override_what_the_files_say(table, patch, read_tiles, name):
    path = table(
        name,
        path=[patch],
        band=["g"],
        tile_id=["mine"],
        psf_fwhm_arcsec=[0.75],
        release=["pdr3"],
        background=["none"],
    )
    (tile,) = read_tiles(path, psf_fwhm_arcsec={"g": 0.6}, release="pdr2")
    assert (tile.tile_id, tile.band, tile.psf_fwhm_arcsec) == ("mine", "g", 0.75)
    assert (tile.release, tile.background) == ("pdr3", "none")


def test_what_a_row_leaves_empty_stays_as_it_was(table, patch, read_tiles):
    path = table(
        path=[patch], tile_id=pa.nulls(1), psf_fwhm_arcsec=[math.nan], release=[""], background=pa.nulls(1)
    )
    (tile,) = read_tiles(path, psf_fwhm_arcsec={"g": 0.6}, release="pdr2")
    assert (tile.tile_id, tile.psf_fwhm_arcsec) == ("9813/4,4", 0.6)
    assert (tile.release, tile.background) == ("pdr2", "global sky")


def test_zero_points_complete_but_do_not_contradict(table, tmp_path, write_calexp, tan, read_tiles):
    bare = write_calexp(tmp_path, image=np.zeros((9, 9)), wcs=tan(crpix=(5.0, 5.0)), fluxmag0=None)
    path = table(path=[str(bare)], zero_point_mag=[27])
    (tile,) = read_tiles(path)
    assert tile.njy_per_unit == pytest.approx(57.544, abs=1e-3)
    stated = write_calexp(tmp_path, patch="4,5", image=np.zeros((9, 9)), wcs=tan(crpix=(5.0, 5.0)))
    path = table(path=[str(stated)], zero_point_mag=[26.0])
    with pytest.raises(TileError, match=r"the file says zero point 27\.0000, .* 26\.0000"):
        read_tiles(path)


def test_rows_of_other_bands_are_left_out_before_their_files_are_looked_at(table, patch, read_tiles):
    path = table(path=[patch, "nowhere.fits"], band=["g", "z"])
    assert [tile.band for tile in read_tiles(path)] == ["g"]
    with pytest.raises(TileError, match="no tile matches: none of its rows is of bands y"):
        read_tiles(path, bands=("y",))


def test_files_need_no_name_of_the_layout(table, tmp_path, patch, read_tiles):
    """Names that a folder would not be searched for: the table says that they hold tiles."""
    (tmp_path / "a").mkdir()
    shutil.copy(tmp_path / patch, tmp_path / "a" / "coadd_1.fits")
    path = table(path=["a/coadd_1.fits"], band=["g"], tile_id=["1"], zero_point_mag=[27.0])
    (tile,) = read_tiles(path, layout="stamps")
    assert (tile.tile_id, tile.band) == ("1", "g")


def test_a_row_whose_file_holds_no_such_tile(table, patch, read_tiles):
    with pytest.raises(
        TileError, match=r"tiles.parquet: .*calexp.*fits holds no tile in band r of layout hsc"
    ):
        read_tiles(table(path=[patch], band=["r"]), bands=("g", "r"))


def test_files_that_are_not_there(table, patch, read_tiles):
    path = table(path=[patch, "gone.fits", "/away/x.fits"])
    with pytest.raises(
        TileError, match=r"2 of 3 files are not there: .*/gone.fits, /away/x.fits; fetch them"
    ):
        read_tiles(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["x"]}, "needs a column path; there are file; known are path, band, tile_id"),
        ({"path": ["x"], "psf_fwhm": [1.0]}, "unknown columns psf_fwhm; did you mean psf_fwhm_arcsec?"),
        ({"path": ["x"], "airmass": [1.0]}, "unknown columns airmass; known are path, band,"),
        ({"path": ["x", ""]}, "1 of 2 rows have a path; all need one"),
        (
            {"path": ["x", "y", "z"], "psf_fwhm_arcsec": [None, 0.8, -1.0]},
            "psf_fwhm_arcsec: 1 of 3 rows have no width, such as row 2: -1.0; correct them, or leave them empty",
        ),
        ({"path": [1]}, "column path holds int64, expected text"),
        ({"path": ["x"], "zero_point_mag": ["27"]}, "column zero_point_mag holds string, expected numbers"),
        ({"path": ["x", None]}, "1 of 2 rows have a path; all need one"),
        ({"path": pa.array([], pa.string())}, "0 of 0 rows have a path"),
    ],
)
def test_wrong_columns_are_named(table, read_tiles, columns, message):
    with pytest.raises(TileError) as caught:
        read_tiles(table(**columns))
    assert message in str(caught.value)


def test_a_row_that_names_a_folder(table, tmp_path, read_tiles):
    (tmp_path / "patches").mkdir()
    with pytest.raises(TileError, match="patches: is a folder, expected a FITS file"):
        read_tiles(table(path=["patches"]), layout="generic")


def test_a_table_that_is_not_there(tmp_path, read_tiles):
    with pytest.raises(TileError, match=r"\[survey\] tiles: .*tiles.csv: there is no such file"):
        read_tiles(tmp_path / "tiles.csv")


def test_one_name_for_several_tiles_is_refused(table, tmp_path, write_calexp, tan, read_tiles, patch):
    path = table(path=[patch, patch])
    with pytest.raises(TileError, match=r"tile 9813/4,4 band g is there 2 times: .*; take rows out"):
        read_tiles(path)


def test_tables_and_tiles_on_s3(s3, tmp_path, patch, read_tiles):
    content = (tmp_path / patch).read_bytes()
    names = [f"calexp-HSC-G-9813-{number},0.fits" for number in range(storage.LISTED_FROM + 1)]
    for name in names:
        storage.publish(f"{s3}/survey/{name}", content)
    write_table(f"{s3}/survey/tiles.csv", pa.table({"path": names}))
    found = read_tiles(f"{s3}/survey/tiles.csv")
    assert len(found) == len(names)
    assert found[0].image.path == f"{s3}/survey/{names[0]}"
    write_table(f"{s3}/survey/tiles.csv", pa.table({"path": [*names, "gone.fits"]}))
    with pytest.raises(TileError, match=rf"1 of {len(names) + 1} files are not there: s3://.*gone.fits"):
        read_tiles(f"{s3}/survey/tiles.csv")
