"""How well the posteriors recover a known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from galbatch.core.columns import ID
from galbatch.core.types import ab_mag
from galbatch.objects import read_table
from galbatch.reporting.contents import Contents, Quantity, read_contents

__all__ = ["Comparison", "Recovery", "compare", "truth_recovery"]

Floats = npt.NDArray[np.float64]

ROBUST_SIGMA = 1.4826  # standard deviation of a Gaussian over its median absolute deviation


@dataclass(frozen=True, slots=True)
class Recovery:
    """One line of the comparison with the truth.

    Attributes
    ----------
    model, parameter : as in the catalog's columns
    n : objects compared: with a posterior, in the truth, and without spoiling pixel flags
    r2 : coefficient of determination of the medians; NaN for fewer than two objects
    median_residual, scatter : of median minus truth, in the parameter's unit; scatter is robust (1.48 MAD)
    coverage68, coverage95 : share of truths within the equal-tailed interval; of a share such as bt only
        truths strictly between 0 and 1 count; NaN if the catalog lacks these quantiles
    n_coverage : objects the coverage counts
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
    """A quantity's quantiles (object, level) and its truth (object,) float64, of the objects compared."""

    quantity: Quantity
    truth: Floats

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """(object,) whether the coverage counts the object: a true share of 0 or 1 is no inner point of a posterior."""
        if self.quantity.parameter != "bt":
            return np.ones(len(self.truth), dtype=np.bool_)
        return (self.truth > 0) & (self.truth < 1)

    def coverage(self, share: float) -> float:
        """Return the share of truths in the equal-tailed interval of probability `share`; NaN if the catalog lacks it."""
        ends = self.quantity.interval(share)
        if ends is None or not self.counted.any():
            return float("nan")
        inside = (ends[0] <= self.truth) & (self.truth <= ends[1])
        return float(inside[self.counted].mean())

    def between_quantiles(self) -> tuple[Floats, Floats]:
        """Return the observed and the expected share (interval,) of truths below, between and above the quantiles."""
        below = (self.quantity.quantiles < self.truth[:, None]).sum(axis=1)[self.counted]
        n_levels = len(self.quantity.levels)
        observed = np.bincount(below, minlength=n_levels + 1) / max(len(below), 1)
        return observed, np.diff([0.0, *self.quantity.levels, 1.0])

    def summary(self) -> Recovery:
        """Return the line of the table."""
        residual = self.quantity.median - self.truth
        n = len(residual)
        center = float(np.median(residual)) if n else float("nan")
        scatter = float(ROBUST_SIGMA * np.median(np.abs(residual - center))) if n else float("nan")
        variance = float(np.var(self.truth)) if n > 1 else 0.0
        r2 = 1 - float(np.mean(residual**2)) / variance if variance > 0 else float("nan")
        return Recovery(
            self.quantity.model,
            self.quantity.parameter,
            n,
            r2,
            center,
            scatter,
            coverage68=self.coverage(0.6827),
            coverage95=self.coverage(0.9545),
            n_coverage=int(self.counted.sum()),
        )


def truth_recovery(catalog_path: str, truth_path: str) -> list[Recovery]:
    """Compare a catalog with the truth of a simulated survey, a line for each model and parameter.

    Objects with spoiling pixel flags (outside, partly covered, bad, saturated, bright star) are left out, as
    are parameters that the truth does not know.

    Raises
    ------
    CatalogError
        There is no catalog at `catalog_path`.
    ObjectListError
        The truth table cannot be read.
    """
    contents = read_contents(catalog_path)
    return [comparison.summary() for comparison in compare(contents, read_table(truth_path))]


def compare(contents: Contents, truth: pa.Table) -> list[Comparison]:
    """Pair the catalog's quantities with the truth's columns of the same name, object by object."""
    row = pc.index_in(pa.array(contents.object_id), value_set=truth[ID.name]).to_numpy(zero_copy_only=False)
    known = np.isfinite(row.astype(np.float64))
    usable = np.flatnonzero(known & contents.clean)
    comparisons = []
    for quantity in contents.quantities:
        if quantity.parameter in truth.column_names:
            values: Floats = truth[quantity.parameter].to_numpy().astype(np.float64)
        elif quantity.parameter == "mag" and "flux_njy" in truth.column_names:
            values = ab_mag(truth["flux_njy"].to_numpy())
        else:
            continue
        true = values[row[usable].astype(np.int64)]
        both = np.isfinite(quantity.median[usable]) & np.isfinite(true)
        chosen = Quantity(
            quantity.model,
            quantity.parameter,
            quantity.unit,
            quantity.levels,
            quantity.quantiles[usable[both]],
        )
        comparisons.append(Comparison(chosen, true[both]))
    return comparisons
