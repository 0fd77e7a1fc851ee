"""The engine of a network: its own script, or the native engine made of its weights, compiled or not, in which precision.

The engine of each network is chosen once per run, is part of the infer fingerprint, and stands in the catalog's
properties. Draws are the same with any; numbers differ by rounding.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import weakref
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch

from galbatch.errors import BundleError
from galbatch.models.bundle import Bundle, Ensemble
from galbatch.models.engines.executors import Executor, ScriptExecutor
from galbatch.models.engines.native import native_executor

__all__ = ["Engine", "Execution", "choose_engine", "executor"]

Kind = Literal["torchscript", "rebuilt", "compiled"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Engine:
    """The engine that computes the passes of one network.

    Attributes
    ----------
    kind : torchscript runs the bundle's own script; rebuilt the native engine, a module with the bundle's weights, for the architectures that
        galbatch knows; compiled such a module through torch.compile
    precision : of what follows the first dropout
    """

    kind: Kind = "torchscript"
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        """The name in fingerprints and properties, such as rebuilt-bfloat16."""
        return f"{self.kind}-{self.precision}"

    @classmethod
    def named(cls, name: str) -> Engine:
        """Return the engine of that name.

        Raises
        ------
        BundleError
            There is none.
        """
        kind, _, precision = name.partition("-")
        if kind not in get_args(Kind) or precision not in get_args(Precision):
            raise BundleError(f"{name}: there is no such engine")
        return cls(cast("Kind", kind), cast("Precision", precision))


@dataclass(frozen=True)
class Execution:
    """The engine and the device that compute the passes of one network.

    Attributes
    ----------
    engine : what computes them
    device : cpu or cuda
    groups_at_once : groups of objects that threads work on at a time, with one lock around the passes, so that the
        summaries of one group overlap the passes of another; None: two on a GPU, one on a CPU. Results are equal
    """

    engine: Engine = Engine()
    device: str = "cpu"
    groups_at_once: int | None = None

    @property
    def n_threads(self) -> int:
        """The number of threads that work on groups."""
        return self.groups_at_once or (1 if self.device == "cpu" else 2)


def choose_engine(ensemble: Ensemble, *, kind: str, precision: str, device: str) -> Engine:
    """Choose the engine for a network on a device; ``auto`` leaves the choice of kind or precision to galbatch.

    Kind: rebuilt where galbatch knows the architecture and the rebuilt network gives what the script gives, torchscript
    otherwise. Compiled is never chosen: on a CPU it is no faster, and compiling takes minutes.

    Precision: for rebuilt GaMPENs of the paper's width float16 on a GPU, and bfloat16 on CPUs that multiply such
    numbers (AVX512-BF16, AMX): twice as fast there, and what rounding moves outputs by is 1 % of a posterior standard deviation.
    Float32 for narrower ones, whose outputs rounding moves by 4 % and more, and for SFNets, where it would decide which
    features fire.

    Parameters
    ----------
    kind : auto, torchscript, rebuilt or compiled
    precision : auto, float32, bfloat16 or float16
    device : cpu or cuda

    Raises
    ------
    BundleError
        The network cannot be executed so.
    """
    if kind == "auto":
        kind = "rebuilt" if _is_known(ensemble) else "torchscript"
    elif kind != "torchscript":
        for bundle in ensemble.bundles:
            executor(bundle, NATIVE, "cpu")
    if precision == "auto":
        precision = _fast_precision(device) if kind != "torchscript" and _is_wide(ensemble) else "float32"
    name = ensemble.metadata.name
    if kind == "torchscript" and precision != "float32":
        raise BundleError(
            f'{name}: [posterior] precision = "{precision}" needs a network that galbatch can rebuild, a script runs in '
            'float32; set precision = "auto"'
        )
    if precision == "float16" and device == "cpu":
        raise BundleError(f'{name}: [posterior] precision = "float16" is for GPUs; on a CPU take "bfloat16"')
    return Engine.named(f"{kind}-{precision}")


NATIVE = Engine("rebuilt")
WIDE_CHANNELS = 64  # of the first convolution, as in the paper; narrower ones were measured at a 16th


def _is_known(ensemble: Ensemble) -> bool:
    """Tell whether the native engine knows all networks of the ensemble."""
    try:
        for bundle in ensemble.bundles:
            executor(bundle, NATIVE, "cpu")
    except BundleError:
        return False
    return True


def _is_wide(ensemble: Ensemble) -> bool:
    """Tell whether rounding averages out, as in GaMPENs with many channels."""
    first = [bundle.script.state_dict().get("vgg.features.0.weight") for bundle in ensemble.bundles]
    return all(weight is not None and len(weight) >= WIDE_CHANNELS for weight in first)


def _fast_precision(device: str) -> str:
    """Return the precision of least rounding among those that the device multiplies faster than float32."""
    if device != "cpu":
        return "float16"
    return "bfloat16" if _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    """Tell whether this machine's processor has instructions for it; without them it is slower than float32."""
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)


_made: weakref.WeakKeyDictionary[Bundle, dict[Execution, Executor]] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def executor(bundle: Bundle, engine: Engine, device: str) -> Executor:
    """Return the executor of a bundle, made once per process.

    Parameters
    ----------
    bundle : the network
    engine : how it is executed
    device : cpu or cuda

    Raises
    ------
    BundleError
        This process cannot provide the engine.
    """
    execution = Execution(engine, device)
    with _making:
        made = _made.setdefault(bundle, {})
        if execution not in made:
            made[execution] = _make(bundle, execution)
        return made[execution]


def _make(bundle: Bundle, execution: Execution) -> Executor:
    engine, device, script = execution.engine, execution.device, bundle.script
    if device != "cpu":
        if not torch.cuda.is_available():
            raise BundleError(
                f"{bundle.metadata.name}: is to run on {device}, but torch finds no CUDA GPU here"
            )
        script = copy.deepcopy(script).to(device)
    # A copy, as `_made` would keep a bundle for ever that one of its executors holds.
    there = dataclasses.replace(bundle, script=script)
    if engine.kind == "torchscript":
        return ScriptExecutor(there, torch.device(device))
    return native_executor(
        there, engine.precision, device=torch.device(device), is_compiled=engine.kind == "compiled"
    )
