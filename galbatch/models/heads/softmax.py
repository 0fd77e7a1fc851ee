"""The softmax head: each pass gives the probabilities of classes, one parameter each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import scipy

from galbatch.models.heads.base import Head, Loss
from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.posterior import Floats, PointPasses

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Softmax", "softmax_loss"]


class Softmax(Head):
    """The softmax head, for classification. The outputs are n logits; their softmax is the probability of each class.

    The parameters are the classes, and their labels 1 for the true class and 0 for the others, or shares of votes. Over the
    passes the catalog's mean is the class probability, and epistemic_std its scatter between passes.
    """

    kind = "softmax"
    text = "probabilities of classes"
    is_point = True
    is_classes = True
    options = ()

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        return n_parameters

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        problems = [f"a class is a parameter: two or more are needed, found {len(parameters)}"]
        problems = problems if len(parameters) < 2 else []
        for parameter in parameters:
            # Softmax gives the probabilities themselves, which no transform may change.
            if parameter.transform != "identity" or parameter.limits is not None or parameter.unit:
                problems.append(f"{parameter.name}: a class has transform identity, no limits and no unit")
            if (parameter.location, parameter.scale) != (0.0, 1.0):
                problems.append(f"{parameter.name}: a class has location 0 and scale 1")
        return problems

    def card_text(self, info: HeadInfo) -> str:
        return self.text

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> PointPasses:
        return PointPasses(scipy.special.softmax(outputs, axis=-1), n_members)

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        return softmax_loss


def softmax_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy, the negative log probability of the true class; of shares its mean weighted by them.

    Parameters
    ----------
    outputs : (row, class) float32, logits
    target : (row, class) float32, 1 for the true class and 0 for the others, or shares that sum to 1

    Returns
    -------
    scalar tensor, the mean over the rows
    """
    return -(target * outputs.log_softmax(dim=1)).sum(dim=1).mean()
