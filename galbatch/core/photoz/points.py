"""Statistics of redshift estimates: dz = (z_phot - z_spec) / (1 + z_spec), its bias, scatter and outliers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from galbatch.core.statistics import normalized_mad, weighted_quantiles

__all__ = ["OUTLIER_LIMITS", "POINT_STATISTICS", "point_statistics", "scaled_errors"]

Floats = npt.NDArray[np.float64]

OUTLIER_LIMITS = (0.15, 0.05)
"""The limits of |dz|: beyond the first an estimate is an outlier of optical surveys, beyond the second one of narrow requirements."""

IQR_OF_NORMAL = 1.3489795003921634
"""The interquartile range of a normal distribution with standard deviation 1."""

POINT_STATISTICS = {
    "bias": "median of dz",
    "sigma_nmad": "1.4826 times the median of |dz - median of dz|",
    "outliers_15": f"share of objects with |dz| above {OUTLIER_LIMITS[0]:g}",
    "outliers_05": f"share of objects with |dz| above {OUTLIER_LIMITS[1]:g}",
    "sigma_iqr": "interquartile range of dz over 1.349, that of a normal distribution of width 1",
}
"""Names and meanings of the statistics, in the order of `point_statistics`."""


def scaled_errors(z_phot: Floats, z_spec: Floats) -> Floats:
    """Return dz = (z_phot - z_spec) / (1 + z_spec), for arrays of any shape; NaN where z_spec is -1 or below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(z_spec > -1, (z_phot - z_spec) / (1 + z_spec), np.nan)


def point_statistics(dz: Floats, weights: Floats | None = None) -> Floats:
    """Return the statistics of scaled errors, in the order of `POINT_STATISTICS`.

    Parameters
    ----------
    dz : (object,) float64, finite
    weights : (object,) float64, 0 or above; None: equal weights

    Returns
    -------
    (statistic,) float64; NaN without objects
    """
    share = np.ones(len(dz)) if weights is None else weights
    if not share.sum() > 0:
        return np.full(len(POINT_STATISTICS), np.nan)
    first, median, third = weighted_quantiles(dz, [0.25, 0.5, 0.75], share)
    outliers = [float(np.average(np.abs(dz) > limit, weights=share)) for limit in OUTLIER_LIMITS]
    return np.array([median, normalized_mad(dz, share), *outliers, (third - first) / IQR_OF_NORMAL])
