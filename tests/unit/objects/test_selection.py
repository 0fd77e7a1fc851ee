"""What is known of objects before any pixel."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from galbatch.config import FlagsConfig
from galbatch.core import sky
from galbatch.core.flags import PixelFlag
from galbatch.core.pixels import HealpixPixel
from galbatch.core.types import ObjectTable
from galbatch.objects import ListCounts, ListSource, SelectedObjects, object_flags


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


def pieces_of(table, order):
    """The same objects in chunks: one for each pixel of `order` that holds any."""
    pixels = np.unique(sky.pixel_of(table.healpix_29, order)).tolist()

    class InChunks:
        ranges = tuple(HealpixPixel(order, pixel).index_range for pixel in pixels)
        bounds = tuple(np.searchsorted(table.healpix_29, limits) for limits in ranges)
        counts = tuple(int(stop - start) for start, stop in bounds)
        rejected = pa.table({})
        n_read = 0

        def read(self, chunk):
            InChunks.n_read += 1
            return table.take(slice(*self.bounds[chunk]))

    return InChunks()


def sorted_list(ra_deg, dec_deg):
    healpix = sky.healpix_29(ra_deg, dec_deg)
    rank = np.argsort(healpix, kind="stable")
    z = pa.table({"z": np.linspace(0, 1, len(rank))})
    return ObjectTable(np.arange(len(rank)), ra_deg[rank], dec_deg[rank], healpix[rank], z)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    center=st.sampled_from([(0.0, 0.0), (45.0, 41.8), (90.0, 89.999), (10.0, -90.0), (180.0, 66.0)]),
    order=st.integers(6, 14),
    radius_arcsec=st.sampled_from([0.5, 3.0, 60.0]),
)
def test_chunks_give_what_the_whole_list_gives(seed, center, order, radius_arcsec):
    rng = np.random.default_rng(seed)
    spread_deg = 20 * radius_arcsec / 3600
    dec = np.clip(center[1] + rng.normal(0, spread_deg, 300), -90, 90)
    ra = (center[0] + rng.normal(0, spread_deg, 300) / np.maximum(np.cos(np.radians(dec)), 1e-6)) % 360.0
    table = sorted_list(ra, dec)
    flags = FlagsConfig(neighbor_radius_arcsec=radius_arcsec, duplicate_radius_arcsec=radius_arcsec / 10)
    whole = SelectedObjects(ListSource(table, pa.table({}), ListCounts()), ["z > 0.3", None], flags)
    chunked = SelectedObjects(pieces_of(table, order), ["z > 0.3", None], flags)
    assert len(chunked) == len(whole) == 300
    np.testing.assert_array_equal(whole.take(0, 300).flags, object_flags(table, flags))
    for start, stop in ((0, 300), (0, 1), (299, 300), tuple(np.sort(rng.integers(0, 300, 2)))):
        if start == stop:
            continue
        a, b = whole.take(start, stop), chunked.take(start, stop)
        np.testing.assert_array_equal(b.flags, a.flags)
        np.testing.assert_array_equal(b.selected, a.selected)
        np.testing.assert_array_equal(b.table.object_id, a.table.object_id)
        assert b.table.kept == a.table.kept
    for index in (
        0,
        12 << 58,
        int(table.healpix_29[100]),
        int(table.healpix_29[100]) + 1,
        int(rng.integers(12 << 58)),
    ):
        assert chunked.rank(index) == whole.rank(index) == np.searchsorted(table.healpix_29, index)


def test_going_through_in_order_reads_each_chunk_once():
    rng = np.random.default_rng(1)
    table = sorted_list(rng.uniform(10, 20, 500), rng.uniform(-5, 5, 500))
    source = pieces_of(table, 4)
    objects = SelectedObjects(
        source, [None], FlagsConfig(neighbor_radius_arcsec=0, duplicate_radius_arcsec=0)
    )
    for index in range(len(source.ranges)):
        objects.chunks[index]
    assert source.n_read == len(source.ranges) > 10
    for start in range(500):
        objects.take(start, start + 1)
    assert source.n_read == 2 * len(source.ranges)


def test_empty_chunks_are_passed_over():
    table = sorted_list(np.array([10.0, 50.0]), np.array([0.0, 0.0]))
    source = pieces_of(table, 3)
    nothing = HealpixPixel(3, 700).index_range
    source.ranges = (*source.ranges, nothing)
    source.counts = (*source.counts, 0)
    source.bounds = (*source.bounds, np.array([2, 2]))
    objects = SelectedObjects(source, [None], FlagsConfig())
    assert len(objects.take(0, 2)) == len(objects) == 2
    assert objects.rank(nothing[0]) == objects.rank(nothing[1]) == objects.rank(nothing[0] + 5) == 2
