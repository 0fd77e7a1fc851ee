"""How well a bundle does on images with known truth: R^2 of the median, coverage of the intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.models.bundle import Bundle
from galbatch.models.heads import GaussianPasses, read_gaussian
from galbatch.models.infer import run_passes
from galbatch.models.keys import draw_keys
from galbatch.models.metadata import ParameterInfo
from galbatch.models.posterior import mixture_cdf, mixture_quantiles
from galbatch.models.transforms import from_output, output_limits, to_output
from galbatch.types import njy_per_unit

__all__ = ["evaluate"]

Floats = npt.NDArray[np.float64]

INTERVALS = {"68": 0.6827, "95": 0.9545}


def evaluate(
    bundle: Bundle,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float64],
    *,
    posterior: PosteriorConfig | None = None,
) -> dict[str, dict[str, Any]]:
    """Compare a bundle's posteriors with the truth.

    A truth at or beyond a parameter's limits (B/T of 0 or 1) meets a posterior clamped to the limit, a
    point mass there. Its probability integral transform is drawn uniformly from the mass it falls in
    (`coverage_*`); `coverage_*_closed` counts it as covered whenever the closed interval touches it, which
    flatters.

    Parameters
    ----------
    bundle : with a Gaussian head
    images : (object, band, y, x) float32, nJy
    labels : (object, parameter) float64, physical units
    posterior : passes, seed and batch; the quantiles are not used

    Returns
    -------
    For each parameter: r2 of the median (of the logarithm for ln and log10: `r2_of` says), bias and
    scatter (median and 1.4826 MAD of median - truth), and the share of truths within the equal-tailed 68.27 and
    95.45 % intervals: coverage_68, coverage_95, their closed versions, and for parameters with limits
    apart for truths inside and at the limits.
    """
    posterior = posterior or PosteriorConfig()
    n_passes = posterior.passes if isinstance(posterior.passes, int) else 64
    keys = draw_keys(
        np.arange(len(images)), seed=posterior.seed, bundle_sha256=bundle.sha256, passes=np.arange(n_passes)
    )
    unit = np.float32(njy_per_unit(bundle.metadata.input.zero_point_mag))
    raw = run_passes(bundle, images / unit, keys, batch=posterior.batch)
    passes = read_gaussian(raw.outputs, len(bundle.metadata.parameters))
    rng = np.random.default_rng(posterior.seed)
    return {
        parameter.name: _one_parameter(passes, index, labels[:, index], parameter, rng)
        for index, parameter in enumerate(bundle.metadata.parameters)
    }


def _one_parameter(
    passes: GaussianPasses, index: int, truth: Floats, parameter: ParameterInfo, rng: np.random.Generator
) -> dict[str, Any]:
    tails = [0.5 * (1 - share) for share in INTERVALS.values()]
    levels = [0.5, *tails, *(1 - tail for tail in tails)]
    mean, std = passes.mean[..., index], passes.std[..., index]
    quantiles = from_output(mixture_quantiles(mean, std, levels), parameter)
    standard = to_output(truth, parameter)
    seen = from_output(standard, parameter)  # the truth as far as the parameter's limits let it be told
    transform = _integral_transform(passes, index, standard, parameter, rng)
    residual = quantiles[:, 0] - truth
    bias = float(np.median(residual))
    result: dict[str, Any] = {
        **_r_squared(quantiles[:, 0], truth, parameter),
        "bias": bias,
        "scatter": float(1.4826 * np.median(np.abs(residual - bias))),
    }
    low, high = output_limits(parameter)
    edge = (standard <= low) | (standard >= high)
    for i, (name, share) in enumerate(INTERVALS.items()):
        covered = np.abs(transform - 0.5) <= 0.5 * share
        touched = (seen >= quantiles[:, 1 + i]) & (seen <= quantiles[:, 1 + len(INTERVALS) + i])
        result[f"coverage_{name}"] = float(covered.mean())
        result[f"coverage_{name}_closed"] = float(touched.mean())
        if edge.any() and not edge.all():
            result[f"coverage_{name}_inside_limits"] = float(covered[~edge].mean())
            result[f"coverage_{name}_at_limits"] = float(covered[edge].mean())
    return result


def _integral_transform(
    passes: GaussianPasses, index: int, standard: Floats, parameter: ParameterInfo, rng: np.random.Generator
) -> Floats:
    """(object,) in 0..1, uniform if the posteriors are right; drawn within the mass at a limit."""
    transform = mixture_cdf(passes, index, standard)
    low, high = output_limits(parameter)
    draw = rng.uniform(size=len(transform))
    transform = np.where(standard <= low, draw * transform, transform)
    return np.where(standard >= high, 1 - draw * (1 - transform), transform)


def _r_squared(median: Floats, truth: Floats, parameter: ParameterInfo) -> dict[str, Any]:
    what = parameter.name
    if parameter.transform in ("ln", "log10"):
        what = f"ln {parameter.name}"
        median, truth = np.log(median), np.log(truth)
    unexplained = np.square(median - truth).mean() / truth.var()
    return {"r2": float(1 - unexplained), "r2_of": what}
