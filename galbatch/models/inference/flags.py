"""The bits of ``<model>_flags``, which say why values of a network should not be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.columns import MC_ERROR, ColumnKey, Statistic
from galbatch.core.flags import ModelFlag
from galbatch.core.types import CutoutBlock
from galbatch.models.bundle import Ensemble
from galbatch.models.inference.domain import is_out_of_domain, is_unknown_to
from galbatch.models.inference.sampling import RawPasses
from galbatch.models.inference.summaries import magnitudes_that_may_miss
from galbatch.models.metadata import DomainInfo

__all__ = ["input_flags", "value_flags"]

Flags = npt.NDArray[np.int32]


def value_flags(
    ensemble: Ensemble,
    found: Mapping[ColumnKey, npt.NDArray[Any]],
    *,
    tolerance: float,
    stopping_error: npt.NDArray[np.float64] | None,
) -> Flags:
    """Return the bits NO_POSTERIOR, NOT_CONVERGED, EXTRAPOLATED and NO_MAGNITUDE, (object,) int32.

    NOT_CONVERGED is decided here alone: it is set where the error by which an object could stop is above the tolerance.

    Parameters
    ----------
    ensemble : network that the columns come from
    found : result columns (object,)
    tolerance : largest allowed error, in posterior standard deviations
    stopping_error : (object,) float64, error with the allowance for undetected jumps, by which adaptive passes stop; None where
        the number of passes is fixed: then the error is the one in the catalog
    """
    parameters = ensemble.metadata.parameters
    # A vector has no median.
    medians = [found.get(ColumnKey(Statistic.QUANTILE, p.name, level=0.5)) for p in parameters]
    flags = np.zeros(len(next(iter(found.values()))), np.int32)
    if ensemble.has_posterior:
        error = found[MC_ERROR] if stopping_error is None else stopping_error
        # Not `error > tolerance`: an error of NaN must be flagged, too.
        flags[~(error <= tolerance)] |= ModelFlag.NOT_CONVERGED
    else:
        flags |= ModelFlag.NO_POSTERIOR
    for parameter, median in zip(parameters, medians, strict=True):
        if median is not None and parameter.training_range is not None:
            low, high = parameter.training_range
            flags[(median < low) | (median > high)] |= ModelFlag.EXTRAPOLATED
    for name in magnitudes_that_may_miss(parameters):
        missing = np.isnan(found[ColumnKey(Statistic.QUANTILE, name, level=0.5)])
        flags[missing] |= ModelFlag.NO_MAGNITUDE
    return flags


def input_flags(
    domain: DomainInfo,
    raw: RawPasses,
    blocks: Sequence[CutoutBlock],
    rows: npt.NDArray[np.intp],
    *,
    distance: npt.NDArray[np.float64] | None,
) -> Flags:
    """Return the bits OUT_OF_DOMAIN, DOMAIN_UNKNOWN and CROP_AT_LIMIT for one bundle, (object,) int32.

    Parameters
    ----------
    domain : domain of the bundle
    raw : what the bundle computed for the objects
    blocks : the block that holds the objects on each grid; none for a network that takes no pixels
    rows : (object,) indices of the objects in the block
    distance : (object,) float64, distance of their features in units of the domain's limit; None: not known
    """
    flags = np.zeros(len(rows), np.int32)
    no_bands = np.zeros((len(rows), 0), np.float32)
    sky = np.concatenate([no_bands, *(one.sky_sigma_njy[rows] for one in blocks)], axis=1)
    psf = np.concatenate([no_bands, *(one.psf_fwhm_arcsec[rows] for one in blocks)], axis=1)
    outside = is_out_of_domain(domain, distance, sky_sigma_njy=sky, psf_fwhm_arcsec=psf)
    flags[outside] |= ModelFlag.OUT_OF_DOMAIN
    unknown = is_unknown_to(domain, distance, sky_sigma_njy=sky)
    flags[unknown & ~outside] |= ModelFlag.DOMAIN_UNKNOWN
    if raw.crop is not None and domain.crop_limits is not None:
        # A crop of NaN is flagged, too.
        low_crop, high_crop = domain.crop_limits
        flags[~((raw.crop > low_crop) & (raw.crop < high_crop))] |= ModelFlag.CROP_AT_LIMIT
    return flags
