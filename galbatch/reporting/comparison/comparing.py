"""The comparison of a catalog with another table: matched, converted to the catalog's units, and summarized in bins."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch.errors import UsageError
from galbatch.reporting.comparison.binning import Binning
from galbatch.reporting.comparison.joining import Joined, Keys, join, quantity_columns
from galbatch.reporting.comparison.matching import Matching
from galbatch.reporting.comparison.redshifts import ComparedRedshift, RedshiftOptions, compare_redshifts
from galbatch.reporting.comparison.reference import OtherTable
from galbatch.reporting.comparison.statistics import STATISTICS, Sample, Statistics
from galbatch.reporting.contents import Quantity
from galbatch.reporting.recovery import Comparison

__all__ = ["BinnedStatistics", "CatalogComparison", "ComparedQuantity", "ComparisonOptions", "compare"]

Floats = npt.NDArray[np.float64]

INTERVALS = (0.6827, 0.9545)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOptions:
    """Details of a comparison.

    Attributes
    ----------
    id, ra, dec : str or None
        Columns of the other table; None: by the names that surveys use. Positions are ICRS in degrees.
    hdu : int, str or None
        The table of a file with several.
    bins : sequence of str, or None
        Bins, each ``NAME``, ``NAME:5`` (number of bins of about equal numbers of objects) or ``NAME:18,20,22`` (edges). The name
        is a compared quantity, of which the other table's values are taken, a column of the catalog, or one of the other table. None: by magnitude if
        the other table has one, otherwise by size.
    relative : sequence of str
        Quantities whose differences are divided by the other table's values.
    outlier_nmads : float
        Differences beyond this many NMADs from the bias are outliers: of normal errors one in two million lies beyond 5.
    flagged : bool
        Whether objects are compared whose flags say that the pixels do not show them as they are.
    n_bootstrap : int
        Number of bootstrap samples for the errors; below 2: no errors.
    seed : int
        Seed of the bootstrap samples.
    target : str or None
        Path of a list whose colors and magnitudes the statistics of redshifts are weighted to; None: no weights.
    target_columns : sequence of str
        Columns of the target that the catalog or the other table has, too.
    """

    id: str | None = None
    ra: str | None = None
    dec: str | None = None
    hdu: int | str | None = None
    bins: Sequence[str] | None = None
    relative: Sequence[str] = ()
    outlier_nmads: float = 5.0
    flagged: bool = False
    n_bootstrap: int = 200
    seed: int = 0
    target: str | None = None
    target_columns: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class BinnedStatistics:
    """Statistics in the bins of one column: `edges` (bin + 1,) float64, and of each bin its statistics."""

    name: str
    edges: Floats
    statistics: tuple[Statistics, ...]


@dataclass(frozen=True, eq=False)
class ComparedQuantity:
    """A quantity of a model beside the other table's values.

    Attributes
    ----------
    comparison : Comparison
        The quantity and the other table's values, of the objects that have both.
    column : str
        The other table's column.
    is_relative : bool
        Whether differences are divided by the other table's values.
    everything : Statistics
        Statistics of all objects.
    binned : tuple of BinnedStatistics
    """

    comparison: Comparison
    column: str
    is_relative: bool
    everything: Statistics
    binned: tuple[BinnedStatistics, ...]

    @property
    def unit(self) -> str:
        """Unit of the differences, "" for none."""
        return "" if self.is_relative else self.comparison.quantity.unit

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the quantity in the table of a comparison, the first of all objects."""
        quantity = self.comparison.quantity
        own = {
            "model": quantity.model,
            "quantity": quantity.parameter,
            "column": self.column,
            "unit": self.unit,
        }
        yield own | {"bins": ""} | self.everything.values()
        for one in self.binned:
            for (low, high), statistics in zip(
                itertools.pairwise(one.edges.tolist()), one.statistics, strict=True
            ):
                yield own | {"bins": one.name, "bin_low": low, "bin_high": high} | statistics.values()


@dataclass(frozen=True, eq=False)
class CatalogComparison:
    """A catalog beside another table.

    Attributes
    ----------
    catalog, other : str
        Paths.
    matching : Matching
        Matched rows, and the numbers of all others. Of the matched ones `n_flagged` are left out for their flags.
    n_flagged : int
    quantities : tuple of ComparedQuantity
        In the order of the catalog's columns, those without a column in the other table left out.
    redshifts : tuple of ComparedRedshift
        The statistics of the field of those that are redshifts.
    """

    catalog: str
    other: str
    matching: Matching
    n_flagged: int
    quantities: tuple[ComparedQuantity, ...]
    redshifts: tuple[ComparedRedshift, ...] = ()

    def table(self) -> pa.Table:
        """Return a row for each quantity, and for each of its bins; the units of differences are in the column ``unit``."""
        rows = [row for one in self.quantities for row in one.rows()]
        return pa.Table.from_pylist(rows, schema=TABLE)


