"""Tables of an evaluation, in the form of section 6 of the GaMPEN paper (Ghosh et al. 2022, ApJ 935, 138)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.core.statistics import normalized_mad
from galbatch.models.calibration.coverage import LEVELS, Share, share_of
from galbatch.models.calibration.evaluation import Evaluation
from galbatch.models.metadata import LabelInfo, ParameterInfo, ResultTable

__all__ = [
    "STRATA",
    "binned_coverage",
    "both_coverages",
    "comparison_table",
    "coverage_table",
    "evaluation_tables",
    "first_label",
    "levels_heads",
    "percents",
    "pit_counts",
    "pit_table",
    "residual_tables",
    "rounded",
    "strata_bins",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Cover = Callable[[float], Bools]
Cell = str | float | int | None

PIT_BINS = 10
MIN_IN_BIN = 50  # With this number of objects the coverage is known to 7 percentage points.
# In arcsec. 1 arcsec is about the seeing, the limit for labels of small galaxies in section 6.4 of the paper.
SIZE_EDGES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, np.inf)
STRATA = {"magnitude": "true magnitude", "size_arcsec": "true size (arcsec)"}
DIGITS = 4


def evaluation_tables(evaluation: Evaluation) -> tuple[ResultTable, ...]:
    """Return all tables of an evaluation: coverages, residuals, labels, and coverage and residuals by magnitude and size."""
    return (
        *both_coverages(evaluation),
        *residual_tables(evaluation),
        *(binned_coverage(evaluation, name) for name in STRATA if name in evaluation.strata),
    )


def both_coverages(evaluation: Evaluation, words: str = "") -> tuple[ResultTable, ResultTable]:
    """Return the tables of the coverage of equal-tailed intervals, and of those of GaMPEN's released code.

    Parameters
    ----------
    evaluation : comparison of posteriors with the truth
    words : text for the captions that says whether the posteriors are corrected
    """
    about = [words] if words else []
    about.append(f"{len(evaluation):,} objects, {_counted(evaluation.n_passes, 'pass', 'passes')} each")
    if evaluation.n_failed:
        about.append(f"{evaluation.n_failed:,} more failed in the network")
    note = "; ".join(about)
    return (
        coverage_table(
            evaluation, evaluation.covered, f"Coverage of equal-tailed intervals, in percent ({note})"
        ),
        coverage_table(
            evaluation,
            evaluation.covered_released,
            "Coverage of intervals as GaMPEN's released code defines them, to be compared with table 2 of its paper, "
            f"in percent ({note})",
        ),
    )


def residual_tables(evaluation: Evaluation) -> tuple[ResultTable, ...]:
    """Return the tables of residuals of median and mode, of labels, and of residuals by magnitude and size."""
    return (
        residual_table(evaluation, evaluation.median, "Residuals of the median, estimate minus truth"),
        residual_table(
            evaluation,
            evaluation.mode,
            "Residuals of the most probable value, as in figure 12 of the GaMPEN paper",
        ),
        *label_tables(evaluation),
        *(binned_residuals(evaluation, name) for name in STRATA if name in evaluation.strata),
    )


def rounded(value: float, digits: int = DIGITS) -> float | None:
    """Return a number with `digits` significant digits; None for NaN and infinity, which JSON cannot hold."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


def _percent(share: Share) -> tuple[Cell, Cell]:
    """Return value and error of a share in percent, to 0.01 %; None without objects."""
    if share.n == 0:
        return None, None
    return round(100 * share.value, 2), round(100 * share.error, 2)


def levels_heads() -> tuple[str, ...]:
    """Return the headings of the columns of value and error for each level."""
    return tuple(head for level in LEVELS for head in (f"{100 * level:.2f} %", "±"))


def coverage_table(evaluation: Evaluation, cover: Cover, caption: str) -> ResultTable:
    """Return the table of the coverage of each parameter, and of the mean over the parameters.

    Parameters such as B/T have further rows for true values of exactly 0 or 1, and for those between.

    Parameters
    ----------
    evaluation : comparison of posteriors with the truth
    cover : function of the level that returns which intervals contain the truth, (object, parameter) bool
    caption : caption of the table
    """
    hits = {level: cover(level) for level in LEVELS}
    rows: list[tuple[Cell, ...]] = []
    for name, index, chosen in _groups(evaluation):
        shares = [share_of(hits[level][chosen, index]) for level in LEVELS]
        rows.append((name, shares[0].n, *percents(shares)))
    if len(evaluation.parameters) > 1:
        means = [share_of(hits[level].mean(axis=1)) for level in LEVELS]
        rows.append(("mean", len(evaluation), *percents(means)))
    # Closed intervals are a second way to count equal-tailed ones, so they follow in the same table.
    if cover == evaluation.covered:
        rows += _closed_rows(evaluation)
    return ResultTable(caption, ("parameter", "n", *levels_heads()), tuple(rows))


