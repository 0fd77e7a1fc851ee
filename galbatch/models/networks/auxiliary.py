"""Auxiliary inputs: numbers per object, such as E(B-V), that join a network's features before its first linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = [
    "AUXILIARY_MODULES",
    "AuxiliaryInputs",
    "NoAuxiliaryInputs",
    "auxiliary_module",
    "current_weight_name",
    "prefix_arguments",
]

AUXILIARY_MODULES = ("AuxiliaryInputs", "NoAuxiliaryInputs", "Beside", "NothingBeside")
"""Names of the two classes below inside scripts; the last two are their former names, which older bundles hold."""


def auxiliary_module(n_auxiliary: int) -> AuxiliaryInputs | NoAuxiliaryInputs:
    """Return the module that carries `n_auxiliary` numbers per object from `prefix` to `sample`; for 0 one without weights."""
    return AuxiliaryInputs(n_auxiliary) if n_auxiliary else NoAuxiliaryInputs()


def prefix_arguments(images: Tensor, auxiliary: Tensor | None) -> tuple[Tensor, ...]:
    """Return the arguments of a network's `prefix`: the images, unless they have no band, and the auxiliary inputs, if any.

    Parameters
    ----------
    images : (object, band, y, x) float32; without bands for a network that takes columns alone
    auxiliary : (object, number) float32; None for a network that takes none
    """
    given = images if images.shape[1] else None
    return tuple(part for part in (given, auxiliary) if part is not None)


def current_weight_name(name: str) -> str:
    """Return today's name of a weight or buffer of a bundle's script; older bundles have ``beside.`` for ``auxiliary.``."""
    return name.replace("beside.", "auxiliary.", 1) if name.startswith("beside.") else name


class AuxiliaryInputs(nn.Module):
    """A module that carries the auxiliary inputs from `prefix` to `sample` as constant maps after the feature maps.

    In this way `sample` has the same arguments for networks with and without auxiliary inputs.

    Parameters
    ----------
    n_auxiliary : number of auxiliary inputs per object
    """

    def __init__(self, n_auxiliary: int) -> None:
        super().__init__()
        self.n_auxiliary = n_auxiliary
        # Filled in from the training set, so that the first linear layer sees numbers of order 1.
        self.mean = nn.Buffer(torch.zeros(n_auxiliary))
        self.std = nn.Buffer(torch.ones(n_auxiliary))

    def standardized(self, auxiliary: Tensor) -> Tensor:
        """Return auxiliary inputs (object, n) less the mean of the training set, in units of its standard deviation."""
        return (auxiliary - self.mean) / self.std

    def attach(self, features: Tensor, auxiliary: Tensor | None) -> Tensor:
        """Join features (object, channel, y, x) and auxiliary inputs (object, n) to (object, channel + n, y, x)."""
        if auxiliary is None:
            raise ValueError("this network takes auxiliary inputs with the images")
        standard = self.standardized(auxiliary).unsqueeze(2).unsqueeze(3)  # (object, n, 1, 1)
        maps = standard.expand(-1, -1, features.shape[2], features.shape[3])
        return torch.cat([features, maps], dim=1)

    def maps(self, features: Tensor) -> Tensor:
        """Return the feature maps without the auxiliary inputs, (row, channel, y, x)."""
        return features[:, : features.shape[1] - self.n_auxiliary]

    def join(self, last: Tensor, features: Tensor) -> Tensor:
        """Join the last features (row, feature) and the auxiliary inputs that `features` carry to (row, feature + n)."""
        # Any pixel of the constant maps holds the number.
        return torch.cat([last, features[:, features.shape[1] - self.n_auxiliary :, 0, 0]], dim=1)


class NoAuxiliaryInputs(nn.Module):
    """The module in the place of `AuxiliaryInputs` in networks without auxiliary inputs. It changes nothing."""

    def attach(self, features: Tensor, auxiliary: Tensor | None) -> Tensor:
        """Return the features."""
        return features

    def maps(self, features: Tensor) -> Tensor:
        """Return the features."""
        return features

    def join(self, last: Tensor, features: Tensor) -> Tensor:
        """Return the last features."""
        return last
