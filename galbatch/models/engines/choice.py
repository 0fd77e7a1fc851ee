"""The choice of the engine that runs a network, and of its precision.

The engine of each network is chosen once per run, is part of the fingerprint of its results, and is written into the
catalog's properties. Random draws are the same with all engines; the outputs differ by rounding.
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
    """An engine that computes the passes of a network.

    Attributes
    ----------
    kind : torchscript: the bundle's own script; rebuilt: the native engine, a module with the bundle's weights, for the
        architectures that galbatch knows; compiled: such a module after torch.compile
    precision : precision of everything after the first dropout
    """

    kind: Kind = "torchscript"
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        """The name of the engine in fingerprints and properties, such as rebuilt-bfloat16."""
        return f"{self.kind}-{self.precision}"

    @classmethod
    def named(cls, name: str) -> Engine:
        """Return the engine of that name.

        Raises
        ------
        BundleError
            There is no engine of that name.
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
    engine : the engine
    device : cpu or cuda
    groups_at_once : number of groups of objects that threads work on at a time, so that one group is summarized while
        another runs its passes; None: two on a GPU, one on a CPU. The results do not depend on it
    """

    engine: Engine = Engine()
    device: str = "cpu"
    groups_at_once: int | None = None

    @property
    def n_threads(self) -> int:
        """The number of threads that work on groups of objects."""
        # On a CPU the passes use all cores already; a GPU would stand still while a group is summarized.
        return self.groups_at_once or (1 if self.device == "cpu" else 2)


def choose_engine(ensemble: Ensemble, *, kind: str, precision: str, device: str) -> Engine:
    """Return the engine for a network on a device. With ``auto`` galbatch chooses the kind, the precision, or both.

    Kind: rebuilt if galbatch knows the architecture and the rebuilt network gives the same outputs as the script, else
    torchscript. Compiled is never chosen: on a CPU it is no faster, and compiling takes minutes.

    Precision: for rebuilt GaMPENs of the paper's width float16 on a GPU, and bfloat16 on CPUs with instructions for it
    (AVX512-BF16, AMX). They are twice as fast, and rounding changes outputs by 1 % of a posterior standard deviation. Float32
    for narrower GaMPENs, whose outputs would change by 4 % and more, and for SFNets, where rounding would decide which
    features fire.

    Parameters
    ----------
    ensemble : networks, all of which must run with the engine
    kind : auto, torchscript, rebuilt or compiled
    precision : auto, float32, bfloat16 or float16
    device : cpu or cuda

    Raises
    ------
    BundleError
        The network cannot be run with this kind or precision.
    """
    if kind == "auto":
        kind = "rebuilt" if _is_known(ensemble) else "torchscript"
    elif kind != "torchscript":
        # Asked for by name: the error says why a network cannot be rebuilt.
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
# Channels of the first convolution, as in the paper. Narrower networks were measured at a 16th of it, the demo's width.
WIDE_CHANNELS = 64


def _is_known(ensemble: Ensemble) -> bool:
    """Return whether the native engine can rebuild all networks of the ensemble."""
    try:
        for bundle in ensemble.bundles:
            executor(bundle, NATIVE, "cpu")
    except BundleError:
        return False
    return True


def _is_wide(ensemble: Ensemble) -> bool:
    """Return whether all networks are GaMPENs with enough channels that rounding errors average out."""
    first = [bundle.script.state_dict().get("vgg.features.0.weight") for bundle in ensemble.bundles]
    return all(weight is not None and len(weight) >= WIDE_CHANNELS for weight in first)


def _fast_precision(device: str) -> str:
    """Return the precision with the smallest rounding errors among those that are faster than float32 on the device."""
    # GPUs multiply both 16-bit types equally fast; float16 has 11 bits of mantissa, bfloat16 8.
    if device != "cpu":
        return "float16"
    return "bfloat16" if _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    """Return whether this machine's CPU has instructions for bfloat16; without them it is slower than float32."""
    # Torch has no public question for this. A name that a later torch lacks counts as no, which costs speed alone.
    tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, test, bool)() for test in tests)


# Weak, so that a bundle that nobody uses any more is freed with its executors.
_made: weakref.WeakKeyDictionary[Bundle, dict[Execution, Executor]] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def executor(bundle: Bundle, engine: Engine, device: str) -> Executor:
    """Return the executor of a bundle, made once per process.

    Parameters
    ----------
    bundle : bundle of the network
    engine : engine that runs it
    device : cpu or cuda

    Raises
    ------
    BundleError
        The engine cannot be made in this process.
    """
    execution = Execution(engine, device)
    with _making:
        made = _made.setdefault(bundle, {})
        if execution not in made:
            made[execution] = _make(bundle, execution)
        return made[execution]


def _make(bundle: Bundle, execution: Execution) -> Executor:
    """Make an executor with its own copy of the script on the device."""
    engine, device, script = execution.engine, execution.device, bundle.script
    if device != "cpu":
        if not torch.cuda.is_available():
            raise BundleError(
                f"{bundle.metadata.name}: is to run on {device}, but torch finds no CUDA GPU here"
            )
        script = copy.deepcopy(script).to(device)
    # A copy, as `_made` would keep a bundle for ever that one of its executors holds.
    on_device = dataclasses.replace(bundle, script=script)
    if engine.kind == "torchscript":
        return ScriptExecutor(on_device, torch.device(device))
    return native_executor(
        on_device, engine.precision, device=torch.device(device), is_compiled=engine.kind == "compiled"
    )
