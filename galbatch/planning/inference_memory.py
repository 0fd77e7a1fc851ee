"""The projected memory of a worker while it infers, on the host and on the GPU. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from galbatch.catalog.pass_outputs import MAX_CHUNK_BYTES
from galbatch.config import PosteriorConfig
from galbatch.core.types import BLOCK_OBJECTS
from galbatch.ingest import bytes_per_object, reading_bytes
from galbatch.planning.plan import Plan

if TYPE_CHECKING:
    from galbatch.models import NetworkMemory  # loads torch, which projecting does without

__all__ = ["GPU_PROCESS_BYTES", "PROCESS_BYTES", "InferenceMemory", "project_inference"]

PROCESS_BYTES = 600 * 2**20
"""A worker without weights and pixels: 500 MiB of libraries, with torch; what the first passes make."""

GPU_PROCESS_BYTES = 3 * 2**30
"""Memory of the host that CUDA takes besides: its libraries and the pages they pin."""

WEIGHT_COPIES = {"torchscript": 1.0, "rebuilt": 2.5, "compiled": 2.5}
"""Copies of the script's weights: the script's own, a rebuilt network's, and for lower precisions one more in float32."""

HEAP = 2
"""On a CPU: what passes free in between is not always taken again, as the next buffer may not fit in: 1.5 to 2.7 times was seen."""

COLUMN_BYTES = 32
"""Bytes for a number in the catalog: an array's, Arrow's, Arrow's again with the leaf's own schema, and the file in memory."""

KEPT_CHUNKS = 3
"""Chunks of pass outputs of each bundle: the one that fills, and those it is coded into."""

OBJECT_COLUMNS = 20
"""Columns of an object beside its results: ids, positions, flags, kept columns."""


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes that a worker takes of the host, and of the GPU without CUDA's own context of some 0.5 GB; 0 where there is none."""

    host_bytes: int
    device_bytes: int


def project_inference(
    plan: Plan, networks: Mapping[str, NetworkMemory], posterior: PosteriorConfig, *, device: str
) -> InferenceMemory:
    """Return the projected memory of a worker while it infers the largest partition.

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
    weights = sum(
        round(WEIGHT_COPIES[model.engine.partition("-")[0]] * memory.weights_bytes) for model, memory in known
    )
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


def _blocks_bytes(plan: Plan) -> int:
    """Return the bytes of the blocks of cutouts in memory, on the largest grid.

    One block is worked on while the next is read. Beside them are a mask of the finite pixels, a quarter of a block, and
    the copy for a network that takes fewer bands.
    """
    sizes = []
    for grid in plan.grids:
        block = BLOCK_OBJECTS * bytes_per_object(grid.grid, grid.bands, ("image",))
        taken = (plan.models[number].bands for number in grid.models)
        shares = (len(bands) / len(grid.bands) for bands in taken if bands != grid.bands)
        copied = round(block * max(shares, default=0.0))
        sizes.append(block + reading_bytes(grid.grid, grid.bands) + block // 4 + copied)
    return max(sizes)


def _columns_bytes(plan: Plan, networks: Mapping[str, NetworkMemory]) -> int:
    n_columns = OBJECT_COLUMNS + sum(memory.n_columns for memory in networks.values())
    largest: int = max(part.partition.n_objects for part in plan.partitions)
    return COLUMN_BYTES * n_columns * largest
