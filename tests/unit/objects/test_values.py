"""Positions of lists in any unit of angle, which file states it wherever; right values from astropy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import Angle, SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table

from galbatch.config import ObjectsConfig, RegionConfig
from galbatch.errors import ObjectListError
from galbatch.objects import check_objects, open_objects, read_objects, write_table

IDS = np.array([43158034708430849, 43158034708430850, 43158034708430851])
RA, DEC = np.array([150.123456, 359.75, 0.2]), np.array([2.25, -45.5, 0.0])
UNITS = ["deg", "rad", "hourangle", "arcmin", "arcsec", "mas", "uas"]


def table_in(unit: str, names: tuple[str, str] = ("ra", "dec")) -> Table:
    table = Table({"object_id": IDS, "mag": [20.0, 21.0, 22.0]})
    for name, degrees in zip(names, (RA, DEC), strict=True):
        table[name] = Angle(degrees, "deg").to_value(unit)
        table[name].unit = unit
    return table


def write_with_field_metadata(path: Path, table: Table) -> None:
    fields = [
        pa.field(name, pa.from_numpy_dtype(table[name].dtype), metadata={"unit": str(table[name].unit or "")})
        for name in table.colnames
    ]
    pq.write_table(pa.table([table[name].data for name in table.colnames], pa.schema(fields)), path)


def write_with_attributes(path: Path, table: Table) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name in table.colnames:
            file[name] = table[name].data
            file[name].attrs["units"] = str(table[name].unit or "")


def write_fits(path: Path, table: Table) -> None:
    """Write a FITS table whose cards state the units; astropy itself writes no hourangle."""
    plain = table.copy()
    for name in plain.colnames:
        plain[name].unit = None
    plain.write(path)
    for number, name in enumerate(table.colnames, 1):
        fits.setval(path, f"TUNIT{number}", value=str(table[name].unit or ""), ext=1)


WRITERS: dict[str, Any] = {
    "astropy.fits": write_fits,
    "astropy.vot": lambda path, table: table.write(path, format="votable"),
    "astropy.ecsv": lambda path, table: table.write(path),
    "commas.csv": lambda path, table: table.write(path, format="ascii.ecsv", delimiter=","),
    "astropy.parquet": lambda path, table: table.write(path),
    "quantities.parquet": lambda path, table: QTable(table).write(path),
    "vo.parquet": lambda path, table: table.write(
        path, format="parquet.votable", metadata={name: {"unit": str(table[name].unit or "")} for name in table.colnames}
    ),
    "fields.parquet": write_with_field_metadata,
    "astropy.h5": lambda path, table: table.write(path, path="list", serialize_meta=True),
    "attributes.h5": write_with_attributes,
}  # fmt: skip


def in_order_of_ids(found: Any) -> tuple[list[int], Any, Any]:
    order = np.argsort(found.object_id)
    return found.object_id[order].tolist(), found.ra_deg[order], found.dec_deg[order]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_angle_of_every_writer_is_converted(tmp_path: Path, name: str, unit: str) -> None:
    WRITERS[name](tmp_path / name, table_in(unit))
    config = ObjectsConfig(path=str(tmp_path / name), ra="ra", dec="dec", keep=("ra",))
    found, *_ = read_objects(config)
    ids, ra, dec = in_order_of_ids(found)
    assert ids == IDS.tolist()
    right, read = SkyCoord(RA, DEC, unit="deg"), SkyCoord(ra, dec, unit="deg")
    assert right.separation(read).max() < 1e-6 * u.arcsec
    # A kept column is as it came.
    kept = np.sort(found.kept["ra"].to_numpy())
    np.testing.assert_array_equal(kept, np.sort(table_in(unit)["ra"].data))


@pytest.mark.parametrize("name", WRITERS)
def test_degrees_keep_their_bits(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, table_in("deg"))
    found, *_ = read_objects(ObjectsConfig(path=str(tmp_path / name), ra="ra", dec="dec"))
    assert in_order_of_ids(found)[1].tolist() == RA.tolist()


@pytest.mark.parametrize(
    ("unit", "degrees"),
    [
        ("RAD", 180 / np.pi), ("radians", 180 / np.pi), ("Degrees", 1), ("decimal degrees", 1), ("[deg]", 1), ("DEG", 1),
        ("arcseconds", 1 / 3600), ("ARCMIN", 1 / 60), ("HOURANGLE", 15), ("0.1arcsec", 1 / 36000), ("mrad", 0.18 / np.pi),
        ("cycle", 360), ("milliarcsecond", 1 / 3.6e6),
    ],
)  # fmt: skip
def test_units_as_files_spell_them(tmp_path: Path, unit: str, degrees: float) -> None:
    Table({"object_id": [1], "ra": [2.0], "dec": [0.5]}).write(tmp_path / "a.fits")
    fits.setval(tmp_path / "a.fits", "TUNIT2", value=unit, ext=1)
    found, *_ = read_objects(ObjectsConfig(path=str(tmp_path / "a.fits"), ra="ra", dec="dec"))
    assert found.ra_deg == pytest.approx([2.0 * degrees % 360.0], rel=1e-12)


TIMES = "these are times: state hourangle for a right ascension in hours"
OTHERS = "state one of these in the file, or convert the column to degrees"


@pytest.mark.parametrize(
    ("unit", "remedy"),
    [
        *((unit, TIMES) for unit in ("h", "hr", "hours", "hour", "min", "s", "h:m:s")),
        *(
            (unit, OTHERS)
            for unit in ("pix", "mag", "deg2", "deg/yr", "MRAD", "sexagesimal", "sr", "unknown")
        ),
    ],
)
def test_what_is_no_angle_is_refused_by_name(tmp_path: Path, unit: str, remedy: str) -> None:
    Table({"object_id": [1], "ra": [2.0], "dec": [0.5]}).write(tmp_path / "a.fits")
    fits.setval(tmp_path / "a.fits", "TUNIT2", value=unit, ext=1)
    for read in (read_objects, check_objects):
        with pytest.raises(
            ObjectListError, match=r"column ra is in .*, expected an angle that astropy knows"
        ) as error:
            read(ObjectsConfig(path=str(tmp_path / "a.fits"), ra="ra", dec="dec"))
        assert remedy in str(error.value)


@pytest.mark.parametrize(
    ("name", "unit", "says"),
    [
        ("ra_deg", "rad", "degrees"), ("RA_DEGREES", "hourangle", "degrees"), ("RAdeg", "mas", "degrees"),
        ("ra_rad", "deg", "rad"), ("RA [radians]", "deg", "radians"), ("ra_hours", "deg", "hours"), ("ra (hr)", "rad", "hours"),
        ("ra_arcsec", "mas", "arcsec"),
    ],
)  # fmt: skip
def test_a_name_that_contradicts_the_unit_is_refused_and_both_are_shown(
    tmp_path: Path, name: str, unit: str, says: str
) -> None:
    table = table_in(unit, (name, "dec"))
    table["dec"].unit = None
    write_fits(tmp_path / "a.fits", table)
    with pytest.raises(ObjectListError, match=f"its name says {says}, its unit is {unit}; correct"):
        read_objects(ObjectsConfig(path=str(tmp_path / "a.fits"), ra=name, dec="dec"))


@pytest.mark.parametrize(
    ("name", "unit"),
    [("ra_rad", "rad"), ("ra_hours", "hourangle"), ("RA [arcmin]", "arcmin"), ("ra_mas", "mas")],
)
def test_a_name_that_agrees_with_its_unit_is_converted(tmp_path: Path, name: str, unit: str) -> None:
    table_in(unit, (name, "dec_deg"))[["object_id", name]].write(tmp_path / "a.ecsv")
    table = Table.read(tmp_path / "a.ecsv")
    table["dec"] = DEC
    table.write(tmp_path / "a.ecsv", overwrite=True)
    found, *_ = read_objects(ObjectsConfig(path=str(tmp_path / "a.ecsv"), ra=name, dec="dec"))
    np.testing.assert_allclose(in_order_of_ids(found)[1], RA, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ra_hours", "hours"),
        ("RA_HOUR", "hours"),
        ("ra (hr)", "hours"),
        ("ra_rad", "rad"),
        ("RA [radians]", "radians"),
        ("ra_arcsec", "arcsec"),
    ],
)
def test_a_unit_in_the_name_alone_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(f"object_id,{name},dec\n1,2.5,2\n")
    with pytest.raises(ObjectListError, match=f"its name says {says}, and the file states no unit") as error:
        read_objects(ObjectsConfig(path=str(tmp_path / "a.csv"), ra=name, dec="dec"))
    assert "state the unit in the file" in str(error.value)


@pytest.mark.parametrize("name", ["glon", "raB1950"])
def test_a_frame_in_the_name_is_refused_whatever_the_unit(tmp_path: Path, name: str) -> None:
    table_in("deg", (name, "dec")).write(tmp_path / "a.fits")
    with pytest.raises(ObjectListError, match=r"its name says .*, expected ICRS in degrees"):
        read_objects(ObjectsConfig(path=str(tmp_path / "a.fits"), ra=name, dec="dec"))


def test_bounds_are_those_of_degrees(tmp_path: Path) -> None:
    # 1.6 rad are 91.7 deg, -999 rad no position; 6.5 rad are 372.4 deg, a turn too much.
    table = Table({"object_id": [1, 2, 3, 4], "ra": [0.1, -999, 6.5, np.nan], "dec": [1.6, 0.1, 0.2, 0.3]})
    table["ra"].unit = table["dec"].unit = "rad"
    table.write(tmp_path / "a.fits")
    config = ObjectsConfig(path=str(tmp_path / "a.fits"), ra="ra", dec="dec", invalid="drop")
    found, rejected, _ = read_objects(config)
    assert found.ra_deg == pytest.approx([np.degrees(6.5) - 360.0], rel=1e-12)
    reasons = dict(zip(rejected["object_id"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    assert reasons == {
        1: "declination outside -90..90",
        2: "right ascension outside -900..900",
        4: "position is not finite",
    }
    assert rejected["dec_deg"][0].as_py() == pytest.approx(np.degrees(1.6))


def test_region_and_where_of_row_groups_in_radians(tmp_path: Path) -> None:
    """A region is in degrees, `where` sees the column as the file has it; footers' limits leave out no row that lies in it."""
    ra = np.linspace(140.0, 160.0, 1000)
    fields = [pa.field("object_id", pa.int64())]
    fields += [pa.field(name, pa.float64(), metadata={"unit": "rad"}) for name in ("ra", "dec")]
    table = pa.table([np.arange(1000), np.radians(ra), np.full(1000, 0.01)], pa.schema(fields))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50)
    config = ObjectsConfig(
        path=str(tmp_path / "a.parquet"),
        ra="ra",
        dec="dec",
        region=RegionConfig(box_deg=(150.0, 151.0, 0.0, 1.0)),
        where="ra < 2.63",
    )
    for found in (open_objects(config).read(0), read_objects(config)[0]):
        assert (
            sorted(found.object_id.tolist()) == np.flatnonzero((ra >= 150) & (np.radians(ra) < 2.63)).tolist()
        )
    assert check_objects(config).n_rows == np.count_nonzero((ra >= 150) & (np.radians(ra) < 2.63))


