"""Weights that others published: state dicts and pickled modules, read without running what is in them."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from galbatch.errors import BundleError

__all__ = ["Published", "assign", "file_sha256", "read_published"]

PARALLEL_PREFIX = "module."  # nn.DataParallel puts it before every name
COUNTERS = ".num_batches_tracked"  # of BatchNorm; older checkpoints lack them, and nothing depends on them
MAX_NAMES = 6
MOST_MODULES = 10_000  # of a pickled module; a ResNet-18 has 68, and the same again in its trunk
# What a pickle that is damaged, or made to harm, ends in while it is read.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)
# Classes of torch that a whole pickled ResNet or VGG consists of. They are stood in for, never made.
TORCH_CLASSES = frozenset(
    {
        "torch.nn.modules.activation.ReLU",
        "torch.nn.modules.batchnorm.BatchNorm2d",
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.dropout.Dropout",
        "torch.nn.modules.flatten.Flatten",
        "torch.nn.modules.linear.Identity",
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.pooling.AdaptiveAvgPool2d",
        "torch.nn.modules.pooling.MaxPool2d",
        "torch.nn.parallel.data_parallel.DataParallel",
        "torchvision.models.resnet.BasicBlock",
        "torchvision.models.resnet.ResNet",
    }
)


class StandIn:
    """Stands for a pickled module and holds what it held; nothing in a pickle can give it behavior."""

    __slots__ = ("held",)
    held: Mapping[str, Any]

    def __new__(cls) -> StandIn:
        """Holds nothing yet."""
        made = super().__new__(cls)
        made.held = {}
        return made

    def __setstate__(self, state: object) -> None:
        self.held = state if isinstance(state, Mapping) else {}

    def within(self, kind: str) -> list[tuple[str, Any]]:
        """Return names and values of ``_parameters``, ``_buffers`` or ``_modules``."""
        named = self.held.get(kind)
        return list(named.items()) if isinstance(named, Mapping) else []

    def tensors(self, path: str) -> dict[str, Tensor]:
        """Return parameters and buffers of a pickled module by the names a state dict has."""
        found: dict[str, Tensor] = {}
        waiting = [("", self)]
        for _ in range(MOST_MODULES):
            if not waiting:
                return found
            prefix, held = waiting.pop()
            tensors = held.within("_parameters") + held.within("_buffers")
            found |= {f"{prefix}{name}": value for name, value in tensors if isinstance(value, Tensor)}
            modules = [
                (f"{prefix}{name}.", m) for name, m in held.within("_modules") if isinstance(m, StandIn)
            ]
            waiting += reversed(modules)
        raise BundleError(f"{path}: is no network: modules lie within modules without end")


class Published:
    """The content of a file of weights.

    Attributes
    ----------
    path : of the file
    state : tensors by name, without the prefix of nn.DataParallel
    attributes : plain values of a pickled module, such as SFNet's k; empty for a state dict
    """

    def __init__(self, path: str, state: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        self.path = path
        self.state = state
        self.attributes = attributes


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_published(path: str, *, classes: frozenset[str] = frozenset()) -> Published:
    """Read a state dict, or the tensors of a whole pickled module.

    Nothing in the pickle runs: classes are looked at by name before anything is unpickled, and those that are known
    become stand-ins.

    Parameters
    ----------
    path : local file, as torch.save writes it
    classes : names, without their module, of the one class the authors defined, such as ResNet18TopK

    Raises
    ------
    BundleError
        There is no such file, torch.save did not write it, the pickle holds something else (named), or there are no tensors.
    """
    if not Path(path).is_file():
        raise BundleError(f"{path}: there is no such file of weights")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except UNREADABLE as error:
        raise BundleError(
            f"{path}: is no file that torch.save wrote since version 1.6, or is damaged ({_first_line(error)}); fetch it "
            "again, or load it where it was made and save its state_dict()"
        ) from None
    # Looked at by name before anything is unpickled: what is not expected is refused unread.
    foreign = [name for name in names if name not in TORCH_CLASSES and name.rpartition(".")[2] not in classes]
    if foreign:
        raise BundleError(
            f"{path}: its pickle asks for {', '.join(sorted(foreign))}, which no network of this kind consists of; nothing "
            "was run. Load it where you trust it and save its state_dict()"
        )
    stand_ins: Any = [(StandIn, name) for name in names]
    try:
        with torch.serialization.safe_globals(stand_ins):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise BundleError(
            f"{path}: cannot be read as weights, and nothing was run: {_first_line(error)}"
        ) from None
    return _published(path, content)


def _published(path: str, content: Any) -> Published:
    attributes: dict[str, Any] = {}
    if isinstance(content, StandIn):
        attributes = {str(k): v for k, v in content.held.items() if isinstance(v, int | float | str)}
        state: Any = content.tensors(path)
    else:
        state = content
        if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
            state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise BundleError(f"{path}: is no state dict: expected tensors by name, found {type(state).__name__}")
    others = [f"{name} ({type(v).__name__})" for name, v in state.items() if not isinstance(v, Tensor)]
    if others or not state:
        found = f"also {', '.join(others[:MAX_NAMES])}" if others else "nothing"
        raise BundleError(f"{path}: is no state dict: expected tensors by name, found {found}")
    if unstored := [str(name) for name, value in state.items() if not _is_stored(value)]:
        raise BundleError(f"{path}: holds no plain numbers for {_listed(unstored)}")
    if all(str(name).startswith(PARALLEL_PREFIX) for name in state):
        state = {str(name).removeprefix(PARALLEL_PREFIX): value for name, value in state.items()}
    return Published(path, {str(name): value for name, value in state.items()}, attributes)


def _is_stored(tensor: Tensor) -> bool:
    """Tell whether the file holds a real number for each element: not a single one for many, and no shape alone."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
        return False
    plain = not tensor.is_quantized and not tensor.is_complex()
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _first_line(error: Exception) -> str:
    # What torch says before that would have the reader switch its allow-list off.
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    text = text.partition("\n\n")[2].strip() if text.startswith("Weights only load failed") else text
    return text.splitlines()[0] if text else type(error).__name__


def assign(network: nn.Module, state: Mapping[str, Tensor], *, source: str, prefix: str = "") -> None:
    """Give a network its weights, all of them and no others.

    Parameters
    ----------
    network : its tensors are replaced
    state : by name
    source : of the state, for messages
    prefix : of the network's names in the state

    Raises
    ------
    BundleError
        Names are missing or left over, shapes differ, or numbers are not finite: says which.
    """
    expected = {prefix + name: value for name, value in network.state_dict().items()}
    missing = [name for name in expected if name not in state and not name.endswith(COUNTERS)]
    left_over = [name for name in state if name not in expected]
    shapes = [
        f"{name} is {_shape(state[name])}, expected {_shape(value)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = [f"lacks {_listed(missing)}"] if missing else []
    problems += [f"holds {_listed(left_over)}, which the network has not"] if left_over else []
    problems += [_listed(shapes)] if shapes else []
    if problems:
        raise BundleError(f"{source}: {'; '.join(problems)}")
    given = {
        name: state[name].detach().to(dtype=value.dtype).contiguous()
        if name in state
        else torch.zeros(value.shape, dtype=value.dtype)
        for name, value in expected.items()
    }
    broken = [name for name, value in given.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise BundleError(f"{source}: numbers that are not finite in {_listed(broken)}")
    network.load_state_dict(
        {name.removeprefix(prefix): value for name, value in given.items()}, strict=True, assign=True
    )


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "a number"
