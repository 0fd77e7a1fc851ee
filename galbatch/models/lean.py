"""The executor of rebuilt networks: float32 or less, compiled or not, checked against the script when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from galbatch.errors import BundleError
from galbatch.models.bundle import Bundle, made_up_inputs
from galbatch.models.dropout import Masks
from galbatch.models.executors import rows_in_cache, script_top_features
from galbatch.models.rebuilt import Lean, Start, rebuild

__all__ = ["RebuiltExecutor", "rebuilt_executor"]

CHECK_ROWS = 8
SLOTS_AT_ONCE = 2**23  # of masks drawn together: 64 MB a number, and some ten of them
STEP = 4  # compiled trunks take 1, 4, 16, ... rows
EXACT = 1e-4  # of the outputs' size: what float32 leaves after some 20 layers is 1e-5
ROUNDED = 0.1  # of the outputs' size: what a broken network exceeds, and a rounded one does not
AGREE = 0.75  # share of the rows: where two features are as large, rounding decides which is among the top k
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Trunk = Callable[[Tensor, Masks | None], Tensor]


def rebuilt_executor(bundle: Bundle, precision: str, *, is_compiled: bool = False) -> RebuiltExecutor:
    """The executor of a network that galbatch knows.

    Parameters
    ----------
    bundle : its script is on the device
    precision : float32, bfloat16 or float16, of what follows the first dropout
    is_compiled : whether that goes through torch.compile, and on a GPU into CUDA graphs

    Raises
    ------
    BundleError
        The network is not known, cannot be compiled here, or does not give what the script gives.
    """
    name = bundle.metadata.name
    lean = rebuild(bundle.script, bundle.metadata, DTYPES[precision])
    exact = lean if precision == "float32" else rebuild(bundle.script, bundle.metadata, torch.float32)
    if lean is None or exact is None:
        raise BundleError(
            f"{name}: galbatch cannot rebuild this network (architecture {bundle.metadata.architecture}), only its own "
            'gampen and sfnet; set [posterior] engine = "torchscript", or "auto"'
        )
    executor = RebuiltExecutor(bundle, lean, exact, StaticTrunk(lean) if is_compiled else None)
    problem = compiled_disagreement(executor) if is_compiled else disagreement(executor)
    if problem:
        raise BundleError(
            f"{name}: rebuilt in {precision}, it is another network than its script: {problem}; set [posterior] engine = "
            '"torchscript"'
        )
    return executor


def compiled_disagreement(executor: RebuiltExecutor) -> str | None:
    """As `disagreement`; the first run compiles.

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
def disagreement(executor: RebuiltExecutor) -> str | None:
    """How passes of two made-up galaxies differ from the script's; None: by rounding."""
    images, *columns = (part.to(executor.device) for part in made_up_inputs(executor.bundle.metadata))
    beside = columns[0] if columns else None
    rows = torch.arange(CHECK_ROWS, device=executor.device) % len(images)
    keys = torch.arange(CHECK_ROWS, device=executor.device) * 0x5851F42D4C957F2D
    found, _ = executor.prepare(images, beside).passes(rows, keys)
    expected = executor.bundle.sample(executor.bundle.prefix(images, beside)[rows], keys)
    if found.shape != expected.shape:
        return f"it puts out {found.shape[1]} numbers, expected {expected.shape[1]}"
    difference, size = (found - expected).abs().amax(1), 1.0 + expected.abs().amax(1)
    tolerance = EXACT if executor.exact is executor.lean else ROUNDED
    if float((difference <= tolerance * size).float().mean()) >= AGREE:
        return None
    return f"outputs differ by up to {float(difference.max()):.2g}, expected {tolerance * float(size.max()):.2g} or less"


class StaticTrunk:
    """A trunk compiled for fixed numbers of rows, 1, 4, 16, ...; fewer are filled up with rows that were there before.

    On a GPU its kernels are launched as one CUDA graph.
    """

    def __init__(self, lean: Lean) -> None:
        self._trunk: Trunk = torch.compile(lean.trunk, dynamic=False)
        self._replays: dict[int, Replay] = {}

    @staticmethod
    def rows_of(n: int) -> int:
        """The largest of its numbers of rows up to `n`."""
        rows = 1
        while rows * STEP <= n:
            rows *= STEP
        return rows

    def __call__(self, x: Tensor, masks: Masks | None) -> Tensor:
        """See `Lean.trunk`."""
        rows = self.rows_of(len(x))
        if rows < len(x):
            rows *= STEP
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
        """See `Lean.trunk`."""
        self._x[: len(x)].copy_(x)
        if masks is not None and self._masks is not None:
            for buffer, part in zip(self._masks, masks, strict=True):
                buffer[: len(part)].copy_(part)
        return self._run()[: len(x)].clone()

    def _once(self) -> Tensor:
        return self._trunk(self._x, self._masks)


