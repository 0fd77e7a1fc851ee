"""The Gaussian head: each pass gives a normal distribution with a full covariance (GaMPEN paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from galbatch.models.heads.base import Head, Loss
from galbatch.models.heads.widths import std_of
from galbatch.models.metadata import HeadInfo, ParameterInfo
from galbatch.models.networks import normal_draws
from galbatch.models.posterior import Floats, NormalMarginal, for_passes, inflation_map, total_covariance

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Gaussian", "GaussianPasses", "gaussian_loss", "read_gaussian"]


class Gaussian(Head):
    """The Gaussian head, whose covariance is L D L^T with a unit lower triangular matrix L and a diagonal matrix D.

    The outputs for n parameters are n means, n log d_i, and the n (n - 1) / 2 entries of L below its diagonal, in the order
    (1,0), (2,0), (2,1), ...
    """

    kind = "gaussian"
    text = "a Gaussian with full covariance a pass"
    is_point = False
    options = ()

    def n_outputs(self, info: HeadInfo, n_parameters: int) -> int:
        # n means, n log d and n (n - 1) / 2 entries of L.
        return (3 * n_parameters + n_parameters * n_parameters) // 2

    def problems(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> list[str]:
        return []

    def card_text(self, info: HeadInfo) -> str:
        return self.text

    def read(
        self, outputs: Floats, info: HeadInfo, *, parameters: Sequence[ParameterInfo], n_members: int
    ) -> GaussianPasses:
        return replace(read_gaussian(outputs, len(parameters)), n_members=n_members)

    def loss(self, info: HeadInfo, parameters: Sequence[ParameterInfo]) -> Loss:
        return gaussian_loss


@dataclass(frozen=True)
class GaussianPasses:
    """A normal distribution for each object and pass.

    Attributes
    ----------
    mean : (object, pass, parameter) float64
    factor : (object, pass, parameter, parameter) float64, lower triangular, with covariance = factor factor^T
    n_members : number of networks, as in `Passes`
    """

    mean: Floats
    factor: Floats
    n_members: int = 1

    is_point = False

    @property
    def std(self) -> Floats:
        """The marginal standard deviations, (object, pass, parameter): from the diagonal of L D L^T, not sqrt(d_i) alone."""
        return np.sqrt(np.square(self.factor).sum(axis=-1))

    def marginal(self, index: int) -> NormalMarginal:
        width = np.sqrt(np.square(self.factor[..., index, :]).sum(axis=-1))
        # A single component, so that the last axis of (object, pass, component) has length 1.
        return NormalMarginal(self.mean[..., index, None], width[..., None], n_members=self.n_members)

    def within(self) -> Floats:
        n_objects, n_passes, n, _ = self.factor.shape
        # One product of matrices for each object: the passes and the factors' columns are summed over together.
        rows = np.moveaxis(self.factor, 2, 1).reshape(n_objects, n, n_passes * n)
        return rows @ np.swapaxes(rows, 1, 2) / n_passes

    def covariance(self) -> Floats:
        return total_covariance(self)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        normal = normal_draws(keys, self.mean.shape[2])  # (object, pass, parameter)
        return self.mean + np.einsum("otij,otj->oti", self.factor, normal)

    def affine(self, scale: Floats, shift: Floats) -> GaussianPasses:
        mean = self.mean * scale + for_passes(shift)
        # Rows of the factor belong to parameters: the covariance is scaled on both sides.
        return replace(self, mean=mean, factor=self.factor * scale[:, None])

    def inflated(self, factors: npt.ArrayLike) -> GaussianPasses:
        return self.affine(*inflation_map(self, factors))


def read_gaussian(outputs: npt.NDArray[np.floating], n_parameters: int) -> GaussianPasses:
    """Return the normal distributions that the outputs of a Gaussian head stand for.

    Parameters
    ----------
    outputs : (object, pass, output): n means, n log d_i, then the entries of L below its diagonal in the order
        (1,0), (2,0), (2,1), ... (GaMPEN paper, section 3.3: Sigma = L D L^T)
    n_parameters : number n of parameters
    """
    n = n_parameters
    numbers: Floats = np.asarray(outputs, dtype=np.float64)
    lower = np.zeros((*numbers.shape[:2], n, n))  # L: (object, pass, parameter, parameter)
    rows, columns = np.tril_indices(n, -1)
    lower[..., rows, columns] = numbers[..., 2 * n :]
    lower[..., np.arange(n), np.arange(n)] = 1.0
    # Sigma = (L sqrt(D)) (L sqrt(D))^T: columns of L are multiplied by sqrt(d_i) = exp(log d_i / 2).
    root_d = std_of(0.5 * numbers[..., n : 2 * n])
    return GaussianPasses(numbers[..., :n], lower * root_d[..., None, :])


def gaussian_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the negative log likelihood of equation 8 of the GaMPEN paper, without its constant.

    With Sigma = L D L^T, z = L^-1 (y - mu) follows by forward substitution.

    Parameters
    ----------
    outputs : (row, output) float32: mu, log d, and the entries of L below its diagonal, row by row
    target : (row, parameter) float32, standardized

    Returns
    -------
    scalar tensor, the mean over the rows
    """
    import torch

    n = target.shape[1]
    residual = target - outputs[:, :n]
    log_d = outputs[:, n : 2 * n]
    solved: list[Tensor] = []
    # L has ones on its diagonal, so that nothing is divided by and log det Sigma is the sum of the log d_i.
    entry = 2 * n
    for i in range(n):
        z = residual[:, i]
        for j in range(i):
            z = z - outputs[:, entry] * solved[j]
            entry += 1
        solved.append(z)
    z2 = torch.stack(solved, dim=1).square()
    return 0.5 * (z2 * torch.exp(-log_d) + log_d).sum(dim=1).mean()