def test_files_of_one_table_in_two_units_are_refused(tmp_path: Path) -> None:
    for number, unit in enumerate(("deg", "rad")):
        write_with_field_metadata(tmp_path / f"{number}.parquet", table_in(unit))
    with pytest.raises(ObjectListError, match="column ra is in deg and rad in different files"):
        read_objects(ObjectsConfig(path=str(tmp_path), ra="ra", dec="dec"))
    # Where nothing is stated a position is in degrees.
    table = table_in("deg")
    table["object_id"] += 10
    table["ra"].unit = None
    write_with_field_metadata(tmp_path / "1.parquet", table)
    assert len(read_objects(ObjectsConfig(path=str(tmp_path), ra="ra", dec="dec"))[0]) == 6


@pytest.mark.parametrize("suffix", ["fits", "vot", "ecsv", "parquet"])
def test_units_that_galbatch_writes_are_read_again(tmp_path: Path, suffix: str) -> None:
    fields = [pa.field("object_id", pa.int64())]
    fields += [pa.field(name, pa.float64(), metadata={"unit": "hourangle"}) for name in ("ra", "dec")]
    table = pa.table([IDS, RA / 15.0, DEC / 15.0], pa.schema(fields))
    write_table(str(tmp_path / f"a.{suffix}"), table)
    found, *_ = read_objects(ObjectsConfig(path=str(tmp_path / f"a.{suffix}"), ra="ra", dec="dec"))
    np.testing.assert_allclose(in_order_of_ids(found)[1], RA, rtol=1e-12)


def test_a_hats_catalog_in_radians(tmp_path: Path, write_hats: Any) -> None:
    write_hats(
        tmp_path / "deg",
        pa.table({"object_id": IDS, "ra_deg": RA, "dec_deg": DEC}),
        hats_col_ra="ra",
        hats_col_dec="dec",
    )
    for path in (tmp_path / "deg").rglob("*.parquet"):
        table = pq.read_table(path)
        for index, name in enumerate(table.column_names):
            if name in ("ra_deg", "dec_deg"):
                field = pa.field(name.removesuffix("_deg"), pa.float64(), metadata={"unit": "rad"})
                table = table.set_column(index, field, pa.array(np.radians(table[name].to_numpy())))
        pq.write_table(table, path)
    source = open_objects(ObjectsConfig(path=str(tmp_path / "deg")))
    found = {
        key: ra
        for chunk in range(len(source.counts))
        for key, ra in zip(source.read(chunk).object_id.tolist(), source.read(chunk).ra_deg, strict=True)
    }
    assert found == pytest.approx(dict(zip(IDS.tolist(), RA, strict=True)), rel=1e-12)
