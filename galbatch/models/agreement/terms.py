"""The features of the photometry that estimates are compared with, and the terms of the fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.columns import PHOT_AXIS_RATIO, ColumnKey, Statistic, photometry_band_columns
from galbatch.models.metadata import FEATURES_OF_BAND, ParameterInfo

__all__ = ["Estimates", "Features", "is_comparable", "terms_of"]

Floats = npt.NDArray[np.float64]
Values = Mapping[str, npt.NDArray[Any]]

COMPARABLE_UNITS = ("nJy", "arcsec", "mag")


def is_comparable(parameter: ParameterInfo) -> bool:
    """Return whether photometry tells of a parameter: a flux, an angular size, a magnitude or a color."""
    return parameter.unit in COMPARABLE_UNITS


@dataclass(frozen=True)
class Features:
    """The photometry of objects.

    Attributes
    ----------
    values : (object, feature) float64; NaN where there is no light
    errors : (object, feature) float64, their errors by the noise of the sky
    n_bands : number of bands, each with `FEATURES_OF_BAND`; the axis ratio comes last
    """

    values: Floats
    errors: Floats
    n_bands: int

    @classmethod
    def of(cls, photometry: Values, bands: Sequence[str]) -> Features:
        """Return the features of the columns of photometry in `bands`."""
        values, errors = [], []
        with np.errstate(invalid="ignore", divide="ignore"):
            for band in bands:
                column = {what: one.name for what, one in photometry_band_columns(band).items()}
                flux, radius, peak, flux_err, radius_err, noise = (
                    photometry[column[what]].astype(np.float64)
                    for what in (
                        "flux",
                        "half_light_radius",
                        "peak",
                        "flux_err",
                        "half_light_radius_err",
                        "noise",
                    )
                )
                values += [np.log(flux), np.log(radius), np.log(peak * radius**2 / flux)]
                errors += [flux_err / flux, radius_err / radius, noise / peak]
            ratio = np.log(photometry[PHOT_AXIS_RATIO.name].astype(np.float64))
        return cls(
            np.stack([*values, ratio], axis=1),
            np.stack([*errors, np.zeros(len(ratio))], axis=1),
            len(bands),
        )

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which objects have all features, (object,) bool."""
        return np.asarray(np.isfinite(self.values).all(axis=1) & np.isfinite(self.errors).all(axis=1))


@dataclass(frozen=True)
class Estimates:
    """A network's estimates of one parameter, (object,) float64: logarithms of fluxes and sizes, or magnitudes, and their std."""

    value: Floats
    std: Floats

    @classmethod
    def of(cls, parameter: ParameterInfo, found: Values, model: str) -> Estimates:
        """Return the estimates in the columns of a network that is called `model`; NaN where there is none."""
        median = found[ColumnKey(Statistic.QUANTILE, parameter.name, level=0.5).name(model)]
        std = found[ColumnKey(Statistic.STD, parameter.name).name(model)].astype(np.float64)
        median = median.astype(np.float64)
        if parameter.unit == "mag":
            return cls(median, std)
        with np.errstate(invalid="ignore", divide="ignore"):
            return cls(np.where(median > 0, np.log(median), np.nan), std / median)


def terms_of(standardized: Floats, lowest: Floats, highest: Floats, n_bands: int) -> Floats:
    """Return the terms (object, term) of standardized features (object, feature).

    A constant, all features, and the products of two features of a band or of the axis ratio. Products are of features within the range
    of the calibration, so that what is far outside is continued along a line.
    """
    within = np.clip(standardized, lowest, highest)
    last = FEATURES_OF_BAND * n_bands
    groups = [range(start, start + FEATURES_OF_BAND) for start in range(0, last, FEATURES_OF_BAND)]
    pairs = [pair for group in groups for pair in combinations_with_replacement(group, 2)]
    products = [within[:, a] * within[:, b] for a, b in [*pairs, (last, last)]]
    return np.concatenate([np.ones((len(standardized), 1)), standardized, np.stack(products, axis=1)], axis=1)
