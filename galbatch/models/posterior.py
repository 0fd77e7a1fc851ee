"""From the passes to what the catalog holds: quantiles, mean, std, mode, epistemic_std, correlations.

The posterior of a Gaussian head is a mixture over passes. Its quantiles are solved from its CDF in the
standardized space and mapped by the parameter's transform; so they carry no noise of draws. With method
`samples` one draw a pass stands for it, as in the GaMPEN paper; passes of a point head are such draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtr, ndtri

from galbatch.models.heads import GaussianPasses
from galbatch.models.metadata import ParameterInfo
from galbatch.models.transforms import from_output, log_slope, output_limits
from galbatch.types import ab_mag

__all__ = [
    "Quantity",
    "Summary",
    "mixture_quantiles",
    "quantities_of",
    "summarize_draws",
    "summarize_mixture",
]

Floats = npt.NDArray[np.float64]

ELEMENTS_AT_ONCE = 2**21  # float64 in a temporary array: 16 MB
MAX_ITERATIONS = 200
GRID_POINTS = 129  # of the mode's search, over 9 standard deviations or more: then refined by a parabola
GRID_HALF_WIDTH = 4.5
MAX_ERROR = 1000.0  # posterior standard deviations: as good as not converged at all
HERMITE_NODES, HERMITE_WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
HERMITE_WEIGHTS = HERMITE_WEIGHTS / HERMITE_WEIGHTS.sum()


@dataclass(frozen=True)
class Quantity:
    """What gets columns: a parameter, or the magnitude derived from a flux.

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
        """In the quantity's unit, of standardized outputs of any shape."""
        value = from_output(output, self.parameter)
        return ab_mag(value) if self.is_magnitude else value

    def log_slope(self, output: Floats) -> Floats:
        """Logarithm of abs(d value / d output), of any shape."""
        slope = log_slope(output, self.parameter)
        if not self.is_magnitude:
            return slope
        with np.errstate(divide="ignore"):
            return np.asarray(slope + np.log(2.5 / np.log(10)) - np.log(from_output(output, self.parameter)))

    def levels(self, levels: Floats) -> Floats:
        """The parameter's levels at which it has the quantity's quantiles: 1 - q for a magnitude."""
        return 1.0 - levels if self.is_magnitude else levels


def quantities_of(parameters: Sequence[ParameterInfo]) -> list[Quantity]:
    """The parameters, each followed by the magnitude derived from it."""
    found = []
    for index, parameter in enumerate(parameters):
        found.append(Quantity(parameter.name, index, parameter))
        if parameter.magnitude is not None:
            found.append(Quantity(parameter.magnitude, index, parameter, is_magnitude=True))
    return found


@dataclass(frozen=True)
class Summary:
    """What the catalog holds of one quantity, in its unit.

    Attributes
    ----------
    quantiles : (object, level) float64, rising
    mean, std, mode, epistemic_std : (object,) float64
    mc_error : (object,) float64: the largest Monte Carlo error of a quantile, in posterior standard deviations
    """

    quantiles: Floats
    mean: Floats
    std: Floats
    mode: Floats
    epistemic_std: Floats
    mc_error: Floats


def summarize_mixture(passes: GaussianPasses, quantity: Quantity, levels: npt.ArrayLike) -> Summary:
    """Summarize the mixture of the passes.

    Mean and standard deviation are by Gauss-Hermite quadrature in the quantity's unit. `epistemic_std` is
    the standard deviation, over passes, of each pass's mean: std^2 = mean of the passes' variances +
    epistemic_std^2. The mode is that of the density in the quantity's unit, Jacobian included.

    Parameters
    ----------
    passes : distributions of (object, pass)
    quantity : which
    levels : (level,) in (0, 1), rising
    """
    mean, std = passes.mean[..., quantity.index], passes.std[..., quantity.index]
    wanted = quantity.levels(np.asarray(levels, dtype=np.float64))
    parts = [
        _summarize_rows(mean[rows], std[rows], quantity, wanted)
        for rows in _chunks(len(mean), mean.shape[1] * max(GRID_POINTS, len(wanted)))
    ]
    return _joined(parts)


