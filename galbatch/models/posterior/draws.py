"""Quantiles, errors and modes of draws, which represent the posterior with method `samples`, as in the GaMPEN paper."""

from __future__ import annotations

import numpy as np

from galbatch.models.posterior.marginal import GRID_POINTS, Floats
from galbatch.models.posterior.quantiles import chunks_of, relative_error

__all__ = ["draws_quantiles", "kernel_mode"]


def draws_quantiles(draws: Floats, levels: Floats, *, n_members: int = 1) -> tuple[Floats, Floats]:
    """Return quantiles of draws and their Monte Carlo errors.

    The error is the binomial error of the share of draws below the quantile, divided by a kernel density there.

    Parameters
    ----------
    draws : (object, draw) float64; those of the first network come first
    levels : (level,) in (0, 1)
    n_members : number of networks, each with the same number of draws

    Returns
    -------
    quantiles : (object, level) float64
    error : (object, level) float64, in standard deviations of the draws
    """
    found = np.asarray(np.quantile(draws, levels, axis=1).T)
    chunks = chunks_of(len(draws), draws.shape[1] * max(n_members, len(levels)))
    density = np.concatenate([_kernel_density(draws[rows], found[rows]) for rows in chunks])
    share = _share_error(draws, found, levels, n_members)
    return found, relative_error(share, density * draws.std(axis=1)[:, None])


def _share_error(draws: Floats, quantiles: Floats, levels: Floats, n_members: int) -> Floats:
    """Return the standard error (object, level) of the share of draws (object, draw) below their quantiles (object, level)."""
    n_draws = draws.shape[1]
    if n_members == 1:
        return np.broadcast_to(np.sqrt(levels * (1 - levels) / n_draws), quantiles.shape)
    # Within each network draws are independent; how far networks differ is no error of these draws.
    members = draws.reshape(len(draws), n_members, 1, -1)
    share = (members <= quantiles[:, None, :, None]).mean(axis=3)  # (object, member, level)
    return np.sqrt((share * (1 - share)).mean(axis=1) / n_draws)


def _kernel_density(values: Floats, at: Floats) -> Floats:
    """Return the Gaussian kernel density (object, point) of values (object, draw) at points (object, point)."""
    # Scott's bandwidth in one dimension.
    n = values.shape[1]
    bandwidth = values.std(axis=1) * n**-0.2
    bandwidth = np.where(bandwidth > 0, bandwidth, 1.0)[:, None, None]
    z = (at[:, :, None] - values[:, None, :]) / bandwidth
    return (np.exp(-0.5 * z * z) / bandwidth).mean(axis=2) / np.sqrt(2 * np.pi)


def kernel_mode(values: Floats) -> Floats:
    """Return the point of highest kernel density, (object,) float64, of values (object, draw).

    It is searched for among quantiles of the values, which are closest to each other where the density is high.
    """
    levels, modes = np.linspace(0, 1, GRID_POINTS), []
    for rows in chunks_of(len(values), values.shape[1] * GRID_POINTS):
        grid = np.quantile(values[rows], levels, axis=1).T
        best = np.argmax(_kernel_density(values[rows], grid), axis=1)
        modes.append(grid[np.arange(len(grid)), best])
    return np.concatenate(modes)
