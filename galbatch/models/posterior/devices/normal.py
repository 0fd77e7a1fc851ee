"""Normal distributions and their mixtures whose passes are tensors on a device: `NormalMarginal` for GPUs.

Points, brackets and what is found there are NumPy arrays (object, point): the search for quantiles and modes is the same as for
passes in the host's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from galbatch.models.posterior.devices.statistics import DEVICE_ELEMENTS_AT_ONCE, PassStatistics
from galbatch.models.posterior.devices.transfer import index_to_device, to_device, to_host
from galbatch.models.posterior.devices.values import values_on_device
from galbatch.models.posterior.marginal import GRID_POINTS, NO_LIMITS, Floats, Function, Rows
from galbatch.models.posterior.normal import (
    PEAKS,
    REACH,
    ROOT_2PI,
    NormalMarginal,
    hermite_nodes,
    legendre_nodes,
    normal_bracket,
)
from galbatch.models.posterior.quantiles import solve_quantiles
from galbatch.models.posterior.quantity import Quantity

__all__ = ["DeviceNormals"]


@dataclass(frozen=True)
class DeviceNormals(PassStatistics):
    """Normal distributions, or mixtures of them, for each object and pass, on a device.

    Attributes
    ----------
    center, width : (object, pass, component) float64: mean and standard deviation of each component
    weight : (object, pass, component) float64, summing to 1 over the components; None for a single component
    n_members : number of networks, as in `Marginal`
    """

    center: Tensor
    width: Tensor
    weight: Tensor | None = None
    n_members: int = 1

    is_smooth = True
    elements_at_once = DEVICE_ELEMENTS_AT_ONCE

    @property
    def shape(self) -> tuple[int, int]:
        return self.center.shape[0], self.center.shape[1]

    def on_host(self) -> NormalMarginal:
        weight = None if self.weight is None else to_host(self.weight)
        return NormalMarginal(to_host(self.center), to_host(self.width), weight, self.n_members)

    @property
    def mean(self) -> Floats:
        return self.on_host().mean

    @property
    def std(self) -> Floats:
        return self.on_host().std

    def cdf(self, x: Floats) -> Floats:
        return self.on_host().cdf(x)

    def moments(
        self, function: Function, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> tuple[Floats, Floats]:
        return self.on_host().moments(function, n_points, limits)

    def _averaged(self, values: Tensor) -> Tensor:
        """Return the mean over the components, the last axis of (object, pass, component)."""
        return values[..., 0] if self.weight is None else (self.weight * values).sum(dim=-1)

    @cached_property
    def _ranges(self) -> Floats:
        """The lowest and the highest center, the smallest and the largest width, mean and standard deviation: (6, object)."""
        mean = self._averaged(self.center)
        variance = self._averaged(torch.square(self.width) + torch.square(self.center - mean[..., None]))
        found = [
            *(self.center.amin(dim=(1, 2)), self.center.amax(dim=(1, 2))),
            *(self.width.amin(dim=(1, 2)), self.width.amax(dim=(1, 2))),
            mean.mean(dim=1),
            torch.sqrt(variance.mean(dim=1) + mean.var(dim=1, correction=0)),
        ]
        # Together, so that the device is waited for once.
        return to_host(torch.stack(found))

    def component_range(self) -> tuple[Floats, Floats]:
        return self._ranges[0], self._ranges[1]

    @property
    def min_sigma(self) -> Floats:
        return self._ranges[2]

    @property
    def max_sigma(self) -> Floats:
        return self._ranges[3]

    def average(self) -> Floats:
        return self._ranges[4]

    def total_std(self) -> Floats:
        return self._ranges[5]

    def bracket(self, levels: Floats) -> tuple[Floats, Floats]:
        return normal_bracket(self, levels)

    def quantiles(self, levels: Floats) -> Floats:
        return solve_quantiles(self, levels)

    @cached_property
    def _components(self) -> tuple[Tensor, Tensor, Tensor]:
        """The centers, inverse widths and weights, (object, pass x component) each, of the mixture over the passes."""
        n_objects, n_passes = self.shape
        share = torch.ones_like(self.center) if self.weight is None else self.weight
        parts = (self.center, 1.0 / self.width, share / n_passes)
        center, inverse, share = (part.reshape(n_objects, -1) for part in parts)
        return center, inverse, share

    def _scores(self, x: Floats) -> Tensor:
        """Return standard scores (object, point, pass x component)."""
        center, inverse, _ = self._components
        return (to_device(x, center)[:, :, None] - center[:, None]) * inverse[:, None]

    def density(self, x: Floats) -> Floats:
        _, inverse, share = self._components
        return to_host(_weighted(_unit_normal(self._scores(x)), share * inverse) / ROOT_2PI)

    def cdf_pdf_slope(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        _, inverse, share = self._components
        z = self._scores(x)
        normal = _unit_normal(z)
        found = [
            _weighted(torch.special.ndtr(z), share),
            _weighted(normal, share * inverse) / ROOT_2PI,
            _weighted(normal * z, share * torch.square(inverse)) / -ROOT_2PI,
        ]
        cdf, density, slope = to_host(torch.stack(found))
        return cdf, density, slope

    def mean_cdf(self, x: Floats) -> Floats:
        return to_host(_weighted(torch.special.ndtr(self._scores(x)), self._components[2]))

    def cdf_scatter(self, x: Floats) -> Floats:
        below = torch.special.ndtr(self._scores(x))  # (object, point, pass x component)
        below = below.reshape(*below.shape[:2], *self.center.shape[1:])
        below = below[..., 0] if self.weight is None else (below * self.weight[:, None]).sum(dim=-1)
        # (object, point, member, pass of the member)
        members = below.reshape(*below.shape[:2], self.n_members, -1)
        return to_host(members.var(dim=-1, correction=0) / self.n_members**2)

    def total_moments(
        self, quantity: Quantity, n_points: int, limits: tuple[float, float] = NO_LIMITS
    ) -> Floats:
        find = self._moments if limits == NO_LIMITS else self._moments_within
        means, variances = find(quantity, n_points, limits)  # (object, pass, component)
        mean = self._averaged(means)
        variance = self._averaged(variances + torch.square(means - mean[..., None]))
        epistemic = mean.std(dim=1, correction=0)
        total = torch.sqrt(variance.mean(dim=1) + torch.square(epistemic))
        return to_host(torch.stack([mean.mean(dim=1), total, epistemic]))

    def _moments(
        self, quantity: Quantity, n_points: int, limits: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each component, by Gauss-Hermite quadrature; there are no limits."""
        nodes, weights = (to_device(part, self.center) for part in hermite_nodes(n_points))
        values = values_on_device(self.center + nodes[:, None, None, None] * self.width, quantity)
        means = torch.tensordot(weights, values, 1)
        return means, torch.tensordot(weights, torch.square(values - means), 1)

    def _moments_within(
        self, quantity: Quantity, n_points: int, limits: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each component of a value that is constant beyond `limits`, as `NormalMarginal` finds them."""
        low, high = limits
        below = torch.special.ndtr((low - self.center) / self.width)
        above = torch.special.ndtr((self.center - high) / self.width)
        start = (self.center - REACH * self.width).clamp(low, high)
        stop = (self.center + REACH * self.width).clamp(low, high)
        nodes, weights = (
            to_device(part, self.center)[:, None, None, None] for part in legendre_nodes(n_points)
        )
        x = 0.5 * (start + stop) + 0.5 * (stop - start) * nodes
        share = _unit_normal((x - self.center) / self.width) * weights
        total = share.sum(dim=0)
        within = (1.0 - below - above).clamp(min=0.0)
        share = share * torch.where(total > 0, within / total, 0.0)
        ends = to_device(limits, self.center)[:, None, None, None, None]
        values = [values_on_device(part, quantity) for part in (x, *ends)]
        shares = [share, below[None], above[None]]

        def averaged(powers: list[Tensor]) -> Tensor:
            # An atom without probability counts nothing, also where the value is infinite there.
            parts = [
                torch.where(mass > 0, mass * value, 0.0) for value, mass in zip(powers, shares, strict=True)
            ]
            return torch.cat(parts).sum(dim=0)

        means = averaged(values)
        return means, averaged([torch.square(value - means) for value in values])

    def mode_grid(self, ends: Floats) -> Floats:
        n_objects = len(self.center)
        even = np.linspace(ends[:, 0], ends[:, 1], GRID_POINTS, axis=1)
        peak = ((1.0 if self.weight is None else self.weight) / self.width).reshape(n_objects, -1)
        highest = torch.argsort(peak, dim=1, descending=True, stable=True)[:, :PEAKS]
        peaks = to_host(torch.take_along_dim(self.center.reshape(n_objects, -1), highest, dim=1))
        return np.sort(np.concatenate([even, np.clip(peaks, ends[:, :1], ends[:, 1:])], axis=1), axis=1)

    def numbers_per_pass(self, n_points: int) -> int:
        return int(self.center.shape[2]) * n_points

    def rows(self, index: Rows) -> DeviceNormals:
        some = index if isinstance(index, slice) else index_to_device(index, self.center)
        weight = None if self.weight is None else self.weight[some]
        return DeviceNormals(self.center[some], self.width[some], weight, self.n_members)


def _unit_normal(z: Tensor) -> Tensor:
    """Return exp(-z^2 / 2)."""
    return torch.exp(torch.square(z) * -0.5)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Return the sums (object, point) over the components of (object, point, component), with weights (object, component)."""
    return (values @ weights[..., None])[..., 0]