def compare(
    catalog_path: str,
    other: str | pa.Table,
    *,
    match: str = "id",
    radius_arcsec: float = 1.0,
    columns: Mapping[str, str] | None = None,
    options: ComparisonOptions | None = None,
) -> CatalogComparison:
    """Compare a catalog's medians and intervals with another table: published estimates, a truth table, another catalog.

    Differences are the catalog's median minus the other table's value. The coverage is the share of the other table's values in the
    catalog's equal-tailed intervals, which holds for truths; for estimates with errors of their own it is less.

    Parameters
    ----------
    catalog_path : str
        A HATS catalog written by galbatch, finished or not.
    other : str or pyarrow.Table
        Path of a table of any kind that object lists have, or of another catalog; or the table.
    match : str
        ``"id"``: by id; ``"sky"``: rows that are the only ones within a radius of each other.
    radius_arcsec : float
        The radius of ``"sky"``.
    columns : mapping of str to str, or None
        Columns of the other table by the catalog's quantities, ``{"re_arcsec": "R_e"}``, with a unit as ``"R_e:arcmin"``. Others are found by
        their names.
    options : ComparisonOptions or None

    Returns
    -------
    CatalogComparison

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    ObjectListError
        The other table cannot be read, or lacks a column.
    UsageError
        An option, a unit or a column does not fit; or the tables have no quantity in common.

    Examples
    --------
    >>> compared = compare("catalog", "truth.parquet", columns={"bt": "B_T"})  # doctest: +SKIP
    >>> compared.table().to_pandas()  # doctest: +SKIP
    """
    if match not in ("id", "sky"):
        raise UsageError(f"--match {match}: expected id or sky")
    chosen = options or ComparisonOptions()
    if (chosen.target is None) != (not chosen.target_columns):
        raise UsageError("--target and --target-columns go together: which list, and which columns of it")
    there = OtherTable(other, hdu=chosen.hdu)
    found = quantity_columns(catalog_path, there, columns or {})
    known = {quantity for _, quantity in found}
    if unknown := [name for name in chosen.relative if name not in known]:
        raise UsageError(
            f"--relative {unknown[0]}: the quantities of both tables are {', '.join(sorted(known))}"
        )
    keys = Keys(match, radius_arcsec, chosen.id, chosen.ra, chosen.dec)
    usual = _usual_bins([quantity for _, quantity in found])
    bins = usual if chosen.bins is None else chosen.bins
    joined = join(catalog_path, there, found, keys=keys, bins=bins, further=chosen.target_columns)
    kept = joined if chosen.flagged else joined.without_spoiled()
    return CatalogComparison(
        catalog_path,
        there.label,
        joined.matching,
        n_flagged=len(joined) - len(kept),
        quantities=tuple(_compared(kept, quantity, chosen) for quantity in kept.quantities()),
        redshifts=compare_redshifts(
            kept,
            RedshiftOptions(
                target=chosen.target,
                target_columns=chosen.target_columns,
                n_bootstrap=chosen.n_bootstrap,
                seed=chosen.seed,
            ),
        ),
    )


def _usual_bins(quantities: Collection[str]) -> list[str]:
    """Return the magnitude that both tables have, otherwise the size, otherwise nothing."""
    named = [
        [name for name in quantities if name == "mag"],
        [name for name in quantities if name.startswith("mag")],
        [name for name in quantities if name.endswith("arcsec")],
    ]
    return next((names[:1] for names in named if names), [])


def _compared(joined: Joined, quantity: Quantity, options: ComparisonOptions) -> ComparedQuantity:
    """Return the statistics of one quantity, of all objects that have both values and of each bin."""
    reference = joined.reference(quantity)
    is_relative = quantity.parameter in options.relative
    usable = np.isfinite(quantity.median) & np.isfinite(reference) & ~(is_relative & (reference == 0))
    comparison = Comparison(replace(quantity, quantiles=quantity.quantiles[usable]), reference[usable])
    difference = comparison.quantity.median - comparison.truth
    sample = Sample(
        difference / comparison.truth if is_relative else difference,
        np.stack([comparison.inside(share) for share in INTERVALS], axis=1),
    )

    def summary(part: Sample) -> Statistics:
        return part.statistics(
            outlier_nmads=options.outlier_nmads, n_bootstrap=options.n_bootstrap, seed=options.seed
        )

    binned = []
    for binning in joined.bins:
        values = joined.bin_values(binning.name)[usable]
        edges = binning.edges(values)
        parts = [summary(sample.take(members)) for members in Binning.members(values, edges)]
        binned.append(BinnedStatistics(binning.name, edges, tuple(parts)))
    column = joined.columns[quantity.model, quantity.parameter].name
    return ComparedQuantity(comparison, column, is_relative, summary(sample), tuple(binned))


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


TABLE = pa.schema(
    [
        _field("model", pa.string(), "model of the catalog"),
        _field("quantity", pa.string(), "quantity of the model"),
        _field("column", pa.string(), "column of the other table"),
        _field("unit", pa.string(), "unit of bias, std and nmad"),
        _field(
            "bins", pa.string(), "quantity or column by whose values objects are binned; empty: all objects"
        ),
        _field("bin_low", pa.float64(), "lower edge of the bin"),
        _field("bin_high", pa.float64(), "upper edge of the bin"),
        _field("n", pa.int64(), "number of objects"),
        *(
            _field(name + suffix, pa.float64(), text + of)
            for name, text in STATISTICS.items()
            for suffix, of in (("", ""), ("_error", ": standard deviation over bootstrap samples"))
        ),
        _field("n_coverage", pa.int64(), "number of objects that count for the coverage"),
    ]
)
"""The columns of the table of a comparison; a value that a sample does not give is null."""
