from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galbatch.ingest import Footprint, tiles_near
from galbatch.ingest.headers import lattice_key
from galbatch.ingest.tiles import footprint


@pytest.fixture
def tile(tmp_path, tan, write_calexp, read_tiles):
    def make(crval):
        root = tmp_path / f"{crval[0]}_{crval[1]}"
        wcs = tan(crpix=(30.5, 20.5), crval=crval, scale_arcsec=6.0)  # 0.1 x 0.067 deg
        write_calexp(root, image=np.zeros((40, 60)), wcs=wcs)
        return read_tiles(root)[0]

    return make


def test_only_tiles_near_an_object_are_named(tile, objects):
    tiles = [tile((150.0, 2.0)), tile((150.3, 2.0)), tile((150.0, 2.3))]
    assert tiles_near(objects([150.0], [2.0]), tiles, radius_deg=0.01) == [0]
    assert tiles_near(objects([150.0, 150.31], [2.0, 2.01]), tiles, radius_deg=0.01) == [0, 1]
    assert tiles_near(objects([150.0], [2.0]), tiles, radius_deg=0.3) == [0, 1, 2]
    assert tiles_near(objects([], []), tiles, radius_deg=0.3) == []
    assert tiles_near(objects([150.0], [2.0]), [], radius_deg=0.3) == []


@pytest.mark.parametrize("crval", [(0.0, 0.0), (10.0, 90.0), (10.0, -89.99), (359.99, 45.0)])
def test_wrap_and_poles(tile, objects, crval):
    found = tile(crval)
    ra, dec = np.transpose(found.corners_deg)
    table = objects(ra % 360.0, dec)
    for index in range(4):
        corner = table.take(slice(index, index + 1))
        assert tiles_near(corner, [found], radius_deg=1e-6) == [0]
    assert tiles_near(objects([180.0], [-10.0]), [found], radius_deg=1.0) == []


def test_lattice_ignores_whole_pixels_and_rounding_only(tan):
    def key(**changes):
        header = tan(crpix=(100.5, -200.0))
        header.update(changes)
        return lattice_key(header.tostring())

    same = key()
    assert key(CRPIX1=-4099.5, CRPIX2=16000.0) == same
    assert key(CRPIX1=100.5 + 1e-9, CRPIX2=-200.0 - 1e-9) == same
    assert key(CRVAL1=150.0 + 1e-12, CD1_1=-0.168 / 3600 * (1 + 1e-13)) == same
    for changes in (
        {"CRPIX1": 100.6},
        {"CRVAL2": 2.0 + 1e-7},
        {"CD1_1": -0.1681 / 3600},
        {"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN"},
        {"PV1_1": 1.003},
        {"LONPOLE": 0.0},
    ):
        assert key(**changes) != same


def test_tiles_tell_where_they_are(tile):
    found = dataclasses.replace(tile((150.0, 2.0)), tile_id="9813/4,4")
    assert found.where.startswith("tile 9813/4,4 band g (")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0.0, 0.0), (359.9, -45.0), (12.0, 89.9), (77.0, -90.0)]),
    st.sampled_from([0.05, 3.0, 200.0]),
    st.sampled_from([1e-6, 0.01, 2.0]),
)
def test_a_footprint_names_the_same_tiles_as_asking_all(
    tile_at, objects, seed, center, spread_deg, radius_deg
):
    rng = np.random.default_rng(seed)

    def positions(n):
        ra = center[0] + rng.normal(0, spread_deg, n)
        dec = np.clip(center[1] + rng.normal(0, spread_deg, n), -90, 90)
        return ra % 360.0, dec

    sizes = rng.choice([0.01, 0.2, 5.0], 30)
    tiles = [
        tile_at(ra, dec, size_deg=size, band=band, angle_deg=rng.uniform(0, 90))
        for ra, dec, size in zip(*positions(30), sizes, strict=True)
        for band in "gr"
    ]
    footprint = Footprint(tiles)
    for n_objects in (1, 20):
        table = objects(*positions(n_objects))
        assert footprint.near(table, radius_deg=radius_deg) == tiles_near(table, tiles, radius_deg=radius_deg)


def test_an_empty_footprint_covers_nothing(objects):
    footprint = Footprint([])
    assert footprint.near(objects([150.0], [2.0]), radius_deg=1.0) == []
    assert footprint.covering(np.array([150.0]), np.array([2.0])).tolist() == [-1]


@pytest.mark.parametrize("center", [(150.0, 2.0), (0.0, 60.0), (10.0, 90.0)])
def test_positions_are_given_to_a_tile_that_covers_them(tile_at, center):
    middle = tile_at(*center, angle_deg=30.0)
    places = [(center[0], center[1] - 0.3), (center[0] + 0.01, center[1] - 1.5)]
    small = tile_at(*places[0], size_deg=0.02)
    wide = tile_at(*places[1], size_deg=1.7)
    tiles = [middle, small, wide]
    footprint = Footprint([*tiles, tile_at(*center, angle_deg=30.0, band="r")])
    assert footprint.n_places == 3
    assert footprint.place[0] == footprint.place[3]
    inside = np.array(
        [
            np.mean(_vectors(t.corners_deg) * [[w] for w in weights], axis=0)
            for t in tiles
            for weights in ([1, 1, 1, 1], [3.9, 0.03, 0.03, 0.04])
        ]
    )
    outside = np.array([2 * _vectors(middle.corners_deg)[0] - _vectors(middle.corners_deg).mean(axis=0)])
    found = footprint.covering(*_positions(np.concatenate([inside, outside])))
    expected = [footprint.place[index] for index in (0, 0, 1, 1, 2, 2)]
    assert found.tolist() == [*expected, -1]


def _vectors(corners_deg):
    ra, dec = np.radians(np.transpose(corners_deg))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _positions(vectors):
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360.0, np.degrees(np.arcsin(vectors[:, 2]))


def test_a_hundred_thousand_tiles_are_asked_in_milliseconds(tile_at, objects):
    model = tile_at(0.0, 0.0)
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    tiles = [
        dataclasses.replace(
            model, corners_deg=((r, d), (r + 0.1, d), (r + 0.1, d + 0.1), (r, d + 0.1)), band=band
        )
        for r, d in zip(ra, np.clip(dec, -89, 89), strict=True)
        for band in "grizy"
    ]
    footprint = Footprint(tiles)
    near = objects(ra[:1] + rng.uniform(0, 1, 200), dec[:1] + rng.uniform(0, 1, 200))
    started = time.perf_counter()
    for _ in range(20):
        footprint.near(near, radius_deg=0.01)
    each_s = (time.perf_counter() - started) / 20
    # Asking all 100,000 takes 300 ms; the margin is for a busy machine.
    assert each_s < 0.05


def test_few_pairs_and_trees_give_the_same_distances(monkeypatch):
    rng = np.random.default_rng(3)
    vectors, centers = (rng.normal(size=(n, 3)) for n in (200, 30))
    direct = footprint._nearest_chords(vectors, centers)
    monkeypatch.setattr(footprint, "MAX_PAIRS", 0)
    np.testing.assert_allclose(direct, footprint._nearest_chords(vectors, centers), rtol=1e-14)
    assert direct[0] == pytest.approx(min(np.linalg.norm(vectors - centers[0], axis=1)), rel=1e-14)
