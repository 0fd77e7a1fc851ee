"""From the passes to what the catalog holds: quantiles, mean, std, mode, epistemic_std, correlations.

The posterior is a mixture over passes, whatever the head. Its quantiles are solved from its CDF in the
standardized space and mapped by the parameter's transform; so they carry no noise of draws. With method
`samples` one draw a pass stands for it, as in the GaMPEN paper; passes of a point head are such draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from galbatch.core.types import ab_mag
from galbatch.models.heads.passes import Passes, PointPasses
from galbatch.models.metadata.schema import ParameterInfo
from galbatch.models.posterior.marginals import FAR, BinnedMarginal, Floats, Function, Marginal, PointMarginal
from galbatch.models.posterior.transforms import from_output, log_slope, output_limits

__all__ = [
    "Quantity",
    "Summary",
    "draws_quantiles",
    "mixture_cdf",
    "mixture_quantiles",
    "posterior_spread",
    "quantile_error",
    "quantities_of",
    "relative_error",
    "summarize_draws",
    "summarize_mixture",
]

Search = Callable[[Marginal, Floats, Function], Floats]

ELEMENTS_AT_ONCE = 2**17  # float64 in a temporary array: 1 MB, which stays in the processor's cache
MAX_ITERATIONS = 200
X_TOLERANCE = 1e-10  # of a quantile, in posterior standard deviations
CDF_TOLERANCE = 1e-9  # beside: in a very narrow component the CDF is still far off that near the quantile
LAST_STEP = (
    3e-4  # in widths of the narrowest component: errors of Halley's steps are of third order, then 3e-11
)
GRID_POINTS = 129  # of a kernel density's mode
# Components of that standard deviation after the transform at most: means and standard deviations are good to 1e-9 of the
# latter up to 0.5, to 4e-7 up to 1.25; beyond to 1e-6 up to 2 and 1e-4 up to 3;
# where a limit cuts values off to half a percent.
MOMENT_WIDTHS, MOMENT_POINTS = (0.1, 0.25, 0.5, 1.25), (5, 8, 12, 20, 40)
EVEN_POINTS = (9, 33)  # that show every peak of passes that are alike
ZOOM = np.linspace(0.0, 1.0, 7)  # twice to a ninth: near enough for a parabola
TINY = 1e-300
# Of the distance to the neighbors of the best point, where peaks may be narrow.
HALVINGS = 2.0 ** -np.arange(20.0)
MAX_ERROR = 1000.0  # posterior standard deviations: as good as not converged at all


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

    @property
    def bend(self) -> float:
        """Most that `log_slope` changes over a unit of the output; infinite: no such bound."""
        steepness = _steepness(self.parameter)
        if not self.is_magnitude:
            return steepness
        return 0.0 if self.parameter.transform in ("ln", "log10") else np.inf

    def levels(self, levels: Floats) -> Floats:
        """The parameter's levels at which it has the quantity's quantiles: 1 - q for a magnitude."""
        # Rounded, so that symmetric levels are the same numbers for both.
        return np.round(1.0 - levels, 12) if self.is_magnitude else levels


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


def summarize_mixture(passes: Passes, quantity: Quantity, levels: npt.ArrayLike) -> Summary:
    """Summarize the mixture of the passes.

    Mean and standard deviation are by quadrature in the quantity's unit. `epistemic_std` is the standard
    deviation, over passes, of each pass's mean: std^2 = mean of the passes' variances + epistemic_std^2. The mode
    is that of the density in the quantity's unit, Jacobian included; of histograms the middle of the bin with
    the highest density. `mc_error` is that of the passes of the networks that are there: how far other networks would
    differ is in epistemic_std alone.

    Parameters
    ----------
    passes : distributions of (object, pass)
    quantity : which
    levels : (level,) in (0, 1), rising
    """
    marginal = passes.marginal(quantity.index)
    output = mixture_quantiles(marginal, quantity.levels(np.asarray(levels, dtype=np.float64)))
    pass_mean, pass_variance = _moments(marginal, quantity)
    with np.errstate(over="ignore", invalid="ignore"):
        epistemic = pass_mean.std(axis=1)
        total = np.sqrt(pass_variance.mean(axis=1) + epistemic**2)
    return Summary(
        np.maximum.accumulate(quantity.value(output), axis=1),
        pass_mean.mean(axis=1),
        total,
        _mixture_mode(marginal, quantity),
        epistemic,
        quantile_error(marginal, output)[0].max(axis=1),
    )


def _moments(marginal: Marginal, quantity: Quantity) -> tuple[Floats, Floats]:
    """Mean and variance, (object, pass), in the quantity's unit."""
    means, variances = np.empty((2, *marginal.mean.shape))
    needed = _moment_points(marginal, quantity)
    for n_points in np.unique(needed).tolist():
        for rows, part in _parts(marginal, n_points, np.flatnonzero(needed == n_points)):
            means[rows], variances[rows] = part.moments(quantity.value, n_points)
    return means, variances


