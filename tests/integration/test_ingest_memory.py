"""Peak memory of a worker that cuts: within the plan's projection, whatever the number of blocks."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galbatch import config, execution, ingest
from galbatch.config import FlagsConfig
from galbatch.core import sky
from galbatch.core.fingerprint import Fingerprint
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, Grid, ObjectTable
from galbatch.execution import GridTask, IngestTask
from galbatch.planning import PROCESS_BYTES

GRID = Grid(239, 0.168)
BANDS = ("g", "r")
PLANES = ("image", "mask", "variance")

# VmHWM, as ru_maxrss of a child begins with its parent's: Linux keeps it over exec.
CHILD = """
import json, pickle, re, sys

import distributed  # a worker has it

from galbatch.execution import ingest_partition


def peak_bytes():
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])


with open(sys.argv[1], "rb") as file:
    task = pickle.load(file)
before = peak_bytes()
done = ingest_partition(task)
print(json.dumps({"n_cutouts": done.n_cutouts, "before": before, "peak": peak_bytes()}))
"""


@pytest.fixture(scope="module")
def plan(write_run, tmp_path_factory):
    """The plan of the small survey, but for its grid: 239 px, all objects on it."""
    plan = execution.prepare(config.read_config(write_run(tmp_path_factory.mktemp("plan"))))
    grid = dataclasses.replace(plan.grids[0], grid=GRID, bands=BANDS)
    return dataclasses.replace(plan, grids=(grid,))


def objects_near(survey, n_objects):
    """Objects all over the survey: its own, again and again, some arcsec away."""
    rng = np.random.default_rng(3)
    table = pq.read_table(survey / "objects.parquet")
    inside = table.column("ra_deg").to_numpy(), table.column("dec_deg").to_numpy()
    chosen = rng.integers(0, 100, n_objects)
    ra_deg, dec_deg = (values[chosen] + rng.uniform(-3e-3, 3e-3, n_objects) for values in inside)
    index = sky.healpix_29(ra_deg, dec_deg)
    order = np.argsort(index)
    kept = pa.table({"row": np.arange(n_objects)})
    return ObjectTable(np.arange(n_objects), ra_deg[order], dec_deg[order], index[order], kept)


def peak_of(plan, survey, folder, *, n_objects, planes=PLANES):
    """Peak resident memory in bytes of a new process that cuts this many objects."""
    task = IngestTask(
        partition=Partition(5, 7, 0, n_objects),
        objects=objects_near(survey, n_objects),
        object_flags=np.zeros(n_objects, np.int32),
        tiles=plan.tiles,
        grids=(GridTask(GRID, BANDS, np.arange(n_objects)),),
        store=str(folder / "store"),
        planes=planes,
        resampling="low_pass",
        flags=FlagsConfig(),
        fingerprint=Fingerprint({}),
    )
    path = folder / "task.pickle"
    path.write_bytes(pickle.dumps(task))
    # As cluster.py starts workers.
    malloc = {name: str(2**28) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        env={**os.environ, **malloc, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    assert result["n_cutouts"] == n_objects
    shutil.rmtree(folder / "store")
    return result


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_the_peak_is_within_the_projection_and_does_not_grow(plan, survey, tmp_path):
    few = peak_of(plan, survey, tmp_path, n_objects=4 * BLOCK_OBJECTS)
    many = peak_of(plan, survey, tmp_path, n_objects=8 * BLOCK_OBJECTS)
    projected = plan.worker_memory_bytes(PLANES, store="cutouts.zarr")
    assert many["before"] < PROCESS_BYTES
    assert many["peak"] < projected
    # Not so far below that the projection says nothing.
    assert many["peak"] > 0.5 * projected
    # A plane of a block more or less may be on its way to the disk; a worker that kept its blocks, or one plane of each, would have four more.
    assert many["peak"] < few["peak"] + BLOCK_OBJECTS * ingest.bytes_per_object(GRID, BANDS, PLANES)


def test_a_store_on_s3_takes_one_block_more(plan):
    """The one that is written while the next is cut: image, mask and variance of 256 objects in two bands."""
    more = plan.worker_memory_bytes(PLANES, store="s3://bucket/cutouts.zarr")
    assert more - plan.worker_memory_bytes(PLANES, store="cutouts.zarr") == pytest.approx(
        BLOCK_OBJECTS * 2 * 239**2 * 10, rel=1e-3
    )
