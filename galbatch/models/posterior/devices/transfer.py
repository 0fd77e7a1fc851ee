"""The way between NumPy arrays and tensors on a device: all copies of posteriors go through here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["index_to_device", "to_device", "to_host"]


def to_device(values: npt.ArrayLike, like: Tensor) -> Tensor:
    """Return float64 values as a tensor on the device of another one."""
    return torch.from_numpy(np.array(values, dtype=np.float64)).to(like.device)


def index_to_device(index: npt.NDArray[np.integer] | npt.NDArray[np.bool_], like: Tensor) -> Tensor:
    """Return indices, or which are taken, as a tensor on the device of another one."""
    return torch.from_numpy(index).to(like.device)


def to_host(values: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array in the host's memory; it waits until the device has computed it."""
    return np.asarray(values.cpu().numpy())
