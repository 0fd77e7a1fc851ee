"""Values of quantities in their units, on a device: `Quantity.value` for tensors."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from galbatch.core.types import AB_ZERO_POINT_NJY
from galbatch.models.metadata import ParameterInfo
from galbatch.models.posterior.quantity import Quantity
from galbatch.models.posterior.transforms import ROUND_OFF

__all__ = ["values_on_device"]


def values_on_device(output: Tensor, quantity: Quantity) -> Tensor:
    """Return values in the quantity's unit, from standardized values, a float64 tensor of any shape."""
    found = _physical(output, quantity.parameter)
    if not quantity.is_magnitude:
        return found
    # A flux of 0 or less has no magnitude.
    return AB_ZERO_POINT_NJY - 2.5 * torch.log10(torch.where(found > 0, found, torch.nan))


def _physical(output: Tensor, parameter: ParameterInfo) -> Tensor:
    """Return the physical values of standardized outputs, within the parameter's limits."""
    y = output * parameter.scale + parameter.location
    if parameter.transform == "logit":
        values = torch.special.expit(y)
    elif parameter.transform == "ln":
        values = torch.exp(y)
    elif parameter.transform == "log10":
        values = torch.pow(10.0, y)
    elif parameter.transform == "identity":
        values = y
    else:
        assert_never(parameter.transform)
    if parameter.limits is None:
        return values
    low, high = parameter.limits
    if parameter.transform == "logit":
        # Rounding on the way to a limit and back must not leave a value just inside.
        values = torch.where(values <= low * (1 + ROUND_OFF), 0.0, values)
        return torch.where(1 - values <= (1 - high) * (1 + ROUND_OFF), 1.0, values)
    return values.clamp(low, high)
