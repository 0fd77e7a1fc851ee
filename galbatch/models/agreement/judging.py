"""The disagreement of a network with the photometry, in units of the scatter that the calibration found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from galbatch.core.columns import PHOT_AXIS_RATIO
from galbatch.models.agreement.terms import Estimates, Features, Floats, Values, is_comparable, terms_of
from galbatch.models.metadata import DISAGREEMENT_VERSION, DisagreementInfo, ParameterInfo, PhotometryFit

__all__ = ["disagreement", "disagreement_limit", "disagreement_parameters", "scaled_residual"]


def disagreement_parameters(parameters: Sequence[ParameterInfo]) -> list[ParameterInfo]:
    """Return the parameters that photometry tells of: fluxes, angular sizes, magnitudes and colors."""
    return [parameter for parameter in parameters if is_comparable(parameter)]


def disagreement(
    info: DisagreementInfo,
    parameters: Sequence[ParameterInfo],
    photometry: Values,
    found: Values,
    *,
    model: str,
    bands: Sequence[str],
    photometry_version: int,
) -> npt.NDArray[np.float32]:
    """Return the largest disagreement of any parameter, (object,) float32; NaN where photometry or network tell nothing.

    Parameters
    ----------
    info : second opinion of the bundle
    parameters : those of the bundle
    photometry : columns (object,) of the photometry, by name
    found : columns (object,) of the network's results, by name
    model : name of the network in the run, with which its columns begin
    bands : the network's bands, as the run names them
    photometry_version : version of the photometry; compared with another one than the calibration's, nothing is known
    """
    features, worst = Features.of(photometry, bands), np.full(len(photometry[PHOT_AXIS_RATIO.name]), -np.inf)
    if info.photometry_version == photometry_version and info.version == DISAGREEMENT_VERSION:
        terms = terms_of(
            (features.values - info.centers) / info.scales,
            np.asarray(info.lowest),
            np.asarray(info.highest),
            features.n_bands,
        )
        named = {parameter.name: parameter for parameter in parameters}
        for fit in info.fits:
            estimates = Estimates.of(named[fit.parameter], found, model)
            residual = np.abs(scaled_residual(fit, info.scales, features, terms, estimates))
            worst = np.fmax(worst, residual)
    return np.where(np.isfinite(worst), worst, np.nan).astype(np.float32)


def scaled_residual(
    fit: PhotometryFit, scales: Sequence[float], features: Features, terms: Floats, estimates: Estimates
) -> Floats:
    """Return (estimate - photometry) over its scatter given both errors, (object,); NaN where either is unknown."""
    coefficients = np.asarray(fit.coefficients)
    slopes = coefficients[1 : 1 + features.values.shape[1]] / np.asarray(scales)
    constant, of_photometry, of_posterior = fit.variances
    variance = constant + of_photometry * np.square(slopes * features.errors).sum(axis=1)
    variance += of_posterior * np.square(estimates.std)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual: Floats = (estimates.value - terms @ coefficients) / np.sqrt(variance)
    return residual


def disagreement_limit(info: DisagreementInfo, rate: float) -> float:
    """Return the disagreement above which a share `rate` of objects like the held-out ones lies.

    Rates between those of the bundle are interpolated in their logarithm; beyond them the nearest counts.
    """
    return float(np.interp(-np.log(rate), -np.log(info.rates), info.limits))
