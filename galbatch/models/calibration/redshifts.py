"""Tables of photometric redshifts: bias, scatter, outliers and scores of the densities, in bins and weighted to a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from galbatch.core.photoz import (
    HEADINGS,
    STATISTICS,
    BinOfSample,
    RedshiftSample,
    equal_bins,
    measured_in_bins,
)
from galbatch.models.calibration.evaluation import Evaluation
from galbatch.models.calibration.tables import STRATA, rounded
from galbatch.models.metadata import ResultTable
from galbatch.models.posterior import Quantity

__all__ = ["redshift_sample", "redshift_tables"]

N_BINS = 5
MIN_OBJECTS = 50  # In a bin: with fewer, shares of outliers are known to 7 percentage points at best.
ERROR_DIGITS = 2


def redshift_sample(evaluation: Evaluation, quantity: Quantity) -> RedshiftSample:
    """Return the medians of a redshift beside the true values, with the scores of the densities."""
    column = [one.name for one in evaluation.quantities].index(quantity.name)
    scores = evaluation.densities[quantity.name]
    sample = RedshiftSample.of_points(
        evaluation.median[:, column],
        evaluation.truth(quantity),
        transform=evaluation.transform[:, quantity.index],
        square_integral=scores.square_integral,
        log_density=scores.log_density,
        crps=scores.crps,
    )
    known = {name: values for name, values in evaluation.strata.items() if name == "magnitude"}
    return replace(sample, bin_values=known)


def redshift_tables(evaluation: Evaluation) -> tuple[ResultTable, ...]:
    """Return a table for each parameter that is a redshift; an empty tuple without any."""
    found = [one for one in evaluation.quantities if one.name in evaluation.densities]
    return tuple(_table(evaluation, quantity) for quantity in found)


def _table(evaluation: Evaluation, quantity: Quantity) -> ResultTable:
    """Return the table of one redshift: all objects, weighted to the target, and bins of the estimate and of the magnitude."""
    sample = redshift_sample(evaluation, quantity)
    n_bins = max(1, min(N_BINS, len(sample) // MIN_OBJECTS))
    values = {"z_phot": sample.z_phot, **sample.bin_values}
    edges = {name: equal_bins(of_bins, n_bins) for name, of_bins in values.items()}
    bins = list(measured_in_bins(sample, edges))
    rows = [("all", *_cells(bins[0]))]
    if evaluation.weights is not None:
        weighted = replace(sample, weights=evaluation.weights)
        rows.append(("all, weighted to the target", *_cells(next(measured_in_bins(weighted, {})))))
    names = {"z_phot": "estimate", **STRATA}
    rows += [(f"{names[one.name]} {one.low:.3g} to {one.high:.3g}", *_cells(one)) for one in bins[1:]]
    return ResultTable(
        f"Photometric redshift {quantity.name}, median of the posterior: dz = (z_phot - z_spec) / (1 + z_spec), with "
        "bootstrap errors. Bins are of the estimate and the magnitude, which a user of the catalog can choose by",
        ("objects", "n", "n effective", *(head for name in STATISTICS for head in (HEADINGS[name], "±"))),
        tuple(rows),
    )


def _cells(one: BinOfSample) -> tuple[str | float | int | None, ...]:
    """Return the cells of a row after its first: numbers of objects, then each statistic with its error."""
    return (one.measured.n, round(one.measured.n_effective), *_numbers(one))


def _numbers(one: BinOfSample) -> Iterator[float | None]:
    for value, error in one.measured.named().values():
        yield from (rounded(value), rounded(error, ERROR_DIGITS))
