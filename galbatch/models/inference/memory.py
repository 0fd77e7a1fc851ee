"""The memory that a network takes while it runs, measured with a few rows, and the batch size that fits on a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch._C._autograd import _disable_profiler_legacy, _enable_profiler_legacy
from torch._C._profiler import ProfilerConfig, ProfilerState, _ExperimentalConfig

from galbatch.config import PosteriorConfig
from galbatch.core.types import BLOCK_OBJECTS
from galbatch.models.bundle import CHECK_ROWS, Bundle, Ensemble, made_up_inputs
from galbatch.models.engines.choice import Execution, executor
from galbatch.models.engines.executors import rows_in_cache
from galbatch.models.heads import outputs_per_pass
from galbatch.models.inference.results import network_columns
from galbatch.models.inference.sampling import GROUP_OBJECTS, OUTPUT_BYTES, places_for
from galbatch.models.inference.summaries import NUMBERS_AT_ONCE, summarizes_on_device
from galbatch.models.posterior.devices import DEVICE_ELEMENTS_AT_ONCE

__all__ = ["GpuMemory", "NetworkMemory", "fitting_batch", "gpu_memory", "measure_memory"]

MEASURED_ROWS = 32
# Compiled trunks for 1, 4, 16, .. rows are all kept in memory: 1 + 1/4 + 1/16 + .. of the largest.
GRAPHS = 4 / 3

# The measured number of arrays, of the size of the outputs in float64, that exist at the same time in summaries.
SUMMARY_ARRAYS = 12

GIB, MIB = 2**30, 2**20
# Of the largest temporary arrays a dozen exist at the same time, where passes are summarized on a GPU.
GPU_SUMMARY_BYTES = 8 * SUMMARY_ARRAYS * DEVICE_ELEMENTS_AT_ONCE


@dataclass(frozen=True)
class NetworkMemory:
    """The memory that a network takes while it runs, in bytes.

    Attributes
    ----------
    weights_bytes : weights of all bundles, as their scripts hold them
    filters_bytes : transformed filters of convolutions, which engines on a CPU hold beside the weights
    prepare_bytes : largest amount per object while everything before the first dropout is computed
    features_bytes : amount per object that is kept while its passes run
    batch_bytes, row_bytes : amount for a batch of any size, and in addition for each of its rows
    n_rows : largest number of rows of a batch; smaller than configured where more would not fit into the processor's cache
    n_groups : number of threads that work on objects at a time
    n_places : number of objects of a thread whose passes run together
    n_outputs : number of outputs of a pass of all bundles
    n_columns : number of columns in the catalog, where each number of a vector counts
    image_bytes : size of a cutout with the network's bands
    is_summarized_on_gpu : whether outputs of passes stay on a GPU, where they are summarized
    gpu_outputs_bytes : amount per object of the outputs that stay on the GPU; 0 on a CPU, or where they are summarized on the host
    """

    weights_bytes: int
    filters_bytes: int
    prepare_bytes: int
    features_bytes: int
    batch_bytes: int
    row_bytes: int
    n_rows: int
    n_groups: int
    n_places: int
    n_outputs: int
    n_columns: int
    image_bytes: int
    is_summarized_on_gpu: bool = False
    gpu_outputs_bytes: int = 0

    @property
    def working_bytes(self) -> int:
        """The bytes on the device that runs passes: features of all threads' objects, and the largest need of a single step.

        One thread at a time prepares a group, joins it to those that run, or runs passes; the others only keep their features, and
        summarize passes.
        """
        features = self.n_places * self.features_bytes
        batch = self.batch_bytes + self.n_rows * self.row_bytes
        kept = features + self.n_places * self.gpu_outputs_bytes
        if self.gpu_outputs_bytes:
            kept += GPU_SUMMARY_BYTES
        return self.n_groups * kept + max(GROUP_OBJECTS * self.prepare_bytes, batch, features)

    def on_gpu(self, posterior: PosteriorConfig) -> NetworkMemory:
        """Return the memory on a GPU, which holds a whole batch, of a network that was measured on a CPU."""
        n_places = places_for(self.object_bytes(posterior.most_passes), "cuda")
        n_groups = Execution(device="cuda").n_threads
        outputs = OUTPUT_BYTES * posterior.most_passes * self.n_outputs if self.is_summarized_on_gpu else 0
        return replace(
            self, n_rows=posterior.batch, n_groups=n_groups, n_places=n_places, gpu_outputs_bytes=outputs
        )

    def object_bytes(self, n_passes: int) -> int:
        """Return the bytes of an object while its passes run, at most `n_passes`: features on the device, and outputs."""
        return self.features_bytes + OUTPUT_BYTES * n_passes * self.n_outputs

    @property
    def checking_bytes(self) -> int:
        """The bytes on the host for the check of a bundle's behavior when it is loaded."""
        return self.batch_bytes + CHECK_ROWS * self.row_bytes

    def host_bytes(self, n_passes: int, *, keeps_outputs: bool) -> int:
        """Return the bytes on the host: images and outputs of groups, their summaries, and outputs that wait to be kept.

        Parameters
        ----------
        n_passes : largest number of passes of an object
        keeps_outputs : whether the outputs of passes are kept
        """
        of_object = n_passes * self.n_outputs
        outputs = OUTPUT_BYTES * self.n_places * of_object
        # Summaries are computed in float64.
        summaries = 8 * SUMMARY_ARRAYS * max(of_object, min(self.n_places * of_object, NUMBERS_AT_ONCE))
        kept = 4 * BLOCK_OBJECTS * of_object if keeps_outputs else 0
        return self.n_groups * (3 * GROUP_OBJECTS * self.image_bytes + outputs + summaries) + kept


