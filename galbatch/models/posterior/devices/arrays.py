"""Outputs of passes as NumPy arrays in the host's memory, or as tensors on the device that computed them: the same steps for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from galbatch.models.posterior.devices.transfer import index_to_device, to_host

__all__ = [
    "PassArray",
    "finite_objects",
    "host_array",
    "join_arrays",
    "repeat_passes",
    "split_rows",
    "take_rows",
]

PassArray: TypeAlias = "npt.NDArray[Any] | Tensor"
"""An array whose first axes are objects and passes, in the host's memory or on a device."""


def host_array(values: PassArray) -> npt.NDArray[Any]:
    """Return the array in the host's memory."""
    return to_host(values) if isinstance(values, Tensor) else values


def join_arrays(parts: Sequence[PassArray], *, axis: int = 0) -> PassArray:
    """Return arrays, or tensors, joined along an axis."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if tensors:
        return torch.cat(tensors, dim=axis)
    return np.concatenate([part for part in parts if not isinstance(part, Tensor)], axis=axis)


def take_rows(values: PassArray, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> PassArray:
    """Return the objects, along the first axis, that are true in `rows` or have these indices."""
    if isinstance(values, Tensor):
        return values[index_to_device(rows, values)]
    return values[rows]


def split_rows(values: PassArray, ends: npt.NDArray[np.intp]) -> list[PassArray]:
    """Return the pieces of an array along its first axis, which are divided before the rows `ends`."""
    if isinstance(values, Tensor):
        return list(torch.tensor_split(values, ends.tolist()))
    return list(np.split(values, ends))


def repeat_passes(values: PassArray, n_passes: int) -> PassArray:
    """Return a view of (object, pass, output) with `n_passes` passes: that of a network without dropout repeats its single pass."""
    shape = (len(values), n_passes, values.shape[2])
    return values.expand(shape) if isinstance(values, Tensor) else np.broadcast_to(values, shape)


def finite_objects(values: PassArray) -> npt.NDArray[np.bool_]:
    """Return whether all outputs (object, pass, output) of an object are finite, (object,) bool."""
    if isinstance(values, Tensor):
        return to_host(torch.isfinite(values).all(dim=2).all(dim=1))
    return np.asarray(np.isfinite(values).all(axis=(1, 2)))
