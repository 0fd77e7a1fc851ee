"""Calibration of a network on two grids, each in its own unit: the store's partitions and the objects of both are matched by id."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from galbatch import ingest
from galbatch.cli.app import app
from galbatch.core.pixels import Partition
from galbatch.core.types import Grid
from galbatch.errors import UsageError
from galbatch.models import (
    BundleMetadata,
    HeadInfo,
    InputInfo,
    ParameterInfo,
    read_bundle_metadata,
    save_bundle,
)
from galbatch.models.metadata import ImageInfo
from galbatch.objects import write_table
from tests.unit.learning.blocks import block_of

FINE, COARSE = Grid(8, 0.2), Grid(6, 0.4)
N = 1200
NOISE, STATED = 0.4, 0.2
"""What the network's estimate differs from the label by, and what it says of that."""


class Ratio(torch.nn.Module):
    """The logarithm of the ratio of the brightness on both grids, with a width that is half of the true one."""

    def forward(self, images: list[torch.Tensor], keys: torch.Tensor) -> torch.Tensor:
        return self.sample(self.prefix(images), keys)

    @torch.jit.export
    def prefix(self, images: list[torch.Tensor]) -> torch.Tensor:
        ratio = images[1].mean(dim=[1, 2, 3]) / images[0].mean(dim=[1, 2, 3])
        return torch.stack([ratio.log(), torch.full_like(ratio, -3.2188758)], dim=1)  # ln of 0.2 squared

    @torch.jit.export
    def sample(self, features: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return features


def uniform_block(grid, band, values, ids):
    """Cutouts of one band whose pixels all have one value an object, (object,)."""
    images = np.broadcast_to(values[:, None, None, None], (len(ids), 1, grid.size_px, grid.size_px))
    return block_of(grid, (band,), images.astype(np.float32), ids)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of two partitions on the fine grid, of which the coarse one has the second alone, and the labels of all objects."""
    folder = tmp_path_factory.mktemp("grids")
    rng = np.random.default_rng(4)
    # The ids rise in neither partition.
    ids = rng.permutation(10 * N)[:N]
    base, ratio = rng.uniform(50, 500, N), rng.normal(0, 1, N)
    store = str(folder / "cutouts.zarr")
    parts = [Partition(5, 7123, 0, N // 4), Partition(5, 7124, N // 4, N)]
    ingest.create_groups(store, attributes={"unit": "nJy"}, partitions=parts, grids=[FINE, COARSE])
    for part in parts:
        rows = np.arange(part.start, part.stop)
        for grid, band, values in ((FINE, "a_g", base), (COARSE, "b_r", base * np.exp(ratio))):
            if grid == COARSE and part is parts[0]:
                continue
            blocks = [
                uniform_block(grid, band, values[some], ids[some])
                for some in np.array_split(rows, range(256, len(rows), 256))
            ]
            ingest.write_partition(store, part, grid, blocks, planes=("image",), fingerprint={"a": 1})
    labels = {"object_id": ids, "ratio": ratio + rng.normal(0, NOISE, N)}
    write_table(str(folder / "labels.parquet"), pa.table(labels))
    # The second grid's unit is a nanomaggy, 3631 nJy; ln of a ratio in these units has another constant.
    more = ImageInfo(("b_r",), 6, 0.4, "nmgy", 22.5)
    metadata = BundleMetadata(
        name="ratio",
        version="1",
        architecture="toy",
        input=InputInfo(("a_g",), 8, 0.2, "nJy", 31.4, more_grids=(more,)),
        head=HeadInfo("gaussian"),
        parameters=(ParameterInfo("ratio", "", "", "identity", location=np.log(3630.78), scale=1.0),),
        dropout_rate=0.0,
    )
    save_bundle(str(folder / "ratio.pt"), torch.jit.script(Ratio().eval()), metadata)
    return folder


def command(folder, *more):
    words = ["models", "calibrate", str(folder / "ratio.pt"), "-o", str(folder / "out.pt"), *more]
    return CliRunner().invoke(app, words)


def test_it_finds_how_much_too_narrow_the_network_is(folder):
    tables = ("--store", str(folder / "cutouts.zarr"), "--labels", str(folder / "labels.parquet"))
    done = command(folder, *tables, "--apply")
    assert done.exit_code == 0, done.output
    assert f"{3 * N // 4} objects have a cutout on each of 2 grids" in done.output
    metadata, _ = read_bundle_metadata(str(folder / "out.pt"))
    (factor,) = metadata.calibration.inflation_factors
    # 450 objects choose it: known to 3 %.
    assert factor == pytest.approx(NOISE / STATED, rel=0.15)
    assert len(metadata.input.images) == 2
    assert metadata.input.more_grids[0].bands == ("b_r",)


def test_the_simulation_is_refused(folder):
    done = command(folder, "--simulate", "paper")
    assert isinstance(done.exception, UsageError)
    assert "takes cutouts on several grids, which the simulation does not draw" in str(done.exception)
