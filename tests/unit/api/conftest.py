"""A catalog of three objects with its cutout store, as the commands meet them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from galbatch import catalog, ingest
from galbatch.core import sky
from galbatch.core.columns import MC_ERROR, MODEL_FLAGS, PASSES, PIXEL_FLAGS, ColumnKey, Statistic
from galbatch.core.flags import MaskBit, ModelFlag, PixelFlag
from galbatch.core.pixels import Partition
from galbatch.core.types import CutoutBlock, Grid

IDS = (43_000_000_000_000_017, -5, 43_000_000_000_000_019)
RA, DEC = np.array([150.1, 150.101, 150.1]), np.array([-2.2, -2.2, -2.25])
GRID, BANDS = Grid(24, 0.2), ("g", "r")
ANGLE_DEG = 30.0
"""The cutouts are turned by this angle."""

LEVELS = (0.02275, 0.15865, 0.5, 0.84135, 0.97725)
RE = [ColumnKey(Statistic.QUANTILE, "re_arcsec", level=level) for level in LEVELS]
COLUMNS = (
    PIXEL_FLAGS,
    *(key.column("net", unit="arcsec", what="radius") for key in RE),
    ColumnKey(Statistic.LABEL, "re_arcsec").column("net", what="radius", labels="small"),
    PASSES.column("net"),
    MC_ERROR.column("net"),
    MODEL_FLAGS.column("net"),
)


def write_catalog(path: str) -> Partition:
    values = {column.name: column.empty(3) for column in COLUMNS}
    for step, key in enumerate(RE):
        # The last object was not selected.
        values[key.name("net")][:2] = [1.25 + 0.031 * (step - 2), 3.0 + 0.5 * (step - 2)]
    values["net_re_arcsec_label"][0] = "small"
    values["net_passes"][:2], values["net_flags"][:2] = 64, [0, int(ModelFlag.EXTRAPOLATED)]
    values["net_mc_error"][:2] = 0.05
    values["flags"][0] = int(PixelFlag.BAD_CENTER | PixelFlag.MOSAICKED)
    index = sky.healpix_29(RA, DEC)
    order = np.argsort(index)
    pixel = int(sky.pixel_of(index, 4)[0])
    kept = pa.schema([pa.field("z_best", pa.float64())])
    schema = catalog.leaf_schema(COLUMNS, id_type=pa.int64(), kept=kept)
    arrays = [pa.array(a) for a in (index, np.array(IDS), RA, DEC, np.array([0.5, np.nan, 0.25]))]
    arrays += [pa.array(values[column.name], type=column.arrow_type) for column in COLUMNS]
    partition = Partition(4, pixel, 0, 3)
    catalog.write_leaf(path, partition, pa.table(arrays, schema=schema).take(order), footer={})
    catalog.finish(path, partitions=[partition], properties={}, n_rows_expected=3)
    return partition


def write_store(path: str, partition: Partition) -> None:
    """Round sources of unit variance, whose peak lies at the object; each cutout is turned by 30 degrees."""
    ingest.create_groups(path, attributes={}, partitions=[partition], grids=[GRID])
    y, x = np.mgrid[:24, :24]
    source = 100 * np.exp(-((x - 12.0) ** 2 + (y - 12.0) ** 2) / 2 / 2.0**2)
    image = np.stack([np.stack([source, 2 * source])] * 3).astype(np.float32)
    mask = np.zeros(image.shape, np.uint16)
    mask[:, :, 12, 12] = int(MaskBit.SAT)
    turn = np.deg2rad(ANGLE_DEG)
    rotation = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    per_band = np.full((3, 2), 1, np.float32)
    block = CutoutBlock(
        GRID, BANDS, np.array(IDS), RA, DEC, image, mask, np.ones_like(image), np.full((3, 2), 13.0),
        np.stack([RA, DEC], axis=1), np.tile(rotation * GRID.pixel_scale_arcsec / 3600, (3, 1, 1)),
        np.array(["t"] * 3), per_band, 2 * per_band, 0.7 * per_band, per_band,
        np.array([int(PixelFlag.BAD_CENTER | PixelFlag.MOSAICKED), 0, 0], np.int32),
    )  # fmt: skip
    ingest.write_partition(
        path, partition, GRID, [block], planes=("image", "mask", "variance"), fingerprint={}
    )


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of the catalog; its store is ``cutouts.zarr`` beside it."""
    folder: Path = tmp_path_factory.mktemp("small")
    path = str(folder / "catalog")
    write_store(str(folder / "cutouts.zarr"), write_catalog(path))
    return path
