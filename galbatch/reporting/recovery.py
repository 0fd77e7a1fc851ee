"""Comparison of a catalog's posteriors with known values, such as the truth of a simulated survey."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.core.columns import ID
from galbatch.core.statistics import normalized_mad
from galbatch.core.types import ab_mag
from galbatch.errors import ObjectListError
from galbatch.objects import numbers_of, read_table
from galbatch.reporting.contents import Contents, Quantity, read_contents

__all__ = ["Comparison", "Recovery", "compare_truth", "truth_recovery"]

Floats = npt.NDArray[np.float64]

KNOWN_VALUES = "the table of known values"


@dataclass(frozen=True, slots=True)
class Recovery:
    """Statistics of the comparison of one parameter of one model with the truth.

    Attributes
    ----------
    model, parameter : str
        As in the catalog's columns.
    n : int
        Number of objects compared: those with a posterior, with a true value, and without flags that spoil the pixels.
    r2 : float
        Coefficient of determination of the medians; NaN for fewer than two objects.
    median_residual, scatter : float
        Median of the residuals (posterior median minus truth), and 1.48 times their median absolute deviation, in the
        parameter's unit; NaN without objects.
    coverage68, coverage95 : float
        Fraction of true values within the equal-tailed interval; NaN if the catalog has no such quantiles. For ``bt``
        only true values strictly between 0 and 1 count.
    n_coverage : int
        Number of objects that count for the coverage.
    """

    model: str
    parameter: str
    n: int
    r2: float
    median_residual: float
    scatter: float
    coverage68: float
    coverage95: float
    n_coverage: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A quantity and its true values (object,), float64, restricted to the objects that are compared.

    `rows` (object,) are the rows of these objects in the catalog's contents; None where they are of no catalog.
    """

    quantity: Quantity
    truth: Floats
    rows: npt.NDArray[np.intp] | None = None

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Mask (object,), bool, of the objects that count for the coverage.

        A true ``bt`` of exactly 0 or 1 is at the edge of its range, where no equal-tailed interval can cover it.
        """
        if self.quantity.parameter != "bt":
            return np.ones(len(self.truth), dtype=np.bool_)
        return (self.truth > 0) & (self.truth < 1)

    def inside(self, share: float) -> Floats:
        """Return whether the equal-tailed interval of probability `share` holds the true value, (object,) float64: 1, 0, or NaN.

        NaN: the object does not count, or the catalog has no such interval.
        """
        ends = self.quantity.interval(share)
        if ends is None:
            return np.full(len(self.truth), np.nan)
        return np.where(self.counted, (ends[0] <= self.truth) & (self.truth <= ends[1]), np.nan)

    def coverage(self, share: float) -> float:
        """Return the fraction of true values in the equal-tailed interval of probability `share`; NaN if it is not in the catalog."""
        inside = self.inside(share)
        known = np.isfinite(inside)
        return float(inside[known].mean()) if known.any() else float("nan")

    def between_quantiles(self) -> tuple[Floats, Floats]:
        """Return the observed and the expected fraction (interval,) of true values below, between and above the quantiles."""
        # The number of quantiles below the truth (object,) is the index of the interval it lies in.
        below = (self.quantity.quantiles < self.truth[:, None]).sum(axis=1)[self.counted]
        n_levels = len(self.quantity.levels)
        observed = np.bincount(below, minlength=n_levels + 1) / max(len(below), 1)
        return observed, np.diff([0.0, *self.quantity.levels, 1.0])

    def summary(self) -> Recovery:
        """Return the statistics of this comparison."""
        residual = self.quantity.median - self.truth
        n = len(residual)
        center = float(np.median(residual)) if n else float("nan")
        variance = float(np.var(self.truth)) if n > 1 else 0.0
        r2 = 1 - float(np.mean(residual**2)) / variance if variance > 0 else float("nan")
        return Recovery(
            self.quantity.model,
            self.quantity.parameter,
            n,
            r2,
            center,
            normalized_mad(residual),
            coverage68=self.coverage(0.6827),
            coverage95=self.coverage(0.9545),
            n_coverage=int(self.counted.sum()),
        )


def truth_recovery(catalog_path: str, truth_path: str) -> list[Recovery]:
    """Return statistics of a catalog's posteriors against the truth of a simulated survey, for each model and parameter.

    Objects whose flags say that the pixels are spoiled (outside the footprint, partly covered, bad, saturated, bright star)
    are left out, and so are parameters that are not in the truth table.

    Parameters
    ----------
    catalog_path : str
    truth_path : str
        Truth table, with the column ``object_id`` and columns named after parameters.

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    ObjectListError
        The truth table cannot be read.
    """
    contents = read_contents(catalog_path)
    return [comparison.summary() for comparison in compare_truth(contents, read_table(truth_path))]


def compare_truth(contents: Contents, truth: pa.Table) -> list[Comparison]:
    """Return a comparison for each quantity of the catalog that has a true value, with objects matched by id.

    Raises
    ------
    ObjectListError
        The table has no column ``object_id``, or a quantity's column holds no numbers.
    """
    if ID.name not in truth.column_names:
        raise ObjectListError(
            f"{KNOWN_VALUES}: has no column {ID.name}, by which objects are matched; it has {', '.join(truth.column_names)}"
        )
    row = pc.index_in(pa.array(contents.object_id), value_set=truth[ID.name]).to_numpy(zero_copy_only=False)
    # (object,) rows of the truth table; objects that are not in it are null, which becomes NaN.
    known = np.isfinite(row.astype(np.float64))
    usable = np.flatnonzero(known & contents.clean)
    comparisons = []
    for quantity in contents.quantities:
        if quantity.parameter in truth.column_names:
            name = quantity.parameter
            values = numbers_of(KNOWN_VALUES, truth[name], name=name, expected="numbers")
        elif quantity.parameter == "mag" and "flux_njy" in truth.column_names:
            # The column mag follows from the flux, so its truth does too.
            values = ab_mag(numbers_of(KNOWN_VALUES, truth["flux_njy"], name="flux_njy", expected="numbers"))
        else:
            continue
        true = values[row[usable].astype(np.int64)]
        both = np.isfinite(quantity.median[usable]) & np.isfinite(true)
        if quantity.is_redshift:
            # Redshifts of -1 and below are what tables write where there is none.
            both &= true > -1
        chosen = replace(quantity, quantiles=quantity.quantiles[usable[both]])
        comparisons.append(Comparison(chosen, true[both], usable[both]))
    return comparisons
