"""Object lists as surveys and their tools write them: several tables, other units, ids as text, folders; and real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.io.votable.tree import VOTableFile
from astropy.table import MaskedColumn, QTable, Table

from galbatch.config import ObjectsConfig
from galbatch.errors import ObjectListError
from galbatch.objects import check_objects, open_objects, read_objects, read_table

IDS = [40123456789012345 + i for i in range(6)]
RA = np.linspace(149.9, 150.1, 6)
DEC = np.linspace(1.9, 2.1, 6)


def rows(part: slice = slice(None)) -> Table:
    return Table({"object_id": IDS[part], "ra_deg": RA[part], "dec_deg": DEC[part]})


def write_fits(path: Path, *tables: tuple[str, Table]) -> ObjectsConfig:
    hdus = [fits.BinTableHDU(table.as_array(), name=name) for name, table in tables]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return ObjectsConfig(path=str(path))


# --- several tables in one file --------------------------------------------------------------------------


def test_fits_ldac(tmp_path: Path) -> None:
    header = Table({"Field Header Card": ["SIMPLE  =                    T"]})
    config = write_fits(tmp_path / "a.fits", ("LDAC_IMHEAD", header), ("LDAC_OBJECTS", rows()))
    assert sorted(read_objects(config)[0].object_id.tolist()) == IDS
    assert check_objects(config).n_rows == 6


def test_a_table_for_each_ccd_is_refused_until_one_is_named(tmp_path: Path) -> None:
    config = write_fits(tmp_path / "a.fits", ("CCD0", rows(slice(2))), ("CCD1", rows(slice(2, 6))))
    message = r"has several tables: 1 CCD0 \(2 rows\), 2 CCD1 \(4 rows\); set \[objects\] hdu"
    for read in (read_objects, check_objects):
        with pytest.raises(ObjectListError, match=message):
            read(config)
    for hdu, ids in ((1, IDS[:2]), ("CCD1", IDS[2:]), ("ccd1", IDS[2:]), (2, IDS[2:])):
        chosen = config.model_copy(update={"hdu": hdu})
        assert sorted(read_objects(chosen)[0].object_id.tolist()) == ids
        assert check_objects(config.model_copy(update={"hdu": hdu})).n_rows == len(ids)
    with pytest.raises(ObjectListError, match=r"hdu = 'CCD7' means 0 of its tables; there are 1 CCD0"):
        read_objects(config.model_copy(update={"hdu": "CCD7"}))


def test_empty_tables_beside_the_list_do_not_count(tmp_path: Path) -> None:
    config = write_fits(tmp_path / "a.fits", ("NOTES", rows(slice(0))), ("LIST", rows()))
    assert len(read_objects(config)[0]) == 6


def test_a_fits_file_without_a_table(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones((2, 2))).writeto(tmp_path / "a.fits")
    with pytest.raises(ObjectListError, match=r"cannot be read as \.fits: it has no table"):
        read_table(str(tmp_path / "a.fits"))


def test_votable_columns_by_name_and_by_id_where_a_name_repeats(tmp_path: Path) -> None:
    document = from_table(rows())
    table = next(iter(document.iter_tables()))
    for number, (field, name) in enumerate(zip(table.fields, ("object_id", "pos", "pos"), strict=True)):
        field.ID, field.name = f"col{number}", name
    document.to_xml(str(tmp_path / "a.vot"))
    found = read_table(str(tmp_path / "a.vot"))
    assert found.column_names == ["object_id", "col1", "col2"]
    assert found["col2"].to_pylist() == DEC.tolist()


def test_a_votable_of_two_tables(tmp_path: Path) -> None:
    document = from_table(rows(slice(2)), table_id="one")
    second: VOTableFile = from_table(rows(slice(2, 6)), table_id="two")
    document.resources.extend(second.resources)
    document.to_xml(str(tmp_path / "a.vot"))
    config = ObjectsConfig(path=str(tmp_path / "a.vot"))
    with pytest.raises(ObjectListError, match=r"has several tables: 0 one \(2 rows\), 1 two \(4 rows\)"):
        read_objects(config)
    assert len(read_objects(config.model_copy(update={"hdu": "two"}))[0]) == 4


# --- columns that nobody asked for -----------------------------------------------------------------------


def test_coordinates_and_complex_numbers_end_no_command(tmp_path: Path) -> None:
    table = QTable(rows())
    table["coord"] = SkyCoord(RA, DEC, unit="deg")
    table["visibility"] = np.ones(6, complex)
    table.write(tmp_path / "a.fits")
    assert check_objects(ObjectsConfig(path=str(tmp_path / "a.fits"))).n_rows == 6
    assert "coord.ra" in read_table(str(tmp_path / "a.fits")).column_names
    config = ObjectsConfig(path=str(tmp_path / "a.fits"), keep=("visibility",))
    with pytest.raises(ObjectListError, match="column visibility holds complex128, which a catalog cannot"):
        read_objects(config)


def test_arrays_of_fits_and_votable_come_as_lists(tmp_path: Path) -> None:
    table = rows(slice(2))
    table["pair"] = np.array([[1, 2], [3, 4]], np.int16)
    table["flag"] = MaskedColumn([True, False], mask=[False, True])
    for name in ("a.fits", "a.vot"):
        table.write(tmp_path / name, format="fits" if name == "a.fits" else "votable")
        found = read_table(str(tmp_path / name))
        assert found.schema.field("pair").type == pa.list_(pa.int16())
        assert found["pair"].to_pylist() == [[1, 2], [3, 4]]
    Table({"text": np.array([["a", "b"], ["c", "d"]])}).write(tmp_path / "text.fits")
    assert read_table(str(tmp_path / "text.fits"))["text"].to_pylist() == [["a", "b"], ["c", "d"]]
    ragged = fits.Column("c", "PJ()", array=np.array([np.array([1]), np.array([2, 3])], dtype=object))
    fits.BinTableHDU.from_columns([ragged]).writeto(tmp_path / "ragged.fits")
    assert read_table(str(tmp_path / "ragged.fits"))["c"].to_pylist() == [[1], [2, 3]]


# --- units and text of positions -------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["deg", "degree", "degrees", "Degrees", "DEG"])
def test_degrees_however_they_are_spelled(tmp_path: Path, unit: str) -> None:
    rows().write(tmp_path / "a.fits")
    fits.setval(tmp_path / "a.fits", "TUNIT2", value=unit, ext=1)
    assert len(read_objects(ObjectsConfig(path=str(tmp_path / "a.fits")))[0]) == 6


@pytest.mark.parametrize("text", ["10:00:28.6", "10h00m28.6s", "10 00 28.6"])
def test_sexagesimal_text_is_refused_by_name(tmp_path: Path, text: str) -> None:
    pq.write_table(pa.table({"object_id": [1], "ra_deg": [text], "dec_deg": [2.0]}), tmp_path / "a.parquet")
    with pytest.raises(ObjectListError, match=f"expected degrees as numbers.*'{text}' is sexagesimal"):
        read_objects(ObjectsConfig(path=str(tmp_path / "a.parquet")))


def test_decimal_positions(tmp_path: Path) -> None:
    position = pa.array(["150.25"]).cast(pa.decimal128(9, 4))
    pq.write_table(pa.table({"object_id": [1], "ra_deg": position, "dec_deg": [2.5]}), tmp_path / "a.parquet")
    assert read_objects(ObjectsConfig(path=str(tmp_path / "a.parquet")))[0].ra_deg.tolist() == [150.25]


# --- ids -------------------------------------------------------------------------------------------------


def test_ids_as_text_keep_leading_zeros_and_more_than_64_bits(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "object_id,ra_deg,dec_deg\n007,150.0,2.0\n7,150.1,2.0\n18446744073709551615,150.2,2.0\n"
    )
    config: dict[str, Any] = {"path": str(tmp_path / "a.csv"), "id_type": "text"}
    table, *_ = read_objects(ObjectsConfig(**config))
    assert sorted(table.object_id) == ["007", "18446744073709551615", "7"]
    pq.write_table(
        pa.table({"object_id": pa.array([2**64 - 1], pa.uint64()), "ra_deg": [1.0], "dec_deg": [2.0]}),
        tmp_path / "a.parquet",
    )
    config["path"] = str(tmp_path / "a.parquet")
    assert read_objects(ObjectsConfig(**config))[0].object_id.tolist() == ["18446744073709551615"]
    with pytest.raises(ObjectListError, match=r'set \[objects\] id_type = "text"'):
        read_objects(ObjectsConfig(path=config["path"]))


# --- folders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["objects", "objects.parquet"])
def test_a_folder_of_parquet_files(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    for number, key in enumerate(IDS):
        values: Any = {"object_id": [key], "ra_deg": [RA[number]], "dec_deg": [DEC[number]]}
        # A part without a value stores no type for the column.
        values["z"] = pa.nulls(1) if number == 0 else [0.5]
        pq.write_table(pa.table(values), tmp_path / folder / f"part.{number + 7}.parquet")
    (tmp_path / folder / "_metadata").write_bytes(b"")
    config = ObjectsConfig(path=str(tmp_path / folder), keep=("z",))
    table = open_objects(config).read(0)
    by_id = dict(zip(table.object_id.tolist(), table.kept["z"].to_pylist(), strict=True))
    assert by_id == {key: None if key == IDS[0] else 0.5 for key in IDS}
    assert read_table(config.path, columns=["object_id"])["object_id"].to_pylist() == IDS
    assert check_objects(config).n_rows == 6


# --- real files ------------------------------------------------------------------------------------------


@pytest.fixture
def survey_lists(realdata: Path) -> Path:
    """Return the folder of surveys' object lists."""
    folder = realdata / "by_survey"
    if not (folder / "lists_ldac").is_dir():
        pytest.skip(f"there are no object lists of surveys in {folder}")
    return folder


