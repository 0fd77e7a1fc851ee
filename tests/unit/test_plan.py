"""The division of the sky, and the fingerprints."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galbatch import sky
from galbatch.config import FlagsConfig
from galbatch.errors import FingerprintError
from galbatch.fingerprint import Fingerprint, digest, refuse_difference
from galbatch.plan import MAX_HEALPIX_ORDER, divide
from galbatch.selection import object_flags
from galbatch.types import ObjectTable, PixelFlag


def sorted_sky(ra_deg, dec_deg):
    return np.sort(sky.healpix_29(np.asarray(ra_deg, float), np.asarray(dec_deg, float)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 359.99), st.floats(-90, 90)), min_size=1, max_size=200),
    st.integers(1, 20),
)
def test_each_object_is_in_one_partition_and_in_its_pixel(positions, max_objects):
    healpix = sorted_sky(*zip(*positions, strict=True))
    partitions = divide(healpix, max_objects=max_objects, max_bytes=1)
    assert [p.start for p in partitions] == [0, *[p.stop for p in partitions[:-1]]]
    assert partitions[-1].stop == len(healpix)
    for p in partitions:
        pixels = sky.pixel_of(healpix[p.start : p.stop], p.healpix_order)
        assert (pixels == p.healpix_pixel).all()
        assert p.n_objects <= max_objects or p.healpix_order == MAX_HEALPIX_ORDER


def test_it_splits_for_objects_and_for_bytes():
    rng = np.random.default_rng(1)
    healpix = sorted_sky(rng.uniform(10, 12, 1000), rng.uniform(-1, 1, 1000))
    whole = divide(healpix, max_objects=10**6, max_bytes=1)
    by_count = divide(healpix, max_objects=100, max_bytes=1)
    by_bytes = divide(
        healpix, max_objects=10**6, max_bytes=5000, bytes_of=lambda start, stop: 50 * (stop - start)
    )
    assert len(whole) < 12
    assert max(p.n_objects for p in by_count) <= 100
    assert max(p.n_objects for p in by_bytes) <= 100
    assert [p.path for p in by_count] == [p.path for p in by_bytes]


def test_it_stops_at_the_finest_order_and_at_one_object():
    crowd = sorted_sky(np.full(50, 10.0), np.full(50, 5.0))
    (partition,) = divide(crowd, max_objects=10, max_bytes=1)
    assert partition.healpix_order == MAX_HEALPIX_ORDER
    assert partition.n_objects == 50
    (single,) = divide(
        sorted_sky([10.0], [5.0]), max_objects=1, max_bytes=1, bytes_of=lambda start, stop: 10**9
    )
    assert single.healpix_order == 0


def test_no_objects_no_partitions():
    assert divide(np.zeros(0, np.int64), max_objects=10, max_bytes=1) == []


def test_neighbor_flags_come_from_the_whole_list():
    ra = np.array([10.0, 10.0 + 2 / 3600, 20.0, 359.99999, 0.00001])
    dec = np.zeros(5)
    table = ObjectTable(np.arange(5), ra, dec, sky.healpix_29(ra, dec), pa.table({"n": range(5)}))
    flags = object_flags(table, FlagsConfig(neighbor_radius_arcsec=3.0, duplicate_radius_arcsec=0.2))
    assert ((flags & PixelFlag.NEIGHBOR) != 0).tolist() == [True, True, False, True, True]
    assert ((flags & PixelFlag.DUPLICATE_POSITION) != 0).tolist() == [False, False, False, True, True]
    assert (
        object_flags(table, FlagsConfig(neighbor_radius_arcsec=0, duplicate_radius_arcsec=0)).tolist()
        == [0] * 5
    )


def test_a_refusal_shows_both_values():
    mine = Fingerprint({"bundle gampen": "9c07" * 16, "INFER_VERSION": "1"})
    other = Fingerprint({"bundle gampen": "3fa1" * 16, "INFER_VERSION": "1"})
    refuse_difference("catalog", mine.as_json(), mine)
    with pytest.raises(FingerprintError) as caught:
        refuse_difference("catalog", other.as_json(), mine)
    assert str(caught.value) == (
        "catalog was written with bundle gampen 3fa13fa13fa1..; this run uses 9c079c079c07..\n"
        "choose another output path in run.toml, or run galbatch clean"
    )


def test_an_output_without_fingerprint_is_refused():
    with pytest.raises(FingerprintError, match="INFER_VERSION \\(nothing\\)"):
        refuse_difference("catalog", None, Fingerprint({"INFER_VERSION": "1"}))


def test_digests_tell_values_types_and_order_apart():
    assert digest(np.array([1, 2])) != digest(np.array([2, 1]))
    assert digest(np.array([1, 2])) != digest(np.array([1.0, 2.0]))
    assert digest(np.array(["a", "bc"], object)) != digest(np.array(["ab", "c"], object))
    assert digest(pa.table({"z": [0.1, None]})) != digest(pa.table({"z": [0.1, 0.0]}))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
