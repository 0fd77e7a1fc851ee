from __future__ import annotations

import numpy as np
from hats.pixel_math import compute_spatial_index
from hypothesis import given, settings
from hypothesis import strategies as st

from galbatch.core import sky
from galbatch.core.pixels import HealpixPixel

ras = st.floats(0, 360, exclude_max=True)
decs = st.floats(-90, 90)
positions = st.lists(st.tuples(ras, decs), min_size=1, max_size=50)


@given(positions)
def test_the_index_is_that_of_hats(points: list[tuple[float, float]]) -> None:
    ra, dec = np.array(points).T
    np.testing.assert_array_equal(sky.healpix_29(ra, dec), compute_spatial_index(ra, dec))


def test_the_index_is_that_of_hats_for_many() -> None:
    random = np.random.default_rng(1)
    ra, dec = random.uniform(0, 360, 200_000), np.degrees(np.arcsin(random.uniform(-1, 1, 200_000)))
    np.testing.assert_array_equal(sky.healpix_29(ra, dec), compute_spatial_index(ra, dec))


@given(positions, st.integers(0, 29))
def test_every_position_lies_in_its_pixel(points: list[tuple[float, float]], healpix_order: int) -> None:
    ra, dec = np.array(points).T
    index = sky.healpix_29(ra, dec)
    for value, pixel in zip(index.tolist(), sky.pixel_of(index, healpix_order).tolist(), strict=True):
        start, stop = HealpixPixel(healpix_order, pixel).index_range
        assert start <= value < stop
        assert 0 <= pixel < 12 * 4**healpix_order


@settings(max_examples=50)
@given(ras, decs, st.floats(0.01, 36_000), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_no_pixel_of_a_cone_is_missing(
    ra: float, dec: float, radius_arcsec: float, healpix_order: int, seed: int
) -> None:
    pixels = sky.cone_pixels(ra, dec, radius_arcsec=radius_arcsec, healpix_order=healpix_order)
    assert (np.diff(pixels) > 0).all()
    ra_inside, dec_inside = points_in_cone(ra, dec, radius_arcsec, seed)
    inside = sky.separation_arcsec(ra, dec, ra_inside, dec_inside) < radius_arcsec
    index = sky.healpix_29(ra_inside[inside], dec_inside[inside])
    assert set(sky.pixel_of(index, healpix_order).tolist()) <= set(pixels.tolist())


def points_in_cone(ra: float, dec: float, radius_arcsec: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points about a direction, most of them inside and many at the rim, wherever on the sphere it is."""
    random = np.random.default_rng(seed)
    (center,) = sky.unit_vectors([ra], [dec])
    offset = random.normal(size=(200, 3))
    offset /= np.linalg.norm(offset, axis=1, keepdims=True)
    vectors = center + offset * np.radians(radius_arcsec / 3600) * random.uniform(0, 1.05, (200, 1)) ** 0.2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0])) % 360, np.degrees(np.arcsin(vectors[:, 2]))


@settings(max_examples=50)
@given(st.floats(-90, 90), ras, st.floats(0.1, 10), st.integers(0, 2**32 - 1))
def test_neighbors_equal_all_pairs(dec: float, ra: float, radius_arcsec: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    ra_list = (ra + random.normal(0, 2e-3, 30)) % 360
    dec_list = np.clip(dec + random.normal(0, 2e-3, 30), -90, 90)
    separation = sky.separation_arcsec(ra_list[:, None], dec_list[:, None], ra_list, dec_list)
    np.fill_diagonal(separation, np.inf)
    expected = separation.min(axis=1) < radius_arcsec
    unclear = np.abs(separation.min(axis=1) - radius_arcsec) < 1e-6
    found = sky.has_neighbor(ra_list, dec_list, radius_arcsec=radius_arcsec)
    np.testing.assert_array_equal(found[~unclear], expected[~unclear])
