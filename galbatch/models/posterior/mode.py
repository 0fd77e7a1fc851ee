"""The most probable value of a quantity: the highest point of its density, with the Jacobian of its transform."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from galbatch.models.posterior.marginal import GRID_POINTS, Floats, Function, Marginal
from galbatch.models.posterior.quantiles import parts_of
from galbatch.models.posterior.quantity import Quantity
from galbatch.models.posterior.transforms import output_limits

__all__ = ["FAR", "mixture_mode"]

# Even grids that are fine enough to show every peak when the passes have similar widths.
EVEN_POINTS = (9, 33)
# Two refinements by a factor of three bring the grid near enough for a parabola.
ZOOM = np.linspace(0.0, 1.0, 7)
TINY = 1e-300  # In place of a smallest width of 0, that of single values.
# Fractions of the distance to the best point's neighbors, between which a peak may be far narrower than the grid.
HALVINGS = 2.0 ** -np.arange(20.0)
FAR = 4.5  # Standard deviations beyond which a component has no part in moments and modes: 7e-6 of its probability.


def mixture_mode(marginal: Marginal, quantity: Quantity) -> Floats:
    """Return the mode of the mixture over the passes, (object,) float64, in the quantity's unit."""
    low, high = output_limits(quantity.parameter)
    first, last = marginal.component_range()
    # Farther out every component falls faster than the Jacobian can rise.
    beyond = marginal.max_sigma * np.minimum(quantity.max_curvature * marginal.max_sigma, FAR)
    ends = np.stack([np.clip(first - beyond, low, high), np.clip(last + beyond, low, high)], axis=1)
    # Half a width of the narrowest component apart, points miss 3 % of a peak at most.
    enough = 1.0 + 2.0 * (ends[:, 1] - ends[:, 0]) / np.maximum(marginal.min_sigma, TINY)
    which = np.searchsorted(EVEN_POINTS, enough)
    found = np.empty(len(ends))
    for size, n_points in enumerate((*EVEN_POINTS, 2 * GRID_POINTS)):
        search = _mode_of_any if n_points not in EVEN_POINTS else partial(_mode_of_alike, n_points=n_points)
        for rows, part in parts_of(marginal, n_points, np.flatnonzero(which == size)):
            found[rows] = search(part, ends[rows], partial(_log_density, part, quantity))
    return quantity.value(found)


def _log_density(marginal: Marginal, quantity: Quantity, x: Floats) -> Floats:
    """Return the logarithm of the density per unit of the quantity, (object, point); -inf where it is not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(marginal.density(x)) - quantity.log_slope(x)
    return np.where(np.isnan(found), -np.inf, found)


def _mode_of_alike(marginal: Marginal, ends: Floats, log_density: Function, *, n_points: int) -> Floats:
    """Return the mode (object,) for passes of similar widths: the best point of an even grid, which is refined twice."""
    grid = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * np.linspace(0.0, 1.0, n_points)
    height = log_density(grid)
    for _ in range(2):
        before, _, after = _neighbors(grid, np.argmax(_tops(height), axis=1))
        grid = before + (after - before) * ZOOM
        height = log_density(grid)
    return _peak(grid, height)


def _tops(height: Floats) -> Floats:
    """Return the heights (object, point) of an even grid, raised at each peak to the top of the parabola through its neighbors."""
    found = height.copy()
    before, at, after = height[:, :-2], height[:, 1:-1], height[:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.square(after - before) / (8.0 * (2.0 * at - before - after))
    is_peak = (at >= before) & (at >= after) & np.isfinite(above)
    found[:, 1:-1] += np.where(is_peak, above, 0.0)
    return found


def _mode_of_any(marginal: Marginal, ends: Floats, log_density: Function) -> Floats:
    """Return the mode (object,) for passes of any widths: the best of the marginal's own grid, refined where it is smooth.

    Peaks may be far narrower than the distance between the grid's points.
    """
    grid = marginal.mode_grid(ends)
    best = np.argmax(log_density(grid), axis=1)
    before, at, after = _neighbors(grid, best)
    if not marginal.is_smooth:
        return at[:, 0]
    near = [at - (at - before) * HALVINGS, at, at + (after - at) * HALVINGS[::-1]]
    fine = np.concatenate(near, axis=1)
    return _peak(fine, log_density(fine))


def _neighbors(grid: Floats, at: npt.NDArray[np.intp]) -> list[Floats]:
    """Return the points (object, 1) of a grid (object, point) before, at and after the points numbered `at`."""
    row, last = np.arange(len(grid)), grid.shape[1] - 1
    return [grid[row, np.minimum(np.maximum(at + k, 0), last)][:, None] for k in (-1, 0, 1)]


def _peak(grid: Floats, log_density: Floats) -> Floats:
    """Return the position (object,) of the top of the parabola through the highest point of a rising grid (object, point)."""
    best = np.argmax(log_density, axis=1)
    row, middle = np.arange(len(grid)), np.clip(best, 1, grid.shape[1] - 2)
    x0, x1, x2 = (grid[row, middle + k] for k in (-1, 0, 1))
    y0, y1, y2 = (log_density[row, middle + k] for k in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (y1 - y0) / (x1 - x0)
        curvature = ((y2 - y1) / (x2 - x1) - slope) / (x2 - x0)
        top = 0.5 * (x0 + x1 - slope / curvature)
    # At an edge of the grid, or where the density next to the peak is 0, the grid point itself is taken.
    good = (best == middle) & np.isfinite(top) & (curvature < 0)
    return np.where(good, np.clip(top, x0, x2), grid[row, best])
