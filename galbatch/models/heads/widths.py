"""Widths of normal distributions from outputs, which are their logarithms."""

from __future__ import annotations

import numpy as np

from galbatch.models.posterior import Floats

__all__ = ["std_of"]

MAX_LOG_STD = 100.0
"""Wider and narrower ones are held there: e^100 standard deviations are infinite in the catalog's float32."""


def std_of(log_std: Floats) -> Floats:
    """Return the standard deviations of their natural logarithms, of any shape."""
    return np.exp(np.clip(log_std, -MAX_LOG_STD, MAX_LOG_STD))
