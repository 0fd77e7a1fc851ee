"""What a network says of its own values: the bits of ``<model>_flags``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.models.domain import feature_distance
from galbatch.models.ensemble import Ensemble
from galbatch.models.metadata import BundleMetadata
from galbatch.models.sampling import RawPasses
from galbatch.types import CutoutBlock, ModelFlag

__all__ = ["input_flags", "value_flags"]

Flags = npt.NDArray[np.int32]


def value_flags(
    ensemble: Ensemble, found: Mapping[str, npt.NDArray[Any]], posterior: PosteriorConfig
) -> Flags:
    """NO_POSTERIOR, NOT_CONVERGED, EXTRAPOLATED of the columns `found`, (object,), without the model's name."""
    parameters = ensemble.metadata.parameters
    flags = np.zeros(len(found[f"{parameters[0].name}_q500"]), np.int32)
    if not ensemble.has_posterior:
        flags |= ModelFlag.NO_POSTERIOR
    elif "mc_error" in found:
        flags[found["mc_error"] > posterior.tolerance] |= ModelFlag.NOT_CONVERGED
    for parameter in parameters:
        if parameter.training_range is not None:
            median = found[f"{parameter.name}_q500"]
            low, high = parameter.training_range
            flags[(median < low) | (median > high)] |= ModelFlag.EXTRAPOLATED
    return flags


def input_flags(
    metadata: BundleMetadata, raw: RawPasses, cutouts: CutoutBlock, rows: npt.NDArray[np.intp]
) -> Flags:
    """OUT_OF_DOMAIN, CROP_AT_LIMIT of a bundle, for the block's `rows`, which `raw` is of."""
    domain, flags = metadata.domain, np.zeros(len(rows), np.int32)
    outside = np.zeros(len(rows), bool)
    for measured, ranges in (
        (cutouts.sky_sigma_njy, domain.sky_sigma_njy),
        (cutouts.psf_fwhm_arcsec, domain.psf_fwhm_arcsec),
    ):
        if ranges is not None:
            low, high = np.asarray(ranges).T
            outside |= ((measured[rows] < low) | (measured[rows] > high)).any(axis=1)  # NaN is neither
    if raw.last is not None and domain.features_mean is not None and domain.distance_limit is not None:
        last = np.nan_to_num(raw.last.astype(np.float64))
        mean, covariance = np.asarray(domain.features_mean), np.asarray(domain.features_covariance)
        outside |= feature_distance(last, mean, covariance) > domain.distance_limit
    flags[outside] |= ModelFlag.OUT_OF_DOMAIN
    if raw.crop is not None and domain.crop_limits is not None:
        low_crop, high_crop = domain.crop_limits
        flags[~((raw.crop > low_crop) & (raw.crop < high_crop))] |= ModelFlag.CROP_AT_LIMIT
    return flags
