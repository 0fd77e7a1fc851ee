"""Which positions lie in a mask, against shapes whose inside follows from a formula."""

from pathlib import Path
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Angle, Latitude, Longitude, SkyCoord
from mocpy import MOC

from galbatch.config import MaskConfig
from galbatch.core.sky import separation_arcsec
from galbatch.errors import MissingPackage, ObjectListError
from galbatch.objects.skymaps import masks, open_mask

RNG = np.random.default_rng(4)
RA, DEC = RNG.uniform(149, 151, 4000) % 360, RNG.uniform(1, 3, 4000)


def inside(path, ra=RA, dec=DEC):
    return open_mask(MaskConfig(name="m", path=str(path)))(ra, dec)


def write(tmp_path, *lines):
    path = tmp_path / "a.reg"
    path.write_text("\n".join(["# Region file format: DS9", "global color=green", *lines, ""]))
    return path


def test_circles_and_what_is_taken_away(tmp_path):
    path = write(
        tmp_path, "icrs", 'circle(150.0,2.0,1800")', "-circle(150.0,2.0,0.2) # a hole", "point(150.0,2.0)"
    )
    distance = separation_arcsec(RA, DEC, 150.0, 2.0)
    np.testing.assert_array_equal(inside(path), (distance <= 1800) & (distance > 720))


def test_circles_in_another_frame(tmp_path):
    center = SkyCoord(150.0, 2.0, unit="deg").galactic
    path = write(tmp_path, "galactic", f"circle({center.l.deg:.9f},{center.b.deg:.9f},0.4)")
    np.testing.assert_array_equal(inside(path), separation_arcsec(RA, DEC, 150.0, 2.0) <= 1440)


def test_sides_of_polygons_are_great_circles(tmp_path):
    corners = [(149.2, 1.2), (150.8, 1.3), (150.6, 2.9), (149.1, 2.4)]
    path = write(tmp_path, "icrs", f"polygon({','.join(f'{x},{y}' for x, y in corners)})")
    vectors = np.array([SkyCoord(x, y, unit="deg").cartesian.xyz.value for x, y in corners])
    sides = np.cross(vectors, np.roll(vectors, -1, axis=0))
    points = SkyCoord(RA, DEC, unit="deg").cartesian.xyz.value
    np.testing.assert_array_equal(inside(path), (sides @ points > 0).all(axis=0))


def test_boxes_and_ellipses_are_turned(tmp_path):
    path = write(tmp_path, "fk5", "ellipse(150.0,2.0,0.6,0.2,30)", "box(150.6,1.5,0.2,0.1,0)")
    # In fk5 the position differs from ICRS by 0.02 arcsec; offsets are those on the tangential plane.
    dx, dy = SkyCoord(150.0, 2.0, unit="deg").spherical_offsets_to(SkyCoord(RA, DEC, unit="deg"))
    angle = np.radians(30)
    along = -dx.deg * np.cos(angle) + dy.deg * np.sin(angle)
    across = dx.deg * np.sin(angle) + dy.deg * np.cos(angle)
    bx, by = SkyCoord(150.6, 1.5, unit="deg").spherical_offsets_to(SkyCoord(RA, DEC, unit="deg"))
    right = ((along / 0.6) ** 2 + (across / 0.2) ** 2 < 1) | ((abs(bx.deg) < 0.1) & (abs(by.deg) < 0.05))
    found = inside(path)
    assert 50 < right.sum() < 1000
    assert (found != right).sum() <= 2  # on the edge, to a thousandth


def test_a_moc_and_a_healsparse_map_of_it_agree(tmp_path):
    moc = MOC.from_cone(
        lon=Longitude(150 * u.deg), lat=Latitude(2 * u.deg), radius=Angle(0.5 * u.deg), max_depth=10
    )
    moc.save(tmp_path / "a.fits", format="fits")
    right = moc.contains_lonlat(RA * u.deg, DEC * u.deg)
    np.testing.assert_array_equal(inside(tmp_path / "a.fits"), right)
    healsparse = pytest.importorskip("healsparse")
    sparse = healsparse.HealSparseMap.make_empty(32, 1024, bool)
    sparse[moc.flatten().astype(np.int64)] = True
    sparse.write(str(tmp_path / "b.hsp"))
    np.testing.assert_array_equal(inside(tmp_path / "b.hsp"), right)
    assert 100 < right.sum() < 2000


