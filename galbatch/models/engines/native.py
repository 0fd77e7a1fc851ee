"""The native engine's executor: float32 or less, compiled or not, checked against the script when it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from galbatch.errors import BundleError
from galbatch.models.bundle import Bundle, made_up_inputs
from galbatch.models.engines.executors import CPU, rows_in_cache, script_top_features
from galbatch.models.engines.native_networks import NativeNetwork, Start, native_network
from galbatch.models.engines.switches import in_repeatable_float32, repeatable_float32
from galbatch.models.networks import Masks

__all__ = ["NativeExecutor", "native_executor"]

CHECK_ROWS = 8
# Passes of each galaxy in both precisions: they leave 1 % of a posterior standard deviation of the 2 to 4 % that bfloat16
# moves outputs by.
REFERENCES = 4
SLOTS_AT_ONCE = 2**23  # of masks drawn together: 64 MB a number, and some ten of them
STEP = 4  # compiled trunks take 1, 4, 16, ... rows
EXACT = 1e-4  # of the outputs' size: what float32 leaves after some 20 layers is 1e-5
ROUNDED = 0.1  # of the outputs' size: what a broken network exceeds, and a rounded one does not
AGREE = 0.75  # share of the rows: where two features are as large, rounding decides which is among the top k
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Trunk = Callable[[Tensor, Masks | None], Tensor]


def native_executor(
    bundle: Bundle, precision: str, *, device: torch.device = CPU, is_compiled: bool = False
) -> NativeExecutor:
    """Make the native executor of a network whose architecture galbatch knows.

    Parameters
    ----------
    bundle : its script is on the device
    precision : float32, bfloat16 or float16, of what follows the first dropout
    device : where it runs
    is_compiled : whether that goes through torch.compile, and on a GPU into CUDA graphs

    Raises
    ------
    BundleError
        The network is not known, cannot be compiled here, or does not give what the script gives.
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
    problem = compiled_disagreement(executor) if is_compiled else disagreement(executor)
    if problem:
        raise BundleError(
            f"{name}: rebuilt in {precision}, it is another network than its script: {problem}; set [posterior] engine = "
            '"torchscript"'
        )
    return executor


def compiled_disagreement(executor: NativeExecutor) -> str | None:
    """Return what `disagreement` does; the first run compiles.

    Raises
    ------
    BundleError
        That fails.
    """
    try:
        return disagreement(executor)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what torch's compiler raises is one
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BundleError(
            f"{executor.bundle.metadata.name}: torch.compile fails on this machine: {reason}; on a CPU it needs a C++ "
            'compiler. Set [posterior] engine = "rebuilt", which needs none'
        ) from None


@torch.inference_mode()
def disagreement(executor: NativeExecutor) -> str | None:
    """Return how passes of two made-up galaxies differ from the script's; None: by rounding only."""
    images, *others = (part.to(executor.device) for part in made_up_inputs(executor.bundle.metadata))
    auxiliary = others[0] if others else None
    rows = torch.arange(CHECK_ROWS, device=executor.device) % len(images)
    keys = torch.arange(CHECK_ROWS, device=executor.device) * 0x5851F42D4C957F2D
    found, _ = executor.prepare(images, auxiliary).passes(rows, keys)
    with repeatable_float32(executor.device):
        expected = executor.bundle.sample(executor.bundle.prefix(images, auxiliary)[rows], keys)
    if found.shape != expected.shape:
        return f"it puts out {found.shape[1]} numbers, expected {expected.shape[1]}"
    difference, size = (found - expected).abs().amax(1), 1.0 + expected.abs().amax(1)
    tolerance = EXACT if executor.exact is executor.runner else ROUNDED
    if float((difference <= tolerance * size).float().mean()) >= AGREE:
        return None
    return f"outputs differ by up to {float(difference.max()):.2g}, expected {tolerance * float(size.max()):.2g} or less"


class StaticTrunk:
    """A trunk compiled for fixed numbers of rows, 1, 4, 16, ...; fewer are filled up with rows that were there before.

    On a GPU its kernels are launched as one CUDA graph. Threads take turns, as all rows go through the same buffers.
    """

    def __init__(self, network: NativeNetwork) -> None:
        self._trunk: Trunk = torch.compile(network.trunk, dynamic=False)
        self._replays: dict[int, Replay] = {}
        self._turn = threading.Lock()

    @staticmethod
    def rows_of(n: int) -> int:
        """Return the largest of its numbers of rows up to `n`."""
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
    """A trunk for one number of rows: inputs are copied to where it reads them.

    Parameters
    ----------
    trunk : what is run
    rows : of each run
    x, masks : like those that will be given
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
        return self._run()[: len(x)].clone()

    def _once(self) -> Tensor:
        return self._trunk(self._x, self._masks)


def _captured(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Capture the kernels of `run` as a CUDA graph."""
    warm_up: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):  # kernels are chosen, and memory is taken, before the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    # Other threads may copy their inputs meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run()

    def replay() -> Tensor:
        graph.replay()
        return outputs

    return replay


