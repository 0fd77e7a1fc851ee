"""Posteriors on a grid of bins, in physical units."""

from __future__ import annotations

import numpy as np

from galbatch.models.posterior.devices import statistics_of
from galbatch.models.posterior.marginal import Floats, Marginal
from galbatch.models.posterior.quantiles import parts_of
from galbatch.models.posterior.quantity import Quantity
from galbatch.models.posterior.transforms import output_limits, to_output

__all__ = ["gridded_mass"]


def gridded_mass(marginal: Marginal, quantity: Quantity, edges: Floats) -> Floats:
    """Return the probability of the mixture over the passes within each bin, (object, bin) float64.

    Probability that is clamped to a limit of the parameter lies at the limit: in the bin above the lower one, which begins
    there, and in the bin below the upper one.

    Parameters
    ----------
    marginal : distributions of the parameter, standardized
    quantity : the parameter
    edges : (bin + 1,) float64, rising, in the quantity's unit
    """
    parameter = quantity.parameter
    output = to_output(edges, parameter)
    low, high = output_limits(parameter)
    # Below the least value that a logarithm or a logit has, there is nothing: -inf at 0, NaN below it.
    nothing = np.isnan(output) | (output <= low) | (output == -np.inf)
    everything = (output >= high) | (output == np.inf)
    finite = np.where(nothing | everything, 0.0, output)
    found = np.empty((statistics_of(marginal).shape[0], len(edges) - 1))
    for rows, part in parts_of(marginal, len(edges)):
        statistics = statistics_of(part)
        cdf = statistics.mean_cdf(np.broadcast_to(finite, (statistics.shape[0], len(edges))))
        cdf[:, nothing], cdf[:, everything] = 0.0, 1.0
        found[rows] = np.diff(cdf, axis=1)
    return found
