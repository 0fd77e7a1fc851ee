"""The Head protocol, which each kind of head implements. One file in this folder is one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.posterior import Floats, Passes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LIKELIHOOD", "Head", "Loss"]

LIKELIHOOD = "likelihood"
"""The name of the loss that every head has, in the settings of a training."""

Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""A function of outputs (row, output) and standardized targets (row, parameter), both float32: the mean loss over the rows."""


class Head(Protocol):
    """A kind of head: how the outputs of a pass are read as a distribution of the parameters, and the loss of a training.

    Attributes
    ----------
    kind : name of the kind in metadata and in the settings of a training
    text : description of a pass's outputs for model cards and the documentation
    is_point : whether a pass gives a single value without a width, so that the passes are draws from the posterior
    is_classes : whether the parameters are the probabilities of classes, which are neither standardized nor calibrated
    is_vector : whether the outputs are a vector of numbers of no posterior, which cannot be trained or calibrated
    options : names of the fields of `HeadOptions` that belong to this kind; the others stay at their defaults
    other_losses : functions that return further losses, with the arguments of `loss`, by their names in the settings of a training
    """

    kind: str
    text: str
    is_point: bool
    options: tuple[str, ...]
    is_classes: bool = False
    is_vector: bool = False
    other_losses: Mapping[str, Callable[..., Any]] = MappingProxyType({})

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        """Return the number of outputs of one network for `n_parameters` parameters."""

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        """Return messages on options of this kind that are missing or contradict each other; empty if there are none."""

    def card_text(self, info: HeadInfo) -> str:
        """Return `text`, followed by the options that a reader of the model card should know."""

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> Passes:
        """Return the distributions that the outputs stand for.

        Parameters
        ----------
        outputs : (object, pass, output) float64; the passes of the first of `n_members` networks come first, and all
            networks have the same number of passes
        info : head of the networks
        parameters : estimated parameters
        n_members : number of networks
        """

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        """Return the loss of a training, which is the negative log likelihood of the targets.

        Implementations import torch inside this method, so that heads can be read without it.

        Parameters
        ----------
        info : head, of this kind
        parameters : parameters with location and scale, by which options in physical units are standardized
        """
