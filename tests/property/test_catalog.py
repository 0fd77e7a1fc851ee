"""Rows in are rows out, each in the leaf of its pixel, whatever the positions."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.pixel_math import compute_spatial_index
from hypothesis import given, settings
from hypothesis import strategies as st

from galbatch import catalog
from galbatch.config import ObjectsConfig
from galbatch.core import sky
from galbatch.core.columns import Column
from galbatch.core.pixels import Partition
from galbatch.core.types import ObjectTable
from galbatch.objects import read_objects, write_parquet

COLUMNS = (Column("m_value_q500", "float32", "", "value"), Column("m_flags", "int32", "", "flags"))
positions = st.lists(st.tuples(st.floats(-360, 720), st.floats(-90, 90)), min_size=1, max_size=30)


def write_leaves(path: str, objects: ObjectTable, healpix_order: int) -> list[Partition]:
    schema = catalog.leaf_schema(COLUMNS, id_type=pa.int64(), kept=objects.kept.schema)
    pixels, starts = np.unique(sky.pixel_of(objects.healpix_29, healpix_order), return_index=True)
    stops = [*starts[1:].tolist(), len(objects)]
    partitions = []
    for pixel, start, stop in zip(pixels.tolist(), starts.tolist(), stops, strict=True):
        rows = objects.take(slice(start, stop))
        values = [rows.healpix_29, rows.object_id, rows.ra_deg, rows.dec_deg]
        results = [np.ones(len(rows), np.float32), np.zeros(len(rows), np.int32)]
        leaf = pa.table([pa.array(value) for value in (*values, *results)], schema=schema)
        partitions.append(Partition(healpix_order, pixel, start, stop))
        catalog.write_leaf(path, partitions[-1], leaf, footer={"n_objects": str(len(rows))})
    return partitions


@settings(max_examples=15)
@given(positions, st.integers(0, 13))
def test_every_row_lies_in_its_pixel_and_none_is_lost(
    points: list[tuple[float, float]], healpix_order: int
) -> None:
    ra, dec = np.array(points).T
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(
            f"{folder}/list.parquet",
            pa.table({"object_id": np.arange(len(ra)), "ra_deg": ra, "dec_deg": dec}),
        )
        objects, rejected, _ = read_objects(ObjectsConfig(path=f"{folder}/list.parquet"))
        assert len(objects) + len(rejected) == len(points)
        path = f"{folder}/catalog"
        partitions = write_leaves(path, objects, healpix_order)
        catalog.finish(path, partitions=partitions, properties={}, n_rows_expected=len(points))
        assert catalog.verify(path) == []
        assert sorted(catalog.read_catalog(path)["object_id"].to_pylist()) == list(range(len(points)))
        for partition in partitions:
            rows = pq.ParquetFile(f"{path}/dataset/{partition.path}.parquet").read()
            index = compute_spatial_index(rows["ra_deg"].to_numpy(), rows["dec_deg"].to_numpy())
            assert (index == rows["_healpix_29"].to_numpy()).all()
            assert set((index >> 2 * (29 - healpix_order)).tolist()) == {partition.healpix_pixel}
