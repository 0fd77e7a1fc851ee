"""From the outputs of the passes to distributions.

Each pass of a Gaussian head is a normal distribution of the standardized parameters; each pass of a point
head is one value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["GaussianPasses", "read_gaussian"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GaussianPasses:
    """A normal distribution for each object and pass, of the standardized parameters.

    Attributes
    ----------
    mean : (object, pass, parameter) float64
    factor : (object, pass, parameter, parameter) float64, lower: Sigma = factor factor^T
    """

    mean: Floats
    factor: Floats

    @property
    def covariance(self) -> Floats:
        """(object, pass, parameter, parameter)."""
        return np.asarray(self.factor @ np.swapaxes(self.factor, -1, -2))

    @property
    def std(self) -> Floats:
        """(object, pass, parameter) marginal standard deviations: NOT exp(s / 2), but of L D L^T's diagonal."""
        return np.asarray(np.sqrt(np.square(self.factor).sum(axis=-1)))

    def correlation(self) -> Floats:
        """(object, parameter, parameter) of the total covariance: mean of Sigma plus covariance of mu."""
        centered = self.mean - self.mean.mean(axis=1, keepdims=True)
        total = (
            self.covariance.mean(axis=1) + np.einsum("oti,otj->oij", centered, centered) / centered.shape[1]
        )
        std = np.sqrt(np.diagonal(total, axis1=1, axis2=2))
        return np.asarray(np.clip(total / (std[:, :, None] * std[:, None, :]), -1.0, 1.0))


def read_gaussian(outputs: npt.NDArray[np.floating], n_parameters: int) -> GaussianPasses:
    """Read a Gaussian head.

    Parameters
    ----------
    outputs : (object, pass, output): n means, n log d_i, then the strictly lower entries of L in the order
        (1,0), (2,0), (2,1), ... (GaMPEN paper, section 3.3: Sigma = L D L^T)
    n_parameters : n
    """
    n = n_parameters
    numbers: Floats = np.asarray(outputs, dtype=np.float64)
    lower = np.zeros((*numbers.shape[:2], n, n))
    rows, columns = np.tril_indices(n, -1)
    lower[..., rows, columns] = numbers[..., 2 * n :]
    lower[..., np.arange(n), np.arange(n)] = 1.0
    root_d = np.exp(0.5 * numbers[..., n : 2 * n])
    return GaussianPasses(numbers[..., :n], lower * root_d[..., None, :])
