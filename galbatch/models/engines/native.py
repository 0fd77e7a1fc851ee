"""The native engine's executor, in any precision, compiled or not. It is checked against the script when it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from galbatch.errors import BundleError
from galbatch.models.bundle import Bundle, made_up_inputs
from galbatch.models.engines.executors import (
    CPU,
    join_objects,
    rows_in_cache,
    script_top_features,
    take_objects,
)
from galbatch.models.engines.fusing import fuse_convolutions
from galbatch.models.engines.gpu_errors import gpu_trouble
from galbatch.models.engines.native_networks import NativeNetwork, Start, native_network
from galbatch.models.engines.prefix import choose_prefix
from galbatch.models.engines.switches import in_repeatable_float32, repeatable_float32
from galbatch.models.engines.winograd import filters_bytes, use_winograd
from galbatch.models.networks import Masks

__all__ = ["NativeExecutor", "native_executor"]

CHECK_ROWS = 8
# Passes of each object that are run in float32 as well. With four, the change of 2 to 4 % of a posterior standard deviation by
# bfloat16 is corrected to 1 %.
REFERENCES = 4
SLOTS_AT_ONCE = 2**23  # Positions of masks drawn at a time: some ten temporary arrays of 64 MB each.
STEP = 4  # Compiled trunks take 1, 4, 16, ... rows: at most four times the needed rows, for few compilations.
# Tolerances relative to the size of the outputs. In float32 the rounding of some 20 layers leaves 1e-5. In 16 bits a network that
# is only rounded stays below 0.1, and one with wrong weights does not.
EXACT = 1e-4
ROUNDED = 0.1
AGREE = 0.75  # Share of rows that must agree: where two features are equally large, rounding decides which is among the top k.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Trunk = Callable[[Tensor, Masks | None], Tensor]


def native_executor(
    bundle: Bundle, precision: str, *, device: torch.device = CPU, is_compiled: bool = False
) -> NativeExecutor:
    """Make the native executor of a network whose architecture galbatch knows.

    Parameters
    ----------
    bundle : bundle whose script is on the device
    precision : float32, bfloat16 or float16: precision of everything after the first dropout
    device : device to run on
    is_compiled : whether this part is compiled by torch.compile, and on a GPU captured as CUDA graphs

    Raises
    ------
    BundleError
        The architecture is not known, torch.compile fails on this machine, or the outputs differ from the script's.
    """
    name = bundle.metadata.name
    network = native_network(bundle.script, bundle.metadata, DTYPES[precision])
    exact = (
        network if precision == "float32" else native_network(bundle.script, bundle.metadata, torch.float32)
    )
    if network is None or exact is None:
        raise BundleError(
            f"{name}: galbatch cannot rebuild this network (architecture {bundle.metadata.architecture}), only its own "
            'gampen and sfnet; set [posterior] engine = "torchscript", or "auto"'
        )
    runner = PassRunner(network, StaticTrunk(network) if is_compiled else None)
    executor = NativeExecutor(bundle, runner, runner if network is exact else PassRunner(exact), device)
    # torch.compile fuses by itself.
    if device.type == "cuda" and not is_compiled:
        executor.fuse()
    # On a CPU convolutions run at the hardware's rate: only fewer products are faster.
    if device.type == "cpu" and not (is_compiled and network is exact):
        use_winograd(exact)
    problem = compiled_disagreement(executor) if is_compiled else disagreement(executor)
    if problem:
        raise BundleError(
            f"{name}: rebuilt in {precision}, it is another network than its script: {problem}; set [posterior] engine = "
            '"torchscript"'
        )
    return executor


def compiled_disagreement(executor: NativeExecutor) -> str | None:
    """Return what `disagreement` returns, for an executor that is compiled by its first run.

    Raises
    ------
    BundleError
        It cannot be compiled on this machine.
    """
    try:
        return disagreement(executor)
    except RuntimeError as error:  # The errors of torch's compiler are subclasses, some of them private.
        if gpu_trouble(error) is not None:
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BundleError(
            f"{executor.bundle.metadata.name}: torch.compile fails on this machine: {reason}; on a CPU it needs a C++ "
            'compiler. Set [posterior] engine = "rebuilt", which needs none'
        ) from None


def _made_up_inputs(bundle: Bundle, device: torch.device) -> tuple[Tensor, Tensor | None]:
    images, auxiliary = made_up_inputs(bundle.metadata)
    return images.to(device), None if auxiliary is None else auxiliary.to(device)


@torch.inference_mode()
def disagreement(executor: NativeExecutor) -> str | None:
    """Return a message on how passes of two made-up galaxies differ from the script's; None if they differ by rounding only."""
    images, auxiliary = _made_up_inputs(executor.bundle, executor.device)
    rows = torch.arange(CHECK_ROWS, device=executor.device) % len(images)
    # Multiples of an odd number with many bits, as keys that are nearly equal would hide a weak hash.
    keys = torch.arange(CHECK_ROWS, device=executor.device) * 0x5851F42D4C957F2D
    found, _ = executor.prepare(images, auxiliary).passes(rows, keys)
    with repeatable_float32(executor.device):
        expected = executor.bundle.sample(executor.bundle.prefix(images, auxiliary)[rows], keys)
    if found.shape != expected.shape:
        return f"it has {found.shape[1]} outputs, expected {expected.shape[1]}"
    difference, size = (found - expected).abs().amax(1), 1.0 + expected.abs().amax(1)
    tolerance = EXACT if executor.exact is executor.runner else ROUNDED
    if float((difference <= tolerance * size).float().mean()) >= AGREE:
        return None
    return f"outputs differ by up to {float(difference.max()):.2g}, expected {tolerance * float(size.max()):.2g} or less"


