"""Reading of published weights: state dicts and pickled modules, without running any code that they hold."""

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

PARALLEL_PREFIX = "module."  # nn.DataParallel puts it before every name.
COUNTERS = ".num_batches_tracked"  # Checkpoints of older versions of torch lack BatchNorm's counters, which no output depends on.
MAX_NAMES = 6  # A message that lists all tensors of a network would be longer than a screen.
MOST_MODULES = 10_000  # A ResNet-18 has 68 modules, and SFNet's trunk the same again; a module that holds itself has no end.
# The errors in which the reading of a damaged or malicious pickle may end.
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
# Classes of torch in a pickled ResNet or VGG. A `StandIn` takes the place of each; none of them is ever made.
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
    """A placeholder for a pickled module, with its attributes. Nothing in a pickle can give it behavior."""

    __slots__ = ("held",)
    held: Mapping[str, Any]

    def __new__(cls) -> StandIn:
        """Return an object without attributes: unpickling calls no `__init__`."""
        made = super().__new__(cls)
        made.held = {}
        return made

    def __setstate__(self, state: object) -> None:
        # Modules pickle their `__dict__`. Any other state comes from no module, and is dropped.
        self.held = state if isinstance(state, Mapping) else {}

    def within(self, kind: str) -> list[tuple[str, Any]]:
        """Return names and values of the attribute `kind`: ``_parameters``, ``_buffers`` or ``_modules``."""
        named = self.held.get(kind)
        return list(named.items()) if isinstance(named, Mapping) else []

    def tensors(self, path: str) -> dict[str, Tensor]:
        """Return parameters and buffers of the module and all modules within, by their names in a state dict."""
        found: dict[str, Tensor] = {}
        # A stack instead of recursion, whose depth a malicious pickle could choose.
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
    path : path of the file
    state : tensors by name, without the prefix of nn.DataParallel
    attributes : plain values of a pickled module, such as SFNet's k; empty for a state dict
    """

    def __init__(self, path: str, state: dict[str, Tensor], attributes: dict[str, Any]) -> None:
        self.path = path
        self.state = state
        self.attributes = attributes

    @classmethod
    def from_content(cls, path: str, content: Any) -> Published:
        """Return the weights in what torch.load returned.

        Raises
        ------
        BundleError
            There are other values than tensors, no tensors, or tensors whose numbers are not in the file.
        """
        attributes: dict[str, Any] = {}
        if isinstance(content, StandIn):
            attributes = {str(k): v for k, v in content.held.items() if isinstance(v, int | float | str)}
            state: Any = content.tensors(path)
        else:
            # Many trainings store the state dict under this key, next to the optimizer's.
            is_nested = isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping)
            state = content["state_dict"] if is_nested else content
        if not isinstance(state, Mapping):
            raise BundleError(
                f"{path}: is no state dict: expected tensors by name, found {type(state).__name__}"
            )
        others = [f"{name} ({type(v).__name__})" for name, v in state.items() if not isinstance(v, Tensor)]
        if others or not state:
            found = f"also {', '.join(others[:MAX_NAMES])}" if others else "nothing"
            raise BundleError(f"{path}: is no state dict: expected tensors by name, found {found}")
        if unstored := [str(name) for name, value in state.items() if not is_stored(value)]:
            raise BundleError(f"{path}: holds no plain numbers for {_listed(unstored)}")
        if all(str(name).startswith(PARALLEL_PREFIX) for name in state):
            state = {str(name).removeprefix(PARALLEL_PREFIX): value for name, value in state.items()}
        return cls(path, {str(name): value for name, value in state.items()}, attributes)


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_published(path: str, *, classes: frozenset[str] = frozenset()) -> Published:
    """Read a state dict, or the tensors of a whole pickled module.

    No code in the pickle runs: the names of its classes are checked before anything is unpickled, and placeholders are made
    instead of the known ones.

    Parameters
    ----------
    path : local file that torch.save has written
    classes : names, without their module, of the classes that the authors defined, such as ResNet18TopK

    Raises
    ------
    BundleError
        The file does not exist, was not written by torch.save, asks for classes that are not known, or holds no tensors.
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
    # A class of any other name would be code of the file's author: the file is refused before anything is unpickled.
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
    return Published.from_content(path, content)


def is_stored(tensor: Tensor) -> bool:
    """Return whether the file holds one real number for each element of a tensor."""
    # An expanded tensor of a few bytes, or one on the device meta, could ask for any amount of memory later on.
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
        return False
    plain = not tensor.is_quantized and not tensor.is_complex()
    return plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _first_line(error: Exception) -> str:
    """Return the first line of torch's reason, without the advice before it to switch off the check of classes."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    text = text.partition("\n\n")[2].strip() if text.startswith("Weights only load failed") else text
    return text.splitlines()[0] if text else type(error).__name__


def assign(network: nn.Module, state: Mapping[str, Tensor], *, source: str, prefix: str = "") -> None:
    """Load weights into a network. The state must hold all of its tensors, and no others.

    Parameters
    ----------
    network : network whose parameters and buffers are replaced
    state : tensors by name
    source : path or name with which messages begin
    prefix : prefix of the network's names in the state

    Raises
    ------
    BundleError
        Names are missing or left over, shapes differ, or numbers are not finite; the message names them.
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
    # In the network's own dtype, as a checkpoint in float16 or float64 has the same weights; missing counters are 0.
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
