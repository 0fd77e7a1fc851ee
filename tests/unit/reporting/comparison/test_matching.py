import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord

from galbatch.errors import UsageError
from galbatch.reporting.comparison.matching import match_ids, match_sky


def chunked(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


def pairs(matching):
    return sorted(zip(matching.here.tolist(), matching.there.tolist(), strict=True))


def test_every_row_is_matched_alone_or_ambiguous():
    here = chunked([10, 11, 12, 13, 2**53 + 1])
    there = chunked([13, 11, 11, 99, None, 2**53 + 1, 2**53])
    found = match_ids(here, there, where="t.csv: column id")
    assert pairs(found) == [(3, 0), (4, 5)]
    # 11 stands twice on the other side; 99, the null and the neighboring integer are only there.
    assert (found.n_only_here, found.n_ambiguous_here) == (2, 1)
    assert (found.n_only_there, found.n_ambiguous_there) == (3, 2)


def test_an_id_that_the_catalog_has_twice_is_ambiguous_too():
    found = match_ids(chunked([7, 7, 8]), chunked([7, 8]), where="t")
    assert pairs(found) == [(2, 1)]
    assert (found.n_ambiguous_here, found.n_ambiguous_there) == (2, 1)


def test_integers_match_their_digits_and_no_others():
    found = match_ids(
        chunked([7, 40_000_000_000_000_017]), chunked([" 40000000000000017 ", "007"]), where="t"
    )
    assert pairs(found) == [(1, 0)]


def test_floats_are_no_ids():
    with pytest.raises(UsageError, match=r"t\.csv: column id: ids are double, expected integers or text"):
        match_ids(chunked([7]), chunked([7.0]), where="t.csv: column id")


def test_on_the_sky_only_single_pairs_match():
    # Two sources of the other table within 1 arcsec of the second object; the third is 2 arcsec from its neighbor.
    ra, dec = np.array([150.0, 150.01, 150.02, 0.0]), np.array([2.0, 2.0, 2.0, -89.0])
    step = 1 / 3600
    other_ra = np.array([150.0, 150.01, 150.01, 150.02, 359.9999, np.nan])
    other_dec = np.array([2 + 0.5 * step, 2 + 0.3 * step, 2 - 0.3 * step, 2 + 2 * step, -89.0, 2.0])
    found = match_sky((ra, dec), (other_ra, other_dec), radius_arcsec=1.0)
    # Across 0 h: 0.36 arcsec of right ascension are 0.006 arcsec near the pole.
    assert pairs(found) == [(0, 0), (3, 4)]
    assert (found.n_only_here, found.n_ambiguous_here) == (1, 1)
    assert (found.n_only_there, found.n_ambiguous_there) == (2, 2)
    wide = match_sky((ra, dec), (other_ra, other_dec), radius_arcsec=2.5)
    assert pairs(wide) == [(0, 0), (2, 3), (3, 4)]


def test_one_source_near_two_objects_is_ambiguous():
    ra = np.array([150.0, 150.0])
    found = match_sky((ra, np.array([2.0, 2.0001])), (ra[:1], np.array([2.00005])), radius_arcsec=1.0)
    assert len(found) == 0
    assert (found.n_ambiguous_here, found.n_ambiguous_there) == (2, 1)


def test_the_pairs_are_those_that_astropy_calls_nearest():
    rng = np.random.default_rng(8)
    ra, dec = 150 + rng.uniform(0, 1, 300), 2 + rng.uniform(0, 1, 300)
    order = rng.permutation(300)[:200]
    there = ra[order] + rng.normal(0, 2e-5, 200), dec[order] + rng.normal(0, 2e-5, 200)
    found = match_sky((ra, dec), there, radius_arcsec=1.0)
    nearest, _, _ = SkyCoord(*there, unit=u.deg).match_to_catalog_sky(SkyCoord(ra, dec, unit=u.deg))
    assert len(found) > 190
    assert np.array_equal(found.here, nearest[found.there])
    assert len(found) + found.n_only_here + found.n_ambiguous_here == 300
    assert len(found) + found.n_only_there + found.n_ambiguous_there == 200


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, np.inf])
def test_a_radius_is_above_zero(radius):
    one = np.array([1.0])
    with pytest.raises(UsageError, match="expected an angle above 0"):
        match_sky((one, one), (one, one), radius_arcsec=radius)


def test_declinations_beyond_the_poles_are_refused():
    one = np.array([1.0])
    with pytest.raises(UsageError, match="positions in degrees are needed"):
        match_sky((one, one), (one, np.array([95.0])), radius_arcsec=1.0)


def test_empty_tables_match_nothing():
    none = np.empty(0)
    found = match_sky((none, none), (np.array([1.0]), np.array([1.0])), radius_arcsec=1.0)
    assert (len(found), found.n_only_here, found.n_only_there) == (0, 0, 1)
    found = match_ids(chunked([], pa.int64()), chunked([5]), where="t")
    assert (len(found), found.n_only_there) == (0, 1)
