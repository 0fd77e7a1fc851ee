"""Widths of a trained Gaussian head, scaled once so that intervals cover what they say.

Training fits each pass's width to residuals that hold the scatter of the dropout already; the mixture over passes adds that
scatter once more, and a Gaussian likelihood fits the root mean square of residuals, not their central part. Both make the
central 68 % interval cover too much. One factor a parameter, found on the validation galaxies and folded into the last layer,
mends it; it changes no mean, and no correlation within a pass.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from galbatch.models.heads import GaussianPasses, read_gaussian
from galbatch.models.metadata import ParameterInfo
from galbatch.models.posterior import mixture_cdf
from galbatch.models.transforms import output_limits

__all__ = ["covered_share", "fold_width_factors", "gaussian_passes", "width_factors"]

CENTRAL_SHARE = 0.6827
CALIBRATION_PASSES = 16
FACTOR_RANGE = (0.05, 5.0)
BISECTIONS = 30


def width_factors(
    passes: GaussianPasses, target: npt.NDArray[np.float64], parameters: tuple[ParameterInfo, ...]
) -> tuple[float, ...]:
    """Factor on each parameter's standard deviations that makes the central interval cover 68.27 %.

    Parameters
    ----------
    passes : of the validation galaxies
    target : (object, parameter) float64, standardized truth
    """
    return tuple(
        _factor(passes, index, target[:, index], parameter) for index, parameter in enumerate(parameters)
    )


def _factor(
    passes: GaussianPasses, index: int, truth: npt.NDArray[np.float64], parameter: ParameterInfo
) -> float:
    """By bisection in the logarithm: the covered share rises with the width."""
    low, high = np.log(FACTOR_RANGE)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        wider = dataclasses.replace(passes, factor=passes.factor * np.exp(middle))
        if covered_share(wider, index, truth, parameter) < CENTRAL_SHARE:
            low = middle
        else:
            high = middle
    return float(np.exp(0.5 * (low + high)))


def covered_share(
    passes: GaussianPasses, index: int, truth: npt.NDArray[np.float64], parameter: ParameterInfo
) -> float:
    """Share of truths in the closed central 68.27 % interval, as the catalog's quantiles (clamped to limits) give it.

    Parameters
    ----------
    truth : (object,) float64, standardized
    """
    tail = 0.5 * (1.0 - CENTRAL_SHARE)
    below = mixture_cdf(passes.marginal(index), truth)
    lowest, highest = output_limits(parameter)
    # A truth at a limit is inside as soon as the clamped interval reaches the limit.
    inside_low = (below >= tail) | (truth >= highest)
    inside_high = (below <= 1.0 - tail) | (truth <= lowest)
    return float((inside_low & inside_high).mean())


@torch.inference_mode()
def gaussian_passes(
    network: nn.Module, images: npt.NDArray[np.float32], *, n_parameters: int, seed: int, batch: int = 64
) -> GaussianPasses:
    """Passes of a network in eval mode.

    Parameters
    ----------
    images : (object, band, y, x) float32, in the bundle's unit
    """
    rng = np.random.default_rng(seed)
    outputs = []
    for start in range(0, len(images), batch):
        some = torch.from_numpy(images[start : start + batch])
        keys = rng.integers(-(2**63), 2**63, (CALIBRATION_PASSES, len(some)))
        outputs.append(torch.stack([network(some, torch.from_numpy(row)) for row in keys], dim=1).numpy())
    return read_gaussian(np.concatenate(outputs), n_parameters)


@torch.no_grad()
def fold_width_factors(network: nn.Module, factors: tuple[float, ...]) -> None:
    """Scale the last layer so that Sigma becomes S Sigma S with S = diag(factors).

    With Sigma = L D L^T that is D' = S^2 D (log d_i grows by 2 ln s_i) and L'_ij = L_ij s_i / s_j.
    """
    n = len(factors)
    n_out = (3 * n + n * n) // 2
    last = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == n_out][-1]
    for index, factor in enumerate(factors):
        last.bias[n + index] += 2.0 * float(np.log(factor))
    for entry, (i, j) in enumerate(zip(*np.tril_indices(n, -1), strict=True)):
        last.weight[2 * n + entry] *= factors[i] / factors[j]
        last.bias[2 * n + entry] *= factors[i] / factors[j]