def _captured(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The kernels of `run` as a CUDA graph."""
    ahead: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    ahead.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(ahead):  # kernels are chosen, and memory is taken, before the capture
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(ahead)
    graph = torch.cuda.CUDAGraph()
    # Other threads may copy their inputs meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run()

    def replay() -> Tensor:
        graph.replay()
        return outputs

    return replay


class RebuiltExecutor:
    """See `galbatch.models.executors.Executor`.

    What comes before the first dropout is the script's, in float32. In a lower precision the outputs of every pass are
    shifted by the difference that the precision makes to the pass without dropout.

    Parameters
    ----------
    bundle : its script is on the device
    lean : what follows the first dropout
    exact : the same in float32; `lean` itself if that is float32
    static : its trunk, compiled; None: it runs as it is
    """

    def __init__(self, bundle: Bundle, lean: Lean, exact: Lean, static: StaticTrunk | None) -> None:
        self.bundle = bundle
        self.lean = lean
        self.exact = exact
        self.static = static
        self.device = next(lean.parameters()).device
        self.plan = lean.plan(self.device)

    def prepare(self, images: Tensor, columns: Tensor | None) -> RebuiltPrepared:
        """See `Executor`."""
        features = self.bundle.prefix(images, columns)
        n_maps = features.shape[1] - len(self.bundle.metadata.input.columns)
        maps, beside = features[:, :n_maps], features[:, n_maps:, 0, 0]
        last, shift = None, None
        if self.bundle.has("last_features") or self.exact is not self.lean:
            exact = _without_dropout(self.exact, maps)
            last = self.exact.last_features(exact)
            if self.exact is not self.lean:
                rounded = self.lean.head(_without_dropout(self.lean, maps), beside, None)[0]
                shift = self.exact.head(exact, beside, None)[0] - rounded
        crop = self.bundle.script.crop(images) if self.bundle.has("crop") else None
        return RebuiltPrepared(self, self.lean.start(maps), beside, shift, last, crop)

    def top_features(self, last: Tensor) -> tuple[Tensor, Tensor] | None:
        """See `Executor`."""
        return script_top_features(self.bundle, last)


def _without_dropout(lean: Lean, maps: Tensor) -> Tensor:
    """What the trunk gives of maps (object, channel, y, x)."""
    rows = torch.arange(len(maps), device=maps.device)
    return lean.trunk(lean.begin(Start(lean.start(maps).maps), rows, None), None)


@dataclass(frozen=True)
class RebuiltPrepared:
    """See `galbatch.models.executors.Prepared`.

    Attributes
    ----------
    start : what rows begin with
    beside : (object, column), the numbers beside the image
    shift : (object, output), added to the outputs of every pass; None: nothing
    """

    executor: RebuiltExecutor
    start: Start
    beside: Tensor
    shift: Tensor | None
    last: Tensor | None
    crop: Tensor | None

    def rows_at_once(self, batch: int) -> int:
        """`batch`, or what masks at a high rate leave room for."""
        plan = self.executor.plan
        return batch if plan is None else max(1, min(batch, SLOTS_AT_ONCE // plan.slots[-1].stop))

    def passes(self, rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """See `Prepared`: the trunk takes as many rows as the processor's cache holds, the head all."""
        executor = self.executor
        masks = None if executor.plan is None else executor.plan.draw(keys)
        step = rows_in_cache(self.start.maps, len(rows))
        if executor.static is not None:
            step = executor.static.rows_of(step)
        last = torch.cat([self.part(rows, masks, slice(at, at + step)) for at in range(0, len(rows), step)])
        outputs, fired = executor.lean.head(last, self.beside[rows], masks)
        return outputs if self.shift is None else outputs + self.shift[rows], fired

    def part(self, rows: Tensor, masks: Masks | None, some: slice) -> Tensor:
        """The trunk of some of the rows."""
        executor = self.executor
        of_some = None if masks is None else Masks(masks.positions[some], masks.any_zeroed[some])
        x = executor.lean.begin(self.start, rows[some], of_some)
        return executor.lean.trunk(x, of_some) if executor.static is None else executor.static(x, of_some)
