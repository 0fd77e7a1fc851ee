"""Checks of one leaf's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from galbatch.catalog.leaves import sorting_problem
from galbatch.catalog.schema import schema_difference
from galbatch.core import sky
from galbatch.core.columns import DEC, HEALPIX, MODEL_FLAGS, RA, quantile_columns, quantity_column
from galbatch.core.pixels import HealpixPixel

__all__ = ["leaf_problems"]


def leaf_problems(
    table: pa.Table, leaf: HealpixPixel, schema: pa.Schema, footer: Mapping[str, str]
) -> Iterator[str]:
    """Find rows in a wrong place, and values that contradict each other.

    Parameters
    ----------
    table : all rows of the leaf
    leaf : its pixel
    schema : the catalog's
    footer : the leaf's own entries, see `write_leaf`
    """
    if difference := schema_difference(table.schema, schema):
        yield f"its schema is not the catalog's: {difference}"
        return
    if problem := sorting_problem(table, leaf):
        yield problem
    index = sky.healpix_29(table.column(RA.name).to_numpy(), table.column(DEC.name).to_numpy())
    elsewhere = index != table.column(HEALPIX.name).to_numpy()
    if elsewhere.any():
        yield f"{int(elsewhere.sum())} rows have a {HEALPIX.name} that is not that of their position, first row {int(np.argmax(elsewhere))}"
    if footer.get("n_objects", str(len(table))) != str(len(table)):
        yield f"{len(table)} rows, its footer says {footer['n_objects']}"
    yield from _quantile_problems(table)


def _quantile_problems(table: pa.Table) -> Iterator[str]:
    """Find quantiles that fall, and missing values without a flag."""
    for (model, quantity), columns in quantile_columns(table.column_names).items():
        name = quantity_column(model, quantity)
        values = np.stack(
            [table.column(column).to_numpy() for column in columns.values()], axis=1
        )  # (object, level)
        falling = (np.diff(values, axis=1) < 0).any(axis=1)
        if falling.any():
            yield f"{int(falling.sum())} rows have quantiles of {name} that fall, first row {int(np.argmax(falling))}"
        flags = table.column(MODEL_FLAGS.name(model)).to_numpy()
        unexplained = np.isnan(values).any(axis=1) & (flags == 0)
        if unexplained.any():
            yield (
                f"{int(unexplained.sum())} rows have NaN in {name} and no flag that says why, first row "
                f"{int(np.argmax(unexplained))}"
            )