def percents(shares: Sequence[Share]) -> list[Cell]:
    """Return value and error of each share in percent, one after another, to 0.01 %."""
    return [cell for share in shares for cell in _percent(share)]


def _groups(evaluation: Evaluation) -> Iterator[tuple[str, int, Bools]]:
    """Yield (name, index of the parameter, objects (object,) bool): all objects, then those with a true value of 0 or 1, or between."""
    for index, parameter in enumerate(evaluation.parameters):
        truth = evaluation.labels[:, index]
        yield parameter.name, index, np.ones(len(truth), dtype=np.bool_)
        pure = np.asarray((truth <= 0) | (truth >= 1))
        if parameter.transform == "logit" and pure.any() and not pure.all():
            yield f"{parameter.name}, truth 0 or 1", index, pure
            yield f"{parameter.name}, truth between", index, ~pure


def _closed_rows(evaluation: Evaluation) -> list[tuple[Cell, ...]]:
    """Return rows for the parameters with truths at their limits, counted with the catalog's closed intervals."""
    rows: list[tuple[Cell, ...]] = []
    for index, parameter in enumerate(evaluation.parameters):
        if (evaluation.at_low | evaluation.at_high)[:, index].any():
            shares = [share_of(evaluation.covered_closed(level)[:, index]) for level in LEVELS]
            rows.append((f"{parameter.name}, ends of the interval included", shares[0].n, *percents(shares)))
    if rows and len(evaluation.parameters) > 1:
        means = [share_of(evaluation.covered_closed(level).mean(axis=1)) for level in LEVELS]
        rows.append(("mean, ends of the intervals included", len(evaluation), *percents(means)))
    return rows


RESIDUAL_HEADS = ("n", "mean", "median", "σ", "1.4826 MAD", "68.27 % within")


def _residual_cells(residual: Floats) -> tuple[Cell, ...]:
    """Return the cells of residuals (object,), in the order of RESIDUAL_HEADS; the standard deviation is the paper's typical error."""
    if len(residual) == 0:
        return (0, None, None, None, None, None)
    median = float(np.median(residual))
    numbers = (
        float(residual.mean()),
        median,
        float(residual.std()),
        normalized_mad(residual),
        float(np.quantile(np.abs(residual), LEVELS[0])),
    )
    return (len(residual), *(rounded(number) for number in numbers))


def _residuals(evaluation: Evaluation, values: Floats) -> Iterator[tuple[str, str, Floats, float]]:
    """Yield (name, unit, residuals (object,), R^2) of each quantity, and relative residuals of one estimated by its logarithm."""
    for i, quantity in enumerate(evaluation.quantities):
        truth = evaluation.truth(quantity)
        residual = values[:, i] - truth
        # R^2 is not defined where all true values are equal.
        variance = float(truth.var()) if len(truth) else 0.0
        r2 = 1 - float(np.square(residual).mean()) / variance if variance > 0 else np.nan
        yield quantity.name, "mag" if quantity.is_magnitude else quantity.parameter.unit, residual, r2
        if quantity.parameter.transform in ("ln", "log10") and not quantity.is_magnitude:
            yield f"{quantity.name}, relative", "%", 100 * residual / truth, np.nan


def residual_table(evaluation: Evaluation, values: Floats, caption: str) -> ResultTable:
    """Return the table of residuals, with the numbers of figure 12 of the GaMPEN paper and R^2 (equation 17).

    Parameters
    ----------
    evaluation : comparison of posteriors with the truth
    values : (object, quantity) float64, point estimates
    caption : caption of the table
    """
    rows = tuple(
        (name, unit, *_residual_cells(residual), rounded(r2))
        for name, unit, residual, r2 in _residuals(evaluation, values)
    )
    return ResultTable(caption, ("parameter", "unit", *RESIDUAL_HEADS, "R²"), rows)


