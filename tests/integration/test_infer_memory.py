"""Peak memory of a worker that infers: within the plan's projection, whatever the number of blocks."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from galbatch import ingest, models, sky, tasks
from galbatch.config import PosteriorConfig
from galbatch.fingerprint import Fingerprint
from galbatch.inference_memory import project_inference
from galbatch.models import DomainInfo
from galbatch.models.gampen import Gampen
from galbatch.plan import ModelPlan
from galbatch.projection import GridPlan
from galbatch.types import BLOCK_OBJECTS, CutoutBlock, ObjectTable, Partition

MADE = Fingerprint({"made": "here"})
BANDS = ("g", "r")
RA_DEG, DEC_DEG = 45.0, 0.0
PIXEL = int(sky.healpix_29(np.array([RA_DEG]), np.array([DEC_DEG]))[0] >> 58)

# VmHWM, as ru_maxrss of a child begins with its parent's: Linux keeps it over exec.
CHILD = """
import json, pickle, re, sys

import distributed  # a worker has it

from galbatch import tasks


def peak_bytes():
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])


with open(sys.argv[1], "rb") as file:
    task = pickle.load(file)
for model in task.models:
    tasks.load_network(model.network)
before = peak_bytes()
done = tasks.infer_partition(task)
print(json.dumps({"n_passes": done.n_passes, "before": before, "peak": peak_bytes()}))
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")


def block(grid, number):
    """Cutouts of noise."""
    n = BLOCK_OBJECTS
    image = np.random.default_rng(number).normal(0, 5, (n, len(BANDS), grid.size_px, grid.size_px))
    per_band = np.ones((n, len(BANDS)), np.float32)
    return CutoutBlock(
        grid=grid,
        bands=BANDS,
        object_id=np.arange(number * n, (number + 1) * n),
        ra_deg=np.full(n, RA_DEG),
        dec_deg=np.full(n, DEC_DEG),
        image=image.astype(np.float32),
        mask=None,
        variance=None,
        crpix=np.zeros((n, 2)),
        crval=np.zeros((n, 2)),
        cd=np.zeros((n, 2, 2)),
        tile=np.full(n, "9813/4,4"),
        coverage=per_band,
        sky_sigma_njy=per_band,
        psf_fwhm_arcsec=per_band,
        noise_correlation=per_band,
        flags=np.zeros(n, np.int32),
    )


def write_store(folder, grid, n_blocks):
    """Cutouts of `n_blocks` blocks; returns the store and its partition."""
    partition = Partition(0, PIXEL, 0, n_blocks * BLOCK_OBJECTS)
    store = str(folder / f"cutouts_{n_blocks}.zarr")
    ingest.create_groups(store, attributes={}, partitions=[partition], grids=[grid])
    blocks = (block(grid, number) for number in range(n_blocks))
    ingest.write_partition(store, partition, grid, blocks, planes=("image",), fingerprint=MADE.as_json())
    return store, partition


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the projection looks at."""

    models: tuple
    grids: tuple
    partitions: tuple


@dataclasses.dataclass(frozen=True)
class Part:
    """What the projection looks at of a partition."""

    partition: Partition


def network_of(path, engine):
    ensemble = models.load_ensemble([path])
    network = ModelPlan("net", None, (path,), ensemble.sha256, ensemble.grid, ensemble.bands, engine=engine)
    return ensemble, network


def projected(network, ensemble, partition, posterior):
    """Bytes, as a run's plan says."""
    execution = models.Execution(models.Engine.named(network.engine))
    memory = models.measure_memory(ensemble, execution, posterior)
    plan = Plan((network,), (GridPlan(network.grid, BANDS, (0,)),), (Part(partition),))
    return project_inference(plan, {"net": memory}, posterior, device="cpu").host_bytes


def peak_of(network, store, partition, *, posterior, n_selected):
    """Memory of a new process that infers so many objects of each block."""
    folder, n = Path(store).parent, partition.n_objects
    ra_deg, dec_deg = np.full(n, RA_DEG), np.full(n, DEC_DEG)
    index = sky.healpix_29(ra_deg, dec_deg)
    selected = np.arange(n) % BLOCK_OBJECTS < n_selected
    task = tasks.InferTask(
        partition=partition,
        objects=ObjectTable(np.arange(n), ra_deg, dec_deg, index, pa.table({"row": np.arange(n)})),
        object_flags=np.zeros(n, np.int32),
        grids=(tasks.GridTask(network.grid, BANDS, np.arange(n)),),
        models=(tasks.ModelTask(network, selected),),
        posterior=posterior,
        store=store,
        catalog=str(folder / "catalog"),
        ingest_fingerprint=MADE,
        fingerprint=MADE,
    )
    (folder / "task.pickle").write_bytes(pickle.dumps(task))
    # As cluster.py starts workers.
    malloc = {name: str(2**28) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder / "task.pickle")],
        env={**os.environ, **malloc, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    assert result["n_passes"] == int(selected.sum()) * posterior.passes
    return result


@pytest.fixture(scope="module")
def wide_gampen(tmp_path_factory):
    """A GaMPEN of half the paper's channels, whose weights take 135 MB; untrained."""
    path = str(tmp_path_factory.mktemp("bundle") / "wide.pt")
    metadata = models.load_bundle(models.bundle_path("demo:gampen")).metadata
    torch.manual_seed(5)
    network = Gampen(
        metadata.input.size_px, metadata.n_outputs, width=0.5, dropout_rate=metadata.dropout_rate
    )
    metadata = dataclasses.replace(metadata, name="wide", domain=DomainInfo(), calibration=None)
    models.save_bundle(path, models.script_of(network), metadata)
    return path


@pytest.mark.parametrize(
    ("name", "engine", "passes"),
    [
        ("demo:gampen", "torchscript-float32", 64),
        ("demo:sfnet", "torchscript-float32", 64),
        ("demo:sfnet", "rebuilt-bfloat16", 64),
        ("wide", "torchscript-float32", 16),
    ],
)
def test_the_peak_is_within_the_projection(name, engine, passes, wide_gampen, tmp_path):
    path = wide_gampen if name == "wide" else models.bundle_path(name)
    ensemble, network = network_of(path, engine)
    posterior = PosteriorConfig(passes=passes)
    store, partition = write_store(tmp_path, network.grid, 2)
    found = peak_of(network, store, partition, posterior=posterior, n_selected=16)
    limit = projected(network, ensemble, partition, posterior)
    assert 0.5 * limit < found["peak"] < limit


def test_the_peak_does_not_grow_with_the_partition(tmp_path):
    """A block, two bands of 96 px, is 19 MB; 12 more are 226 MB."""
    _, network = network_of(models.bundle_path("demo:sfnet"), "torchscript-float32")
    peaks = []
    for n_blocks in (4, 16):
        store, partition = write_store(tmp_path, network.grid, n_blocks)
        peaks.append(
            peak_of(network, store, partition, posterior=PosteriorConfig(passes=64), n_selected=8)["peak"]
        )
        shutil.rmtree(store)
    assert abs(peaks[1] - peaks[0]) < BLOCK_OBJECTS * ingest.bytes_per_object(network.grid, BANDS, ("image",))
