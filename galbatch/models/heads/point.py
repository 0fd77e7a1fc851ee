"""The point head: each pass gives one value without a width, which is a draw from the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from galbatch.models.heads.base import Head, Loss
from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.posterior import Floats, PointPasses

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Point", "point_loss", "rmse_loss"]


class Point(Head):
    """The point head. The outputs are the n standardized values themselves."""

    kind = "point"
    text = "a value a pass, without a width of its own"
    is_point = True
    options = ()
    other_losses = MappingProxyType({"rmse": lambda info, parameters: rmse_loss})

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        return n_parameters

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        return []

    def card_text(self, info: HeadInfo) -> str:
        return self.text

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> PointPasses:
        return PointPasses(outputs, n_members)

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        return point_loss


def point_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Return half the squared error, summed over parameters: the negative log likelihood of normal distributions of width 1.

    Parameters
    ----------
    outputs : (row, parameter) float32
    target : (row, parameter) float32, standardized

    Returns
    -------
    scalar tensor, the mean over the rows
    """
    return 0.5 * (outputs - target).square().sum(dim=1).mean()


def rmse_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the root mean square error over rows and parameters, as in SFNet's code; both arguments are (row, parameter)."""
    # The gradient of the root is infinite at 0.
    return (outputs - target).square().mean().clamp_min(1e-12).sqrt()
