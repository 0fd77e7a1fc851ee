"""Redshifts of a catalog beside known ones: the statistics of the field, in bins and weighted to a target list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.api import density_columns
from galbatch.core.photoz import (
    STATISTICS,
    BinOfSample,
    GridDensities,
    RedshiftSample,
    equal_bins,
    measured_in_bins,
    target_weights,
)
from galbatch.objects import numbers_of, read_table
from galbatch.reporting.comparison.joining import Joined
from galbatch.reporting.contents import Quantity

__all__ = [
    "ComparedRedshift",
    "RedshiftOptions",
    "compare_redshifts",
    "densities_of",
    "redshift_sample",
    "redshift_table",
]

Floats = npt.NDArray[np.float64]

N_BINS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RedshiftOptions:
    """Details of the comparison of redshifts.

    Attributes
    ----------
    target : str or None
        Path of a list whose colors and magnitudes the objects are weighted to; None: no weights.
    target_columns : sequence of str
        Columns of the target, which the catalog or the other table has, too.
    n_bootstrap, seed : int
        Number of bootstrap samples, and their seed.
    """

    target: str | None = None
    target_columns: Sequence[str] = ()
    n_bootstrap: int = 200
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ComparedRedshift:
    """A redshift of a model beside known ones.

    Attributes
    ----------
    model, quantity, column : str
        Model and parameter, and the other table's column.
    bins : tuple of BinOfSample
        All objects, then bins of z_phot and of the magnitude or other columns.
    weighted : BinOfSample or None
        All objects, weighted to the target; None: there is none.
    """

    model: str
    quantity: str
    column: str
    bins: tuple[BinOfSample, ...]
    weighted: BinOfSample | None

    def rows(self) -> list[tuple[str, BinOfSample]]:
        """Return the rows of tables: a text that says which objects, and their statistics."""
        rows = [(one.text, one) for one in self.bins]
        if self.weighted is not None:
            rows.insert(1, ("all, weighted to the target", self.weighted))
        return rows


def compare_redshifts(joined: Joined, options: RedshiftOptions) -> tuple[ComparedRedshift, ...]:
    """Return the comparison of each quantity that is a redshift by its UCD; the median of its posterior is z_phot."""
    return tuple(
        _compared(joined, quantity, options) for quantity in joined.quantities() if quantity.is_redshift
    )


def _compared(joined: Joined, quantity: Quantity, options: RedshiftOptions) -> ComparedRedshift:
    """Return the statistics of one redshift, of the objects that have both values."""
    z_spec = joined.reference(quantity)
    # Redshifts of -1 and below are what tables write where there is none.
    usable = np.isfinite(quantity.median) & np.isfinite(z_spec) & (z_spec > -1)
    binned = {one.name: joined.bin_values(one.name)[usable] for one in joined.bins}
    binned.pop(quantity.parameter, None)  # bins of z_spec mislead
    whole = redshift_sample(quantity.median, z_spec, densities_of(joined.here, quantity))
    sample = replace(whole.take(usable), bin_values=binned)
    edges = {"z_phot": equal_bins(sample.z_phot, N_BINS)}
    edges |= {one.name: one.edges(binned[one.name]) for one in joined.bins if one.name in binned}
    numbers = {"n_bootstrap": options.n_bootstrap, "seed": options.seed}
    weighted = None
    if options.target is not None:
        of_target = replace(sample, weights=_weights(joined, usable, options))
        weighted = next(measured_in_bins(of_target, {}, **numbers))
    column = joined.columns[quantity.model, quantity.parameter].name
    bins = tuple(measured_in_bins(sample, edges, **numbers))
    return ComparedRedshift(quantity.model, quantity.parameter, column, bins, weighted)


def densities_of(table: pa.Table, quantity: Quantity) -> GridDensities | None:
    """Return the densities of a quantity that rows of a catalog have on a grid; None if there is no such column."""
    for column in density_columns(table.schema):
        if (column.model, column.quantity) == (quantity.model, quantity.parameter):
            flat = table.column(column.name).combine_chunks().flatten()
            density = flat.to_numpy(zero_copy_only=False).reshape(len(table), -1).astype(np.float64)
            return GridDensities(column.edges, density * np.diff(column.edges))
    return None


def redshift_sample(z_phot: Floats, z_spec: Floats, densities: GridDensities | None) -> RedshiftSample:
    """Return estimates (object,) beside known redshifts (object,), with the scores of their densities where these are known."""
    if densities is None:
        return RedshiftSample.of_points(z_phot, z_spec)
    with np.errstate(divide="ignore"):
        log_density = np.log(densities.at(z_spec))
    return RedshiftSample.of_points(
        z_phot,
        z_spec,
        transform=densities.transform(z_spec),
        square_integral=densities.square_integral(),
        log_density=log_density,
        crps=densities.crps(z_spec),
    )


def _weights(joined: Joined, usable: npt.NDArray[np.bool_], options: RedshiftOptions) -> Floats:
    """Return the weights (usable object,) by which the usable objects resemble the target; 0 without one of the columns."""
    names = list(options.target_columns)
    own = np.stack([joined.bin_values(name)[usable] for name in names], axis=1)
    table = read_table(str(options.target), columns=names)
    values = [numbers_of(str(options.target), table.column(n), name=n, expected="numbers") for n in names]
    target = np.stack(values, axis=1)
    known, weights = np.isfinite(own).all(axis=1), np.zeros(len(own))
    weights[known] = target_weights(own[known], target[np.isfinite(target).all(axis=1)])
    return weights


def redshift_table(compared: Sequence[ComparedRedshift]) -> pa.Table:
    """Return a row for each redshift and bin: the statistics with their errors; null where the catalog does not give them."""
    rows: list[dict[str, Any]] = []
    for redshift in compared:
        own = {"model": redshift.model, "quantity": redshift.quantity, "column": redshift.column}
        for text, one in redshift.rows():
            values = {"objects": text, "n": one.measured.n, "n_effective": one.measured.n_effective}
            for name, (value, error) in one.measured.named().items():
                values |= {name: value, f"{name}_error": error}
            rows.append(
                own | {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in values.items()}
            )
    return pa.Table.from_pylist(rows, schema=TABLE)


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


TABLE = pa.schema(
    [
        _field("model", pa.string(), "model of the catalog"),
        _field("quantity", pa.string(), "redshift of the model; its posterior median is z_phot"),
        _field("column", pa.string(), "column of the other table, z_spec"),
        _field("objects", pa.string(), "which objects"),
        _field("n", pa.int64(), "number of objects"),
        _field("n_effective", pa.float64(), "number of equally weighted objects that know a mean as well"),
        *(
            _field(name + suffix, pa.float64(), text + of)
            for name, text in STATISTICS.items()
            for suffix, of in (("", ""), ("_error", ": standard deviation over bootstrap samples"))
        ),
    ]
)
"""The columns of the table of redshifts."""
