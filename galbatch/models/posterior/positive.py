"""Mean and standard deviation of a magnitude where a part of the flux's posterior is zero or negative.

A flux with transform ``identity`` may come out near or below zero, where it has no magnitude. As long as the share of the
posterior that is not positive is small, mean and standard deviation of the magnitude are those of the positive part. Where
it is not small, the magnitude has no values, and the flux keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from galbatch.core.types import ab_mag
from galbatch.models.posterior.marginal import Floats, Marginal
from galbatch.models.posterior.quantiles import parts_of
from galbatch.models.posterior.quantity import Quantity
from galbatch.models.posterior.transforms import output_limits

__all__ = ["MOST_NOT_POSITIVE", "PositivePart", "positive_part"]

MOST_NOT_POSITIVE = 0.02275
"""The largest share of a flux's posterior that may be zero or negative: a flux of less than 2 sigma has no magnitude."""

MAG_PER_LN = 2.5 / np.log(10.0)
HERMITE_POINTS = 40
# The integral goes over t = ln(flux / highest flux). A normal distribution that reaches the farthest of 40 Gauss-Hermite
# nodes, 11.5 sigma below its mean, is 0.087 wide in t or wider: at this step the trapezoid rule is exact to rounding.
STEP = 0.04
# The density hardly changes at fluxes that small: the share below exp(-25) = 1e-11 of the highest flux is as small.
LOWEST = -25.0
BEYOND = 1e-15  # the share of the posterior above the highest flux


@dataclass(frozen=True)
class PositivePart:
    """The moments of a magnitude over the part of a posterior with positive flux, all (object,) float64.

    Attributes
    ----------
    not_positive : share of the posterior at fluxes of 0 and below, 0 to 1
    mean, std : mean and standard deviation of the magnitude, mag
    epistemic_std : standard deviation of the passes' means, each weighted with the pass's positive share, mag

    A value that is not finite comes from outputs of the network that are not.
    """

    not_positive: Floats
    mean: Floats
    std: Floats
    epistemic_std: Floats


def positive_part(marginal: Marginal, quantity: Quantity) -> PositivePart:
    """Return the moments of a magnitude whose flux can be 0, over the positive part of its posterior.

    Each pass is weighted with its own positive share: std^2 = weighted mean of the passes' variances + epistemic_std^2.

    Parameters
    ----------
    marginal : the flux's posterior, standardized, of each pass
    quantity : the magnitude, which knows the flux's scale and which standardized value is a flux of 0
    """
    grid = np.arange(LOWEST, 0.5 * STEP, STEP)
    shape = marginal.mean.shape
    share, mean, variance = np.empty((3, *shape))
    # Where the network's numbers are not finite, nor are these; the object is flagged for it.
    with np.errstate(all="ignore"):
        for rows, part in parts_of(marginal, len(grid)):
            share[rows], mean[rows], variance[rows] = _of_each_pass(part, quantity, grid)
        total = share.sum(axis=1)
        weight = share / total[:, None]
        center = (weight * mean).sum(axis=1)
        epistemic = (weight * np.square(mean - center[:, None])).sum(axis=1)
        within = (weight * variance).sum(axis=1)
    return PositivePart(1.0 - total / shape[1], center, np.sqrt(within + epistemic), np.sqrt(epistemic))


def _of_each_pass(marginal: Marginal, quantity: Quantity, grid: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the positive share of each pass, and mean and variance of the magnitude there; all (object, pass).

    With t = ln(flux / highest flux), at most 0, and G(t) the CDF of the positive part, integration by parts gives
    E[t] = -integral of G and E[t^2] = -2 x integral of t G. So all that is needed of a head is its CDF. `grid` (t,) are the
    values at which G is taken.
    """
    zero = np.full((len(marginal.mean), 1), quantity.zero_output)
    below = marginal.cdf(zero)
    share = 1.0 - below[..., 0]
    # Values beyond the parameter's upper limit count as the limit.
    highest = np.minimum(marginal.bracket(np.array([1.0 - BEYOND]))[1], output_limits(quantity.parameter)[1])
    span = highest - zero
    cdf = marginal.cdf(zero + span * np.exp(grid))
    inside = np.divide(cdf - below, share[..., None], out=np.zeros_like(cdf), where=share[..., None] > 0)
    inside[..., -1] *= 0.5  # the trapezoid rule's last point
    first = -STEP * inside.sum(axis=-1)
    # The slope of t G at its end is 1, which the trapezoid rule misses by STEP^2 / 12.
    second = -2.0 * (STEP * (inside @ grid) - STEP**2 / 12.0)
    mean = ab_mag(quantity.parameter.scale * span) - MAG_PER_LN * first
    variance = MAG_PER_LN**2 * np.maximum(second - np.square(first), 0.0)
    # Passes far above zero, whose distributions may be narrow for the grid, and single values.
    plain_mean, plain_variance = marginal.moments(quantity.value, HERMITE_POINTS)
    is_plain = np.isfinite(plain_mean) & np.isfinite(plain_variance)
    has_none = share <= 0
    mean = np.where(is_plain, plain_mean, np.where(has_none, 0.0, mean))
    variance = np.where(is_plain, plain_variance, np.where(has_none, 0.0, variance))
    return share, mean, variance
