"""The posterior, a mixture over the passes of a network: its quantiles, moments, modes and correlations.

The code is the same for all heads: the distributions of passes implement the protocols `Passes` and `Marginal`. All numbers are
standardized until `Quantity.value` maps them to physical units.
"""

from galbatch.models.posterior.densities import (
    DensityScores,
    density_scores,
    gridded_mass,
    log_densities,
)
from galbatch.models.posterior.devices import PassStatistics, statistics_of
from galbatch.models.posterior.draws import draws_quantiles
from galbatch.models.posterior.marginal import NO_LIMITS, Floats, Function, Marginal, Rows
from galbatch.models.posterior.normal import NormalMarginal
from galbatch.models.posterior.passes import (
    Passes,
    correlation_of,
    for_passes,
    inflation_map,
    total_covariance,
)
from galbatch.models.posterior.points import PointMarginal, PointPasses
from galbatch.models.posterior.pooling import PooledMarginal, PooledPasses, pooled
from galbatch.models.posterior.quantiles import (
    member_cdf_errors,
    member_errors,
    mixture_cdf,
    parts_of,
    posterior_std,
    quantile_error,
    relative_error,
    solve_quantiles,
)
from galbatch.models.posterior.quantity import Quantity, quantities_of
from galbatch.models.posterior.summaries import (
    SolvedQuantiles,
    Summary,
    summarize_draws,
    summarize_mixture,
)
from galbatch.models.posterior.transforms import fitted, from_output, log_slope, output_limits, to_output

__all__ = [
    "NO_LIMITS",
    "DensityScores",
    "Floats",
    "Function",
    "Marginal",
    "NormalMarginal",
    "PassStatistics",
    "Passes",
    "PointMarginal",
    "PointPasses",
    "PooledMarginal",
    "PooledPasses",
    "Quantity",
    "Rows",
    "SolvedQuantiles",
    "Summary",
    "correlation_of",
    "density_scores",
    "draws_quantiles",
    "fitted",
    "for_passes",
    "from_output",
    "gridded_mass",
    "inflation_map",
    "log_densities",
    "log_slope",
    "member_cdf_errors",
    "member_errors",
    "mixture_cdf",
    "output_limits",
    "parts_of",
    "pooled",
    "posterior_std",
    "quantile_error",
    "quantities_of",
    "relative_error",
    "solve_quantiles",
    "statistics_of",
    "summarize_draws",
    "summarize_mixture",
    "to_output",
    "total_covariance",
]
