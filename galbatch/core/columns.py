"""Columns of the catalog."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

__all__ = ["Column"]


@dataclass(frozen=True, slots=True)
class Column:
    """A catalog column before it is written.

    `dtype` is a pyarrow type name (``int32``, ``float32``, ``string``); `unit` a VOUnits string, "" for
    none; `description` says what NaN means where it can occur.
    """

    name: str
    dtype: str
    unit: str
    description: str
    ucd: str = ""

    @property
    def arrow_type(self) -> pa.DataType:
        """The pyarrow type."""
        return pa.string() if self.dtype == "string" else pa.from_numpy_dtype(np.dtype(self.dtype))
