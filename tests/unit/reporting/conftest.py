"""A small catalog and store made through the real rooms, with posteriors invented around a known truth."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import ndtri

from galbatch import catalog, ingest
from galbatch.core import sky
from galbatch.core.columns import MODEL_FLAGS, PIXEL_FLAGS, Column
from galbatch.core.flags import PixelFlag
from galbatch.core.pixels import Partition
from galbatch.core.types import CutoutBlock, Grid, ab_mag

LEVELS = {"q02275": 0.02275, "q15865": 0.15865, "q500": 0.5, "q84135": 0.84135, "q97725": 0.97725}
N_OBJECTS = 400
BUNDLE = "3fa1" * 16


def posterior_columns(prefix, unit, center, width):
    """Columns and values of a Gaussian posterior."""
    values = {f"{prefix}_{name}": center + width * ndtri(level) for name, level in LEVELS.items()}
    return [Column(name, "float32", unit, name) for name in values], values


@pytest.fixture(scope="session")
def truth():
    rng = np.random.default_rng(3)
    bt = rng.uniform(0.1, 0.9, N_OBJECTS)
    bt[: N_OBJECTS // 4] = 0.0
    return {
        "object_id": 40_000_000_000_000_001 + np.arange(N_OBJECTS),
        "bt": bt,
        "re_arcsec": rng.uniform(0.1, 5.0, N_OBJECTS),
        "flux_njy": rng.uniform(1e3, 5e6, N_OBJECTS),
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory, truth):
    """Paths of catalog, truth and store. The first 8 objects are flagged, the ninth has no values."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(4)
    ra, dec = 150 + rng.uniform(0, 0.01, N_OBJECTS), 2 + rng.uniform(0, 0.01, N_OBJECTS)
    flags = np.zeros(N_OBJECTS, np.int32)
    flags[:4], flags[4:8] = int(PixelFlag.SATURATED), int(PixelFlag.NEIGHBOR | PixelFlag.MOSAICKED)
    columns, values = [PIXEL_FLAGS], {"flags": flags}
    for name, unit, true, width in (
        ("bt", "", truth["bt"], 0.05),
        ("re_arcsec", "arcsec", truth["re_arcsec"], 0.1),
        ("mag", "mag", ab_mag(truth["flux_njy"]), 0.02),
        ("unknown", "", truth["bt"], 0.1),
    ):
        center = true + width * rng.standard_normal(N_OBJECTS)
        more, its = posterior_columns(
            f"gampen_{name}",
            unit,
            np.where(np.arange(N_OBJECTS)[:, None] == 8, np.nan, center[:, None])[:, 0],
            width,
        )
        columns += more
        values |= its
    columns += [Column("gampen_passes", "int32", "", ""), MODEL_FLAGS.column("gampen")]
    values |= {
        "gampen_passes": np.full(N_OBJECTS, 64),
        "gampen_flags": np.where(np.arange(N_OBJECTS) == 8, 4, 0),
    }
    values |= {
        "object_id": truth["object_id"],
        "ra_deg": ra,
        "dec_deg": dec,
        "_healpix_29": sky.healpix_29(ra, dec),
    }
    order = np.argsort(values["_healpix_29"])
    pixel = sky.pixel_of(values["_healpix_29"], 5)
    assert len(set(pixel.tolist())) == 1
    partition = Partition(5, int(pixel[0]), 0, N_OBJECTS)
    schema = catalog.leaf_schema(columns, id_type=pa.int64(), kept=pa.schema([]))
    arrays = [pa.array(np.asarray(values[field.name])[order]).cast(field.type) for field in schema]
    path = str(folder / "catalog")
    catalog.write_leaf(path, partition, pa.Table.from_arrays(arrays, schema=schema), footer={})
    properties = {"obs_collection": "tiny", "galbatch_complete": "true", "galbatch_bundle_gampen": BUNDLE}
    catalog.finish(path, partitions=[partition], properties=properties, n_rows_expected=N_OBJECTS)
    pq.write_table(pa.table(truth), folder / "truth.parquet")
    store = str(folder / "cutouts.zarr")
    write_store(
        store, partition, {name: value[order] for name, value in values.items() if len(value) == N_OBJECTS}
    )
    return path, str(folder / "truth.parquet"), store


def write_store(store, partition, values):
    grid, bands = Grid(16, 0.168), ("g", "r")
    ingest.create_groups(store, attributes={}, partitions=[partition], grids=[grid])
    image = np.random.default_rng(5).normal(0, 2, (N_OBJECTS, 2, 16, 16)).astype(np.float32)
    image[:, :, 6:10, 6:10] += 500
    blocks = []
    for start in range(0, N_OBJECTS, 256):
        part = slice(start, min(start + 256, N_OBJECTS))
        n = part.stop - part.start
        blocks.append(
            CutoutBlock(
                grid, bands, values["object_id"][part], values["ra_deg"][part], values["dec_deg"][part],
                image[part], None, None, np.ones((n, 2)), np.ones((n, 2)), np.tile(np.eye(2), (n, 1, 1)),
                np.array(["t"] * n), np.ones((n, 2), np.float32), np.full((n, 2), 2, np.float32),
                np.full((n, 2), np.nan, np.float32), np.ones((n, 2), np.float32), values["flags"][part],
            )
        )  # fmt: skip
    ingest.write_partition(store, partition, grid, blocks, planes=("image",), fingerprint={})