def _summarize_rows(mean: Floats, std: Floats, quantity: Quantity, levels: Floats) -> Summary:
    """Of mean, std (object, pass); `levels` are the parameter's."""
    output = mixture_quantiles(mean, std, levels)
    values = np.maximum.accumulate(quantity.value(output), axis=1)
    nodes = quantity.value(mean[..., None] + std[..., None] * HERMITE_NODES)  # (object, pass, node)
    pass_mean = nodes @ HERMITE_WEIGHTS
    with np.errstate(over="ignore", invalid="ignore"):
        pass_variance = np.square(nodes - pass_mean[..., None]) @ HERMITE_WEIGHTS
        epistemic = pass_mean.std(axis=1)
        total = np.sqrt(pass_variance.mean(axis=1) + epistemic**2)
    mode = _mixture_mode(mean, std, quantity)
    error = _mixture_error(mean, std, output)
    return Summary(values, pass_mean.mean(axis=1), total, mode, epistemic, error)


def _joined(parts: list[Summary]) -> Summary:
    names = Summary.__dataclass_fields__
    return Summary(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _chunks(n_rows: int, elements_per_row: int) -> Iterator[slice]:
    """Slices of rows whose temporary arrays stay below ELEMENTS_AT_ONCE; one empty slice for no rows."""
    size = max(1, ELEMENTS_AT_ONCE // elements_per_row)
    yield from (slice(start, start + size) for start in range(0, max(1, n_rows), size))


def mixture_quantiles(mean: Floats, std: Floats, levels: npt.ArrayLike) -> Floats:
    """Solve F(x) = level for the mixtures' CDFs, by Newton's steps inside a shrinking bracket.

    Parameters
    ----------
    mean, std : (object, pass) float64, of the components, which weigh the same
    levels : (level,) in (0, 1)

    Returns
    -------
    (object, level) float64, to about 1e-10 of a standard deviation
    """
    levels = np.asarray(levels, dtype=np.float64)
    score = ndtri(levels)
    component = mean[:, None, :] + std[:, None, :] * score[:, None]  # every component's own quantile
    low, high = component.min(axis=2), component.max(axis=2)
    spread = np.sqrt(np.square(std).mean(axis=1) + mean.var(axis=1))[:, None]
    x = np.clip(mean.mean(axis=1)[:, None] + spread * score, low, high)
    last, tolerance = np.full(x.shape, np.inf), 1e-10 * spread
    for _ in range(MAX_ITERATIONS):
        z = (x[:, :, None] - mean[:, None, :]) / std[:, None, :]
        excess = ndtr(z).mean(axis=2) - levels
        density = (np.exp(-0.5 * z * z) / std[:, None, :]).mean(axis=2) / np.sqrt(2 * np.pi)
        low, high = np.where(excess < 0, x, low), np.where(excess >= 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # then bisected
            newton = x - excess / density
        # Beside a narrow component Newton's steps may jump to and fro, as long as the one before: then bisect.
        shrinks = (newton >= low) & (newton <= high) & (np.abs(newton - x) <= 0.5 * np.abs(last))
        settled = np.abs(newton - x) <= tolerance
        step = np.where(shrinks | settled, newton, 0.5 * (low + high)) - x
        x, last = x + step, step
        if np.all(np.abs(step) <= tolerance):
            break
    return np.asarray(x)


def _mixture_mode(mean: Floats, std: Floats, quantity: Quantity) -> Floats:
    """(object,) most probable value: a grid in the standardized space, then a parabola in log density."""
    limits = output_limits(quantity.parameter)
    low = np.clip((mean - GRID_HALF_WIDTH * std).min(axis=1), *limits)
    high = np.clip((mean + GRID_HALF_WIDTH * std).max(axis=1), *limits)
    grid = np.linspace(low, high, GRID_POINTS, axis=1)  # (object, point)
    z = (grid[:, :, None] - mean[:, None, :]) / std[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.log((np.exp(-0.5 * z * z) / std[:, None, :]).mean(axis=2)) - quantity.log_slope(grid)
    best = np.argmax(np.where(np.isnan(density), -np.inf, density), axis=1)
    row, middle = np.arange(len(grid)), np.clip(best, 1, GRID_POINTS - 2)
    before, at, after = (density[row, middle + k] for k in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = 0.5 * (before - after) / (before - 2.0 * at + after)
    # At an edge of the grid, or where the density beside the peak is 0, the grid point itself stands.
    shift = np.where((best == middle) & np.isfinite(shift), np.clip(shift, -1.0, 1.0), 0.0)
    return quantity.value(grid[row, best] + shift * (grid[:, 1] - grid[:, 0]))


def _mixture_error(mean: Floats, std: Floats, quantiles: Floats) -> Floats:
    """(object,) by the delta method: the standard error of F at each quantile over the density there."""
    n_passes = mean.shape[1]
    if n_passes == 1:
        return np.zeros(len(mean))
    z = (quantiles[:, :, None] - mean[:, None, :]) / std[:, None, :]
    error = ndtr(z).std(axis=2, ddof=1) / np.sqrt(n_passes)
    density = (np.exp(-0.5 * z * z) / std[:, None, :]).mean(axis=2) / np.sqrt(2 * np.pi)
    spread = np.sqrt(np.square(std).mean(axis=1) + mean.var(axis=1))
    return _relative_error(error, density * spread[:, None])


def _relative_error(error: Floats, density: Floats) -> Floats:
    """(object,) largest ratio over levels; MAX_ERROR where the density vanishes between far-apart passes."""
    with np.errstate(over="ignore"):
        ratio = np.divide(error, density, out=np.where(error > 0, MAX_ERROR, 0.0), where=density > 0)
    return np.asarray(np.minimum(ratio.max(axis=1), MAX_ERROR))


def mixture_cdf(passes: GaussianPasses, index: int, output: Floats) -> Floats:
    """CDF, (object,), of parameter `index` at standardized values `output` (object,)."""
    mean, std = passes.mean[..., index], passes.std[..., index]
    return np.asarray(np.exp(log_ndtr((output[:, None] - mean) / std)).mean(axis=1))


def summarize_draws(
    draws: Floats, quantity: Quantity, levels: npt.ArrayLike, *, passes: GaussianPasses | None = None
) -> Summary:
    """Summarize draws, one a pass: method `samples` of the GaMPEN paper, and point heads.

    The mode is that of a Gaussian kernel density estimate (Scott's bandwidth) in the quantity's unit. Where
    the draws come from `passes`, epistemic_std is theirs; the passes of a point head are nothing else.

    Parameters
    ----------
    draws : (object, pass, parameter) float64, standardized
    quantity : which
    levels : (level,) in (0, 1), rising
    passes : distributions the draws come from; None for a point head
    """
    output = draws[..., quantity.index]
    wanted = quantity.levels(np.asarray(levels, dtype=np.float64))
    at_levels = np.quantile(output, wanted, axis=1).T
    values = quantity.value(output)
    std = values.std(axis=1)
    parts = []
    for rows in _chunks(len(output), output.shape[1] * GRID_POINTS):
        density_mode = _kernel_mode(values[rows])
        density = _kernel_density(output[rows], at_levels[rows])
        parts.append((density_mode, density))
    mode, density = (np.concatenate(column) for column in zip(*parts, strict=True))
    error = np.broadcast_to(np.sqrt(wanted * (1 - wanted) / output.shape[1]), density.shape)
    return Summary(
        np.maximum.accumulate(quantity.value(at_levels), axis=1),
        values.mean(axis=1),
        std,
        mode,
        std if passes is None else summarize_mixture(passes, quantity, [0.5]).epistemic_std,
        _relative_error(error, density * output.std(axis=1)[:, None]),
    )


def _kernel_density(values: Floats, at: Floats) -> Floats:
    """Gaussian kernel density (object, point) of values (object, draw) at points (object, point)."""
    n = values.shape[1]
    bandwidth = values.std(axis=1) * n**-0.2
    bandwidth = np.where(bandwidth > 0, bandwidth, 1.0)[:, None, None]
    z = (at[:, :, None] - values[:, None, :]) / bandwidth
    return np.asarray((np.exp(-0.5 * z * z) / bandwidth).mean(axis=2) / np.sqrt(2 * np.pi))


def _kernel_mode(values: Floats) -> Floats:
    """(object,) point of highest kernel density, among quantiles of the values: dense where they are."""
    grid = np.quantile(values, np.linspace(0, 1, GRID_POINTS), axis=1).T
    best = np.argmax(_kernel_density(values, grid), axis=1)
    return np.asarray(grid[np.arange(len(grid)), best])