class StaticTrunk:
    """A trunk that is compiled for fixed numbers of rows: 1, 4, 16, ...

    Fewer rows are run in a buffer of the next larger number, whose other rows keep earlier values. On a GPU its kernels are
    launched as one CUDA graph. Threads take turns, as all rows go through the same buffers.
    """

    def __init__(self, network: NativeNetwork) -> None:
        self._trunk: Trunk = torch.compile(network.trunk, dynamic=False)
        self._replays: dict[int, Replay] = {}
        self._turn = threading.Lock()

    @staticmethod
    def rows_of(n: int) -> int:
        """Return the largest number of rows it is compiled for that is not above `n`."""
        rows = 1
        while rows * STEP <= n:
            rows *= STEP
        return rows

    def __call__(self, x: Tensor, masks: Masks | None) -> Tensor:
        rows = self.rows_of(len(x))
        if rows < len(x):
            rows *= STEP
        with self._turn:
            if rows not in self._replays:
                self._replays[rows] = Replay(self._trunk, rows, x, masks)
            return self._replays[rows](x, masks)


class Replay:
    """A trunk for one number of rows, whose inputs are copied into fixed buffers: a CUDA graph reads fixed addresses.

    Parameters
    ----------
    trunk : function to run
    rows : number of rows of each run
    x, masks : inputs of the kind and shape that it will be called with
    """

    def __init__(self, trunk: Trunk, rows: int, x: Tensor, masks: Masks | None) -> None:
        repeated = torch.arange(rows, device=x.device) % len(x)
        self._x = x[repeated].contiguous(memory_format=torch.channels_last)
        self._masks = None if masks is None else Masks(*(part[repeated] for part in masks))
        self._trunk = trunk
        self._run = _captured(self._once) if x.is_cuda else self._once

    def __call__(self, x: Tensor, masks: Masks | None) -> Tensor:
        self._x[: len(x)].copy_(x)
        if masks is not None and self._masks is not None:
            for buffer, part in zip(self._masks, masks, strict=True):
                buffer[: len(part)].copy_(part)
        # Cloned, as the next call writes into the same memory.
        return self._run()[: len(x)].clone()

    def _once(self) -> Tensor:
        return self._trunk(self._x, self._masks)


