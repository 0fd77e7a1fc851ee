"""The Passes protocol: the joint distributions of a network's passes, whatever the head."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from galbatch.models.posterior.marginal import Floats, Marginal

__all__ = ["Passes", "correlation_of", "for_passes", "inflation_map", "total_covariance"]


class Passes(Protocol):
    """A joint distribution of the standardized parameters for each object and pass; all passes weigh the same."""

    @property
    def n_members(self) -> int:
        """The number of networks: the first ``passes / n_members`` passes are of the first, and so on."""

    @property
    def is_point(self) -> bool:
        """Whether each pass is a single value, so that the passes are draws and no mixture is solved."""

    @property
    def mean(self) -> Floats:
        """The mean of each distribution, (object, pass, parameter)."""

    def marginal(self, index: int) -> Marginal:
        """Return the distributions of one parameter."""

    def within(self) -> Floats:
        """Return the mean over the passes of each one's own covariance, (object, parameter, parameter)."""

    def covariance(self) -> Floats:
        """Return the total covariance (object, parameter, parameter): mean of the passes' own, and that of their means."""

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        """Return one draw a pass, (object, pass, parameter), from keys (object, pass)."""

    def affine(self, scale: Floats, shift: Floats) -> Passes:
        """Return the distributions of scale x + shift; scale (parameter,) above 0, shift (parameter,) or (object, parameter)."""

    def inflated(self, factors: npt.ArrayLike) -> Passes:
        """Return the distributions widened by factors (parameter,) about each object's mean over the passes."""


def total_covariance(passes: Passes) -> Floats:
    """Return the covariance (object, parameter, parameter) within the passes and between their means."""
    centered = passes.mean - passes.mean.mean(axis=1, keepdims=True)
    between = np.einsum("oti,otj->oij", centered, centered) / centered.shape[1]
    return passes.within() + between


def inflation_map(passes: Passes, factors: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return the affine map (scale, shift) that inflates by factors (parameter,) about the mean over the passes."""
    scale: Floats = np.asarray(factors, dtype=np.float64)
    return scale, (1.0 - scale) * passes.mean.mean(axis=1)


def correlation_of(covariance: Floats) -> Floats:
    """Return the correlations of covariances (object, parameter, parameter), of the same shape; 0 where a parameter does not vary."""
    std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    product = std[:, :, None] * std[:, None, :]
    found = np.divide(covariance, product, out=np.zeros_like(covariance), where=product > 0)
    return np.clip(found, -1.0, 1.0)


def for_passes(shift: Floats) -> Floats:
    """Return a shift (parameter,) or (object, parameter) as (object or 1, 1, parameter)."""
    return np.atleast_2d(shift)[:, None]
