"""The Head protocol: what each kind of head provides. One file here is one kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.posterior import Floats, Passes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Head", "Loss"]

Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Loss of outputs (row, output) and targets (row, parameter), float32 and standardized: the mean over the rows."""


class Head(Protocol):
    """One kind of head: how a pass's outputs are read as a distribution of the parameters, and what is minimized in training.

    Attributes
    ----------
    kind : its name, in metadata and in settings of a training
    text : what a pass puts out, in words, for model cards and the documentation
    is_point : whether a pass is a single value, without a width of its own: its passes are draws
    options : names of the fields of `HeadOptions` that belong to this kind; the others stay at their defaults
    """

    kind: str
    text: str
    is_point: bool
    options: tuple[str, ...]

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        """Return the number of outputs of one network for `n_parameters` parameters."""

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        """Return what contradicts itself in the options of this kind, as messages to who wrote them; empty if nothing does."""

    def card_text(self, info: HeadInfo) -> str:
        """Return `text` with the options that matter to a reader of the model card."""

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> Passes:
        """Return the distributions that outputs (object, pass, output) float64 stand for.

        All passes of the first of `n_members` networks come first; each member has as many.
        """

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        """Return what training minimizes: the negative log likelihood of the targets. Torch is imported here, not before.

        Parameters
        ----------
        info : of this kind
        parameters : with location and scale: options may be in physical units
        """
