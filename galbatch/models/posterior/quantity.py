"""Quantities of the catalog: the parameters, and the magnitudes derived from them."""

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
    """A parameter, or the AB magnitude derived from a flux. Each quantity has its own columns in the catalog.

    Attributes
    ----------
    name : name of the quantity in the columns
    index : index of the parameter among those of the network
    parameter : the parameter, or the flux from which the magnitude is derived
    is_magnitude : whether it is a magnitude, which decreases with the flux
    """

    name: str
    index: int
    parameter: ParameterInfo
    is_magnitude: bool = False

    @property
    def unit(self) -> str:
        """Unit of the values in the VOUnits syntax, "" for none."""
        return "mag" if self.is_magnitude else self.parameter.unit

    def value(self, output: Floats) -> Floats:
        """Return values in the quantity's unit, from standardized values of any shape."""
        value = from_output(output, self.parameter)
        return ab_mag(value) if self.is_magnitude else value

    def log_slope(self, output: Floats) -> Floats:
        """Return ln |d value / d output|, the logarithm of the Jacobian, for standardized outputs of any shape."""
        slope = log_slope(output, self.parameter)
        if not self.is_magnitude:
            return slope
        # |dm / df| = 2.5 / (ln 10 f). A flux of 0 has an infinite magnitude.
        with np.errstate(divide="ignore"):
            return slope + np.log(2.5 / np.log(10)) - np.log(from_output(output, self.parameter))

    @property
    def max_curvature(self) -> float:
        """The largest change of `log_slope` over one unit of the standardized output; infinite where it has no bound."""
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
        """Return the levels of the parameter's quantiles that are the quantity's quantiles at `levels`: 1 - q for a magnitude."""
        # Rounded, so that symmetric levels are the same numbers for flux and magnitude, and are solved once.
        return np.round(1.0 - levels, 12) if self.is_magnitude else levels


def quantities_of(parameters: Sequence[ParameterInfo]) -> list[Quantity]:
    """Return the quantities of a network in the catalog's order: each parameter, followed by the magnitude derived from it."""
    found = []
    for index, parameter in enumerate(parameters):
        found.append(Quantity(parameter.name, index, parameter))
        if parameter.magnitude is not None:
            found.append(Quantity(parameter.magnitude, index, parameter, is_magnitude=True))
    return found
