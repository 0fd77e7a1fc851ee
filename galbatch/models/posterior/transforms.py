"""Between a parameter's physical values and what a network puts out.

output = (transform(value) - location) / scale; all transforms rise, so quantiles map to quantiles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from galbatch.models.metadata import ParameterInfo

__all__ = ["fitted", "from_output", "log_slope", "output_limits", "steepness", "to_output"]

Floats = npt.NDArray[np.float64]

ROUND_OFF = 1e-9


def transformed(values: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return physical values transformed, clamped to the parameter's limits, without standardizing them."""
    clamped: Floats = np.asarray(values, dtype=np.float64)
    if parameter.limits is not None:
        clamped = np.clip(clamped, *parameter.limits)
    with np.errstate(divide="ignore", invalid="ignore"):
        if parameter.transform == "logit":
            return np.asarray(logit(clamped))
        if parameter.transform == "ln":
            return np.asarray(np.log(clamped))
        if parameter.transform == "log10":
            return np.asarray(np.log10(clamped))
    return clamped


def to_output(values: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return physical values, any shape, as the network puts them out; clamped to the limits; NaN where undefined."""
    return (transformed(values, parameter) - parameter.location) / parameter.scale


def from_output(output: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return the physical values, any shape, of a network's output. Logit: exactly 0 or 1 at or beyond the limits."""
    y = np.asarray(output, dtype=np.float64) * parameter.scale + parameter.location
    with np.errstate(over="ignore", under="ignore"):
        if parameter.transform == "logit":
            values = np.asarray(expit(y))
        elif parameter.transform == "ln":
            values = np.exp(y)
        elif parameter.transform == "log10":
            values = np.asarray(10.0**y)
        else:
            values = y
    if parameter.limits is None:
        return np.asarray(values)
    low, high = parameter.limits
    if parameter.transform == "logit":
        # Rounding on the way to a limit and back must not leave a value just inside.
        at_low, at_high = values <= low * (1 + ROUND_OFF), 1 - values <= (1 - high) * (1 + ROUND_OFF)
        values = np.array(values)
        values[at_low], values[at_high] = 0.0, 1.0
        return values
    return np.asarray(np.clip(values, low, high))


def log_slope(output: npt.ArrayLike, parameter: ParameterInfo) -> Floats:
    """Return the logarithm of d value / d output, of any shape: the Jacobian of densities in physical units."""
    y = np.asarray(output, dtype=np.float64) * parameter.scale + parameter.location
    constant = np.log(parameter.scale)
    if parameter.transform == "logit":
        return np.asarray(-np.logaddexp(0.0, y) - np.logaddexp(0.0, -y) + constant)
    if parameter.transform == "ln":
        return np.asarray(y + constant)
    if parameter.transform == "log10":
        return np.asarray(y * np.log(10.0) + np.log(np.log(10.0)) + constant)
    return np.full_like(y, constant)


def steepness(parameter: ParameterInfo) -> float:
    """Return how much the natural logarithm of the value, or of its odds, changes over a unit of the output at most.

    0 for identity.
    """
    factors = {"logit": 1.0, "ln": 1.0, "log10": np.log(10.0), "identity": 0.0}
    return float(parameter.scale * factors[parameter.transform])


def output_limits(parameter: ParameterInfo) -> tuple[float, float]:
    """Return the limits as outputs; infinite where there are none."""
    if parameter.limits is None:
        return -np.inf, np.inf
    low, high = to_output(parameter.limits, parameter)
    return float(low), float(high)


def fitted(parameter: ParameterInfo, values: npt.ArrayLike) -> tuple[float, float, tuple[float, float]]:
    """Return location, scale and range of a training set's values (object,), in physical units.

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
