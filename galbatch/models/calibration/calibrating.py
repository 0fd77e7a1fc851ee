"""Calibration: the dropout rate and the inflation of posteriors with which intervals have their nominal coverage.

Held-out objects are divided into two parts. The choice is made on the calibration part (`choose`). Results are reported for the
test part (`reported`), which has no influence on the choice.

Two things are chosen, in this order. First the dropout rate whose coverage is closest to nominal, as in section 5 of the GaMPEN
paper (Ghosh et al. 2022, ApJ 935, 138). The paper trained a network for each rate; here several bundles can be candidates for
the same purpose. Each can also be tried at several rates with the same weights, which needs no training, but the weights were
learned at another rate. Then one factor per parameter, by which the whole posterior is inflated about its mean in the
transformed space (`Passes.inflated`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from galbatch.errors import UsageError
from galbatch.models.bundle import Bundle
from galbatch.models.calibration.choosing import (
    CalibrationSettings,
    Choice,
    Progress,
    check_candidates,
    choose,
    run_part,
)
from galbatch.models.calibration.evaluation import Evaluation, HeldOut, judge
from galbatch.models.calibration.redshifts import redshift_tables
from galbatch.models.calibration.tables import (
    STRATA,
    binned_coverage,
    both_coverages,
    comparison_table,
    levels_heads,
    percents,
    pit_table,
    residual_tables,
    rounded,
)
from galbatch.models.metadata import BundleMetadata, CalibrationInfo, ResultTable
from galbatch.models.posterior import to_output

__all__ = ["Calibration", "Comparison", "calibrate", "reported"]

CANDIDATES = "Dropout rates tried"
# Objects that each part must have: with 100 the 68.27 % coverage is known to 5 percentage points.
MIN_OBJECTS = 100


@dataclass(frozen=True, eq=False)
class Comparison:
    """Other objects and other bundles whose results are reported for comparison. They have no influence on the choice.

    Attributes
    ----------
    populations : objects of other populations, by the names that the model card gives them; the chosen bundle is run on them
    bundles : other bundles with the same parameters, which are run on the test part for their residuals
    """

    populations: Mapping[str, HeldOut] = dataclasses.field(default_factory=dict)
    bundles: tuple[Bundle, ...] = ()


@dataclass(frozen=True, eq=False)
class Calibration:
    """The result of a calibration.

    Attributes
    ----------
    choice : dropout rate and factors, chosen on the calibration part
    metadata : metadata of the calibrated bundle, with the tables of results
    before, after : evaluations of the test part without and with the correction, at the chosen rate
    """

    choice: Choice
    metadata: BundleMetadata
    before: Evaluation
    after: Evaluation

    def summary_tables(self) -> tuple[ResultTable, ...]:
        """Return the tables to print: factors, coverage with and without the correction, and the rates tried."""
        # The first four results are the coverages; all others are in the model card only.
        info = self.metadata.calibration
        results = () if info is None else info.results
        rates = [table for table in results if table.caption.startswith(CANDIDATES)]
        return (factor_table(self), *results[:4], *rates)


def calibrate(
    bundles: Sequence[Bundle],
    held_out: HeldOut,
    settings: CalibrationSettings,
    *,
    comparison: Comparison | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Choose dropout rate and factors on one part of the held-out objects, and report the results on the other.

    Parameters
    ----------
    bundles : candidates with the same parameters, such as networks trained at different dropout rates
    held_out : objects with known truth that were not used in training
    settings : rates to try, division of the objects, and number of passes
    comparison : other objects and bundles whose results are reported as well; None: none
    progress : function called with the number of objects done since the last call

    Raises
    ------
    UsageError
        There are too few objects, or labels without a finite transform.
    BundleError
        A bundle has no posterior, or other parameters than the first.
    """
    check_candidates(bundles, settings.dropout_rates)
    # A label without a finite transform, such as a flux below 0 where its logarithm is estimated, can be in no interval.
    for values, parameter in zip(held_out.labels.T, bundles[0].metadata.parameters, strict=True):
        n_bad = int((~np.isfinite(to_output(values, parameter))).sum())
        if n_bad:
            raise UsageError(
                f"calibration: {n_bad} of {len(held_out)} labels of {parameter.name} have no {parameter.transform}; leave "
                "these objects out"
            )
    calibration_part, test_part = held_out.split(seed=settings.seed, share=settings.share)
    if min(len(calibration_part), len(test_part)) < MIN_OBJECTS:
        raise UsageError(
            f"calibration: {len(calibration_part)} objects choose and {len(test_part)} test, "
            f"expected {MIN_OBJECTS} or more of both; give more held-out objects"
        )
    choice = choose(bundles, calibration_part, settings, progress=progress)
    return reported(choice, test_part, settings, comparison=comparison, progress=progress)


