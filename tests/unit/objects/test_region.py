"""Regions of the sky: a MOC as mocpy reads it, a circle and a box as astropy measures them, and the boxes about them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import Latitude, Longitude, SkyCoord
from mocpy import MOC

from galbatch.config import ObjectsConfig, RegionConfig, parse_strictly, region_of_text
from galbatch.errors import ConfigError, ObjectListError
from galbatch.objects import Region, box_around, region_of

CENTERS = [(150.0, 2.0), (0.2, -1.0), (359.9, 89.5), (10.0, -90.0), (180.0, 60.0)]


def positions(center: tuple[float, float], n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Half of them near the center, half anywhere."""
    rng = np.random.default_rng(7)
    dec = np.clip(center[1] + rng.normal(0, 1.5, n // 2), -90, 90)
    ra = center[0] + rng.normal(0, 1.5, n // 2) / np.maximum(np.cos(np.radians(dec)), 1e-3)
    ra = np.concatenate([ra % 360.0, rng.uniform(0, 360, n // 2)])
    return ra, np.concatenate([dec, np.degrees(np.arcsin(rng.uniform(-1, 1, n // 2)))])


def moc_of(center: tuple[float, float]) -> MOC:
    ra, dec = Longitude(center[0] * u.deg), Latitude(center[1] * u.deg)
    return MOC.from_cone(lon=ra, lat=dec, radius=1.2 * u.deg, max_depth=11)


def check_bounds(region: Region, ra: np.ndarray, dec: np.ndarray) -> None:
    """Nothing in the region lies outside its bounds, whatever the right ascensions count from."""
    inside = region.contains(ra, dec)
    assert region.bounds.contains(ra[inside], dec[inside]).all()
    for row in np.flatnonzero(inside)[:200]:
        for width, turns in itertools.product((0.0, 3.0), (0.0, -360.0, 360.0)):
            limits = (ra[row] + turns, ra[row] + turns + width), (dec[row] - width, dec[row])
            assert region.bounds.may_hold(*limits)
            assert region.bounds.may_hold(None, limits[1])
            assert region.bounds.may_hold(limits[0], None)


@pytest.mark.parametrize("kind", ["fits", "json", "ascii"])
@pytest.mark.parametrize("center", CENTERS)
def test_a_moc_holds_what_mocpy_says(tmp_path, center, kind):
    moc_of(center).save(str(tmp_path / "moc"), format=kind)
    region = region_of(RegionConfig(moc=str(tmp_path / "moc")))
    ra, dec = positions(center)
    expected = moc_of(center).contains_lonlat(ra * u.deg, dec * u.deg)
    np.testing.assert_array_equal(region.contains(ra, dec), expected)
    assert 0.05 < expected.mean() < 0.5
    check_bounds(region, ra, dec)


@pytest.mark.parametrize("center", CENTERS)
def test_a_circle_is_that_of_astropy(center):
    region = region_of(RegionConfig(circle_deg=(*center, 1.2)))
    ra, dec = positions(center)
    separation = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(*center, unit="deg"))
    np.testing.assert_array_equal(region.contains(ra, dec), separation.deg <= 1.2)
    check_bounds(region, ra, dec)
    if abs(center[1]) < 80:
        # It bounds: a tenth of the sky at most has to be read.
        assert region.bounds.contains(ra, dec)[2000:].mean() < 0.1
        assert not region.bounds.may_hold((center[0] + 5.0, center[0] + 6.0), None)
        assert not region.bounds.may_hold(None, (center[1] + 1.3, 90.0))


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((149.0, 151.0, 1.0, 3.0), {(150.0, 2.0)}),
        ((350.0, 10.0, -5.0, 5.0), {(0.2, -1.0)}),
        ((-10.0, 10.0, -5.0, 5.0), {(0.2, -1.0)}),
        ((-10.0, 350.0, -90.0, 90.0), set(CENTERS)),
        ((0.0, 360.0, 50.0, 90.0), {(359.9, 89.5), (180.0, 60.0)}),
        ((170.0, 360.0, 50.0, 89.0), {(180.0, 60.0)}),
    ],
)
def test_a_box_is_bounded_by_meridians_and_parallels(box, inside):
    region = region_of(RegionConfig(box_deg=box))
    ra, dec = np.array(CENTERS).T
    found = {CENTERS[i] for i in np.flatnonzero(region.contains(ra, dec))}
    assert found == inside
    check_bounds(region, ra, dec)


def test_bounds_hold_every_point_within_the_margin():
    rng = np.random.default_rng(3)
    for center, margin in itertools.product(CENTERS, (0.01, 1.0, 20.0)):
        ra, dec = positions(center, 40)
        box = box_around(ra[:20], dec[:20], margin_deg=margin)
        points = SkyCoord(np.repeat(ra[:20], 50), np.repeat(dec[:20], 50), unit="deg")
        moved = points.directional_offset_by(
            rng.uniform(0, 360, 1000) * u.deg, margin * rng.uniform(0, 0.999999, 1000) * u.deg
        )
        assert box.contains(moved.ra.deg, moved.dec.deg).all()


def test_a_moc_that_is_none_is_refused_by_name(tmp_path):
    for content, message in (
        (b"object_id,ra,dec\n", "is no MOC"),
        (b"", "covers no part of the sky|is no MOC"),
        (b"SIMPLE  = T", "is no MOC"),
        (b"\xff\xfe", "is no MOC"),
        (b'{"3": []}', "covers no part of the sky"),
    ):
        (tmp_path / "moc").write_bytes(content)
        with pytest.raises(ObjectListError, match=rf"region: moc = {tmp_path}/moc: ({message})"):
            region_of(RegionConfig(moc=str(tmp_path / "moc")))
    with pytest.raises(ObjectListError, match="there is no such file"):
        region_of(RegionConfig(moc=str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("circle_deg = [150, 2]", "circle_deg"),
        ("circle_deg = [150, 2, 0]", "circle_deg"),
        ("circle_deg = [150, 95, 1]", "circle_deg"),
        ("circle_deg = [nan, 2, 1]", "circle_deg"),
        ("box_deg = [150, 151, 3, 2]", "box_deg = .* is empty"),
        ("box_deg = [150, 150, 2, 3]", "box_deg = .* is empty"),
        ("tracts = []", "tracts"),
        ("tracts = [true]", "tracts"),
        ("", "one of moc, circle_deg, box_deg, tracts states the region, found none"),
        ("moc = 'a'\ntracts = [1]", "found moc and tracts"),
        ("circel_deg = [1, 2, 3]", "did you mean circle_deg"),
        ("150, 2", "is no TOML"),
    ],
)
def test_a_region_that_is_none_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        region_of_text(text)


def test_tracts_are_numbers_or_text():
    assert region_of_text("tracts = [9813, '9812/4,4']").tracts == ("9813", "9812/4,4")
    with pytest.raises(ConfigError, match=r"give the run\.toml"):
        region_of(region_of_text("tracts = [9813]"))


def test_errors_name_the_key_of_run_toml():
    with pytest.raises(ConfigError, match=r"^run\.toml: \[objects\.region\.circle_deg\] 2|circle_deg"):
        parse_strictly(ObjectsConfig, {"path": "a", "region": {"circle_deg": [1, 2, -3]}}, source="run.toml")
