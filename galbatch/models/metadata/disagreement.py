"""The second opinion of a bundle: how its estimates relate to the photometry of the cutouts that it was calibrated on.

See `galbatch.models.agreement` for how it is fitted and used.
"""

# No postponed annotations: config looks for the nearest known key in the classes the fields name.
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

__all__ = ["DISAGREEMENT_VERSION", "FEATURES_OF_BAND", "DisagreementInfo", "PhotometryFit"]

DISAGREEMENT_VERSION = 1
"""Raised when terms or features mean something else: fits of another version are not used."""

FEATURES_OF_BAND = 3
"""Logarithms of flux and half-light radius, and of the concentration: peak times radius squared over flux."""

N_VARIANCES = 3


@dataclass(frozen=True)
class PhotometryFit:
    """The estimates of one parameter as they follow from the photometry.

    Attributes
    ----------
    parameter : name of the parameter
    coefficients : (term,) of the estimate's natural logarithm, or of a magnitude itself
    variances : (3,) 0 or more: a constant, and what the variances of the photometry and of the posterior are multiplied by; the sum is
        that of (estimate - photometry)
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    parameter: str
    coefficients: tuple[float, ...]
    variances: tuple[float, ...]


@dataclass(frozen=True)
class DisagreementInfo:
    """The relation of all parameters that photometry tells of, and how often held-out objects are beyond it.

    Attributes
    ----------
    version : `DISAGREEMENT_VERSION` of the code that made it
    photometry_version : version of the photometry that it was made with
    centers, scales : (feature,) by which features of the photometry are standardized
    lowest, highest : (feature,) range of the standardized features, beyond which all but linear terms are constant
    fits : one for each parameter that is a flux, magnitude, color or angular size
    rates : shares of held-out objects, falling
    limits : disagreement above which these shares are, rising
    n_objects : number of held-out objects
    data : description of them
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    version: int
    photometry_version: int
    centers: tuple[float, ...]
    scales: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    fits: tuple[PhotometryFit, ...]
    rates: tuple[float, ...]
    limits: tuple[float, ...]
    n_objects: int
    data: str = ""

    def problems(self, parameters: tuple[str, ...], n_bands: int) -> list[str]:
        """Return messages on values that contradict each other, the names of the parameters or the number of bands; empty if there are none."""
        problems = []
        if unknown := {fit.parameter for fit in self.fits} - set(parameters):
            problems.append(f"is of unknown parameters: {', '.join(sorted(unknown))}")
        if not self.fits or any(
            len(fit.variances) != N_VARIANCES or min(fit.variances) < 0 for fit in self.fits
        ):
            problems.append(f"needs a fit, and each has {N_VARIANCES} variances of 0 or more")
        problems += self._number_problems(n_bands)
        if self.scales and min(self.scales) <= 0:
            problems.append("scales must be above 0")
        if not self._has_curve():
            problems.append("rates must fall within (0, 1), and limits rise with them")
        return [f"disagreement: {problem}" for problem in problems]

    def _number_problems(self, n_bands: int) -> list[str]:
        """Return messages on numbers of features and of terms that are not those of so many bands."""
        # Fits of another version are not used, whatever features they have.
        if self.version != DISAGREEMENT_VERSION:
            return []
        n_features = FEATURES_OF_BAND * n_bands + 1  # the axis ratio comes last
        # A constant, the features, their products within a band, and the square of the axis ratio.
        n_terms = 1 + n_features + n_bands * FEATURES_OF_BAND * (FEATURES_OF_BAND + 1) // 2 + 1
        problems = []
        if any(len(one) != n_features for one in (self.centers, self.scales, self.lowest, self.highest)):
            problems.append(
                f"centers, scales, lowest and highest need {n_features} features for {n_bands} bands"
            )
        if any(len(fit.coefficients) != n_terms for fit in self.fits):
            problems.append(f"each fit needs {n_terms} coefficients for {n_bands} bands")
        return problems

    def _has_curve(self) -> bool:
        """Return whether there is a limit for each rate, in order."""
        if len(self.rates) != len(self.limits) or len(self.rates) < 2:
            return False
        return (
            all(0 < rate < 1 for rate in self.rates)
            and all(a > b for a, b in pairwise(self.rates))
            and all(a <= b for a, b in pairwise(self.limits))
        )
