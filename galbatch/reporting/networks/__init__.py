"""Figures and tables about networks: training curves, calibrations, and what images add to numbers."""

from galbatch.reporting.networks.calibration import write_calibration
from galbatch.reporting.networks.information import information_table, write_information
from galbatch.reporting.networks.training_curve import write_training_curve

__all__ = ["information_table", "write_calibration", "write_information", "write_training_curve"]
