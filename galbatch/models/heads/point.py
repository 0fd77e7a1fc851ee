"""The point head: one value a pass, without a width of its own; its passes are draws from the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from galbatch.models.heads.base import Head, Loss
from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.posterior import Floats, PointPasses

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Point", "point_loss"]


class Point(Head):
    """n values."""

    kind = "point"
    text = "a value a pass, without a width of its own"
    is_point = True
    options = ()

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
    """Return half the squared error, summed over parameters: the likelihood of a normal distribution of width 1.

    Parameters as for `gaussian_loss`, outputs (row, parameter).
    """
    return 0.5 * (outputs - target).square().sum(dim=1).mean()
