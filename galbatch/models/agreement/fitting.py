"""The fit of a network's estimates to the photometry of held-out objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from galbatch.core.sky_noise import SIGMA_OF_MAD
from galbatch.models.agreement.judging import disagreement_parameters, scaled_residual
from galbatch.models.agreement.terms import Estimates, Features, Floats, Values, terms_of
from galbatch.models.metadata import DISAGREEMENT_VERSION, DisagreementInfo, ParameterInfo, PhotometryFit

__all__ = ["MIN_DISAGREEMENT_OBJECTS", "fit_disagreement"]

RATES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
"""False-alarm rates with a limit of their own. 2,000 held-out objects have four above the last one."""

MIN_DISAGREEMENT_OBJECTS = 200
"""With fewer objects the limit of one in a hundred would be that of a single one."""

ROUNDS = 6
CLIP_SIGMAS = 3.0
RIDGE = 1e-3
"""The fit is repeated without objects that are off by more; a small penalty keeps terms that hardly vary at 0."""

RANGE = (0.5, 99.5)
DIGITS = 6
Bools = npt.NDArray[np.bool_]


def fit_disagreement(
    parameters: Sequence[ParameterInfo],
    photometry: Values,
    found: Values,
    *,
    model: str,
    bands: Sequence[str],
    photometry_version: int,
    data: str = "",
) -> DisagreementInfo | None:
    """Return how a network's estimates of held-out objects follow from their photometry; None where it cannot be told.

    Limits are found for objects that were not fitted: of each half with the fit of the other one.

    Parameters
    ----------
    parameters, photometry, found, model, bands, photometry_version : as for `disagreement`
    data : description of the objects

    Returns
    -------
    DisagreementInfo
        None without a parameter that photometry tells of, or with less than 200 objects that both know.
    """
    named = disagreement_parameters(parameters)
    features = Features.of(photometry, bands)
    estimates = [Estimates.of(parameter, found, model) for parameter in named]
    known = features.known
    for one in estimates:
        known &= np.isfinite(one.value) & np.isfinite(one.std)
    if not named or known.sum() < MIN_DISAGREEMENT_OBJECTS:
        return None
    features = Features(features.values[known], features.errors[known], features.n_bands)
    estimates = [Estimates(one.value[known], one.std[known]) for one in estimates]
    centers, scales = features.values.mean(axis=0), features.values.std(axis=0)
    scales = np.where(scales > 0, scales, 1.0)
    standardized = (features.values - centers) / scales
    lowest, highest = np.percentile(standardized, RANGE, axis=0)
    terms = terms_of(standardized, lowest, highest, features.n_bands)
    all_of_them = np.ones(len(terms), np.bool_)
    first = np.arange(len(terms)) % 2 == 0
    worst = np.zeros(len(terms))
    for name, one in zip(named, estimates, strict=True):
        for half in (first, ~first):
            fit = _fit(name.name, terms, features, one, scales=scales, chosen=half)
            residual = np.abs(scaled_residual(fit, scales.tolist(), features, terms, one))
            worst[~half] = np.maximum(worst, residual)[~half]
    fits = tuple(
        _fit(name.name, terms, features, one, scales=scales, chosen=all_of_them)
        for name, one in zip(named, estimates, strict=True)
    )
    return DisagreementInfo(
        version=DISAGREEMENT_VERSION,
        photometry_version=photometry_version,
        centers=_rounded(centers),
        scales=_rounded(scales),
        lowest=_rounded(lowest),
        highest=_rounded(highest),
        fits=fits,
        rates=RATES,
        limits=_rounded(np.quantile(worst, 1.0 - np.array(RATES))),
        n_objects=int(known.sum()),
        data=data,
    )


def _fit(
    name: str, terms: Floats, features: Features, estimates: Estimates, *, scales: Floats, chosen: Bools
) -> PhotometryFit:
    """Return the fit of one parameter to the chosen objects."""
    kept, coefficients = chosen, np.zeros(terms.shape[1])
    penalty = np.sqrt(RIDGE * chosen.sum()) * np.eye(terms.shape[1])[1:]
    for _ in range(ROUNDS):
        left = np.concatenate([terms[kept], penalty])
        right = np.concatenate([estimates.value[kept], np.zeros(len(penalty))])
        coefficients = np.linalg.lstsq(left, right, rcond=None)[0]
        residual = np.abs(estimates.value - terms @ coefficients)
        kept = chosen & (residual <= CLIP_SIGMAS * SIGMA_OF_MAD * np.median(residual[chosen]))
    slopes = coefficients[1 : 1 + features.values.shape[1]] / scales
    of_photometry = np.square(slopes * features.errors).sum(axis=1)
    parts = np.stack([np.ones(len(terms)), of_photometry, np.square(estimates.std)], axis=1)
    squared = np.square(estimates.value - terms @ coefficients)
    return PhotometryFit(name, _rounded(coefficients), _rounded(_variances(parts[chosen], squared[chosen])))


def _variances(parts: Floats, squared: Floats) -> Floats:
    """Return how the squared residuals (object,) follow from the parts of their variance (object, part), each 0 or more.

    Squares scatter in proportion to their mean, by which they are weighted; those beyond `CLIP_SIGMAS` are cut off. At the end the median is
    made that of a normal distribution, which the tails do not move.
    """
    expected = np.full(len(squared), float(np.median(squared)) * SIGMA_OF_MAD**2)
    factors = np.zeros(parts.shape[1])
    # All parts count by their mean, as the posterior's may be a thousandth of the constant one.
    sizes = np.maximum(parts.mean(axis=0), np.finfo(float).tiny)
    for _ in range(ROUNDS):
        floor = max(float(np.median(expected)) * 1e-3, np.finfo(float).tiny)
        weight = 1.0 / np.maximum(expected, floor)
        cut = np.minimum(squared, CLIP_SIGMAS**2 * expected)
        factors = nnls(parts / sizes * weight[:, None], cut * weight)[0] / sizes
        expected = parts @ factors
    ratio = float(np.median(squared / np.maximum(expected, np.finfo(float).tiny)))
    found: Floats = factors * max(ratio, np.finfo(float).tiny) * SIGMA_OF_MAD**2
    return found


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values.tolist())
