"""Outputs of passes that stay on a device, read as distributions there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from galbatch.models.heads.joint import OutputInfo, map_between
from galbatch.models.heads.widths import MAX_LOG_STD

if TYPE_CHECKING:
    from torch import Tensor

    from galbatch.models.posterior.devices.gaussian import DeviceGaussians

__all__ = ["passes_on_device", "reads_tensors"]


def reads_tensors(infos: Sequence[OutputInfo]) -> bool:
    """Return whether the outputs of all these networks can be read on a device: those of Gaussian heads."""
    return all(info.metadata.head.kind == "gaussian" for info in infos)


def passes_on_device(infos: Sequence[OutputInfo], outputs: Sequence[Tensor]) -> DeviceGaussians:
    """Return the pooled posterior of several bundles, in the first one's standardized space, as `pooled_passes` does on the host.

    Parameters
    ----------
    infos : facts about each bundle, all with a Gaussian head
    outputs : one tensor (object, pass, member x output) per bundle, finite, all with the same number of passes
    """
    first = infos[0].metadata
    parts = []
    for info, numbers in zip(infos, outputs, strict=True):
        passes = _read(numbers, info)
        if info.inflation_factors is not None:
            passes = passes.inflated(info.inflation_factors)
        if info is not infos[0]:
            passes = passes.affine(*map_between(info.metadata.parameters, first.parameters))
        parts.append(passes)
    return parts[0] if len(parts) == 1 else parts[0].join(parts[1:])


def _read(outputs: Tensor, info: OutputInfo) -> DeviceGaussians:
    """Return the distributions of one bundle, the passes of each member together, as `read_passes` and `read_gaussian` do."""
    import torch

    from galbatch.models.posterior.devices.gaussian import DeviceGaussians
    from galbatch.models.posterior.devices.transfer import index_to_device

    metadata = info.metadata
    n_objects, n_passes, n_numbers = outputs.shape
    split = outputs.double().reshape(n_objects, n_passes, metadata.members, n_numbers // metadata.members)
    if metadata.member_weights:
        # A member with several shares stands for as many members that are equal.
        shares = np.repeat(np.arange(metadata.members), metadata.member_weights)
        split = split.index_select(2, index_to_device(shares, split))
    members = split.shape[2]
    # (object, pass, member, output) to (object, member x pass, output): the passes of each member stay together.
    numbers = split.swapaxes(1, 2).reshape(n_objects, members * n_passes, split.shape[3])
    n = len(metadata.parameters)
    # L from its entries below the diagonal, a one and a zero: the number of the entry that stands in each of its cells.
    n_below = n * (n - 1) // 2
    cells = np.full((n, n), n_below + 1)
    cells[np.tril_indices(n, -1)] = np.arange(n_below)
    cells[np.diag_indices(n)] = n_below
    zero = torch.zeros_like(numbers[..., :1])
    entries = torch.cat([numbers[..., 2 * n :], zero + 1.0, zero], dim=2)
    lower = entries.index_select(2, index_to_device(cells.ravel(), entries))
    lower = lower.reshape(n_objects, members * n_passes, n, n)
    root_d = torch.exp((0.5 * numbers[..., n : 2 * n]).clamp(-MAX_LOG_STD, MAX_LOG_STD))
    return DeviceGaussians(numbers[..., :n], lower * root_d[..., None, :], members)