class PassRunner:
    """Runs passes of a network in one precision.

    Parameters
    ----------
    network : what follows the first dropout
    static : its trunk, compiled; None: it runs as it is
    """

    def __init__(self, network: NativeNetwork, static: StaticTrunk | None = None) -> None:
        self.network = network
        self.static = static

    def outputs(
        self, start: Start, auxiliary: Tensor, rows: Tensor, masks: Masks | None
    ) -> tuple[Tensor, Tensor]:
        """Run one pass for each row: the trunk takes as many rows at a time as the processor's cache holds, the head all."""
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

    def last_features(self, maps: Tensor) -> Tensor:
        """Return the last features without dropout, of maps (object, channel, y, x)."""
        rows = torch.arange(len(maps), device=maps.device)
        start = Start(maps.to(self.network.dtype).contiguous(memory_format=torch.channels_last))
        return self.network.last_features(self.network.trunk(self.network.begin(start, rows, None), None))


class NativeExecutor:
    """The executor of the native engine.

    What comes before the first dropout is the script's, in float32.

    Bfloat16 moves the outputs of all passes of an object alike, by some percent of a posterior standard deviation, and those of
    each by half as much again. The former is measured on some passes that are run in float32, too, and taken back. (The pass
    without dropout shows nothing of it: its roundings are others.) Float16 rounds eight times finer; passes that exceed
    its range are run in float32.

    Parameters
    ----------
    bundle : its script is on the device
    runner : of the passes
    exact : the same in float32; `runner` itself if that is float32
    """

    def __init__(self, bundle: Bundle, runner: PassRunner, exact: PassRunner, device: torch.device) -> None:
        self.bundle = bundle
        self.runner = runner
        self.exact = exact
        self.device = device
        self.plan = runner.network.plan(device)
        exact.network.plan(device)

    @in_repeatable_float32
    def prepare(self, images: Tensor, auxiliary: Tensor | None) -> NativePrepared:
        features = self.bundle.prefix(images, auxiliary)
        n_maps = features.shape[1] - len(self.bundle.metadata.input.auxiliary_inputs)
        maps, carried = features[:, :n_maps], features[:, n_maps:, 0, 0]
        last = self.exact.last_features(maps) if self.bundle.has("last_features") else None
        crop = self.bundle.script.crop(images) if self.bundle.has("crop") else None
        start = self.runner.network.start(maps)
        exact = start if self.exact is self.runner else self.exact.network.start(maps)
        prepared = NativePrepared(self, start, exact, carried, last, crop)
        if self.runner.network.dtype != torch.bfloat16:
            return prepared
        return replace(prepared, shift=prepared.rounding())

    def masks(self, keys: Tensor) -> Masks | None:
        """Draw the masks of keys (row,) int64; None: no dropout."""
        return None if self.plan is None else self.plan.draw(keys)

    @in_repeatable_float32
    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        return script_top_features(self.bundle, last)


@dataclass(frozen=True)
class NativePrepared:
    """A few objects ready for passes of the native engine.

    Attributes
    ----------
    start, exact : what rows begin with, of the executor's runners
    auxiliary : (object, auxiliary input), the auxiliary inputs
    shift : (object, output), added to the outputs of every pass; None: nothing
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

    def rows_at_once(self, batch: int) -> int:
        """Return `batch`, or the rows that masks at a high rate leave memory for."""
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
        """Return (object, output) float32: the outputs in float32 less those of the runner, a mean over passes of fixed keys."""
        rows = torch.arange(len(self.start.maps), device=self.executor.device)
        found = []
        for number in range(REFERENCES if self.executor.plan else 1):
            masks = self.executor.masks(torch.full_like(rows, number))
            exact, _ = self.executor.exact.outputs(self.exact, self.auxiliary, rows, masks)
            rounded, _ = self.executor.runner.outputs(self.start, self.auxiliary, rows, masks)
            found.append(exact - rounded)
        return torch.stack(found).mean(dim=0)
