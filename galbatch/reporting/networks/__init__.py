"""Figures and tables about networks: training curves, calibrations, features, and what images add to numbers."""

from galbatch.reporting.networks.calibration import write_calibration
from galbatch.reporting.networks.features import (
    MOST_RANKED,
    FeatureSummary,
    feature_panels,
    summarize_features,
)
from galbatch.reporting.networks.firing import FiringPicture, bundle_files, firing_pictures
from galbatch.reporting.networks.information import information_table, write_information
from galbatch.reporting.networks.training_curve import write_training_curve

__all__ = [
    "MOST_RANKED",
    "FeatureSummary",
    "FiringPicture",
    "bundle_files",
    "feature_panels",
    "firing_pictures",
    "information_table",
    "summarize_features",
    "write_calibration",
    "write_information",
    "write_training_curve",
]
