"""The prior of a network, estimated from its training labels, and its density at other values.

A network that minimizes its loss learns the posterior under the distribution of its training labels, whatever the population that it is
run on. With the density of these labels a population can be inferred from many posteriors; see ``docs/reference/priors.md``.

A bundle has its prior in its metadata. As with stopping calibrations, the shipped bundles' files stay as they are: their priors are in
files ``NAME.prior.json`` next to them, and are found by the files' hash.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy

from galbatch.config import parse_strictly
from galbatch.models.bundle.paths import DEMO_FOLDER
from galbatch.models.metadata import BundleMetadata, ParameterInfo, PriorInfo
from galbatch.models.posterior import Floats, log_slope, to_output

__all__ = ["UNKNOWN_PRIOR", "estimate_prior", "log_prior", "prior_of", "write_prior"]

PRIOR_SUFFIX = ".prior.json"
UNKNOWN_PRIOR = "the density of its training labels, which the bundle does not state (galbatch models calibrate estimates it)"

MAX_OBJECTS = 20_000
"""Labels that the mixture is fitted to. More change its density by less than the choice of its components does."""

MAX_COMPONENTS = 8

MIN_VARIANCE = 0.01
"""Added to each component's variance: a tenth of the labels' standard deviation. Labels at a limit would be infinitely narrow without it."""

DIGITS = 6  # Decimals kept, in standardized units.


def prior_of(metadata: BundleMetadata, sha256: str) -> PriorInfo | None:
    """Return the prior of a bundle: its own, or the one that is shipped for its hash; None if there is none."""
    return metadata.prior or _shipped().get(sha256)


def write_prior(path: Path, sha256: str, info: PriorInfo) -> None:
    """Write the prior of the bundle with this hash to a file of its own."""
    content = {"sha256": sha256, "prior": dataclasses.asdict(info)}
    path.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


@lru_cache(maxsize=1)
def _shipped() -> dict[str, PriorInfo]:
    """Return the priors that are shipped, by the hash of their bundle's file."""
    found = {}
    for path in sorted(DEMO_FOLDER.glob(f"*{PRIOR_SUFFIX}")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found[content["sha256"]] = parse_strictly(PriorInfo, content["prior"], source=path.name)
    return found


def estimate_prior(
    labels: npt.NDArray[np.float64],
    parameters: Sequence[ParameterInfo],
    *,
    source: Literal["training", "calibration"] = "training",
    data: str = "",
    weight: npt.NDArray[np.floating] | None = None,
) -> PriorInfo | None:
    """Return the density of labels: the mixture of one to eight normal distributions with the lowest BIC (scikit-learn).

    A mixture, not kernels about the labels: a population is found by dividing by the density, and the noise of 1,000 kernels, 5 to
    10 %, turns a scatter of 0.25 into one of 0.16.

    Parameters
    ----------
    labels : (object, parameter) float64, in physical units; rows that are not finite are left out
    parameters : transform, limits, location and scale of each
    source : whether the labels are those of the training, or of held-out objects that stand for them
    data : description of the objects
    weight : (object,) above 0, weight of each object's loss; None: all equal. Posteriors are under the weighted distribution

    Returns
    -------
    PriorInfo or None
        None where the labels have no density: too few of them, or a parameter that does not vary or follows from the others.
    """
    outputs = np.stack([to_output(column, p) for column, p in zip(labels.T, parameters, strict=True)], axis=1)
    finite = np.isfinite(outputs).all(axis=1)
    outputs = outputs[finite]  # (object, parameter)
    n_objects, n_parameters = outputs.shape
    if n_objects <= 10 * n_parameters:
        return None
    if np.linalg.matrix_rank(np.atleast_2d(np.cov(outputs.T)), tol=1e-8) < n_parameters:
        return None
    best = _best_mixture(outputs[_rows_of(n_objects, None if weight is None else weight[finite])])
    weights = np.round(best.weights_, DIGITS)
    return PriorInfo(
        tuple((weights / weights.sum()).tolist()),
        tuple(map(tuple, np.round(best.means_, DIGITS).tolist())),
        tuple(tuple(map(tuple, one)) for one in np.round(best.covariances_, DIGITS).tolist()),
        source,
        n_objects,
        data,
    )


def _rows_of(n_objects: int, weight: npt.NDArray[np.floating] | None) -> npt.NDArray[np.int64]:
    """Return the rows that the mixture is fitted to, in even steps: of the objects, or of the sum of their weights."""
    n_rows = min(n_objects, MAX_OBJECTS)
    if weight is None:
        return np.unique(np.linspace(0, n_objects - 1, n_rows).astype(np.int64))
    # scikit-learn's mixtures take no weights, so an object with many times the mean weight is there as many times.
    share = np.cumsum(weight, dtype=np.float64)
    return np.searchsorted(share, (np.arange(n_rows) + 0.5) / n_rows * share[-1]).astype(np.int64)


def _best_mixture(outputs: Floats) -> Any:
    """Return scikit-learn's mixture with the lowest BIC of those with 1, 2, .. components, fitted to (object, parameter)."""
    # Imported here: it takes a second, and only trainings and calibrations need it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    found = []
    for n_components in range(1, MAX_COMPONENTS + 1):
        mixture = GaussianMixture(n_components, reg_covar=MIN_VARIANCE, max_iter=300, random_state=0)
        with warnings.catch_warnings():
            # Flat labels have many mixtures that are equally good; the last step is as good as any.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(mixture.fit(outputs))
    return min(found, key=lambda mixture: mixture.bic(outputs))


def log_prior(
    prior: PriorInfo, parameters: Sequence[ParameterInfo], values: Mapping[str, npt.NDArray[np.float64]]
) -> Floats:
    """Return the logarithm of the prior's density at values in physical units.

    Parameters
    ----------
    prior : the prior of a bundle
    parameters : those of the bundle, in its order
    values : (draw,) float64 of parameters by their names, at least one. Without some of the bundle's parameters the density is
        the marginal one of the others.

    Returns
    -------
    (draw,) float64, per product of the units of the parameters in `values`. At or beyond a parameter's limits it is the density
    at the limit; NaN where a value has no finite transform.
    """
    chosen = [number for number, parameter in enumerate(parameters) if parameter.name in values]
    own = [parameters[number] for number in chosen]
    outputs = np.stack([to_output(values[p.name], p) for p in own], axis=1)  # (draw, parameter)
    means = np.asarray(prior.means)[:, chosen]
    covariances = np.asarray(prior.covariances)[:, chosen][:, :, chosen]
    finite = np.asarray(np.isfinite(outputs).all(axis=1))  # (draw,)
    outputs = np.where(finite[:, None], outputs, 0.0)
    # By their full names, at which scipy imports its parts (0.4 s): most runs only look whether a bundle has a prior.
    logs = [
        np.log(weight) + scipy.stats.multivariate_normal(mean, covariance).logpdf(outputs)
        for weight, mean, covariance in zip(prior.weights, means, covariances, strict=True)
    ]
    # A single value comes back from scipy without an axis.
    density = scipy.special.logsumexp(np.reshape(logs, (len(logs), -1)), axis=0)
    slopes = np.sum([log_slope(output, p) for output, p in zip(outputs.T, own, strict=True)], axis=0)
    return np.asarray(np.where(finite, density - slopes, np.nan))
