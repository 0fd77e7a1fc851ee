"""A small catalog: 400 objects in four partitions of two orders, results of one model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from galbatch import catalog
from galbatch.core import sky
from galbatch.core.columns import Column
from galbatch.core.pixels import HealpixPixel, Partition

COLUMNS = (
    Column("flags", "int32", "", "pixel flags", "meta.code"),
    Column(
        "gampen_bt_q15865",
        "float32",
        "",
        "bulge-to-total light ratio, 15.865 % quantile; NaN: see gampen_flags",
    ),
    Column("gampen_bt_q500", "float32", "", "bulge-to-total light ratio, median; NaN: see gampen_flags"),
    Column(
        "gampen_bt_q84135",
        "float32",
        "",
        "bulge-to-total light ratio, 84.135 % quantile; NaN: see gampen_flags",
    ),
    Column(
        "gampen_flux_njy_q500", "float32", "nJy", "flux, median; NaN: see gampen_flags", "phot.flux;em.opt.V"
    ),
    Column("gampen_flags", "int32", "", "model flags", "meta.code"),
)
KEPT = pa.schema(
    [pa.field("z_best", pa.float64(), metadata={"description": "redshift", "PARQUET:field_id": "7"})]
)
N_OBJECTS = 400


def make_table(seed: int = 1, *, half_width_deg: float = 1.0) -> pa.Table:
    """Rows of a whole catalog, sorted, in a box about (150, 2)."""
    random = np.random.default_rng(seed)
    ra = random.uniform(150 - half_width_deg, 150 + half_width_deg, N_OBJECTS)
    dec = random.uniform(2 - half_width_deg, 2 + half_width_deg, N_OBJECTS)
    index = sky.healpix_29(ra, dec)
    order = np.argsort(index, kind="stable")
    schema = catalog.leaf_schema(COLUMNS, id_type=pa.int64(), kept=KEPT)
    bt = np.sort(random.uniform(0, 1, (N_OBJECTS, 3)), axis=1).astype(np.float32)
    flux = random.uniform(1e3, 1e5, N_OBJECTS).astype(np.float32)
    flags = np.zeros(N_OBJECTS, np.int32)
    bt[7], flux[7], flags[7] = np.nan, np.nan, 1
    values: list[npt.NDArray[np.generic]] = [
        index[order],
        43_000_000_000_000_000 + order,
        ra[order],
        dec[order],
        random.uniform(0, 0.5, N_OBJECTS),
        np.zeros(N_OBJECTS, np.int32),
        *bt.T,
        flux,
        flags,
    ]
    return pa.table([pa.array(value) for value in values], schema=schema)


def divide(table: pa.Table, order: int = 5) -> list[Partition]:
    """Pixels of an order, the fullest of them split into the next order."""
    index = table["_healpix_29"].to_numpy()
    pixels, counts = np.unique(sky.pixel_of(index, order), return_counts=True)
    fullest = int(pixels[np.argmax(counts)])
    leaves = [(order, int(pixel)) for pixel in pixels if pixel != fullest]
    leaves += [(order + 1, 4 * fullest + child) for child in range(4)]
    partitions = []
    for healpix_order, pixel in leaves:
        start, stop = np.searchsorted(index, HealpixPixel(healpix_order, pixel).index_range).tolist()
        if stop > start:
            partitions.append(Partition(healpix_order, pixel, start, stop))
    return sorted(partitions, key=lambda partition: partition.start)


def make_footer(partition: Partition, **parts: str) -> dict[str, str]:
    common = {"INFER_VERSION": "1", "posterior": "64 passes", "objects": partition.name}
    fingerprint = {"digest": partition.name, "parts": common | parts}
    return {
        "fingerprint": json.dumps(fingerprint),
        "bundles": json.dumps({"gampen": "3fa1"}),
        "n_objects": str(partition.n_objects),
    }


def write_catalog(path: str, table: pa.Table, partitions: list[Partition]) -> None:
    for partition in partitions:
        rows = table.slice(partition.start, partition.n_objects)
        catalog.write_leaf(path, partition, rows, footer=make_footer(partition))


@pytest.fixture(scope="session")
def table() -> pa.Table:
    return make_table()


@pytest.fixture(scope="session")
def partitions(table: pa.Table) -> list[Partition]:
    found = divide(table)
    assert {partition.healpix_order for partition in found} == {5, 6}
    assert sum(partition.n_objects for partition in found) == N_OBJECTS
    return found


@pytest.fixture
def leaves(tmp_path: Path, table: pa.Table, partitions: list[Partition]) -> str:
    """A catalog that is not finished."""
    path = str(tmp_path / "catalog")
    write_catalog(path, table, partitions)
    return path


@pytest.fixture
def finished(leaves: str, partitions: list[Partition]) -> str:
    catalog.finish(
        leaves,
        partitions=partitions,
        properties={"obs_collection": "test", "galbatch_objects": str(N_OBJECTS)},
        n_rows_expected=N_OBJECTS,
    )
    return leaves