def _moment_points(marginal: Marginal, quantity: Quantity) -> npt.NDArray[np.intp]:
    """(object,) values of the transform that tell its moments: few where it hardly bends, and no limit cuts it off."""
    width = marginal.widest * _steepness(quantity.parameter)
    needed = np.array(MOMENT_POINTS)[np.searchsorted(MOMENT_WIDTHS, width)]
    (low, high), (first, last) = output_limits(quantity.parameter), marginal.centers()
    beyond = FAR * marginal.widest
    is_inside = (first - beyond >= low) & (last + beyond <= high)
    return np.asarray(np.where(is_inside, needed, MOMENT_POINTS[-1]))


def _steepness(parameter: ParameterInfo) -> float:
    """Most that the natural logarithm of the value, or of its odds, changes over a unit of the output; 0 for identity."""
    factors = {"logit": 1.0, "ln": 1.0, "log10": np.log(10.0), "identity": 0.0}
    return float(parameter.scale * factors[parameter.transform])


def _parts(
    marginal: Marginal, n_points: int, some: npt.NDArray[np.intp] | None = None
) -> Iterator[tuple[slice | npt.NDArray[np.intp], Marginal]]:
    """Rows and their marginals, few enough for arrays of (object, pass, component, `n_points`).

    `some` : (row,) which rows, rising; None: all, at least once
    """
    n_objects, n_passes = marginal.mean.shape
    if some is None or len(some) == n_objects:
        some = np.arange(n_objects)
    elif not len(some):
        return
    chunks = list(_chunks(len(some), n_passes * marginal.numbers_per_pass(n_points)))
    if len(chunks) == 1 and len(some) == n_objects:
        yield slice(None), marginal  # with what it has worked out already
        return
    yield from ((some[chunk], marginal.rows(some[chunk])) for chunk in chunks)