def test_a_real_fits_ldac(survey_lists: Path) -> None:
    path = survey_lists / "lists_ldac" / "DECam_00241238_01_cat_40rows.fits"
    config = ObjectsConfig(path=str(path), id="NUMBER", ra="ALPHA_J2000", dec="DELTA_J2000")
    with fits.open(path) as hdus:
        ids = sorted(hdus["LDAC_OBJECTS"].data["NUMBER"].tolist())
    assert sorted(read_objects(config)[0].object_id.tolist()) == ids
    assert len(ids) == 40


def test_a_real_afw_table_is_in_radians(survey_lists: Path) -> None:
    path = str(survey_lists / "lists_afw" / "deepCoadd_meas_HSC_v2.fits")
    config = ObjectsConfig(path=path, id="id", ra="coord_ra", dec="coord_dec", invalid="drop")
    found, *_ = read_objects(config)
    assert len(found.object_id)
    rows = Table.read(path, hdu=1, unit_parse_strict="silent")
    at = {int(row["id"]): SkyCoord(row["coord_ra"], row["coord_dec"], unit="rad") for row in rows}
    for key, ra, dec in zip(found.object_id.tolist(), found.ra_deg, found.dec_deg, strict=True):
        assert at[key].separation(SkyCoord(ra, dec, unit="deg")).mas < 0.001


