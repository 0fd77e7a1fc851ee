"""Checks of the rows of one leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.catalog.leaves import sorting_problem
from galbatch.catalog.schema import schema_difference
from galbatch.core import sky
from galbatch.core.columns import (
    DEC,
    HEALPIX,
    MODEL_FLAGS,
    RA,
    quantile_columns,
    quantity_column,
    result_names,
)
from galbatch.core.pixels import HealpixPixel

__all__ = ["leaf_problems"]


def leaf_problems(
    table: pa.Table, leaf: HealpixPixel, schema: pa.Schema, footer: Mapping[str, str]
) -> Iterator[str]:
    """Yield a message for each kind of problem in a leaf's schema, order of rows, positions, quantiles and flags.

    Parameters
    ----------
    table : pyarrow.Table
        All rows of the leaf.
    leaf : HealpixPixel
        The leaf's pixel.
    schema : pyarrow.Schema
        The schema of the catalog.
    footer : mapping of str
        The entries that were given to `write_leaf` with the leaf.
    """
    if difference := schema_difference(table.schema, schema):
        yield f"its schema is not the catalog's: {difference}"
        return  # The checks below would fail on missing columns or other types.
    if problem := sorting_problem(table, leaf):
        yield problem
    index = sky.healpix_29(table.column(RA.name).to_numpy(), table.column(DEC.name).to_numpy())
    elsewhere = index != table.column(HEALPIX.name).to_numpy()
    if elsewhere.any():
        yield f"{int(elsewhere.sum())} rows have a {HEALPIX.name} that does not match their position, first row {int(np.argmax(elsewhere))}"
    if footer.get("n_objects", str(len(table))) != str(len(table)):
        yield f"{len(table)} rows, its footer says {footer['n_objects']}"
    yield from _nan_problems(table)
    for (model, quantity), columns in quantile_columns(table.column_names).items():
        name = quantity_column(model, quantity)
        values = np.stack(
            [table.column(column).to_numpy() for column in columns.values()], axis=1
        )  # (object, level)
        # A missing value is NaN here, which compares as not smaller, so objects without a posterior pass here, and need a flag below.
        falling = (np.diff(values, axis=1) < 0).any(axis=1)
        if falling.any():
            yield f"{int(falling.sum())} rows have quantiles of {name} that decrease with their level, first row {int(np.argmax(falling))}"
        flags = table.column(MODEL_FLAGS.name(model)).to_numpy()
        unexplained = np.isnan(values).any(axis=1) & (flags == 0)
        if unexplained.any():
            yield (
                f"{int(unexplained.sum())} rows have no value of {name} and no flag that says why, first row "
                f"{int(np.argmax(unexplained))}"
            )


def _nan_problems(table: pa.Table) -> Iterator[str]:
    """Yield a message for each result column that holds NaN: a missing value is null in files."""
    for name in result_names(table.column_names):
        column = table.column(name)
        of_what = "rows"
        if pa.types.is_fixed_size_list(column.type):
            if column.null_count:
                yield f"{column.null_count} rows of {name} are null; a missing vector is a list of nulls, which astropy can read"
            of_what, column = "values", column.combine_chunks().flatten()
        if pa.types.is_floating(column.type) and (n_nan := pc.sum(pc.is_nan(column)).as_py()):
            yield f"{n_nan} {of_what} of {name} hold NaN, which most readers take for a number; a missing value is null"
