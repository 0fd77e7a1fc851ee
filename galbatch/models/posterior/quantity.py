"""Quantities of the catalog: a parameter, or the magnitude derived from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from galbatch.core.types import ab_mag
from galbatch.models.metadata import ParameterInfo
from galbatch.models.posterior.marginal import Floats
from galbatch.models.posterior.transforms import from_output, log_slope, steepness

__all__ = ["Quantity", "quantities_of"]


@dataclass(frozen=True)
class Quantity:
    """A parameter, or the magnitude derived from a flux: each has columns in the catalog.

    Attributes
    ----------
    name : in the columns
    index : of the parameter
    parameter : its description
    is_magnitude : the quantity falls with the parameter
    """

    name: str
    index: int
    parameter: ParameterInfo
    is_magnitude: bool = False

    def value(self, output: Floats) -> Floats:
        """Return values in the quantity's unit, of standardized outputs of any shape."""
        value = from_output(output, self.parameter)
        return ab_mag(value) if self.is_magnitude else value

    def log_slope(self, output: Floats) -> Floats:
        """Return the logarithm of abs(d value / d output), of any shape."""
        slope = log_slope(output, self.parameter)
        if not self.is_magnitude:
            return slope
        with np.errstate(divide="ignore"):
            return slope + np.log(2.5 / np.log(10)) - np.log(from_output(output, self.parameter))

    @property
    def max_curvature(self) -> float:
        """The most that `log_slope` changes over a unit of the output; infinite: there is no such bound."""
        steepest = steepness(self.parameter)
        if not self.is_magnitude:
            return steepest
        return 0.0 if self.parameter.transform in ("ln", "log10") else np.inf

    @property
    def zero_output(self) -> float | None:
        """The output at which the flux of a magnitude is 0; None: no magnitude, or its flux is always positive."""
        parameter = self.parameter
        if not self.is_magnitude or parameter.transform != "identity":
            return None
        if parameter.limits is not None and parameter.limits[0] > 0:
            return None
        return -parameter.location / parameter.scale

    def levels(self, levels: Floats) -> Floats:
        """Return the parameter's levels at which it has the quantity's quantiles: 1 - q for a magnitude."""
        # Rounded, so that symmetric levels are the same numbers for both.
        return np.round(1.0 - levels, 12) if self.is_magnitude else levels


def quantities_of(parameters: Sequence[ParameterInfo]) -> list[Quantity]:
    """Return the parameters, each followed by the magnitude derived from it."""
    found = []
    for index, parameter in enumerate(parameters):
        found.append(Quantity(parameter.name, index, parameter))
        if parameter.magnitude is not None:
            found.append(Quantity(parameter.magnitude, index, parameter, is_magnitude=True))
    return found
