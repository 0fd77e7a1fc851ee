"""What a plan says is read from S3 is what cutting its partitions fetches, counted by the server."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from galbatch.config import CutoutsConfig, FlagsConfig, RunConfig
from galbatch.core import sky
from galbatch.core.types import Grid, ObjectTable
from galbatch.execution import tasks
from galbatch.ingest.cut.tile.sky import sky_of_tile
from galbatch.objects import ListCounts, ListSource
from galbatch.planning import ModelPlan, make_plan

SIZE_PX, STEP_PX, SCALE_DEG = 1000, 900, 0.168 / 3600


@pytest.fixture
def on_s3(tmp_path, tan, write_calexp, read_tiles, serve):
    """Four patches of 1000 px that overlap by 100 px, with three planes, and the server that counts."""
    put, server = serve
    rng = np.random.default_rng(1)
    for x in range(2):
        for y in range(2):
            wcs = tan(crpix=(950.5 - STEP_PX * x, 950.5 - STEP_PX * y))
            write_calexp(tmp_path, patch=f"{x},{y}", image=rng.normal(size=(SIZE_PX, SIZE_PX)), wcs=wcs)
    tiles = []
    for number, tile in enumerate(read_tiles(tmp_path)):
        with open(tile.image.path, "rb") as file:
            path = put(f"calexp-{number}.fits", file.read())
        planes = {
            name: dataclasses.replace(getattr(tile, name), path=path) for name in ("image", "mask", "weight")
        }
        tiles.append(dataclasses.replace(tile, **planes))
    return tiles, server


@pytest.mark.parametrize(
    ("n_objects", "max_objects", "margin"), [(14, 1000, 0.15), (14, 6, 0.25), (1000, 2000, 0.01)]
)
def test_partitions_read_what_the_plan_says(on_s3, n_objects, max_objects, margin, monkeypatch):
    tiles, server = on_s3
    rng = np.random.default_rng(2)
    # Away from the rim, where cutouts are in part outside; seams between patches are inside.
    x, y = rng.uniform(-850, 850, (2, n_objects)) * SCALE_DEG
    ra, dec = 150.0 + x / np.cos(np.radians(2.0)), 2.0 + y
    healpix = sky.healpix_29(ra, dec)
    rank = np.argsort(healpix)
    table = ObjectTable(np.arange(n_objects), ra[rank], dec[rank], healpix[rank], pa.table({"n": rank}))
    config = RunConfig(
        survey={"layout": "hsc", "tiles": "s3://bucket", "bands": ["g"]},
        objects={"path": "objects.parquet"},
        models=[{"name": "gampen", "bundle": "gampen.pt"}],
        plan={"max_objects_per_partition": max_objects},
    )
    model = ModelPlan("gampen", None, ("gampen.pt",), ("0" * 64,), Grid(64, 0.168), ("g",))
    plan = make_plan(config, ListSource(table, pa.table({}), ListCounts()), tiles, [model])
    assert (len(plan.partitions) > 3) == (max_objects == 6)
    server.reset()
    for part in plan.partitions:
        # Each by a worker that has not seen its tiles: which partitions one worker gets no plan can tell.
        monkeypatch.setattr(sky_of_tile, "_known", {})
        task = tasks.ingest_task(plan, part, cutouts=CutoutsConfig(), flags=FlagsConfig())
        for grid in task.grids:
            for block in tasks.cut_rows(task, grid, grid.rows):
                assert np.isfinite(block.image).mean() > 0.99
    takes = plan.projection
    # Headers, 64 KiB each, are a good part of the few windows here, and counted as if none shared a block.
    assert server.bytes_ == pytest.approx(takes.read_bytes, rel=margin)
    assert server.gets + server.heads == pytest.approx(takes.requests, rel=0.15)