def comparison_table(evaluations: Mapping[str, Evaluation]) -> ResultTable:
    """Return the table of the median's residuals for several networks on the same objects, in units of those of the first.

    The numbers are standard deviations. There is none where another network does not have the quantity.
    """
    # Networks with the same parameters may differ in transforms, from which relative residuals follow, and in magnitudes.
    first, *others = [
        {name: (unit, float(r.std())) for name, unit, r, _ in _residuals(e, e.median)}
        for e in evaluations.values()
    ]
    rows = tuple(
        (
            name,
            unit,
            rounded(scatter),
            *(rounded(o[name][1] / scatter) if name in o else None for o in others),
        )
        for name, (unit, scatter) in first.items()
    )
    name, *names = evaluations
    heads = ("parameter", "unit", f"σ of {name}", *(f"{other}, times that" for other in names))
    return ResultTable("Residuals of the median beside those of other networks, same objects", heads, rows)


def label_tables(evaluation: Evaluation) -> tuple[ResultTable, ...]:
    """Return how well labels such as "highly disk-dominated" are assigned (GaMPEN, Ghosh et al. 2022, section 6.4).

    A parameter's labels are words for ranges of its value; a galaxy is given the label of its posterior median.

    Returns
    -------
    a tuple of one table, or an empty tuple if no parameter has labels. It has a row for each label: how many galaxies were given
    it, which percentage of these truly lie in its range (purity), how many truly lie there, which percentage of those
    was given it (completeness), and the scatter of the residuals of those given it
    """
    rows = tuple(
        row
        for index, parameter in enumerate(evaluation.parameters)
        if parameter.labels
        for row in _label_rows(evaluation, index, parameter)
    )
    if not rows:
        return ()
    table = ResultTable(
        "Labels that follow from the median, in percent: of those labeled so, how many truly are; of those that truly are, "
        "how many are labeled so; and the residuals of those labeled so",
        (
            "parameter",
            "label",
            "n labeled",
            "truly are",
            "±",
            "n truly",
            "are labeled",
            "±",
            "σ of residuals",
        ),
        rows,
    )
    return (table,)


def _label_rows(evaluation: Evaluation, index: int, parameter: ParameterInfo) -> Iterator[tuple[Cell, ...]]:
    """Yield one row for each label of a parameter."""
    (column,) = [i for i, q in enumerate(evaluation.quantities) if q.index == index and not q.is_magnitude]
    median, truth = evaluation.median[:, column], evaluation.labels[:, index]
    given, true = first_label(median, parameter.labels), first_label(truth, parameter.labels)
    for number, label in enumerate(parameter.labels):
        said, are = given == number, true == number
        scatter = float((median - truth)[said].std()) if said.any() else np.nan
        yield (
            parameter.name,
            label.text,
            int(said.sum()),
            *_percent(share_of(are[said])),
            int(are.sum()),
            *_percent(share_of(said[are])),
            rounded(scatter),
        )


def first_label(values: Floats, labels: Sequence[LabelInfo]) -> npt.NDArray[np.int64]:
    """Return the index of the first label that fits each value, (object,) int64; -1 where none fits."""
    found = np.full(len(values), -1, dtype=np.int64)
    # From the last to the first, so that the first label that fits overwrites the others.
    for number in reversed(range(len(labels))):
        label = labels[number]
        low = -np.inf if label.at_least is None else label.at_least
        high = np.inf if label.at_most is None else label.at_most
        found[(values >= low) & (values <= high)] = number
    return found


def strata_bins(evaluation: Evaluation, name: str) -> list[tuple[str, float, Bools]]:
    """Return bins of magnitude (whole magnitudes) or of size (around the seeing).

    Bins with fewer than 50 objects are joined with the next fainter or larger one, the last with the one before.

    Parameters
    ----------
    evaluation : comparison of posteriors with the truth
    name : magnitude or size_arcsec

    Returns
    -------
    for each bin its text, the mean of its true values, and its objects (object,) bool
    """
    values = evaluation.strata[name]
    edges = list(SIZE_EDGES)
    if name == "magnitude":
        # Whole magnitudes, from the brightest object to beyond the faintest.
        edges = list(np.arange(np.floor(values.min()), np.floor(values.max()) + 2))
    # A bin ends as soon as it holds enough objects.
    kept = [edges[0]]
    for edge in edges[1:]:
        if ((values >= kept[-1]) & (values < edge)).sum() >= MIN_IN_BIN:
            kept.append(edge)
    if len(kept) == 1:
        return [("all", float(values.mean()), np.ones(len(values), dtype=np.bool_))]
    # What is left behind the last complete bin belongs to it.
    kept[-1] = edges[-1]
    inside = [(a, b, np.asarray((values >= a) & (values < b))) for a, b in itertools.pairwise(kept)]
    return [(_span(a, b), float(values[chosen].mean()), chosen) for a, b, chosen in inside]


