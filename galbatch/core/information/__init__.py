"""Information of sources about a label, from the log scores of networks: what images add to numbers."""

from galbatch.core.information.entropy import class_log_frequencies, log_label_density
from galbatch.core.information.estimate import (
    QUANTITIES,
    InformationOfBin,
    LogScores,
    information_in_bins,
)

__all__ = [
    "QUANTITIES",
    "InformationOfBin",
    "LogScores",
    "class_log_frequencies",
    "information_in_bins",
    "log_label_density",
]
