"""Posteriors whose passes stay on the device that computed them: what is per pass is computed there, and numbers per object come back.

Modules here that import torch are imported by those who have tensors: names of columns, which need `galbatch.models.posterior`, do not
cost its start.
"""

from galbatch.models.posterior.devices.statistics import (
    DEVICE_ELEMENTS_AT_ONCE,
    ELEMENTS_AT_ONCE,
    PassStatistics,
    statistics_of,
)

__all__ = ["DEVICE_ELEMENTS_AT_ONCE", "ELEMENTS_AT_ONCE", "PassStatistics", "statistics_of"]
