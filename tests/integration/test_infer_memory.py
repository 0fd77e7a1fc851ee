"""Peak memory of a worker that infers: within the plan's projection, whatever the number of blocks."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch

from galbatch import ingest, models
from galbatch.config import PosteriorConfig
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS
from galbatch.execution import load_network
from galbatch.models import DomainInfo
from galbatch.models.heads import outputs_per_pass
from galbatch.models.networks import Gampen
from galbatch.planning import GridPlan, project_inference

# VmHWM, as ru_maxrss of a child begins with its parent's: Linux keeps it over exec.
CHILD = """
import json, pickle, re, sys

import distributed  # a worker has it

from galbatch.execution import infer_partition


def peak_bytes():
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])


with open(sys.argv[1], "rb") as file:
    task = pickle.load(file)
done = infer_partition(task)
print(json.dumps({"n_passes": done.n_passes, "peak": peak_bytes()}))
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")


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


def projected(task):
    """Bytes, as a run's plan says."""
    network = task.models[0].network
    memory = models.measure_memory(load_network(network), execution_of(network), task.posterior)
    plan = Plan((network,), (GridPlan(network.grid, task.grids[0].bands, (0,)),), (Part(task.partition),))
    return project_inference(plan, {"net": memory}, task.posterior, device="cpu").host_bytes


def execution_of(network):
    return models.Execution(models.Engine.named(network.engine))


def peak_of(task, folder):
    """Memory of a new process that does a task."""
    (folder / "task.pickle").write_bytes(pickle.dumps(task))
    # As cluster.py starts workers.
    malloc = {name: str(2**28) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder / "task.pickle")],
        env={**os.environ, **malloc, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    assert result["n_passes"] == int(task.models[0].selected.sum()) * task.posterior.passes
    return result["peak"]


@pytest.fixture(scope="module")
def wide_gampen(tmp_path_factory):
    """A GaMPEN of half the paper's channels, whose weights take 135 MB; untrained."""
    path = str(tmp_path_factory.mktemp("bundle") / "wide.pt")
    metadata = models.load_bundle(models.bundle_path("demo:gampen")).metadata
    torch.manual_seed(5)
    network = Gampen(
        metadata.input.size_px, outputs_per_pass(metadata), width=0.5, dropout_rate=metadata.dropout_rate
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
        pytest.param("wide", "torchscript-float32", 16, marks=pytest.mark.slow),
    ],
)
def test_the_peak_is_within_the_projection(name, engine, passes, wide_gampen, noise_task, tmp_path):
    path = wide_gampen if name == "wide" else models.bundle_path(name)
    posterior = PosteriorConfig(passes=passes)
    task = noise_task(tmp_path, path, n_blocks=2, n_selected=16, posterior=posterior, engine=engine)
    limit = projected(task)
    assert 0.5 * limit < peak_of(task, tmp_path) < limit


@pytest.fixture(scope="module")
def larger_sfnet(tmp_path_factory):
    """The demo SFNet for cutouts of 143 px: what malloc leaves here and there, 30 to 45 MB, is a block of such cutouts."""
    path = str(tmp_path_factory.mktemp("bundle") / "larger.pt")
    bundle = models.load_bundle(models.bundle_path("demo:sfnet"))
    larger = dataclasses.replace(bundle.metadata.input, size_px=143)
    metadata = dataclasses.replace(bundle.metadata, name="larger", input=larger)
    models.save_bundle(path, bundle.script, metadata)
    return path


@pytest.mark.slow
def test_the_peak_does_not_grow_with_the_partition(larger_sfnet, noise_task, tmp_path):
    """A block, two bands of 143 px, is 42 MB; 24 more are 1005 MB, of which less than two may be seen."""
    peaks = []
    for n_blocks in (4, 28):
        posterior = PosteriorConfig(passes=16)
        folder = tmp_path / str(n_blocks)
        folder.mkdir()
        task = noise_task(folder, larger_sfnet, n_blocks=n_blocks, n_selected=8, posterior=posterior)
        peaks.append(peak_of(task, folder))
        shutil.rmtree(task.store)
    (grid,) = task.grids
    block_bytes = BLOCK_OBJECTS * ingest.bytes_per_object(grid.grid, grid.bands, ("image",))
    assert peaks[1] - peaks[0] < 2 * block_bytes