def reported(
    choice: Choice,
    part: HeldOut,
    settings: CalibrationSettings,
    *,
    comparison: Comparison | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Return the calibration with the results of a choice on the test part.

    Parameters
    ----------
    choice : dropout rate and factors, chosen on the calibration part
    part : the test part
    settings : number of passes, seed, and whether runs apply the correction
    comparison : other objects and bundles whose results are reported as well; None: none
    progress : function called with the number of objects done since the last call
    """
    bundle = choice.bundle
    outputs = run_part(bundle, part, settings.passes, progress=progress)
    before = judge(outputs, bundle.metadata, part, seed=settings.seed)
    after = judge(outputs, bundle.metadata, part, factors=choice.factors, seed=settings.seed)
    # By default converted networks give the posteriors that their authors published.
    apply = not bundle.metadata.origin if settings.apply is None else settings.apply
    judged = _Judge(bundle, settings, choice.factors if apply else None, progress)
    info = CalibrationInfo(
        inflation_factors=choice.factors,
        apply=apply,
        n_objects=choice.n_objects,
        data=settings.data,
        results=(
            *result_tables(choice, before, after, apply=apply),
            *judged.tables(comparison or Comparison(), part, after if apply else before),
        ),
    )
    return Calibration(choice, dataclasses.replace(bundle.metadata, calibration=info), before, after)


@dataclass(frozen=True, eq=False)
class _Judge:
    """The evaluation of bundles for comparison; `factors` are those that runs apply to the chosen bundle."""

    bundle: Bundle
    settings: CalibrationSettings
    factors: tuple[float, ...] | None
    progress: Progress | None

    def tables(self, comparison: Comparison, part: HeldOut, own: Evaluation) -> Iterator[ResultTable]:
        """Yield the table of the compared bundles on the test part, then tables of other populations."""
        if comparison.bundles:
            names = list[str]()
            for number, bundle in enumerate([self.bundle, *comparison.bundles]):
                name, version = bundle.metadata.name, bundle.metadata.version
                # A name that occurs again gets version and number, as the names are the keys of the table.
                names.append(f"{name} {version} ({number})" if name in names else name)
            others = [self.judged(other, part, None) for other in comparison.bundles]
            yield comparison_table(dict(zip(names, [own, *others], strict=True)))
        for name, objects in comparison.populations.items():
            found = self.judged(self.bundle, objects, self.factors)
            note = "" if self.factors is None else "corrected"
            for table in (*both_coverages(found, note), *residual_tables(found)):
                yield dataclasses.replace(table, caption=f"{name}. {table.caption}")

    def judged(self, bundle: Bundle, part: HeldOut, factors: tuple[float, ...] | None) -> Evaluation:
        """Return the evaluation of a bundle on a part, with posteriors inflated by `factors`."""
        outputs = run_part(bundle, part, self.settings.passes, progress=self.progress)
        return judge(outputs, bundle.metadata, part, factors=factors, seed=self.settings.seed)


def result_tables(
    choice: Choice, before: Evaluation, after: Evaluation, *, apply: bool
) -> tuple[ResultTable, ...]:
    """Return the model card's tables: first of posteriors as runs give them, corrected or not, then of the other kind."""
    as_run, other = (after, before) if apply else (before, after)
    notes = ("corrected", "without the correction") if apply else ("uncorrected", "with the correction")
    return (
        *both_coverages(as_run, notes[0]),
        *both_coverages(other, notes[1]),
        *residual_tables(as_run),
        *redshift_tables(as_run),
        *(binned_coverage(after, name, before) for name in STRATA if name in after.strata),
        pit_table(before, after),
        candidate_table(choice),
    )


def factor_table(calibration: Calibration) -> ResultTable:
    """Return the table of the inflation factors; its caption says whether runs apply them."""
    info = calibration.metadata.calibration
    applied = "applied" if info is not None and info.apply else "not applied"
    rows = zip(calibration.metadata.parameters, calibration.choice.factors, strict=True)
    return ResultTable(
        f"Factors that posteriors are widened by, {applied} by default",
        ("parameter", "factor"),
        tuple((parameter.name, factor) for parameter, factor in rows),
    )


def candidate_table(choice: Choice) -> ResultTable:
    """Return what was tried when a bundle or its dropout rate was chosen (figure 8 of GaMPEN, Ghosh et al. 2022).

    Returns
    -------
    a row for each candidate: the bundle, its dropout rate, whether it was chosen, the coverage of equal-tailed intervals
    at each level in percent (mean over the parameters), and the mean distance of all coverages from their levels, by which the choice was
    made. The coverages were measured on the held-out galaxies that are kept for the choice
    """
    rows = tuple(
        (
            f"{candidate.bundle.metadata.name} {candidate.bundle.sha256[:8]}",
            candidate.rate,
            "chosen" if number == choice.chosen else "",
            *percents(candidate.coverage),
            rounded(100 * candidate.miss),
        )
        for number, candidate in enumerate(choice.candidates)
    )
    return ResultTable(
        f"{CANDIDATES} on the {choice.n_objects:,} objects that choose, uncorrected: coverage of equal-tailed intervals, "
        "mean over the parameters, in percent; and the mean miss of all parameters and levels, which the choice goes by. "
        "Rates of one bundle are tried with the same weights; the paper trained a network for each",
        ("bundle", "rate", "", *levels_heads(), "mean miss"),
        rows,
    )
