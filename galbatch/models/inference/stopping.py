"""Decisions on the number of passes: the checkpoints, and the errors of quantiles that must be small enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.models.posterior import (
    Floats,
    Marginal,
    Passes,
    Quantity,
    Rows,
    SolvedQuantiles,
    draws_quantiles,
    member_errors,
    posterior_std,
    relative_error,
    statistics_of,
)

__all__ = ["FIRST_CHECKPOINT", "QuantileEstimate", "estimate_quantiles", "schedule"]

# Checkpoints that grow by an eighth cost 6 % more passes than an object needs, on average; to estimate the quantiles more
# often would cost more than the passes it saves.
GROWTH = 1.125
STEP = 16  # Checkpoints are multiples of this number of passes, as batches are.
FIRST_CHECKPOINT = 64
"""The smallest number of passes where neither ``[posterior] min_passes`` nor a stopping calibration states one.

Where 3 % of the passes are off by 2 sigma, 14 % of the objects show no such pass in 64: fewer would hide more.
"""
# In posterior standard deviations: in a narrow network a zero in the first layers near a galaxy's center moves the outputs by
# about that.
UNDETECTED_JUMP = 2.0


def schedule(
    posterior: PosteriorConfig,
    *,
    has_dropout: bool = True,
    is_point: bool = False,
    is_vector: bool = False,
    start: int = FIRST_CHECKPOINT,
) -> tuple[int, ...]:
    """Return the checkpoints: rising numbers of passes after which objects may stop, up to the largest number.

    They are the same for all objects, so that all objects which still run have the same number of passes. From the first
    on each is about 1.125 times the one before, in multiples of 16, up to `max_passes`. Above 128 passes, 6 % of an object's
    passes are more than it needed, on average.

    Parameters
    ----------
    posterior : settings of the posterior: method, number of passes, and limits of adaptive numbers. A fixed number of passes is
        the only checkpoint
    has_dropout : whether the network's passes differ; if not, one pass is enough
    is_point : whether passes are single values. From passes that are distributions, method `samples` draws once per pass, so
        that it needs many even if all are equal
    is_vector : whether the mean over the passes is all that is wanted
    start : first checkpoint where the settings state no `min_passes`
    """
    if is_vector and has_dropout and posterior.passes == "adaptive":
        # The error of a mean over n passes is 1 / sqrt(n) of the scatter between them, whatever the object.
        return (min(posterior.max_passes, math.ceil(1.0 / posterior.tolerance**2)),)
    if not has_dropout and (posterior.method == "mixture" or is_point):
        return (1,)
    if isinstance(posterior.passes, int):
        return (posterior.passes,)
    checkpoints = [min(posterior.min_passes or start, posterior.max_passes)]
    while checkpoints[-1] < posterior.max_passes:
        growing = round(GROWTH * checkpoints[-1] / STEP)
        checkpoints.append(min(posterior.max_passes, STEP * max(checkpoints[-1] // STEP + 1, growing)))
    return tuple(checkpoints)


@dataclass(frozen=True)
class QuantileEstimate:
    """Estimates of quantiles from the passes so far, and their errors.

    Attributes
    ----------
    output : (object, quantity, level) float64, standardized value of the parameter at each of the quantity's quantiles
    error : (object, quantity, level) float64, Monte Carlo error of each, in posterior standard deviations
    undetected_jumps : (object, quantity, level) float64, change of each by a jump that no pass has shown so far, in posterior
        standard deviations
    std : (object, quantity) float64, standard deviation of the posterior, standardized
    member_error : (object, quantity, level, member) float64, part of each network in the error that the passes have shown, in
        quadrature; draws have all of it in one
    """

    output: Floats
    error: Floats
    undetected_jumps: Floats
    std: Floats
    member_error: Floats

    @property
    def mc_error(self) -> Floats:
        """The largest error of a quantile, (object,) float64: column `_mc_error` of the catalog."""
        return self.error.max(axis=(1, 2))

    @property
    def stopping_error(self) -> Floats:
        """The error by which objects stop, (object,): the largest of a quantile, with undetected jumps added in quadrature."""
        return np.hypot(self.error, self.undetected_jumps).max(axis=(1, 2))

    def converged(self, tolerance: float) -> npt.NDArray[np.bool_]:
        """Return whether the error by which objects stop is at most the tolerance, (object,) bool."""
        return self.stopping_error <= tolerance

    def solved(self, number: int) -> SolvedQuantiles:
        """Return the quantiles of the quantity with this number, for its summary."""
        return SolvedQuantiles(self.output[:, number], self.error[:, number].max(axis=1))

    def rows(self, some: Rows | npt.NDArray[np.bool_]) -> QuantileEstimate:
        """Return the estimates of some objects, by a slice, indices, or (object,) bool."""
        return QuantileEstimate(*(part[some] for part in self._parts))

    @classmethod
    def join(cls, estimates: Sequence[QuantileEstimate]) -> QuantileEstimate:
        """Return the estimates of several sets of objects as one."""
        return cls(*(np.concatenate(parts) for parts in zip(*(one._parts for one in estimates), strict=True)))

    @property
    def _parts(self) -> tuple[Floats, ...]:
        """All arrays, which have objects along the first axis."""
        return tuple(getattr(self, field.name) for field in fields(self))


def estimate_quantiles(
    passes: Passes,
    quantities: Sequence[Quantity],
    levels: npt.ArrayLike,
    *,
    draws: Floats | None = None,
    allows_jumps: bool = True,
) -> QuantileEstimate:
    """Return estimates of quantiles from passes, and their errors.

    The error of a quantile is that of the mixture's CDF there, from the scatter of the passes' CDFs, divided by the density
    (delta method). For draws it is the binomial error of the share below, divided by the density.

    A jump that no pass has shown may exist nevertheless: where 3 % of the passes are off by 2 posterior standard deviations,
    14 % of the objects show no jump in 64 passes, have a small error estimate, and are off by 0.28 at the outer quantiles. So
    the effect on each quantile of one pass in n + 1, displaced by UNDETECTED_JUMP = 2 standard deviations to either side, is
    added in quadrature (to objects that have shown a single jump as well, whose errors are too small, too). For a normal
    posterior it is 8.8 / n at 2 sigma and 2.8 / n at 1 sigma: no object stops before 176 passes for a tolerance of 0.05, or
    88 for 0.1. Draws need no such allowance, as their binomial error includes what they have not shown.

    Parameters
    ----------
    passes : joint distributions of each object and pass
    quantities : quantities whose quantiles are estimated
    levels : (level,) in (0, 1), rising
    draws : (object, pass, parameter) float64, standardized, if the posterior is represented by draws; None: it is the mixture
        over the passes, or the passes themselves for a point head
    allows_jumps : whether the allowance for undetected jumps is computed; if not, it is 0
    """
    wanted = np.asarray(levels, dtype=np.float64)
    if draws is None and passes.is_point:
        draws = passes.mean
    parts: list[tuple[Floats, ...]] = []
    # A flux and its magnitude share one parameter: their quantiles are solved together.
    for index in dict.fromkeys(quantity.index for quantity in quantities):
        of_parameter = [quantity for quantity in quantities if quantity.index == index]
        both, where = np.unique([q.levels(wanted) for q in of_parameter], return_inverse=True)
        marginal = passes.marginal(index)
        if draws is None:
            *found, std = _of_mixture(marginal, both, allows_jumps=allows_jumps)
        else:
            of_parameter_draws = draws[..., index]
            output, error = draws_quantiles(of_parameter_draws, both, n_members=marginal.n_members)
            found = [output, error, np.zeros_like(error), error[..., None]]
            std = of_parameter_draws.std(axis=1)
        parts += [
            (found[0][:, some], found[1][:, some], found[2][:, some], std, found[3][:, some])
            for some in where.reshape(len(of_parameter), -1)
        ]
    return QuantileEstimate(*(np.stack(part, axis=1) for part in zip(*parts, strict=True)))


def _of_mixture(marginal: Marginal, levels: Floats, *, allows_jumps: bool) -> tuple[Floats, ...]:
    """Return output, error, undetected jumps, member errors and std of the mixture over the passes, as in `QuantileEstimate`.

    They are (object, level), but member errors (object, level, member) and std (object,).
    """
    output, std = marginal.quantiles(levels), posterior_std(marginal)
    statistics = statistics_of(marginal)
    n_passes = statistics.shape[1]
    parts, density = member_errors(marginal, output)
    error = np.sqrt(np.square(parts).sum(axis=-1))
    # One pass per network means no dropout: no other pass could show a jump.
    if not allows_jumps or n_passes == marginal.n_members:
        return output, error, np.zeros_like(error), parts, std
    jump = UNDETECTED_JUMP * std[:, None]
    cdf_at = statistics.mean_cdf(np.concatenate([output - jump, output + jump], axis=1))
    before, after = np.split(cdf_at, 2, axis=1)
    moved = np.maximum(levels - before, after - levels) / (n_passes + 1)
    return output, error, relative_error(moved, density), parts, std
