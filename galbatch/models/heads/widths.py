"""Standard deviations from outputs of heads, which are their logarithms."""

from __future__ import annotations

import numpy as np

from galbatch.models.posterior import Floats

__all__ = ["MAX_LOG_STD", "std_of"]

MAX_LOG_STD = 100.0
"""The largest absolute value of log std; beyond, it is clipped: e^100 is infinite in the catalog's float32."""


def std_of(log_std: Floats) -> Floats:
    """Return standard deviations from their natural logarithms, for arrays of any shape."""
    return np.exp(np.clip(log_std, -MAX_LOG_STD, MAX_LOG_STD))
