"""Calibration: which dropout rate, and which inflation of the posteriors, make intervals cover what they say.

Held-out objects fall into two parts. The calibration part chooses; the test part is only reported, and nothing that
chooses ever sees it: `choose` takes the one, `reported` the other.

Two things are chosen, in this order. The dropout rate, as in section 5 of the GaMPEN paper (Ghosh et al. 2022, ApJ 935,
138): the one whose coverage is closest to nominal. The paper trained a network for each rate; here several bundles
can be candidates, so the same can be done, and each can be tried at several rates with the same weights, which takes no
training but leaves the network with another rate than it learned to live with. Then one factor for each parameter, by
which the whole posterior is inflated about its mean in the transformed space (`Passes.inflated`).
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
MIN_OBJECTS = 100  # of either part: the 68.27 % coverage is then known to 5 points


@dataclass(frozen=True, eq=False)
class Comparison:
    """Other objects and other bundles that are reported for comparison, and choose nothing.

    Attributes
    ----------
    populations : objects of other populations, by what the card calls them; the chosen bundle is run on them too
    bundles : others with the same parameters, run on the test part for their residuals
    """

    populations: Mapping[str, HeldOut] = dataclasses.field(default_factory=dict)
    bundles: tuple[Bundle, ...] = ()


@dataclass(frozen=True, eq=False)
class Calibration:
    """A choice, and what the test part shows of it.

    Attributes
    ----------
    choice : of the calibration part
    metadata : of the calibrated bundle, results included
    before, after : the test part, without and with the correction, at the chosen rate
    """

    choice: Choice
    metadata: BundleMetadata
    before: Evaluation
    after: Evaluation

    def summary_tables(self) -> tuple[ResultTable, ...]:
        """Return the correction, coverage with and without it, and the rates tried: the rest is in the card."""
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
    """Choose on one part of the held-out objects, report on the other.

    Parameters
    ----------
    bundles : candidates with the same parameters, such as networks trained at different dropout rates
    held_out : objects that nothing was trained on
    comparison : other objects and bundles that are reported, too
    progress : called with the number of objects done since the last call

    Raises
    ------
    UsageError
        Objects are too few, bundles differ in their parameters, or have no posterior.
    """
    check_candidates(bundles, settings.dropout_rates)
    # No posterior covers labels such as fluxes below 0 where a logarithm is estimated.
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
    """Report what a choice does on the test part, which decides nothing.

    Parameters
    ----------
    choice : of the calibration part
    part : the test part
    settings : passes, seed, and whether runs inflate
    comparison : other objects and bundles that are reported, too
    progress : called with the number of objects done since the last call
    """
    bundle = choice.bundle
    outputs = run_part(bundle, part, settings.passes, progress=progress)
    before = judge(outputs, bundle.metadata, part, seed=settings.seed)
    after = judge(outputs, bundle.metadata, part, factors=choice.factors, seed=settings.seed)
    # Converted networks are to give what their authors published, unless it is asked for otherwise.
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
    """Runs the chosen bundle and others where nothing is chosen; `factors` as runs apply them."""

    bundle: Bundle
    settings: CalibrationSettings
    factors: tuple[float, ...] | None
    progress: Progress | None

    def tables(self, comparison: Comparison, part: HeldOut, own: Evaluation) -> Iterator[ResultTable]:
        """Make the tables of the compared bundles on the test part, then of other populations."""
        if comparison.bundles:
            names = list[str]()
            for number, bundle in enumerate([self.bundle, *comparison.bundles]):
                name, version = bundle.metadata.name, bundle.metadata.version
                names.append(f"{name} {version} ({number})" if name in names else name)
            others = [self.judged(other, part, None) for other in comparison.bundles]
            yield comparison_table(dict(zip(names, [own, *others], strict=True)))
        for name, objects in comparison.populations.items():
            found = self.judged(self.bundle, objects, self.factors)
            note = "" if self.factors is None else "corrected"
            for table in (*both_coverages(found, note), *residual_tables(found)):
                yield dataclasses.replace(table, caption=f"{name}. {table.caption}")

    def judged(self, bundle: Bundle, part: HeldOut, factors: tuple[float, ...] | None) -> Evaluation:
        outputs = run_part(bundle, part, self.settings.passes, progress=self.progress)
        return judge(outputs, bundle.metadata, part, factors=factors, seed=self.settings.seed)


def result_tables(
    choice: Choice, before: Evaluation, after: Evaluation, *, apply: bool
) -> tuple[ResultTable, ...]:
    """Make the card's tables: first of what runs give, then of the other one of corrected and uncorrected."""
    as_run, other = (after, before) if apply else (before, after)
    notes = ("corrected", "without the correction") if apply else ("uncorrected", "with the correction")
    return (
        *both_coverages(as_run, notes[0]),
        *both_coverages(other, notes[1]),
        *residual_tables(as_run),
        *(binned_coverage(after, name, before) for name in STRATA if name in after.strata),
        pit_table(before, after),
        candidate_table(choice),
    )


def factor_table(calibration: Calibration) -> ResultTable:
    """Make a table of the correction, and whether runs apply it."""
    info = calibration.metadata.calibration
    applied = "applied" if info is not None and info.apply else "not applied"
    rows = zip(calibration.metadata.parameters, calibration.choice.factors, strict=True)
    return ResultTable(
        f"Factors that posteriors are widened by, {applied} by default",
        ("parameter", "factor"),
        tuple((parameter.name, factor) for parameter, factor in rows),
    )


def candidate_table(choice: Choice) -> ResultTable:
    """Make a table of the bundles and rates tried on the calibration part, as in figure 8 of the paper."""
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
