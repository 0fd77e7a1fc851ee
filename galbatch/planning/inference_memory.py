"""What a worker takes of memory while it infers, on the host and on the GPU. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from galbatch.catalog.pass_outputs import MAX_CHUNK_BYTES
from galbatch.config import PosteriorConfig
from galbatch.core.types import BLOCK_OBJECTS
from galbatch.ingest import bytes_per_object, reading_bytes
from galbatch.planning.plan import ModelPlan, Plan
from galbatch.planning.projection import GridPlan

if TYPE_CHECKING:
    from galbatch.models import NetworkMemory  # loads torch, which projecting does without

__all__ = ["GPU_PROCESS_BYTES", "PROCESS_BYTES", "InferenceMemory", "project_inference"]

PROCESS_BYTES = 600 * 2**20
"""A worker without weights and pixels: 500 MiB of libraries, with torch; what the first passes make."""

GPU_PROCESS_BYTES = 3 * 2**30
"""What CUDA takes of the host besides: its libraries and the pages they pin."""

WEIGHT_COPIES = {"torchscript": 1.0, "rebuilt": 2.5, "compiled": 2.5}
"""Of the script's weights: the script's own, a rebuilt network's, and for lower precisions one more in float32."""

HEAP = 2
"""On a CPU: what passes free in between is not always taken again, as the next buffer may not fit in: 1.5 to 2.7 times was seen."""

COLUMN_BYTES = 32
"""Of a number in the catalog: an array's, Arrow's, Arrow's again with the leaf's own schema, and the file in memory."""

KEPT_CHUNKS = 3
"""Of pass outputs, of each bundle: the one that fills, and what it is coded into."""

OBJECT_COLUMNS = 20
"""Of an object beside its results: ids, positions, flags, what is kept."""


@dataclass(frozen=True)
class InferenceMemory:
    """Of a worker: bytes of the host, and of the GPU without CUDA's own context of some 0.5 GB; 0 where there is none."""

    host_bytes: int
    device_bytes: int


def project_inference(
    plan: Plan, networks: Mapping[str, NetworkMemory], posterior: PosteriorConfig, *, device: str
) -> InferenceMemory:
    """Projected memory of a worker while it infers the largest partition.

    Networks take turns on a block of cutouts, and keep their weights. A block is worked on, the next is read. When bundles are
    loaded, each runs some rows, by which its behavior is checked.

    Parameters
    ----------
    plan : of the run
    networks : by name, measured
    posterior : how many passes; whether their outputs are kept
    device : cpu or cuda
    """
    known = [(model, networks[model.name]) for model in plan.models if model.name in networks]
    scripts = sum(memory.weights_bytes for _, memory in known)
    weights = sum(round(_copies(model) * memory.weights_bytes) for model, memory in known)
    working = max((memory.working_bytes for _, memory in known), default=0)
    checking = HEAP * max((memory.checking_bytes for _, memory in known), default=0)
    running = _blocks_bytes(plan) + _columns_bytes(plan, networks)
    n_passes = posterior.max_passes if posterior.passes == "adaptive" else posterior.passes
    keeps_outputs = posterior.keep_pass_outputs
    hosts = [memory.host_bytes(n_passes, keeps_outputs=keeps_outputs) for _, memory in known]
    running += max(hosts, default=0)
    if posterior.keep_pass_outputs:
        running += sum(KEPT_CHUNKS * MAX_CHUNK_BYTES * len(model.paths) for model, _ in known)
    if device == "cuda":
        host = PROCESS_BYTES + GPU_PROCESS_BYTES + scripts + max(checking, running)
        return InferenceMemory(host, weights + working)
    return InferenceMemory(PROCESS_BYTES + weights + max(checking, HEAP * working + running), 0)


def _copies(model: ModelPlan) -> float:
    return WEIGHT_COPIES[model.engine.partition("-")[0]]


def _blocks_bytes(plan: Plan) -> int:
    return max(_grid_bytes(plan, grid) for grid in plan.grids)


def _grid_bytes(plan: Plan, grid: GridPlan) -> int:
    """Cutouts that are worked on, and read; which of their pixels are finite; those of a network that takes fewer bands."""
    block = BLOCK_OBJECTS * bytes_per_object(grid.grid, grid.bands, ("image",))
    taken = (plan.models[number].bands for number in grid.models)
    shares = (len(bands) / len(grid.bands) for bands in taken if bands != grid.bands)
    return block + reading_bytes(grid.grid, grid.bands) + block // 4 + round(block * max(shares, default=0.0))


def _columns_bytes(plan: Plan, networks: Mapping[str, NetworkMemory]) -> int:
    n_columns = OBJECT_COLUMNS + sum(memory.n_columns for memory in networks.values())
    largest: int = max(part.partition.n_objects for part in plan.partitions)
    return COLUMN_BYTES * n_columns * largest
