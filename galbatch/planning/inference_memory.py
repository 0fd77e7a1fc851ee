"""The projected memory of a worker that infers, on the host and on the GPU; does no I/O."""

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
"""Memory of a worker without weights and pixels: 500 MiB of libraries, with torch, and what the first passes allocate."""

GPU_PROCESS_BYTES = 3 * 2**30
"""Memory of the host that CUDA needs in addition, for its libraries and the pages that they pin."""

WEIGHT_COPIES = {"torchscript": 1.0, "rebuilt": 2.5, "compiled": 2.5}
"""Copies of a bundle's weights in memory, by kind of engine: the script's own, those of a rebuilt network, and for lower
precisions another in float32."""

HEAP = 2
"""Factor on the memory of passes on a CPU: malloc cannot always reuse what was freed, as the next buffer may not fit into
the gap. Measured were factors of 1.5 to 2.7."""

COLUMN_BYTES = 32
"""Bytes for each number of a leaf: 8 in an array, 8 in Arrow, 8 in Arrow with the leaf's own schema, 8 in the encoded file."""

KEPT_CHUNKS = 3
"""Chunks of pass outputs in memory for each bundle: the one being filled, and those that it is encoded into."""

OBJECT_COLUMNS = 20
"""Number of columns of a leaf besides the results: id, position, flags and columns kept from the object list."""


@dataclass(frozen=True)
class InferenceMemory:
    """The projected memory of a worker, in bytes.

    Attributes
    ----------
    host_bytes : memory of the host
    device_bytes : memory of the GPU, without CUDA's own context of about 0.5 GB; 0 without a GPU
    """

    host_bytes: int
    device_bytes: int


def project_inference(
    plan: Plan, networks: Mapping[str, NetworkMemory], posterior: PosteriorConfig, *, device: str
) -> InferenceMemory:
    """Return the projected memory of a worker that infers the largest partition.

    The weights of all networks stay in memory, while the networks take turns on a block of cutouts and the next block is
    read. Before that, when a bundle is loaded, it runs a few rows to check its behavior.

    Parameters
    ----------
    plan : Plan
    networks : mapping of str to NetworkMemory
        The measured memory of each network, by its name.
    posterior : PosteriorConfig
        Its number of passes, and whether their outputs are kept, change the memory.
    device : {"cpu", "cuda"}

    Returns
    -------
    InferenceMemory
    """
    known = [(model, networks[model.name]) for model in plan.models if model.name in networks]
    scripts = sum(memory.weights_bytes for _, memory in known)
    weights = sum(
        round(WEIGHT_COPIES[model.engine.partition("-")[0]] * memory.weights_bytes) + memory.filters_bytes
        for model, memory in known
    )
    # Networks take turns: the largest counts, not the sum.
    working = max((memory.working_bytes for _, memory in known), default=0)
    checking = HEAP * max((memory.checking_bytes for _, memory in known), default=0)
    running = _data_bytes(plan, networks)
    keeps_outputs = posterior.keep_pass_outputs
    hosts = [memory.host_bytes(posterior.most_passes, keeps_outputs=keeps_outputs) for _, memory in known]
    running += max(hosts, default=0)
    if posterior.keep_pass_outputs:
        running += sum(KEPT_CHUNKS * MAX_CHUNK_BYTES * len(model.paths) for model, _ in known)
    # Bundles are checked before the first block is read, so the larger of the two counts.
    if device == "cuda":
        # Weights are loaded from the script on the host, which keeps its copy, and run on the GPU.
        host = PROCESS_BYTES + GPU_PROCESS_BYTES + scripts + max(checking, running)
        return InferenceMemory(host, weights + working)
    return InferenceMemory(PROCESS_BYTES + weights + max(checking, HEAP * working + running), 0)


def _data_bytes(plan: Plan, networks: Mapping[str, NetworkMemory]) -> int:
    """Return the bytes of blocks of cutouts on the largest grid, and of the columns of the largest partition's leaf."""
    sizes = []
    for grid in plan.grids:
        block = BLOCK_OBJECTS * bytes_per_object(grid.grid, grid.bands, ("image",))
        taken = (
            bands for number in grid.models for of, bands in plan.models[number].inputs if of == grid.grid
        )
        shares = (len(bands) / len(grid.bands) for bands in taken if bands != grid.bands)
        copied = round(block * max(shares, default=0.0))
        # This block, the next one that is read meanwhile, the mask of this block's finite pixels (1 byte for each
        # float32), and the copy for a network that takes fewer bands.
        sizes.append(block + reading_bytes(grid.grid, grid.bands) + block // 4 + copied)
    n_columns = OBJECT_COLUMNS + sum(memory.n_columns for memory in networks.values())
    largest: int = max(part.partition.n_objects for part in plan.partitions)
    return max(sizes, default=0) + COLUMN_BYTES * n_columns * largest
