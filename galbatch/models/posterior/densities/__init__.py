"""Densities of a posterior in physical units: their scores at a true value, and their values on a grid."""

from galbatch.models.posterior.densities.gridded import gridded_mass
from galbatch.models.posterior.densities.scores import DensityScores, density_scores, log_densities

__all__ = ["DensityScores", "density_scores", "gridded_mass", "log_densities"]
