from __future__ import annotations

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from galbatch import ingest, storage
from galbatch.config import SurveyConfig
from galbatch.core.types import CalibrationField, FileIdentity, Plane, Tile
from galbatch.errors import TileError
from galbatch.ingest.tiles import index as tile_index
from galbatch.ingest.tiles import index_file, read_tiles


@pytest.fixture
def files(tmp_path, write_calexp, tan, monkeypatch):
    """Three patches; few files count as many."""
    monkeypatch.setattr(tile_index, "MANY_FILES", 2)
    for number in range(3):
        header = tan(crpix=(500.5 - 20 * number, 600.5))
        write_calexp(tmp_path, patch=f"{number},4", image=np.zeros((20, 20)), wcs=header)
    return sorted((tmp_path / "deepCoadd-results").rglob("*.fits"))


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read the tiles with the index; returns them and the files whose headers were read."""
    opened = []

    def noted(source, survey, files):
        opened.append(os.path.basename(source.path))
        return tiles_in(source, survey, files)

    tiles_in = tile_index.tiles_in
    monkeypatch.setattr(tile_index, "tiles_in", noted)

    def run(**changes):
        opened.clear()
        survey = {"layout": "hsc", "tiles": str(tmp_path / "deepCoadd-results"), "bands": ("g",)} | changes
        found = read_tiles(SurveyConfig(**survey), index=str(tmp_path / "index.parquet"))
        return found, list(opened)

    return run


def same(left, right):
    """Equal, NaN to NaN."""
    return repr(left) == repr(right)


def test_headers_are_read_once(files, read, read_tiles, tmp_path):
    first, opened = read()
    assert len(opened) == 3
    assert same(first, read_tiles(tmp_path / "deepCoadd-results"))
    modified = (tmp_path / "index.parquet").stat().st_mtime_ns
    again, opened = read()
    assert opened == []
    assert same(again, first)
    assert (tmp_path / "index.parquet").stat().st_mtime_ns == modified


def test_only_new_and_changed_files_are_read_and_gone_ones_dropped(files, read, tmp_path, write_calexp, tan):
    read()
    os.utime(files[1], ns=(0, 12345))
    files[2].unlink()
    write_calexp(tmp_path, patch="7,7", image=np.zeros((20, 20)), wcs=tan(crpix=(1.5, 1.5)))
    found, opened = read()
    assert sorted(opened) == [files[1].name, "calexp-HSC-G-9813-7,7.fits"]
    assert [tile.tile_id for tile in found] == ["9813/0,4", "9813/1,4", "9813/7,7"]
    assert found[1].identity.version == "12345"
    assert pq.read_table(tmp_path / "index.parquet").num_rows == 3
    files[0].unlink()
    assert [tile.tile_id for tile in read()[0]] == ["9813/1,4", "9813/7,7"]
    assert pq.read_table(tmp_path / "index.parquet").num_rows == 2


@pytest.mark.parametrize(
    "change", [{"psf_fwhm_arcsec": {"g": 0.7}}, {"release": "pdr3"}, {"layout": "stamps"}]
)
def test_other_settings_read_all_again(files, read, change):
    read()
    found, opened = read(**change)
    assert len(opened) == 3
    assert len(found) == 3


def test_the_name_of_a_survey_and_the_way_to_its_files_change_nothing(files, read, tmp_path):
    read()
    assert read(name="hsc", tiles=f"{tmp_path}/**/calexp-*.fits")[1] == []


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1 what is this PAR1", "another table", "another version", "rows that are not whole"],
)
def test_what_is_no_index_is_written_anew(files, read, tmp_path, content):
    first, _ = read()
    path = tmp_path / "index.parquet"
    table = pq.read_table(path)
    if content == "another table":
        pq.write_table(pa.table({"key": ["x"]}), path)
    elif content == "another version":
        pq.write_table(table.replace_schema_metadata({"galbatch.tile_index": "0 0"}), path)
    elif content == "rows that are not whole":
        pq.write_table(table.drop_columns(["looked"]), path)
    else:
        path.write_bytes(content)
    found, opened = read()
    assert len(opened) == 3
    assert same(found, first)
    assert read()[1] == []


def test_an_index_that_cannot_be_written_is_done_without(files, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    survey = SurveyConfig(layout="hsc", tiles=str(tmp_path / "deepCoadd-results"), bands=("g",))
    assert len(read_tiles(survey, index=str(tmp_path / "file" / "index.parquet"))) == 3


def test_a_bad_file_is_named_and_what_was_read_before_is_kept(files, read, monkeypatch):
    monkeypatch.setattr(tile_index, "BATCH_FILES", 1)
    whole = files[2].read_bytes()
    files[2].write_bytes(whole[:8000])
    with pytest.raises(TileError, match=r"9813/2,4 band g \(.*calexp-HSC-G-9813-2,4\.fits\)"):
        read()
    files[2].write_bytes(whole)
    found, opened = read()
    assert opened == [files[2].name]
    assert len(found) == 3


def test_few_files_are_read_without_an_index(files, read, tmp_path, monkeypatch):
    monkeypatch.setattr(tile_index, "MANY_FILES", 4)
    assert len(read()[1]) == 3
    assert not (tmp_path / "index.parquet").exists()


def test_many_headers_are_mapped_in_batches(files, tmp_path, monkeypatch):
    monkeypatch.setattr(tile_index, "BATCH_FILES", 2)
    batches = []

    def map_files(function, items):
        for item in items:
            batches.append(len(item))
            yield function(item)

    survey = SurveyConfig(layout="hsc", tiles=str(tmp_path / "deepCoadd-results"), bands=("g",))
    assert len(ingest.read_surveys([survey], map_files=map_files)) == 3
    assert batches == [2, 1]


def test_files_beside_the_tile_count(tmp_path, read, tan, monkeypatch):
    """A brick whose weight comes, changes or goes is read again."""
    monkeypatch.setattr(tile_index, "MANY_FILES", 1)
    header = tan(crpix=(10.5, 10.5), scale_arcsec=0.262)

    def write(kind, value):
        name = f"legacysurvey-1500p020-{kind}-g.fits"
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.full((20, 20), value, np.float32), header)])
        hdus.writeto(tmp_path / name, overwrite=True)
        return tmp_path / name

    write("image", 1.0)
    bricks = {"layout": "legacysurvey", "tiles": f"{tmp_path}/legacysurvey-*-image-g.fits"}
    assert read(**bricks)[0][0].weight is None
    assert read(**bricks)[1] == []
    weight = write("invvar", 4.0)
    found, opened = read(**bricks)
    assert len(opened) == 1
    assert found[0].weight == dataclasses.replace(found[0].image, path=str(weight))
    assert read(**bricks)[1] == []
    os.utime(weight, ns=(0, 777))
    assert len(read(**bricks)[1]) == 1
    weight.unlink()
    found, opened = read(**bricks)
    assert len(opened) == 1
    assert found[0].weight is None


def test_every_field_of_a_tile_goes_and_comes_back():
    # The identities of a tile's files are those of the files that were looked at.
    assert {*index_file._TILE_FIELDS, "files"} == {field.name for field in dataclasses.fields(Tile)}
    planes = [
        Plane("/a/x.h5", "images/g", (3, 1), bytes_per_px=2),
        Plane("/a/x.fits", 2, (), bytes_per_px=8, block_px=(1, 100), stored_bytes=12345),
    ]
    full = Tile(
        tile_id="1/2",
        band="g",
        image=planes[0],
        shape_px=(30, 40),
        wcs_header="SIMPLE",
        grid_key="k",
        njy_per_unit=57.5,
        pixel_scale_arcsec=0.168,
        corners_deg=((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0)),
        mask=planes[1],
        mask_planes={"BAD": 0, "SAT": 31},
        weight=planes[1],
        weight_kind="standard_deviation",
        psf_fwhm_arcsec=0.7,
        psf=planes[0],
        release="pdr3",
        background="local sky",
        identity=FileIdentity(5, "v"),
    )
    bare = Tile("3", "r", planes[1], (1, 2), "", "", 1.0, 0.2, ())
    for tile in (full, bare):
        table = pa.Table.from_pylist(
            [{"key": "k", "looked": [], **index_file._row(tile)}], index_file._SCHEMA
        )
        assert same(index_file._tile(table.to_pylist()[0]), tile)
    assert {field.name for field in dataclasses.fields(Plane)} == {
        field.name for field in index_file._PLANE if field.name != "dataset"
    }


def test_each_survey_has_an_index_of_its_own():
    surveys = [SurveyConfig(layout="hsc", tiles="x", bands=("g",), name=name) for name in ("hsc", "")]
    assert tile_index.index_paths("c.zarr_tiles", surveys) == [
        "c.zarr_tiles_hsc.parquet",
        "c.zarr_tiles_1.parquet",
    ]
    assert tile_index.index_paths("c.zarr_tiles", surveys[:1]) == ["c.zarr_tiles.parquet"]


def test_on_s3_an_unchanged_survey_costs_a_listing_and_the_index(s3, files, monkeypatch):
    monkeypatch.setattr(tile_index, "MANY_FILES_ON_S3", 2)
    for path in files:
        storage.publish(f"{s3}/pdr3/{path.name}", path.read_bytes())
    survey = SurveyConfig(layout="hsc", tiles=f"{s3}/pdr3", bands=("g",))
    first = read_tiles(survey, index=f"{s3}/cutouts.zarr_tiles.parquet")
    assert {tile.release for tile in first} == {"pdr3"}

    def refuse(*arguments):
        raise AssertionError(f"headers were read: {arguments}")

    asked = []
    identity = storage.S3FileSystem.identity
    monkeypatch.setattr(
        storage.S3FileSystem, "identity", lambda system, path: (asked.append(path), identity(system, path))[1]
    )
    monkeypatch.setattr(tile_index, "tiles_in", refuse)
    assert same(read_tiles(survey, index=f"{s3}/cutouts.zarr_tiles.parquet"), first)
    assert asked == [f"{s3}/cutouts.zarr_tiles.parquet"]


def test_what_makes_pixels_linear_is_kept(tmp_path, files, read):
    """A calibration that varies over the tile, and the cards of arcsinh magnitudes, come back as they were."""
    (tile, *_), _ = read()
    field = CalibrationField((-0.5, 19.5), (-100.5, 19.5), ((1.0, 0.25), (-0.5, 0.0)))
    image = dataclasses.replace(tile.image, asinh=(50.0, 2000.0))
    tile = dataclasses.replace(tile, image=image, calibration=field, files=())
    survey = SurveyConfig(layout="hsc", tiles=str(tmp_path), bands=("g",))
    path = str(tmp_path / "kept.parquet")
    index_file.save_index(path, survey, [index_file.FileTiles("a", (), (tile,))])
    assert same(index_file.load_index(path, survey)["a"].tiles, (tile,))
