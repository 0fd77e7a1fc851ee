"""How a foreign TorchScript network is called: with one image tensor or a list of them, with numbers or without, giving one tensor or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from galbatch.errors import BundleError

__all__ = ["Signature", "called_as"]

# Of a tensor all rows are its own; heads in a tuple or list are joined, each row flattened.
ONE_TENSOR = "    return found.reshape(auxiliary.shape[0], -1)\n"
SEVERAL_TENSORS = """\
    parts: List[Tensor] = []
    for part in found:
        parts.append(part.reshape(auxiliary.shape[0], -1))
    return torch.cat(parts, dim=1)
"""


@dataclass(frozen=True)
class Signature:
    """The arguments of a foreign network's `forward`, as its description implies them.

    Attributes
    ----------
    n_grids : number of image tensors; with 0 there are numbers alone, with 2 or more they are one argument, a list
    takes_auxiliary : whether auxiliary inputs (object, number) follow
    """

    n_grids: int
    takes_auxiliary: bool

    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """The name of each argument, and its type in TorchScript."""
        images = [] if self.n_grids == 0 else [("images", "Tensor" if self.n_grids == 1 else "List[Tensor]")]
        return (*images, *([("auxiliary", "Tensor")] if self.takes_auxiliary else []))

    @property
    def text(self) -> str:
        """The call for messages: ``forward(images: List[Tensor], auxiliary: Tensor)``."""
        return f"forward({', '.join(f'{name}: {kind}' for name, kind in self.arguments)})"

    @property
    def _given(self) -> str:
        """The expressions that are passed on, from a list of images and a tensor of numbers."""
        given = {"Tensor": "images[0]", "List[Tensor]": "images"}
        return ", ".join(given[kind] if name == "images" else name for name, kind in self.arguments)

    def method(self, name: str, *, of_network: str, several: bool) -> str:
        """Return the source of a method with this name that takes lists and numbers and calls a method of the network."""
        return (
            f"def {name}(self, images: List[Tensor], auxiliary: Tensor) -> Tensor:\n"
            f"    found = self.network.{of_network}({self._given})\n"
            f"{SEVERAL_TENSORS if several else ONE_TENSOR}"
        )

    def prefix(self) -> str:
        """Return the source of a bundle's `prefix`, which has these arguments, by its method `packed`."""
        images = {0: "torch.jit.annotate(List[Tensor], [])", 1: "[images]"}.get(self.n_grids, "images")
        of_objects = {0: "auxiliary", 1: "images"}.get(self.n_grids, "images[0]")
        numbers = (
            "auxiliary" if self.takes_auxiliary else f"{of_objects}.new_zeros([{of_objects}.shape[0], 0])"
        )
        arguments = ", ".join(f"{name}: {kind}" for name, kind in self.arguments)
        return f"def prefix(self, {arguments}) -> Tensor:\n    return self.packed({images}, {numbers})\n"


class _Network(nn.Module):
    """The place of a foreign network, to which methods are added that call it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network


def called_as(network: Any, signature: Signature, *, source: str) -> Any:
    """Return a TorchScript module whose `forward` and `last_features` take a list of images and a tensor of numbers.

    `forward` joins several heads to (object, output). `last_features` is there if the network has it.

    Parameters
    ----------
    network : loaded TorchScript module
    signature : how it is called
    source : text that messages begin with, such as the network's path

    Raises
    ------
    BundleError
        The network's `forward` takes other arguments, or gives neither a tensor nor a tuple or list of them.
    """
    schema = network.forward.schema
    found = [str(argument.type) for argument in schema.arguments[1:] if not argument.has_default_value()]
    expected = [kind for _, kind in signature.arguments]
    if found != expected:
        raise BundleError(
            f"{source}: its forward takes ({', '.join(found)}), its description says {signature.text}: state "
            "auxiliary_inputs and [[input.more_grids]] as the network has them, or wrap it before scripting"
        )
    module: Any = torch.jit.script(_Network(network))
    methods = {"forward": "forward"} | (
        {"last_features": "last_features"} if hasattr(network, "last_features") else {}
    )
    try:
        for name, of_network in methods.items():
            returned = getattr(network, of_network).schema.returns[0].type
            several = returned.kind() in ("TupleType", "ListType")
            module.define(signature.method(name, of_network=of_network, several=several))
    except RuntimeError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BundleError(
            f"{source}: its {name} gives {returned}, expected a tensor, or a tuple of tensors ({lines[0].strip()})"
        ) from None
    return module
