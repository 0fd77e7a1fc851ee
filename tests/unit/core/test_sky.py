from __future__ import annotations

import numpy as np
import pytest

from galbatch.core import sky
from galbatch.core.pixels import HealpixPixel


def test_index_of_known_positions() -> None:
    # At order 0 the north polar caps are pixels 0..3, one a quadrant of right ascension.
    index = sky.healpix_29([45.0, 135.0, 225.0, 315.0], [80.0] * 4)
    assert sky.pixel_of(index, 0).tolist() == [0, 1, 2, 3]
    assert index.dtype == np.int64
    assert sky.healpix_29([], []).shape == (0,)


def test_pixel_ranges_nest() -> None:
    assert HealpixPixel(29, 7).index_range == (7, 8)
    start, stop = HealpixPixel(5, 7123).index_range
    assert stop - start == 4**24
    assert HealpixPixel(6, 4 * 7123).index_range[0] == start
    assert HealpixPixel(6, 4 * 7123 + 3).index_range[1] == stop
    # The last pixel of the sky: 12 x 4^29 still fits int64.
    assert HealpixPixel(0, 11).index_range[1] == 12 * 4**29 < 2**63


def test_the_center_lies_in_its_pixel() -> None:
    (ra,), (dec,) = sky.pixel_centers_deg(13, 123_456_789)
    assert sky.pixel_of(sky.healpix_29(ra, dec), 13).tolist() == [123_456_789]


def test_unit_vectors_point_along_the_axes() -> None:
    vectors = sky.unit_vectors([0.0, 90.0, 17.0], [0.0, 0.0, 90.0])
    np.testing.assert_allclose(vectors, np.eye(3), atol=1e-15)


def test_separation_is_exact_at_a_milliarcsecond_and_across_the_wrap() -> None:
    milliarcsecond = 1e-3 / 3600
    assert sky.separation_arcsec(10, 20, 10, 20 + milliarcsecond) == pytest.approx(1e-3, rel=1e-6)
    assert sky.separation_arcsec(359.9999, 0, 0.0001, 0) == pytest.approx(0.72, rel=1e-9)
    assert sky.separation_arcsec(0, 90, 123, 90) == pytest.approx(0, abs=1e-9)
    assert sky.separation_arcsec(0, 0, 180, 0) == pytest.approx(180 * 3600)


def test_neighbors_are_found_across_the_wrap_and_at_the_pole() -> None:
    arcsec = 1 / 3600
    ra = [359.9999, 0.0001, 10.0, 0.0, 180.0, 50.0, 50.0]
    dec = [0.0, 0.0, 0.0, 90 - arcsec, 90 - arcsec, -30.0, -30.0]
    # 0.72 arcsec across the wrap; 2 arcsec over the pole; the last two are one position.
    found = sky.has_neighbor(ra, dec, radius_arcsec=1.0)
    assert found.tolist() == [True, True, False, False, False, True, True]
    assert sky.has_neighbor(ra, dec, radius_arcsec=2.1).tolist() == [
        True,
        True,
        False,
        True,
        True,
        True,
        True,
    ]
    assert not sky.has_neighbor(ra, dec, radius_arcsec=0.0).any()
    assert sky.has_neighbor([1.0], [1.0], radius_arcsec=5.0).tolist() == [False]
    assert sky.has_neighbor([], [], radius_arcsec=5.0).shape == (0,)


def test_the_nearest_is_that_of_all_pairs() -> None:
    random = np.random.default_rng(1)
    ra, dec = (random.normal(0, 1e-3, 200)) % 360, random.normal(0, 1e-3, 200)
    ra[7], dec[7] = ra[8], dec[8]  # exact twins
    separation = sky.separation_arcsec(ra[:, None], dec[:, None], ra, dec)
    np.fill_diagonal(separation, np.inf)
    expected = separation.min(axis=1)
    found = sky.nearest_arcsec(ra, dec, within_arcsec=0.5)
    assert found[7] == found[8] == 0.0
    assert 50 < (expected < 0.5).sum() < 150
    np.testing.assert_allclose(found, np.where(expected < 0.5, expected, np.inf), atol=1e-9)


def test_the_nearest_is_found_past_the_rows_that_are_looked_up_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sky, "ROWS_AT_ONCE", 3)
    ra = np.array([0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 0.0001])
    found = sky.nearest_arcsec(ra, np.zeros(8), within_arcsec=1.0)
    assert found[[0, 7]] == pytest.approx([0.36, 0.36])
    assert np.isinf(found[1:7]).all()


def test_no_neighbor_without_a_radius_or_another_object() -> None:
    assert np.isinf(sky.nearest_arcsec([1.0], [2.0], within_arcsec=10.0)).all()
    assert np.isinf(sky.nearest_arcsec([1.0, 1.0], [2.0, 2.0], within_arcsec=0.0)).all()
    assert sky.nearest_arcsec([], [], within_arcsec=1.0).shape == (0,)
