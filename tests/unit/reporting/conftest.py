"""A small catalog and store made through the real rooms, with posteriors invented around a known truth."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scipy.special import ndtri

from galbatch import catalog, ingest, models
from galbatch.core import sky
from galbatch.core.columns import MODEL_FLAGS, PASSES, PIXEL_FLAGS, Column, ColumnKey, Statistic
from galbatch.core.flags import PixelFlag
from galbatch.core.pixels import Partition
from galbatch.core.types import CutoutBlock, Grid, ab_mag
from galbatch.reporting.contents import Features, read_contents

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


@pytest.fixture(scope="session")
def sparse(made, tmp_path_factory):
    """Contents of the same catalog with the features of the shipped SFNet in 24 objects, and a store of their cutouts."""
    contents = read_contents(made[0])
    (pixel,) = catalog.list_leaves(made[0])
    partition = Partition(pixel.healpix_order, pixel.healpix_pixel, 0, N_OBJECTS)
    values = {
        "object_id": np.array(contents.object_id[:24]),
        "ra_deg": contents.ra_deg[:24],
        "dec_deg": contents.dec_deg[:24],
        "flags": contents.flags[:24],
    }
    store = str(tmp_path_factory.mktemp("sparse") / "cutouts.zarr")
    image = write_store(store, partition, values, size_px=96)
    bundle = models.load_bundle("demo:sfnet")
    found = models.localize(bundle, image)
    index, activation = (
        np.pad(one.astype(np.float64), ((0, N_OBJECTS - 24), (0, 0)), constant_values=missing)
        for one, missing in ((found.index, -1), (found.activation, np.nan))
    )
    contents = dataclasses.replace(
        contents,
        properties={**contents.properties, "galbatch_bundle_sfnet": bundle.sha256},
        model_flags={**contents.model_flags, "sfnet": contents.model_flags["gampen"]},
        features={"sfnet": Features(index.astype(np.int64), activation)},
    )
    return contents, store


def write_store(store, partition, values, size_px=16):
    """Write cutouts with a square source at the center, and return their images (object, band, y, x)."""
    grid, bands = Grid(size_px, 0.168), ("g", "r")
    n_objects = len(values["object_id"])
    ingest.create_groups(store, attributes={}, partitions=[partition], grids=[grid])
    image = np.random.default_rng(5).normal(0, 2, (n_objects, 2, size_px, size_px)).astype(np.float32)
    half = size_px // 2
    image[:, :, half - 2 : half + 2, half - 2 : half + 2] += 500
    blocks = []
    for start in range(0, n_objects, 256):
        part = slice(start, min(start + 256, n_objects))
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
    return image


N_REDSHIFTS, WIDTH = 1500, 0.08
EDGES = np.linspace(-0.5, 2.5, 601)
Z_LEVELS = (0.15865, 0.5, 0.84135)
QUANTILES = [ColumnKey(Statistic.QUANTILE, "z", level=level) for level in Z_LEVELS]


def density():
    plain = ColumnKey(Statistic.DENSITY, "z").column("net", what="z", n_bins=600, low=-0.5, high=2.5)
    return dataclasses.replace(plain, length=600, grid=(-0.5, 2.5))


@pytest.fixture(scope="session")
def redshifts(tmp_path_factory):
    """Right normal posteriors at z_phot, of objects that are fainter the farther they are."""
    folder = tmp_path_factory.mktemp("redshifts")
    rng = np.random.default_rng(8)
    z_phot = rng.uniform(0.2, 1.4, N_REDSHIFTS)
    z_spec = rng.normal(z_phot, WIDTH)
    columns = (
        PIXEL_FLAGS,
        *(q.column("net", what="z") for q in QUANTILES),
        density(),
        PASSES.column("net"),
        MODEL_FLAGS.column("net"),
    )
    normal = stats.norm(z_phot[:, None], WIDTH)
    values = {column.name: column.empty(N_REDSHIFTS) for column in columns}
    for key, of_level in zip(QUANTILES, normal.ppf(Z_LEVELS).T, strict=True):
        values[key.name("net")][:] = of_level
    values["net_z_density"][:] = np.diff(normal.cdf(EDGES), axis=1) / 0.005
    values["net_flags"][:] = 0
    ra, dec = rng.uniform(150, 150.5, N_REDSHIFTS), rng.uniform(2, 2.5, N_REDSHIFTS)
    index = sky.healpix_29(ra, dec)
    kept = pa.schema([pa.field("mag_i", pa.float64())])
    schema = catalog.leaf_schema(columns, id_type=pa.int64(), kept=kept)
    ids, magnitude = np.arange(N_REDSHIFTS), 20 + 2 * z_phot
    arrays = [pa.array(a) for a in (index, ids, ra, dec, magnitude)]
    arrays += [column.as_arrow(values[column.name]) for column in columns]
    partition = Partition(0, int(sky.pixel_of(index, 0)[0]), 0, N_REDSHIFTS)
    table = pa.table(arrays, schema=schema).take(np.argsort(index))
    catalog.write_leaf(str(folder / "catalog"), partition, table, footer={})
    catalog.finish(
        str(folder / "catalog"), partitions=[partition], properties={}, n_rows_expected=N_REDSHIFTS
    )
    spec = z_spec.copy()
    spec[:3] = [-99.0, np.nan, -1.0]  # as tables write where there is none
    pq.write_table(pa.table({"object_id": ids, "z": spec, "z_true": spec}), folder / "spec.parquet")
    far = pa.table({"mag_i": np.linspace(21.8, 22.8, 400)})  # z from 0.9 to 1.4
    pq.write_table(far, folder / "target.parquet")
    pq.write_table(pa.table({"z_phot": z_phot, "z_spec": spec}), folder / "own.parquet")
    return folder
