"""Rows of a catalog as astropy and pandas have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from astropy.table import QTable

from galbatch.objects import astropy_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_frame", "as_qtable"]


def as_qtable(table: pa.Table) -> QTable:
    """Return an Arrow table as a QTable: Quantities where a column has a unit, masks where a value is null, descriptions, UCDs.

    Parameters
    ----------
    table : pyarrow.Table
        Unit, description and UCD in the field metadata, as `galbatch.catalog.read_objects` returns.
    """
    return QTable(astropy_table(table, for_file=False))


def as_frame(table: pa.Table) -> pd.DataFrame:
    """Return an Arrow table as a DataFrame: missing floats are NaN, integers with missing values are of pandas' nullable types."""
    with_nulls = [
        field.name
        for field in table.schema
        if pa.types.is_integer(field.type) and table.column(field.name).null_count
    ]
    frame = table.drop_columns(with_nulls).to_pandas()
    for name in with_nulls:
        # As float64 an id of 17 digits would lose its last one.
        kind = str(table.schema.field(name).type).replace("u", "U").replace("i", "I")
        frame.insert(
            table.column_names.index(name),
            name,
            table.column(name).to_pandas(integer_object_nulls=True).astype(kind),
        )
    return frame
