"""The mixture head: each pass gives a mixture of normal distributions, each without correlations between parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy

from galbatch.models.heads.base import Head, Loss
from galbatch.models.heads.widths import std_of
from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.networks import normal_draws, uniform_draws
from galbatch.models.posterior import Floats, NormalMarginal, for_passes, inflation_map, total_covariance

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mixture", "MixturePasses", "mixture_loss"]


class Mixture(Head):
    """The mixture head. The outputs are logits of the weights, then means, then log sigma (not log sigma^2).

    There is one logit per component; means and log sigma are n numbers for the first component, then for the next.
    """

    kind = "mixture"
    text = "a mixture of Gaussians a pass"
    is_point = False
    options = ("components",)

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        return info.components * (1 + 2 * n_parameters)

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        if info.components > 0:
            return []
        return [f"components must be 1 or more for a mixture, found {info.components}"]

    def card_text(self, info: HeadInfo) -> str:
        return f"{self.text}, {info.components} components"

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> MixturePasses:
        components, n = info.components, len(parameters)
        shape = (*outputs.shape[:2], components, n)  # (object, pass, component, parameter)
        means_end = components * (1 + n)
        weight = scipy.special.softmax(outputs[..., :components], axis=-1)
        center = outputs[..., components:means_end].reshape(shape)
        return MixturePasses(weight, center, std_of(outputs[..., means_end:].reshape(shape)), n_members)

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        return lambda outputs, target: mixture_loss(outputs, target, components=info.components)


@dataclass(frozen=True)
class MixturePasses:
    """A mixture of normal distributions for each object and pass; within a component the parameters are uncorrelated.

    Attributes
    ----------
    weight : (object, pass, component) float64, summing to 1
    center, width : (object, pass, component, parameter) float64: mean and standard deviation of each component
    n_members : number of networks, as in `Passes`
    """

    weight: Floats
    center: Floats
    width: Floats
    n_members: int = 1

    is_point = False

    @property
    def mean(self) -> Floats:
        return np.einsum("otk,otkp->otp", self.weight, self.center)

    def marginal(self, index: int) -> NormalMarginal:
        center, width = self.center[..., index], self.width[..., index]
        return NormalMarginal(center, width, self.weight, self.n_members)

    def within(self) -> Floats:
        # Between the components of a pass parameters do correlate; a component adds to the variances alone.
        apart = self.center - self.mean[:, :, None]  # (object, pass, component, parameter)
        found = np.einsum("otk,otki,otkj->oij", self.weight, apart, apart, optimize=True)
        n = found.shape[1]
        found[:, range(n), range(n)] += np.einsum("otk,otki->oi", self.weight, np.square(self.width))
        return found / self.weight.shape[1]

    def covariance(self) -> Floats:
        return total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        # One component is drawn for all parameters together: drawn one by one, they would lose their correlations.
        below = np.cumsum(self.weight, axis=2) < uniform_draws(keys, 1)
        # The weights may sum to slightly less than 1 by rounding.
        which = np.minimum(below.sum(axis=2), self.weight.shape[2] - 1)[..., None, None]
        center = np.take_along_axis(self.center, which, axis=2)[:, :, 0]
        width = np.take_along_axis(self.width, which, axis=2)[:, :, 0]
        return center + width * normal_draws(keys, center.shape[2])

    def affine(self, scale: Floats, shift: Floats) -> MixturePasses:
        center = self.center * scale + for_passes(shift)[:, :, None]
        return replace(self, center=center, width=self.width * scale)

    def inflated(self, factors: npt.ArrayLike) -> MixturePasses:
        return self.affine(*inflation_map(self, factors))


def mixture_loss(outputs: Tensor, target: Tensor, *, components: int) -> Tensor:
    """Return the negative log likelihood of mixtures of uncorrelated normal distributions, without its constant.

    Parameters
    ----------
    outputs : (row, output) float32: logits of the weights, means of each component, log sigma of each component
    target : (row, parameter) float32, standardized
    components : number of components

    Returns
    -------
    scalar tensor, the mean over the rows
    """
    import torch
    from torch.nn import functional

    n = target.shape[1]
    log_weight = functional.log_softmax(outputs[:, :components], dim=1)
    # (row, component, parameter)
    center, log_width = outputs[:, components:].reshape(-1, 2, components, n).unbind(dim=1)
    z = (target[:, None] - center) * torch.exp(-log_width)
    log_likelihood = log_weight - (0.5 * z.square() + log_width).sum(dim=2)
    # Not the logarithm of a sum: far from all components each likelihood underflows float32.
    return -torch.logsumexp(log_likelihood, dim=1).mean()