def test_zeros_of_a_healsparse_map_lie_outside(tmp_path):
    healsparse = pytest.importorskip("healsparse")
    sparse = healsparse.HealSparseMap.make_empty(32, 1024, np.int32, sentinel=-1)
    sparse[np.arange(12 * 1024**2 // 2)] = 0
    sparse.write(str(tmp_path / "b.hsp"))
    assert not inside(tmp_path / "b.hsp").any()
    assert inside(tmp_path / "b.hsp", RA[:0], DEC[:0]).shape == (0,)


POLYGONS = """2 polygons
polygon 0 ( 3 caps, 1 weight, 0 pixel, 0.1 str):
 {x} {y} {z} 3.4e-5
 0.0 0.0 1.0 -0.9651
 {x} {y} {z} -2e-6
polygon 1 ( 1 caps, 0 weight, 0 pixel, 0.1 str):
 0.0 0.0 1.0 2.0
"""


def test_polygons_of_mangle_are_caps_with_a_weight(tmp_path):
    """A cap (x, y, z, c) holds the points of which 1 - cos of the angle from its axis is below c; a negative c its complement."""
    pytest.importorskip("pymangle", reason="pymangle is under the GPL and compiled: in no lock file")
    axis = SkyCoord(150.0, 2.0, unit="deg").cartesian.xyz.value
    path = tmp_path / "a.ply"
    path.write_text(POLYGONS.format(**dict(zip("xyz", axis, strict=True))))
    points = SkyCoord(RA, DEC, unit="deg").cartesian.xyz.value
    from_axis = 1 - axis @ points
    right = (from_axis < 3.4e-5) & (from_axis > 2e-6) & (1 - points[2] > 0.9651)
    assert 100 < right.sum() < 1000
    np.testing.assert_array_equal(inside(path), right)
    assert inside(path, RA[:0], DEC[:0]).shape == (0,)


def test_what_pymangle_says_of_positions_and_files_is_taken(tmp_path, monkeypatch):
    class Mangle:
        def __init__(self, path):
            if "polygon" not in Path(path).read_text():
                raise OSError("Error reading mangle mask")

        def weight(self, ra, dec):
            assert len(ra)
            return np.where(dec > 2, 0.3, 0.0)

    monkeypatch.setattr(masks, "require", lambda package, *, where: SimpleNamespace(Mangle=Mangle))
    (tmp_path / "a.pol").write_text("1 polygons")
    np.testing.assert_array_equal(inside(tmp_path / "a.pol"), DEC > 2)
    assert inside(tmp_path / "a.pol", RA[:0], DEC[:0]).dtype == np.bool_
    (tmp_path / "b.ply").write_text("vertices")
    with pytest.raises(
        ObjectListError, match=r"\[\[masks\]\] m: .*b.ply: is no file of polygons .* poly2poly -op"
    ):
        inside(tmp_path / "b.ply")

    def unreachable(path, *, sha256):
        raise TimeoutError("the store does not answer")

    # A store that fails says nothing about the file.
    monkeypatch.setattr(masks.storage, "local_copy", unreachable)
    with pytest.raises(TimeoutError, match="does not answer"):
        inside(tmp_path / "a.pol")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.reg", "image\ncircle(10,10,5)\n", "1 of its 1 regions are in pixels"),
        ("a.reg", "icrs\npoint(10,10)\n", "no region with an area"),
        ("a.reg", "icrs\ncircle(10,10)\n", "is no region file of ds9"),
        ("a.reg", "icrs\ncircle(1,1,1)\npanda(10,10,0,90,1,0.1,0.4,1)\n", '1 of its lines .*"panda"'),
        ("a.reg", "circle(10,10,1)\nicrs\ncircle(1,1,1)\n", "1 of its lines .*frame was not found"),
        ("a.reg", "ecliptic\nbox(10,10,1,1,0)\n", "ecliptic coordinates; save it in fk5"),
        ("a.fits", "no FITS", "is no MOC .* a mask is a MOC, a HealSparse map"),
    ],
    ids=["pixels", "points", "values", "shape", "no frame", "frame", "moc"],
)
def test_masks_that_are_not_read_are_refused_by_name(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ObjectListError, match=rf"run.toml: \[\[masks\]\] m: .*{message}"):
        inside(tmp_path / name)


def test_shapes_without_area_are_passed_over_and_no_positions_are_looked_up(tmp_path):
    path = write(tmp_path, "icrs", "vector(150,2,1,0)", "# compass(1,1,3)", "circle(150.0,2.0,0.5)")
    np.testing.assert_array_equal(inside(path), separation_arcsec(RA, DEC, 150.0, 2.0) <= 1800)
    assert inside(path, RA[:0], DEC[:0]).shape == (0,)


def test_a_missing_file_and_a_missing_package_are_named(tmp_path, monkeypatch):
    with pytest.raises(ObjectListError, match=r"\[\[masks\]\] m: .*nowhere.reg: there is no such file"):
        inside(tmp_path / "nowhere.reg")

    def absent(package, *, where):
        raise MissingPackage(f"{where}: HealSparse maps need {package}")

    monkeypatch.setattr(masks, "require", absent)
    monkeypatch.setattr(masks, "_is_healsparse", lambda path: True)
    (tmp_path / "b.hsp").write_bytes(b"")
    with pytest.raises(MissingPackage, match="need healsparse"):
        inside(tmp_path / "b.hsp")
