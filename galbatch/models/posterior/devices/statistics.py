"""Statistics over the passes of a marginal: all that quantiles, errors and moments need of single passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from galbatch.models.posterior.marginal import NO_LIMITS, Floats, Marginal

if TYPE_CHECKING:
    from galbatch.models.posterior.quantity import Quantity

__all__ = ["DEVICE_ELEMENTS_AT_ONCE", "ELEMENTS_AT_ONCE", "PassStatistics", "statistics_of"]

# Elements of a temporary array: 1 MB in float64, which stays in the processor's cache.
ELEMENTS_AT_ONCE = 2**17
# 8 MB in float64 on a device: with fewer elements a GPU would wait for the next call.
DEVICE_ELEMENTS_AT_ONCE = 2**20


class PassStatistics(ABC):
    """The statistics over the passes of a marginal, (object, ..) NumPy arrays, wherever the passes are.

    Attributes
    ----------
    elements_at_once : largest number of elements of a temporary array
    """

    elements_at_once = ELEMENTS_AT_ONCE

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The numbers of objects and of passes."""

    @abstractmethod
    def average(self) -> Floats:
        """Return the mean of the mixture over the passes, (object,) float64."""

    @abstractmethod
    def total_std(self) -> Floats:
        """Return the standard deviation of the mixture over the passes, (object,) float64."""

    @abstractmethod
    def mean_cdf(self, x: Floats) -> Floats:
        """Return the CDF of the mixture over the passes, (object, point), at x (object, point)."""

    @abstractmethod
    def cdf_scatter(self, x: Floats) -> Floats:
        """Return what each network adds to the variance of the mixture's CDF at x (object, point): (object, point, member)."""

    @abstractmethod
    def total_moments(
        self, quantity: Quantity, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> Floats:
        """Return mean, standard deviation, and standard deviation of the passes' means, (3, object), in the quantity's unit.

        Parameters
        ----------
        quantity : quantity whose value is averaged
        n_points, limits : as for `Marginal.moments`
        """

    @abstractmethod
    def on_host(self) -> Marginal:
        """Return the marginal with its passes in the host's memory."""


@dataclass(frozen=True)
class _HostStatistics(PassStatistics):
    """The statistics of a marginal whose passes are NumPy arrays."""

    marginal: Marginal

    @property
    def shape(self) -> tuple[int, int]:
        n_objects, n_passes = self.marginal.mean.shape
        return n_objects, n_passes

    def average(self) -> Floats:
        return np.asarray(self.marginal.mean.mean(axis=1))

    def total_std(self) -> Floats:
        return np.sqrt(np.square(self.marginal.std).mean(axis=1) + self.marginal.mean.var(axis=1))

    def mean_cdf(self, x: Floats) -> Floats:
        return np.asarray(self.marginal.cdf(x).mean(axis=1))

    def cdf_scatter(self, x: Floats) -> Floats:
        # The networks of an ensemble are no sample of networks: only the passes within each are random.
        n_members = self.marginal.n_members
        members = np.split(self.marginal.cdf(x), n_members, axis=1)
        return np.stack([of_member.var(axis=1) for of_member in members], axis=2) / n_members**2

    def total_moments(
        self, quantity: Quantity, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> Floats:
        # Each pass's numbers lie next to each other, so that sums do not depend on how a head has them in memory.
        parts = self.marginal.moments(quantity.value, n_points, limits)
        mean, variance = (np.ascontiguousarray(part) for part in parts)
        epistemic = mean.std(axis=1)
        return np.stack([mean.mean(axis=1), np.sqrt(variance.mean(axis=1) + epistemic**2), epistemic])

    def on_host(self) -> Marginal:
        return self.marginal


def statistics_of(marginal: Marginal) -> PassStatistics:
    """Return the statistics over the passes of a marginal of any head."""
    return marginal if isinstance(marginal, PassStatistics) else _HostStatistics(marginal)
