from __future__ import annotations

import dataclasses

import pytest

from galbatch import storage
from galbatch.core.types import Plane, Tile
from galbatch.ingest.pixels import read_cost, tile_read_cost

SIDE = 4200
PLANE_BYTES = SIDE * SIDE * 4


def tile_of(image: Plane, shape=(SIDE, SIDE), **changes) -> Tile:
    return Tile(
        tile_id="9813/4,4",
        band="g",
        image=image,
        shape_px=shape,
        wcs_header="",
        grid_key="",
        njy_per_unit=1.0,
        pixel_scale_arcsec=0.168,
        corners_deg=(),
        **changes,
    )


def cost(plane: Plane, n_windows: int, size_px: int = 239, shape=(SIDE, SIDE)):
    return read_cost(tile_of(plane, shape), plane, n_windows=n_windows, size_px=size_px)


PLAIN = Plane("s3://bucket/tile.fits", 1)


def test_sparse_windows_on_s3_cost_a_range_a_row():
    found = cost(PLAIN, 20)
    assert (found.bytes_, found.requests, found.whole) == (20 * 239 * 956, 20 * 239, False)
    assert found.bytes_ < 0.15 * PLANE_BYTES


def test_dense_windows_on_s3_cost_the_plane_once():
    # 239 requests of 956 bytes cost as 3.17 MB would: 22 windows come to 69.6 MB, the plane has 70.6 MB.
    assert not cost(PLAIN, 22).whole
    dense = cost(PLAIN, 23)
    assert (dense.bytes_, dense.requests, dense.whole) == (PLANE_BYTES, 5, True)
    assert cost(PLAIN, 10**6) == dense


def test_rows_that_are_close_are_one_range():
    # Of a 478 px image a window is half of each row: the other half is fetched with it, but not more than half.
    found = cost(PLAIN, 1, shape=(9000, 478))
    assert (found.bytes_, found.requests, found.whole) == (238 * 1912 + 956, 1, False)
    found = cost(PLAIN, 1, shape=(9000, 479))
    assert (found.bytes_, found.requests, found.whole) == (239 * 956, 239, False)


def test_a_window_larger_than_the_tile_is_the_tile():
    found = cost(PLAIN, 1, size_px=500, shape=(100, 120))
    assert (found.bytes_, found.requests) == (100 * 120 * 4, 1)


def test_compressed_planes_cost_the_blocks_touched():
    by_square = dataclasses.replace(PLAIN, block_px=(100, 100), stored_bytes=15_000_000)
    found = cost(by_square, 10)
    # 238 / 100 + 1 = 3.38 of 42 blocks on each axis.
    assert found.bytes_ == pytest.approx(10 * (3.38 / 42) ** 2 * 15e6, abs=1)
    assert (found.requests, found.whole) == (40, False)
    by_row = dataclasses.replace(PLAIN, block_px=(1, SIDE), stored_bytes=15_000_000)
    found = cost(by_row, 10)
    assert found.bytes_ == pytest.approx(10 * 239 / SIDE * 15e6, abs=1)
    assert found.requests == 10
    assert cost(by_row, 18) == dataclasses.replace(found, bytes_=15_000_000, requests=1, whole=True)


def test_local_planes_cost_pages_and_no_request():
    local = Plane("/data/tile.fits", 1)
    found = cost(local, 1)
    assert found.requests == 0
    assert found.bytes_ == pytest.approx(239 * (956 + storage.PAGE_BYTES), abs=1)
    assert cost(local, 10**6).bytes_ == PLANE_BYTES
    # Rows closer than a page: all that lies between the first and the last.
    assert cost(local, 1, shape=(9000, 500)).bytes_ == pytest.approx(
        238 * 2000 + 956 + storage.PAGE_BYTES, abs=1
    )


def test_packed_files_are_read_whole():
    found = cost(dataclasses.replace(PLAIN, packed=True), 1)
    assert (found.bytes_, found.whole) == (PLANE_BYTES, True)


def test_no_window_costs_nothing():
    assert cost(PLAIN, 0).bytes_ == 0


def test_a_tile_costs_all_its_planes_and_headers():
    image, mask, weight = (Plane("s3://bucket/tile.fits", number) for number in (1, 2, 3))
    tile = tile_of(image, mask=mask, weight=weight)
    found = tile_read_cost(tile, n_windows=20, size_px=239)
    own = 3 * 20 * 239 * 956
    assert found.bytes_ == own + 4 * storage.BLOCK_BYTES
    assert found.requests == 3 * 20 * 239 + 5
    assert not found.whole
    assert tile_read_cost(tile, n_windows=1000, size_px=239).whole
    assert tile_read_cost(tile, n_windows=0, size_px=239).bytes_ == 0