def measure_memory(ensemble: Ensemble, execution: Execution, posterior: PosteriorConfig) -> NetworkMemory:
    """Return the memory of a network, measured by running a few made-up rows.

    Parameters
    ----------
    ensemble : network
    execution : engine and device
    posterior : settings of the posterior, with the batch size and the quantiles

    Raises
    ------
    BundleError
        The engine cannot be made in this process.
    """
    # Bundles run one after another: the largest decides on the work, but weights and features of all are kept.
    parts = [_measure(bundle, execution, posterior.batch) for bundle in ensemble.bundles]
    columns = network_columns(ensemble, name="", quantiles=posterior.quantiles)
    found = NetworkMemory(
        weights_bytes=sum(part.weights_bytes for part in parts),
        filters_bytes=sum(part.filters_bytes for part in parts),
        prepare_bytes=max(part.prepare_bytes for part in parts),
        features_bytes=sum(part.features_bytes for part in parts),
        batch_bytes=max(part.batch_bytes for part in parts),
        row_bytes=max(part.row_bytes for part in parts),
        n_rows=max(part.n_rows for part in parts),
        n_groups=execution.n_threads,
        n_places=0,
        n_outputs=sum(part.n_outputs for part in parts),
        n_columns=sum(max(1, column.length) for column in columns),
        image_bytes=4 * sum(math.prod(one.shape) for one in ensemble.metadata.input.images),
        is_summarized_on_gpu=summarizes_on_device(ensemble, device="cuda", method=posterior.method),
    )
    if execution.device != "cpu":
        return replace(found.on_gpu(posterior), n_rows=found.n_rows, n_groups=found.n_groups)
    return replace(found, n_places=places_for(found.object_bytes(posterior.most_passes), "cpu"))


@dataclass(frozen=True)
class _BundleMemory:
    """The part of `NetworkMemory` that one bundle takes."""

    weights_bytes: int
    filters_bytes: int
    prepare_bytes: int
    features_bytes: int
    batch_bytes: int
    row_bytes: int
    n_rows: int
    n_outputs: int


