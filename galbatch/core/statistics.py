"""Robust statistics of weighted samples, and their errors from bootstrap samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["ROBUST_SIGMA", "bootstrap_errors", "normalized_mad", "weighted_quantiles"]

Floats = npt.NDArray[np.float64]

ROBUST_SIGMA = 1.4826
"""The standard deviation of a Gaussian in units of its median absolute deviation (MAD), to the digits that papers state."""


def weighted_quantiles(values: Floats, levels: npt.ArrayLike, weights: Floats | None = None) -> Floats:
    """Return quantiles of a weighted sample; with equal weights they are those of ``numpy.quantile(.., method="hazen")``.

    Each value stands at the middle of its own weight in the cumulative distribution, and quantiles are interpolated linearly
    between the values. The median of equal weights is the usual one.

    Parameters
    ----------
    values : (object,) float64
    levels : (level,) in [0, 1]
    weights : (object,) float64, 0 or above; None: equal weights

    Returns
    -------
    (level,) float64; NaN without values or if all weights are 0
    """
    wanted = np.asarray(levels, dtype=np.float64)
    share = np.ones(len(values)) if weights is None else weights
    # Values without weight would be points of the interpolation all the same.
    values, share = values[share > 0], share[share > 0]
    if not len(values):
        return np.full(wanted.shape, np.nan)
    order = np.argsort(values, kind="stable")
    share = share[order] / share.sum()
    return np.interp(wanted, np.cumsum(share) - 0.5 * share, values[order])


def normalized_mad(values: Floats, weights: Floats | None = None) -> float:
    """Return 1.4826 times the median absolute deviation from the median of values (object,): the std of a Gaussian; NaN without values."""
    (center,) = weighted_quantiles(values, [0.5], weights)
    (deviation,) = weighted_quantiles(np.abs(values - center), [0.5], weights)
    return ROBUST_SIGMA * float(deviation)


def bootstrap_errors(
    statistic: Callable[..., Floats], arrays: Sequence[Floats], *, n_bootstrap: int, seed: int
) -> Floats:
    """Return the standard deviations of statistics over bootstrap samples (Efron 1979, Ann. Statist. 7, 1).

    Parameters
    ----------
    statistic : function of the arrays that returns (statistic,) float64
    arrays : arrays (object, ...), whose rows are drawn together, with replacement
    n_bootstrap : number of samples, each of as many objects as there are
    seed : seed of the samples

    Returns
    -------
    (statistic,) float64; NaN with fewer than two objects or samples, or where it is infinite in a sample. A sample whose statistic is NaN does not count for it
    """
    n = len(arrays[0])
    if n < 2 or n_bootstrap < 2:
        return np.full_like(statistic(*arrays), np.nan)
    rng = np.random.default_rng(seed)
    rows = (rng.integers(n, size=n) for _ in range(n_bootstrap))
    drawn = np.stack([statistic(*(array[some] for array in arrays)) for some in rows])
    known = np.isfinite(drawn).sum(axis=0) > 1  # the standard deviation of one number is none
    errors = np.full(drawn.shape[1], np.nan)
    with np.errstate(invalid="ignore"):
        # A mean logarithm is -inf in samples with a truth where the density is 0: then the error is NaN.
        errors[known] = np.nanstd(drawn[:, known], axis=0, ddof=1)
    return errors
