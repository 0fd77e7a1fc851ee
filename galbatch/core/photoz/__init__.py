"""Photometric redshifts as the field measures them: point estimates, densities, and weights by which a sample stands for another.

NumPy and SciPy alone. Calibration, comparison, columns and exports take their numbers from here.
"""

from galbatch.core.photoz.densities import (
    GridDensities,
    cde_loss,
    density_peaks,
    highest_density_parts,
    histogram_crps,
    shortest_intervals,
)
from galbatch.core.photoz.points import (
    OUTLIER_LIMITS,
    POINT_STATISTICS,
    point_statistics,
    scaled_errors,
)
from galbatch.core.photoz.samples import (
    HEADINGS,
    STATISTICS,
    BinOfSample,
    MeasuredRedshifts,
    RedshiftSample,
    equal_bins,
    measured_in_bins,
)
from galbatch.core.photoz.weighting import target_weights

__all__ = [
    "HEADINGS",
    "OUTLIER_LIMITS",
    "POINT_STATISTICS",
    "STATISTICS",
    "BinOfSample",
    "GridDensities",
    "MeasuredRedshifts",
    "RedshiftSample",
    "cde_loss",
    "density_peaks",
    "equal_bins",
    "highest_density_parts",
    "histogram_crps",
    "measured_in_bins",
    "point_statistics",
    "scaled_errors",
    "shortest_intervals",
    "target_weights",
]