@lru_cache(maxsize=8)
@torch.inference_mode()
def _measure(bundle: Bundle, execution: Execution, batch: int) -> _BundleMemory:
    """Return the memory of one bundle, from runs of few and of twice as many rows."""
    engine, device, times = execution.engine, execution.device, 1.0
    # Compiling takes minutes for each number of rows, so the same network is measured without. The bundle is copied, as the
    # executor that is made only for this is freed with the copy.
    if engine.kind == "compiled":
        engine, times = replace(engine, kind="rebuilt"), GRAPHS
        bundle = replace(bundle)
    runner = executor(bundle, engine, device)
    images, auxiliary = made_up_inputs(bundle.metadata)
    images, auxiliary = images.to(device), None if auxiliary is None else auxiliary.to(device)
    prepared = runner.prepare(images, auxiliary)

    def passes_of(n_rows: int) -> _Taken:
        rows, keys = torch.arange(n_rows, device=device) % len(images), torch.arange(n_rows, device=device)
        # Run once before it is measured, so that what torch allocates only once does not count for each batch.
        prepared.passes(rows, keys)
        return _taken(lambda: prepared.passes(rows, keys), device)

    tensors = [*bundle.script.parameters(), *bundle.script.buffers()]
    # Counted by address, as a module may have two names: those of SFNet do.
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    few = _rows_to_measure(bundle, device, batch)
    of_few, of_more = (round(times * passes_of(n_rows).peak_bytes) for n_rows in (few, 2 * few))
    row_bytes = max(0, of_more - of_few) // few
    prepare = _taken(lambda: runner.prepare(images, auxiliary), device)
    return _BundleMemory(
        weights_bytes=sum(weights.values()),
        filters_bytes=runner.filters_bytes,
        prepare_bytes=prepare.peak_bytes // len(images),
        features_bytes=prepare.held_bytes // len(images),
        batch_bytes=max(0, of_few - few * row_bytes),
        row_bytes=row_bytes,
        n_rows=prepared.rows_at_once(batch),
        n_outputs=outputs_per_pass(bundle.metadata),
    )


def _rows_to_measure(bundle: Bundle, device: str, batch: int) -> int:
    """Return the number of rows to measure. Twice as many are measured as well, to tell what grows with the rows."""
    n_rows = MEASURED_ROWS
    if device == "cpu":
        # Engines run as many rows at a time as fit into the cache: with fewer, all memory would seem to grow with the rows. In a
        # lower precision twice as many fit.
        n_rows = 2 * rows_in_cache(bundle.prefix(*made_up_inputs(bundle.metadata)), MEASURED_ROWS * 4)
    return max(1, min(n_rows, batch // 2))


@dataclass(frozen=True)
class _Taken:
    """The bytes that torch allocates for a call: the largest amount while it runs, and what its result holds."""

    peak_bytes: int
    held_bytes: int


def _taken(call: Callable[[], object], device: str) -> _Taken:
    """Return the memory that a call takes on the device."""
    if device == "cpu":
        return _taken_on_cpu(call)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    peak, held = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
    del result
    return _Taken(peak - before, held - before)


def _taken_on_cpu(call: Callable[[], object]) -> _Taken:
    """Return the memory that a call takes on the CPU, by the events of torch's allocator."""
    # The public torch.profiler takes 5 s to start, and writes to stderr.
    config = ProfilerConfig(ProfilerState.CPU, False, True, False, False, False, _ExperimentalConfig())
    _enable_profiler_legacy(config)
    try:
        result = call()
    finally:
        threads: Any = _disable_profiler_legacy()
    # The peak follows from the sequence of allocations only; the profiler itself gives totals.
    held = peak = 0
    for event in (event for events in threads for event in events):
        # Events of this kind are allocations, and with negative sizes frees.
        if event.kind() == "memory_alloc":
            held += event.cpu_memory_usage()
            peak = max(peak, held)
    del result
    return _Taken(peak, held)


@dataclass(frozen=True)
class GpuMemory:
    """The total memory of a GPU in bytes, and the bytes that this process can still allocate."""

    total_bytes: int
    free_bytes: int


def gpu_memory() -> GpuMemory:
    """Return the memory of the GPU that this process computes on."""
    free, total = torch.cuda.mem_get_info()
    # Torch keeps freed memory for itself, and uses it before it takes more from the GPU.
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return GpuMemory(total, free + unused)


def fitting_batch(
    memory: NetworkMemory, gpu: GpuMemory, *, batch: int, notify: Callable[[str], object]
) -> int:
    """Return the batch size, halved until the passes fit into the free memory of the GPU. Results do not depend on it.

    Parameters
    ----------
    memory : memory of the network, whose weights are on the GPU already
    gpu : memory of the GPU
    batch : largest number of rows that run at a time
    notify : called with a message each time that the batch is halved
    """
    # A batch of 1 that does not fit is tried nevertheless: the projection may be too high, and torch's own error is clear.
    while True:
        needed = replace(memory, n_rows=batch).working_bytes
        if needed <= gpu.free_bytes or batch == 1:
            return batch
        what = f"{needed / GIB:.1f} GiB needed on the GPU (batch {batch} x {memory.row_bytes / MIB:.0f} MiB)"
        batch //= 2
        notify(f"{what}, {gpu.free_bytes / GIB:.1f} GiB there; trying batch {batch}")