def _captured(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return a function that replays the kernels of `run`, captured as a CUDA graph."""
    warm_up: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    warm_up.wait_stream(torch.cuda.current_stream())
    # Torch chooses kernels and allocates memory in the first runs, which a capture does not allow.
    with torch.cuda.stream(warm_up):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    # Thread-local, as other threads may copy their inputs to the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run()

    def replay() -> Tensor:
        graph.replay()
        return outputs

    return replay


class PassRunner:
    """A runner of passes in one precision.

    Parameters
    ----------
    network : the part of the network after the first dropout
    static : its compiled trunk; None: the trunk is not compiled
    """

    def __init__(self, network: NativeNetwork, static: StaticTrunk | None = None) -> None:
        self.network = network
        self.static = static

    def outputs(
        self, start: Start, auxiliary: Tensor, rows: Tensor, masks: Masks | None
    ) -> tuple[Tensor, Tensor]:
        """Run one pass for each row.

        Parameters
        ----------
        start : first maps of the objects
        auxiliary : (object, number)
        rows : (row,) int64, index of each row's object
        masks : masks of the rows; None: no dropout

        Returns
        -------
        outputs : (row, output) float32
        fired : (row, rank) int64, numbers of the largest features
        """
        # The trunk runs as many rows at a time as the cache holds; the head runs all, so that its large weights are read once.
        step = rows_in_cache(start.maps, len(rows))
        if self.static is not None:
            step = self.static.rows_of(step)
        parts = []
        for at in range(0, len(rows), step):
            some = slice(at, at + step)
            of_some = None if masks is None else Masks(*(part[some] for part in masks))
            x = self.network.begin(start, rows[some], of_some)
            parts.append((self.static or self.network.trunk)(x, of_some))
        return self.network.head(torch.cat(parts), auxiliary[rows], masks)

    def last_features(self, start: Start, rows: Tensor | None = None) -> Tensor:
        """Return the last features (row, feature) without dropout, from the first maps of the objects; of all of them without `rows`."""
        if rows is None:
            rows = torch.arange(len(start.maps), device=start.maps.device)
        return self.network.last_features(self.network.trunk(self.network.begin(start, rows, None), None))


class NativeExecutor:
    """The executor of the native engine.

    Everything before the first dropout is computed by the script's layers, in float32.

    Rounding to bfloat16 shifts the outputs of all passes of an object by the same amount, some percent of a posterior standard
    deviation, and those of each pass by half as much again. The common shift is measured on a few passes that are run in
    float32 as well, and subtracted. (The pass without dropout does not show it, as it is rounded differently.) Float16 rounds
    eight times finer; passes that exceed its range are run again in float32.

    Parameters
    ----------
    bundle : bundle whose script is on the device
    runner : runner of the passes
    exact : runner of the same network in float32; `runner` itself if that is float32
    device : device of all of these
    """

    def __init__(self, bundle: Bundle, runner: PassRunner, exact: PassRunner, device: torch.device) -> None:
        self.bundle = bundle
        self.runner = runner
        self.exact = exact
        self.device = device
        self.prefix = choose_prefix(bundle, device)
        self.plan = runner.network.plan(device)
        exact.network.plan(device)

    @property
    def filters_bytes(self) -> int:
        """The bytes of transformed filters that it holds beside the weights."""
        return filters_bytes(self.exact.network)

    @in_repeatable_float32
    def prepare(self, images: Tensor, auxiliary: Tensor | None) -> NativePrepared:
        features, crop = self.prefix(self.bundle, images, auxiliary)
        n_maps = features.shape[1] - self.bundle.metadata.input.n_auxiliary
        maps, carried = features[:, :n_maps], features[:, n_maps:, 0, 0]
        start = self.runner.network.start(maps)
        exact = start if self.exact is self.runner else self.exact.network.start(maps)
        last = self.last_features(start, exact) if self.bundle.has("last_features") else None
        prepared = NativePrepared(self, start, exact, carried, last, crop)
        if self.runner.network.dtype != torch.bfloat16:
            return prepared
        return replace(prepared, shift=prepared.rounding())

    def last_features(self, start: Start, exact: Start) -> Tensor:
        """Return the last features (object, feature) float32, in the runner's precision where the network's use of them allows it.

        Objects with features beyond the range of float16 are run again in float32.
        """
        if self.exact is self.runner or not self.runner.network.may_round_last:
            return self.exact.last_features(exact)
        found = self.runner.last_features(start)
        beyond = torch.nonzero(~torch.isfinite(found).all(dim=1)).squeeze(1)
        if len(beyond):
            found[beyond] = self.exact.last_features(exact, beyond)
        return found

    @torch.inference_mode()
    @in_repeatable_float32
    def fuse(self) -> bool:
        """Let the runner's convolutions run fused with their ReLUs where that is exact enough; return whether they do."""
        images, auxiliary = _made_up_inputs(self.bundle, self.device)
        features, _ = self.prefix(self.bundle, images, auxiliary)
        n_maps = features.shape[1] - self.bundle.metadata.input.n_auxiliary
        network, rows = self.runner.network, torch.arange(len(images), device=self.device)
        start = Start(features[:, :n_maps].to(network.dtype).contiguous(memory_format=torch.channels_last))
        return fuse_convolutions(network, lambda: network.begin(start, rows, None))

    def masks(self, keys: Tensor) -> Masks | None:
        """Return the masks that follow from keys (row,) int64; None for a network without dropout."""
        return None if self.plan is None else self.plan.draw(keys)

    @in_repeatable_float32
    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        return script_top_features(self.bundle, last)


@dataclass(frozen=True)
class NativePrepared:
    """A group of objects ready for passes of the native engine.

    Attributes
    ----------
    start, exact : first maps of the objects, in the precision of the executor's runner and in float32
    auxiliary : (object, number) standardized auxiliary inputs, as `prefix` passes them on
    shift : (object, output) correction that is added to the outputs of every pass; None: no correction
    """

    executor: NativeExecutor
    start: Start
    exact: Start
    auxiliary: Tensor
    last: Tensor | None
    crop: Tensor | None
    shift: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """The device of the executor."""
        return self.executor.device

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        exact = () if self.exact is self.start else self.exact
        return *self.start, *exact, self.auxiliary, self.last, self.crop, self.shift

    def take(self, rows: Tensor) -> NativePrepared:
        return self._with([take_objects(part, rows) for part in self.tensors])

    def join(self, others: Sequence[NativePrepared]) -> NativePrepared:
        groups = zip(*(one.tensors for one in (self, *others)), strict=True)
        return self._with([join_objects(parts) for parts in groups])

    def _with(self, tensors: Sequence[Tensor | None]) -> NativePrepared:
        """Return a group of the same executor that keeps these tensors, in the order of `tensors`."""
        maps, convolved, *exact, auxiliary, last, crop, shift = tensors
        assert maps is not None, "every group has them"
        assert auxiliary is not None, "every group has them"
        start = Start(maps, convolved)
        # In float32 there is one set of maps, under both names.
        other = Start(exact[0], exact[1]) if exact and exact[0] is not None else start
        return NativePrepared(self.executor, start, other, auxiliary, last, crop, shift)

    def rows_at_once(self, batch: int) -> int:
        """Return the number of rows to run at a time: `batch`, or fewer where masks of a high rate need much memory."""
        plan = self.executor.plan
        return batch if plan is None else max(1, min(batch, SLOTS_AT_ONCE // plan.slots[-1].stop))

    @in_repeatable_float32
    def passes(self, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        runner, masks = self.executor.runner, self.executor.masks(keys)
        outputs, fired = runner.outputs(self.start, self.auxiliary, rows, masks)
        if self.shift is not None:
            outputs = outputs + self.shift[rows]
        if runner.network.dtype == torch.float16:
            beyond = torch.nonzero(~torch.isfinite(outputs).all(dim=1)).squeeze(1)
            if len(beyond):
                again = self.executor.exact, self.executor.masks(keys[beyond])
                outputs[beyond], fired[beyond] = again[0].outputs(
                    self.exact, self.auxiliary, rows[beyond], again[1]
                )
        return outputs, fired

    def rounding(self) -> Tensor:
        """Return the outputs in float32 minus those of the runner, (object, output) float32, averaged over passes with fixed keys."""
        # Fixed keys, so that the correction does not depend on the passes that an object gets.
        rows = torch.arange(len(self.start.maps), device=self.executor.device)
        found = []
        for number in range(REFERENCES if self.executor.plan else 1):
            masks = self.executor.masks(torch.full_like(rows, number))
            exact, _ = self.executor.exact.outputs(self.exact, self.auxiliary, rows, masks)
            rounded, _ = self.executor.runner.outputs(self.start, self.auxiliary, rows, masks)
            found.append(exact - rounded)
        return torch.stack(found).mean(dim=0)
