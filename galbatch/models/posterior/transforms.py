"""Transforms between physical values of a parameter and the standardized values that a network estimates.

output = (transform(value) - location) / scale. All transforms rise, so quantiles are mapped to quantiles.
"""

from __future__ import annotations

from typing import assert_never

import numpy as np
import numpy.typing as npt
import scipy

from galbatch.models.metadata import ParameterInfo

__all__ = ["ROUND_OFF", "fitted", "from_output", "log_slope", "output_limits", "steepness", "to_output"]

Floats = npt.NDArray[np.float64]

ROUND_OFF = 1e-9  # The relative distance from a limit of logit within which a value counts as at the limit.


def transformed(values: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return the transform of physical values of any shape, after clamping them to the parameter's limits; not standardized."""
    clamped: Floats = np.asarray(values, dtype=np.float64)
    if parameter.limits is not None:
        clamped = np.clip(clamped, *parameter.limits)
    with np.errstate(divide="ignore", invalid="ignore"):
        if parameter.transform == "logit":
            return np.asarray(scipy.special.logit(clamped))
        if parameter.transform == "ln":
            return np.asarray(np.log(clamped))
        if parameter.transform == "log10":
            return np.asarray(np.log10(clamped))
        if parameter.transform == "identity":
            return clamped
    assert_never(parameter.transform)


def to_output(values: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return the standardized values of physical values, which are clamped to the parameter's limits before.

    Parameters
    ----------
    values : array of any shape, in the parameter's unit
    parameter : transform, limits, location and scale

    Returns
    -------
    float64 array of that shape; NaN where the transform is undefined, infinite at 0 for logarithms
    """
    return (transformed(values, parameter) - parameter.location) / parameter.scale


def from_output(output: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return the physical values of standardized outputs.

    Parameters
    ----------
    output : array of any shape, standardized
    parameter : transform, limits, location and scale

    Returns
    -------
    float64 array of that shape, in the parameter's unit and within its limits; with logit exactly 0 or 1 at or beyond these
    """
    y = np.asarray(np.asarray(output, dtype=np.float64) * parameter.scale + parameter.location)
    with np.errstate(over="ignore", under="ignore"):
        if parameter.transform == "logit":
            # 1 / (1 + exp(-y)) in place: scipy's expit takes four times as long.
            values = np.exp(np.negative(y, out=y), out=y)
            values += 1.0
            np.divide(1.0, values, out=values)
        elif parameter.transform == "ln":
            values = np.exp(y)
        elif parameter.transform == "log10":
            values = np.asarray(10.0**y)
        elif parameter.transform == "identity":
            values = y
        else:
            assert_never(parameter.transform)
    if parameter.limits is None:
        return np.asarray(values)
    low, high = parameter.limits
    if parameter.transform == "logit":
        # Rounding on the way to a limit and back must not leave a value just inside.
        first, last = low * (1 + ROUND_OFF), (1 - high) * (1 + ROUND_OFF)
        # Most arrays are many points of a quadrature, all between the limits.
        if values.size and values.min() > first and 1 - values.max() > last:
            return values
        at_low, at_high = values <= first, 1 - values <= last
        values = np.array(values)
        values[at_low], values[at_high] = 0.0, 1.0
        return values
    return np.asarray(np.clip(values, low, high))


def log_slope(output: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return ln(d value / d output) at standardized outputs of any shape: the Jacobian of densities in physical units."""
    y = np.asarray(output, dtype=np.float64) * parameter.scale + parameter.location
    constant = np.log(parameter.scale)
    if parameter.transform == "logit":
        # The derivative of expit is expit(y) expit(-y), whose product underflows long before its logarithm.
        return np.asarray(-np.logaddexp(0.0, y) - np.logaddexp(0.0, -y) + constant)
    if parameter.transform == "ln":
        return np.asarray(y + constant)
    if parameter.transform == "log10":
        return np.asarray(y * np.log(10.0) + np.log(np.log(10.0)) + constant)
    if parameter.transform == "identity":
        return np.full_like(y, constant)
    assert_never(parameter.transform)


def steepness(parameter: ParameterInfo) -> float:
    """Return the change of ln(value), or with logit of ln(value / (1 - value)), over one unit of the output; 0 for identity."""
    factors = {"logit": 1.0, "ln": 1.0, "log10": np.log(10.0), "identity": 0.0}
    return float(parameter.scale * factors[parameter.transform])


def output_limits(parameter: ParameterInfo) -> tuple[float, float]:
    """Return the parameter's limits as standardized outputs; infinite where there are none."""
    if parameter.limits is None:
        return -np.inf, np.inf
    low, high = to_output(parameter.limits, parameter)
    return float(low), float(high)


def fitted(parameter: ParameterInfo, values: npt.ArrayLike) -> tuple[float, float, tuple[float, float]]:
    """Return location, scale, and (smallest, largest) of a training set's physical values (object,).

    Raises
    ------
    ValueError
        A value has no finite transform, or all values are equal.
    """
    values = np.asarray(values, dtype=np.float64)
    y = transformed(values, parameter)
    if not np.isfinite(y).all():
        n_bad = int((~np.isfinite(y)).sum())
        raise ValueError(f"parameter {parameter.name}: {n_bad} training values have no {parameter.transform}")
    scale = float(y.std())
    if scale == 0:
        raise ValueError(
            f"parameter {parameter.name}: all training values are equal; there is nothing to learn"
        )
    return float(y.mean()), scale, (float(values.min()), float(values.max()))
