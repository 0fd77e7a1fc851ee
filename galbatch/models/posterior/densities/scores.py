"""Scores of densities at true values: logarithmic, CRPS, and the integral of the squared density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from galbatch.models.posterior.marginal import Floats, Marginal
from galbatch.models.posterior.passes import Passes
from galbatch.models.posterior.quantiles import parts_of
from galbatch.models.posterior.quantity import Quantity
from galbatch.models.posterior.transforms import to_output

__all__ = ["DensityScores", "density_scores", "log_densities"]

# Midpoints of as many equal steps of probability: the integral of a normal density's square is right to 2e-5, the CRPS to 1e-5
# of the width, both of a histogram to about 1 / 256 of the largest step between its bins.
N_LEVELS = 256


@dataclass(frozen=True, eq=False)
class DensityScores:
    """Scores of densities at true values, in the quantity's unit.

    Attributes
    ----------
    log_density : (object,) float64, natural logarithm of the density at the truth; -inf where it is 0, NaN for point heads, which
        have no density
    square_integral : (object,) float64, integral of the squared density; NaN for point heads
    crps : (object,) float64, continuous ranked probability score
    """

    log_density: Floats
    square_integral: Floats
    crps: Floats


def log_densities(passes: Passes, quantity: Quantity, truth: Floats) -> Floats:
    """Return ln of the density of the mixture over the passes at true values, (object,); NaN for point heads.

    The density is that before values are clamped to the parameter's limits, per unit of the quantity.
    """
    if passes.is_point:
        return np.full(len(truth), np.nan)
    output = to_output(truth, quantity.parameter)[:, None]
    with np.errstate(divide="ignore"):
        found = np.log(passes.marginal(quantity.index).density(output)) - quantity.log_slope(output)
    return np.asarray(found[:, 0])


def density_scores(passes: Passes, quantity: Quantity, truth: Floats) -> DensityScores:
    """Return the scores of the mixture over the passes at true values.

    Both integrals are means over the posterior's quantiles at equal steps of probability: that of the squared density is the mean of
    the density itself, and the CRPS twice the mean pinball loss (Gneiting & Ranjan 2011, JBES 29, 411).

    Parameters
    ----------
    passes : joint distributions of each object and pass
    quantity : a parameter, whose density is meant
    truth : (object,) float64, in the quantity's unit
    """
    levels = (np.arange(N_LEVELS) + 0.5) / N_LEVELS
    square_integral, crps = np.full((2, len(truth)), np.nan)
    for rows, part in parts_of(passes.marginal(quantity.index), N_LEVELS):
        output = part.quantiles(levels)  # (object, level)
        values = quantity.value(output)
        difference = truth[rows][:, None] - values
        crps[rows] = 2.0 * np.mean((levels - (difference < 0)) * difference, axis=1)
        if not passes.is_point:
            square_integral[rows] = _mean_density(part, quantity, output)
    return DensityScores(log_densities(passes, quantity, truth), square_integral, crps)


def _mean_density(marginal: Marginal, quantity: Quantity, output: Floats) -> Floats:
    """Return the mean density (object,), per unit of the quantity, at standardized values (object, level)."""
    return np.asarray((marginal.density(output) * np.exp(-quantity.log_slope(output))).mean(axis=1))
