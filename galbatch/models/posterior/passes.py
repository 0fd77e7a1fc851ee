"""The Passes protocol: the joint distributions of the parameters in each pass, for any head."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from galbatch.models.posterior.marginal import Floats, Marginal

__all__ = ["Passes", "correlation_of", "for_passes", "inflation_map", "total_covariance"]


class Passes(Protocol):
    """A joint distribution of the standardized parameters for each object and pass. All passes have equal weight."""

    @property
    def n_members(self) -> int:
        """The number of networks; the first ``n_passes / n_members`` passes belong to the first network, and so on."""

    @property
    def is_point(self) -> bool:
        """Whether each pass is a single value, so that the passes are draws and quantiles are those of a sample."""

    @property
    def mean(self) -> Floats:
        """The mean of each distribution, (object, pass, parameter)."""

    def marginal(self, index: int) -> Marginal:
        """Return the distributions of the parameter with this index."""

    def within(self) -> Floats:
        """Return the covariance within passes, averaged over the passes, (object, parameter, parameter)."""

    def covariance(self) -> Floats:
        """Return the total covariance (object, parameter, parameter): the mean within passes plus that of the passes' means."""

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """Return one draw from each pass, (object, pass, parameter), made from keys (object, pass) int64."""

    def affine(self, scale: Floats, shift: Floats) -> Passes:
        """Return the distributions of scale * x + shift, where x are the parameters.

        Parameters
        ----------
        scale : (parameter,) float64, above 0
        shift : (parameter,) or (object, parameter) float64
        """

    def inflated(self, factors: npt.ArrayLike) -> Passes:
        """Return the distributions widened by factors (parameter,) about each object's mean over the passes."""


def total_covariance(passes: Passes) -> Floats:
    """Return the covariance (object, parameter, parameter) within the passes and between their means."""
    # Law of total covariance: the mean of the covariances plus the covariance of the means.
    centered = passes.mean - passes.mean.mean(axis=1, keepdims=True)
    between = np.swapaxes(centered, 1, 2) @ centered / centered.shape[1]
    return passes.within() + between


def inflation_map(passes: Passes, factors: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the affine map (scale, shift) that inflates by factors (parameter,) about the mean over the passes."""
    scale: Floats = np.asarray(factors, dtype=np.float64)
    return scale, (1.0 - scale) * passes.mean.mean(axis=1)


def correlation_of(covariance: Floats) -> Floats:
    """Return the correlation matrices of covariances (object, parameter, parameter); 0 where a parameter does not vary."""
    std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    product = std[:, :, None] * std[:, None, :]  # (object, parameter, parameter)
    found = np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)
    return np.clip(found, -1.0, 1.0)


def for_passes(shift: Floats) -> Floats:
    """Return a shift (parameter,) or (object, parameter) with an axis for the passes: (object or 1, 1, parameter)."""
    return np.atleast_2d(shift)[:, None]