@pytest.mark.parametrize(
    "folder", ["lists_hats/small_sky_npix_as_dir", "lists_hats/small_sky_o1_collection/small_sky_order1", "lists_hipscat/small_sky_order1"]
)  # fmt: skip
def test_real_hats_and_hipscat_catalogs(survey_lists: Path, folder: str) -> None:
    source = open_objects(ObjectsConfig(path=str(survey_lists / folder), id="id", ra="ra", dec="dec"))
    assert sum(source.counts) == 131
    table = source.read(0)
    assert 280 <= table.ra_deg.min() <= table.ra_deg.max() <= 351
    assert -70 <= table.dec_deg.min() <= table.dec_deg.max() <= -25


def test_a_real_hats_collection_names_its_table(survey_lists: Path) -> None:
    path = str(survey_lists / "lists_hats" / "small_sky_o1_collection")
    with pytest.raises(ObjectListError, match=r"it is a HATS collection: give .*small_sky_order1"):
        open_objects(ObjectsConfig(path=path))


def test_a_real_hsc_csv(survey_lists: Path) -> None:
    path = str(survey_lists / "lists_hsc_csv" / "fithsc_src.csv")
    found = check_objects(ObjectsConfig(path=path))
    assert found.n_rows == 92
    assert found.id_kind == "integers of up to 17 digits"


@pytest.mark.parametrize("ids", [["007", "10"], ["1", "", "000123"], ["0", "-05"]])
def test_ids_of_a_csv_file_never_lose_their_zeros_silently(tmp_path: Path, ids: list[str]) -> None:
    (tmp_path / "a.csv").write_text("object_id,ra_deg,dec_deg\n" + "".join(f"{i},1,2\n" for i in ids))
    objects = ObjectsConfig(path=str(tmp_path / "a.csv"), invalid="drop")
    example = next(i for i in ids if i.lstrip("+-").startswith("0") and len(i) > 1)
    with pytest.raises(ObjectListError, match=f"1 of {len(ids)} ids begin with a zero") as error:
        read_objects(objects)
    assert repr(example) in str(error.value)
    for remedy in ('id_type = "text"', '"integer"'):
        assert remedy in str(error.value)
    with pytest.raises(ObjectListError, match="begin with a zero"):
        check_objects(objects)
    found = {
        kind: read_objects(objects.model_copy(update={"id_type": kind}))[0].object_id.tolist()
        for kind in ("text", "integer")
    }
    known = [i for i in ids if i]
    assert sorted(found["text"]) == sorted(known)
    assert sorted(found["integer"]) == sorted(map(int, known))


def test_zero_itself_and_zeros_elsewhere_are_no_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("object_id,ra_deg,dec_deg,n\n0,01,2,007\n-0,1,2,1\n100,1,2,1\n")
    objects = ObjectsConfig(path=str(tmp_path / "a.csv"), keep=("n",), invalid="drop")
    assert read_objects(objects)[0].object_id.tolist() == [0, 100]


def test_text_that_is_no_integer_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("object_id,ra_deg,dec_deg\nJ1000,1,2\n7,1,2\n")
    with pytest.raises(ObjectListError, match=r'id_type = "integer", but not all ids are integers.*J1000'):
        read_objects(ObjectsConfig(path=str(tmp_path / "a.csv"), id_type="integer"))