def _chunks(n_rows: int, elements_per_row: int) -> Iterator[slice]:
    """Slices of rows whose temporary arrays stay below ELEMENTS_AT_ONCE; one empty slice for no rows."""
    size = max(1, ELEMENTS_AT_ONCE // elements_per_row)
    yield from (slice(start, start + size) for start in range(0, max(1, n_rows), size))


def mixture_quantiles(marginal: Marginal, levels: npt.ArrayLike) -> Floats:
    """Solve F(x) = level for the mixtures' CDFs, by Halley's steps inside a shrinking bracket.

    Where the CDF is flat, any point of the stretch solves it. Histograms are solved at once; single values have the
    quantiles of a sample.

    Parameters
    ----------
    marginal : distributions of (object, pass)
    levels : (level,) in (0, 1)

    Returns
    -------
    (object, level) float64, to about 1e-10 of a standard deviation
    """
    levels = np.asarray(levels, dtype=np.float64)
    if isinstance(marginal, PointMarginal | BinnedMarginal):
        return marginal.quantiles(levels)
    parts = [_solved(part, levels) for _, part in _parts(marginal, len(levels))]
    return np.concatenate(parts)


def _solved(marginal: Marginal, levels: Floats) -> Floats:
    """Quantiles (object, level); objects leave the search once all their levels are found."""
    low, high = marginal.bracket(levels)
    spread, finest = posterior_spread(marginal)[:, None], marginal.finest[:, None]
    x = np.clip(marginal.mean.mean(axis=1)[:, None] + spread * ndtri(levels), low, high)
    found = x.copy()
    left, last = np.arange(len(x)), np.full(x.shape, np.inf)
    for _ in range(MAX_ITERATIONS):
        excess, step = _halley(marginal, x, levels)
        low, high = np.where(excess < 0, x, low), np.where(excess >= 0, x, high)
        size = np.abs(step)
        # Beside a narrow component the steps may jump to and fro, as long as the one before: then bisect.
        inside = (x + step >= low) & (x + step <= high)
        settled = (size <= X_TOLERANCE * spread) & (np.abs(excess) <= CDF_TOLERANCE)
        last = np.where((inside & (size <= 0.5 * np.abs(last))) | settled, step, 0.5 * (low + high) - x)
        x = x + last
        found[left] = x
        near = (last == step) & (size <= LAST_STEP * finest)
        going = ~(near | (np.abs(last) <= X_TOLERANCE * spread)).all(axis=1)
        if not going.any():
            break
        if not going.all():
            x, low, high, last, spread, finest, left = (
                part[going] for part in (x, low, high, last, spread, finest, left)
            )
            marginal = marginal.rows(np.flatnonzero(going))
    return np.asarray(found)


def _halley(marginal: Marginal, x: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """F - level at x, and the step to its root: Newton's, with the bend of F; (object, level)."""
    cdf, density, slope = marginal.around(x)
    excess = cdf - levels
    # Between far apart narrow passes the density underflows: the steps are then not finite, and the caller bisects.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        newton = -excess / density
        bend = 1.0 + 0.5 * newton * slope / density
        return excess, newton / np.where(bend > 0.5, bend, 1.0)


def posterior_spread(marginal: Marginal) -> Floats:
    """(object,) standard deviation of the mixture."""
    return np.asarray(np.sqrt(np.square(marginal.std).mean(axis=1) + marginal.mean.var(axis=1)))


def _mixture_mode(marginal: Marginal, quantity: Quantity) -> Floats:
    """(object,) most probable value, in the quantity's unit."""
    low, high = output_limits(quantity.parameter)
    first, last = marginal.centers()
    # Farther out every component falls faster than the Jacobian can rise.
    beyond = marginal.widest * np.minimum(quantity.bend * marginal.widest, FAR)
    ends = np.stack([np.clip(first - beyond, low, high), np.clip(last + beyond, low, high)], axis=1)
    # Half a width of the narrowest component apart, points miss 3 % of a peak at most.
    enough = 1.0 + 2.0 * (ends[:, 1] - ends[:, 0]) / np.maximum(marginal.finest, TINY)
    which = np.searchsorted(EVEN_POINTS, enough)
    found = np.empty(len(ends))
    for size, n_points in enumerate((*EVEN_POINTS, 2 * GRID_POINTS)):
        search = _mode_of_any if n_points not in EVEN_POINTS else partial(_mode_of_alike, n_points=n_points)
        for rows, part in _parts(marginal, n_points, np.flatnonzero(which == size)):
            found[rows] = search(part, ends[rows], partial(_log_density, part, quantity))
    return quantity.value(found)


def _log_density(marginal: Marginal, quantity: Quantity, x: Floats) -> Floats:
    """(object, point) in the quantity's unit; NaN beyond what can be told counts as none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(marginal.density(x)) - quantity.log_slope(x)
    return np.asarray(np.where(np.isnan(found), -np.inf, found))


def _mode_of_alike(marginal: Marginal, ends: Floats, log_density: Function, *, n_points: int) -> Floats:
    """Among even points, then twice nearer to the best."""
    grid = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(0.0, 1.0, n_points)
    height = log_density(grid)
    for _ in range(2):
        before, _, after = _neighbors(grid, np.argmax(_tops(height), axis=1))
        grid = before + (after - before) * ZOOM
        height = log_density(grid)
    return _peak(grid, height)


def _tops(height: Floats) -> Floats:
    """Heights of the parabolas through the points (object, point), even, and their neighbors, where these are lower."""
    found = height.copy()
    before, at, after = height[:, :-2], height[:, 1:-1], height[:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.square(after - before) / (8.0 * (2.0 * at - before - after))
    is_peak = (at >= before) & (at >= after) & np.isfinite(above)
    found[:, 1:-1] += np.where(is_peak, above, 0.0)
    return found


def _mode_of_any(marginal: Marginal, ends: Floats, log_density: Function) -> Floats:
    """Among points that the marginal proposes, then, if it is smooth, ever nearer to the best.

    Peaks may be far narrower than the points are apart.
    """
    grid = marginal.mode_grid(ends)
    best = np.argmax(log_density(grid), axis=1)
    before, at, after = _neighbors(grid, best)
    if not marginal.is_smooth:
        return np.asarray(at[:, 0])
    near = [at - (at - before) * HALVINGS, at, at + (after - at) * HALVINGS[::-1]]
    fine = np.concatenate(near, axis=1)
    return _peak(fine, log_density(fine))


def _neighbors(grid: Floats, at: npt.NDArray[np.intp]) -> list[Floats]:
    """(object, 1) points of a grid (object, point) before, at and after the points numbered `at`."""
    row, last = np.arange(len(grid)), grid.shape[1] - 1
    return [grid[row, np.minimum(np.maximum(at + k, 0), last)][:, None] for k in (-1, 0, 1)]


def _peak(grid: Floats, log_density: Floats) -> Floats:
    """(object,) top of the parabola about the highest point of a rising grid (object, point)."""
    best = np.argmax(log_density, axis=1)
    row, middle = np.arange(len(grid)), np.clip(best, 1, grid.shape[1] - 2)
    x0, x1, x2 = (grid[row, middle + k] for k in (-1, 0, 1))
    y0, y1, y2 = (log_density[row, middle + k] for k in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (y1 - y0) / (x1 - x0)
        curvature = ((y2 - y1) / (x2 - x1) - slope) / (x2 - x0)
        top = 0.5 * (x0 + x1 - slope / curvature)
    # At an edge of the grid, or where the density beside the peak is 0, the grid point itself stands.
    good = (best == middle) & np.isfinite(top) & (curvature < 0)
    return np.asarray(np.where(good, np.clip(top, x0, x2), grid[row, best]))


def quantile_error(marginal: Marginal, quantiles: Floats) -> tuple[Floats, Floats]:
    """Monte Carlo error of quantiles by the delta method: the standard error of F over the density.

    Returns
    -------
    (object, level) in posterior standard deviations, and the density (object, level) in their inverse
    """
    n_passes = marginal.mean.shape[1] // marginal.n_members
    parts = [_share_scatter(part, quantiles[rows]) for rows, part in _parts(marginal, quantiles.shape[1])]
    scatter, density = (np.concatenate(part) for part in zip(*parts, strict=True))
    density *= posterior_spread(marginal)[:, None]
    if n_passes == 1:
        return np.zeros_like(density), density
    return relative_error(np.sqrt(scatter / (n_passes - 1)), density), density


def _share_scatter(marginal: Marginal, x: Floats) -> tuple[Floats, Floats]:
    """Variance over the passes of their CDFs, over the number of networks, and the density; (object, point)."""
    # The members are all there is of them: only the passes within each are draws.
    members = np.split(marginal.cdf(x), marginal.n_members, axis=1)
    variance = sum(of_member.var(axis=1) for of_member in members) / marginal.n_members**2
    return np.asarray(variance), marginal.density(x)


def relative_error(error: Floats, density: Floats) -> Floats:
    """Their ratio, of any shape; MAX_ERROR where the density vanishes between far-apart passes."""
    with np.errstate(over="ignore"):
        ratio = np.divide(error, density, out=np.where(error > 0, MAX_ERROR, 0.0), where=density > 0)
    return np.asarray(np.minimum(ratio, MAX_ERROR))


def mixture_cdf(marginal: Marginal, x: Floats) -> Floats:
    """CDF, (object,), of the mixture over the passes at standardized values x (object,)."""
    return np.asarray(marginal.cdf(x[:, None])[..., 0].mean(axis=1))


def summarize_draws(
    draws: Floats, quantity: Quantity, levels: npt.ArrayLike, *, passes: Passes | None = None
) -> Summary:
    """Summarize draws, one a pass: method `samples` of the GaMPEN paper, and point heads.

    The mode is that of a Gaussian kernel density estimate (Scott's bandwidth) in the quantity's unit; epistemic_std
    is that of the passes' own distributions.

    Parameters
    ----------
    draws : (object, pass, parameter) float64, standardized
    quantity : which
    levels : (level,) in (0, 1), rising
    passes : distributions the draws come from; None: the draws are all there is, as of a point head
    """
    output = draws[..., quantity.index]
    wanted = quantity.levels(np.asarray(levels, dtype=np.float64))
    source = PointPasses(draws) if passes is None else passes
    at_levels, error = draws_quantiles(output, wanted, n_members=source.n_members)
    values = quantity.value(output)
    mode = [_kernel_mode(values[rows]) for rows in _chunks(len(output), output.shape[1] * GRID_POINTS)]
    return Summary(
        np.maximum.accumulate(quantity.value(at_levels), axis=1),
        values.mean(axis=1),
        values.std(axis=1),
        np.concatenate(mode),
        _epistemic_std(source.marginal(quantity.index), quantity),
        error.max(axis=1),
    )


def draws_quantiles(draws: Floats, levels: Floats, *, n_members: int = 1) -> tuple[Floats, Floats]:
    """Quantiles of draws, and their Monte Carlo error: the binomial error of the share below over a kernel density.

    Parameters
    ----------
    draws : (object, draw) float64, those of the first network first
    levels : (level,) in (0, 1)
    n_members : networks the draws are of, as many of each

    Returns
    -------
    (object, level), and (object, level) in standard deviations of the draws
    """
    found = np.asarray(np.quantile(draws, levels, axis=1).T)
    chunks = _chunks(len(draws), draws.shape[1] * max(n_members, len(levels)))
    density = np.concatenate([_kernel_density(draws[rows], found[rows]) for rows in chunks])
    share = _share_error(draws, found, levels, n_members)
    return found, relative_error(share, density * draws.std(axis=1)[:, None])


def _epistemic_std(marginal: Marginal, quantity: Quantity) -> Floats:
    """(object,) standard deviation over passes of each one's mean, in the quantity's unit."""
    return np.asarray(_moments(marginal, quantity)[0].std(axis=1))


def _share_error(draws: Floats, quantiles: Floats, levels: Floats, n_members: int) -> Floats:
    """(object, level) standard error of the share of draws (object, draw) below their quantiles (object, level)."""
    n_draws = draws.shape[1]
    if n_members == 1:
        return np.broadcast_to(np.sqrt(levels * (1 - levels) / n_draws), quantiles.shape)
    members = draws.reshape(len(draws), n_members, 1, -1)
    share = (members <= quantiles[:, None, :, None]).mean(axis=3)  # (object, member, level)
    return np.asarray(np.sqrt((share * (1 - share)).mean(axis=1) / n_draws))


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
