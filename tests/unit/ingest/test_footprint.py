from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from galbatch.ingest import tiles_near
from galbatch.ingest.lattice import lattice_key


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
