"""The passes of Gaussian heads as tensors on a device: `Passes` for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from galbatch.models.posterior.devices.normal import DeviceNormals
from galbatch.models.posterior.devices.transfer import to_device, to_host
from galbatch.models.posterior.marginal import Floats
from galbatch.models.posterior.passes import for_passes

__all__ = ["DeviceGaussians"]


@dataclass(frozen=True)
class DeviceGaussians:
    """A normal distribution for each object and pass, on a device.

    Attributes
    ----------
    center : (object, pass, parameter) float64
    factor : (object, pass, parameter, parameter) float64, lower triangular, with covariance = factor factor^T
    n_members : number of networks, as in `Passes`
    """

    center: Tensor
    factor: Tensor
    n_members: int = 1

    is_point = False

    @property
    def mean(self) -> Floats:
        return to_host(self.center)

    def marginal(self, index: int) -> DeviceNormals:
        width = torch.sqrt(torch.square(self.factor[..., index, :]).sum(dim=-1))
        return DeviceNormals(self.center[..., index, None], width[..., None], n_members=self.n_members)

    def _within(self) -> Tensor:
        n_passes = self.factor.shape[1]
        return torch.einsum("otik,otjk->oij", self.factor, self.factor) / n_passes

    def within(self) -> Floats:
        return to_host(self._within())

    def covariance(self) -> Floats:
        apart = self.center - self.center.mean(dim=1, keepdim=True)
        between = torch.einsum("oti,otj->oij", apart, apart) / apart.shape[1]
        return to_host(self._within() + between)

    def draws(self, keys: npt.NDArray[np.int64]) -> Floats:
        raise NotImplementedError("draws are made from passes in the host's memory")

    def affine(self, scale: Floats, shift: Floats) -> DeviceGaussians:
        return self._mapped(to_device(scale, self.center), to_device(for_passes(shift), self.center))

    def inflated(self, factors: npt.ArrayLike) -> DeviceGaussians:
        scale = to_device(factors, self.center)
        return self._mapped(scale, (1.0 - scale) * self.center.mean(dim=1, keepdim=True))

    def _mapped(self, scale: Tensor, shift: Tensor) -> DeviceGaussians:
        """Return the distributions of scale x + shift, with scale (parameter,) and shift (object or 1, 1, parameter)."""
        return replace(self, center=self.center * scale + shift, factor=self.factor * scale[:, None])

    def join(self, others: Sequence[DeviceGaussians]) -> DeviceGaussians:
        """Return the passes of several bundles in one standardized space, joined along the passes."""
        parts = [self, *others]
        return DeviceGaussians(
            torch.cat([part.center for part in parts], dim=1),
            torch.cat([part.factor for part in parts], dim=1),
            sum(part.n_members for part in parts),
        )
