"""Rows of a catalog as astropy has them."""

from __future__ import annotations

import pyarrow as pa
from astropy.table import QTable

from galbatch.objects import astropy_table

__all__ = ["as_qtable"]


def as_qtable(table: pa.Table) -> QTable:
    """Return an Arrow table as a QTable: Quantities where a column has a unit, masks where a value is null, descriptions, UCDs.

    Parameters
    ----------
    table : pyarrow.Table
        Unit, description and UCD in the field metadata, as `galbatch.catalog.read_objects` returns.
    """
    return QTable(astropy_table(table))