def _span(low: float, high: float) -> str:
    """Return the text of a bin; one without upper edge begins with from."""
    return f"from {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"


def binned_residuals(evaluation: Evaluation, stratum: str) -> ResultTable:
    """Return the table of the median's residuals by magnitude or size; relative ones where a logarithm is estimated."""
    rows = []
    chosen_names = _names_by_bin(evaluation)
    for words, _, chosen in strata_bins(evaluation, stratum):
        for name, unit, residual, _ in _residuals(evaluation, evaluation.median):
            if name in chosen_names:
                rows.append((words, name, unit, *_residual_cells(residual[chosen])))
    return ResultTable(
        f"Residuals of the median by {STRATA[stratum]}",
        (STRATA[stratum], "parameter", "unit", *RESIDUAL_HEADS),
        tuple(rows),
    )


def _names_by_bin(evaluation: Evaluation) -> set[str]:
    """Return the names of the residuals that are shown by bin."""
    # Residuals of a flux in nJy are dominated by the brightest objects of a bin; relative ones and magnitudes show all.
    return {
        f"{q.name}, relative" if q.parameter.transform in ("ln", "log10") and not q.is_magnitude else q.name
        for q in evaluation.quantities
    }


def binned_coverage(evaluation: Evaluation, stratum: str, before: Evaluation | None = None) -> ResultTable:
    """Return how often equal-tailed credible intervals hold the true value, in bins of true magnitude or size.

    Parameters
    ----------
    evaluation : comparison of the posteriors of held-out galaxies with the truth
    stratum : quantity whose true value is binned: ``magnitude`` or ``size_arcsec``
    before : the same comparison without the calibration's inflation factors, which adds a column for each level; None: no
        such columns

    Returns
    -------
    a row for each bin and parameter: the bin, the parameter, the number of galaxies, and for each level of `LEVELS` (68.27,
    95.45 and 99.73 %) the share of intervals that hold the true value, with its binomial error, in percent
    """
    rows: list[tuple[Cell, ...]] = []
    for words, _, chosen in strata_bins(evaluation, stratum):
        for index, parameter in enumerate(evaluation.parameters):
            shares = [share_of(evaluation.covered(level)[chosen, index]) for level in LEVELS]
            row: list[Cell] = [words, parameter.name, shares[0].n, *percents(shares)]
            if before is not None:
                row += [_percent(share_of(before.covered(level)[chosen, index]))[0] for level in LEVELS]
            rows.append(tuple(row))
    heads = [STRATA[stratum], "parameter", "n", *levels_heads()]
    if before is not None:
        heads += [f"uncorrected {100 * level:.2f} %" for level in LEVELS]
    return ResultTable(
        f"Coverage of equal-tailed intervals by {STRATA[stratum]}, in percent", tuple(heads), tuple(rows)
    )


def pit_counts(transform: Floats, n_bins: int) -> npt.NDArray[np.int64]:
    """Return the histogram of probability integral transforms.

    Parameters
    ----------
    transform : (object,) float64 in 0..1
    n_bins : number of equal bins of 0..1

    Returns
    -------
    (bin,) int64, number of objects
    """
    return np.histogram(transform, bins=n_bins, range=(0.0, 1.0))[0]


def pit_table(before: Evaluation, after: Evaluation) -> ResultTable:
    """Return the table of the integral transforms' histograms, in tenths of 0..1; they are flat if the posteriors are right."""
    expected = len(after) / PIT_BINS
    # The binomial error of the number of objects in a bin of probability 1 / PIT_BINS.
    error = np.sqrt(expected * (1 - 1 / PIT_BINS))
    heads: list[str] = ["integral transform"]
    columns: list[list[Any]] = [[f"{k / PIT_BINS:g} to {(k + 1) / PIT_BINS:g}" for k in range(PIT_BINS)]]
    for index, parameter in enumerate(after.parameters):
        for words, evaluation in (("uncorrected", before), ("corrected", after)):
            heads.append(f"{parameter.name}, {words}")
            columns.append(pit_counts(evaluation.transform[:, index], PIT_BINS).tolist())
    return ResultTable(
        f"Objects by probability integral transform; expected {expected:.0f} ± {error:.0f}",
        tuple(heads),
        tuple(zip(*columns, strict=True)),
    )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
