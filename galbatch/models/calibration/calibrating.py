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
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from galbatch.config import PosteriorConfig
from galbatch.errors import BundleError, UsageError
from galbatch.models.bundle.files import Bundle, check_behavior
from galbatch.models.calibration.coverage import LEVELS, Share, equal_tailed_cover, share_of
from galbatch.models.calibration.evaluation import (
    Evaluation,
    HeldOut,
    Outputs,
    cdf_at,
    judge,
    limits_reached,
    run_held_out,
    transforms,
)
from galbatch.models.calibration.evaluation_tables import (
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
from galbatch.models.heads import head_of, read_passes
from galbatch.models.metadata import BundleMetadata, CalibrationInfo, ParameterInfo, ResultTable
from galbatch.models.posterior import Passes, to_output

__all__ = [
    "Calibration",
    "CalibrationSettings",
    "Candidate",
    "Choice",
    "Comparison",
    "calibrate",
    "check_candidates",
    "choose",
    "inflation_factors",
    "reported",
    "with_dropout_rate",
]

Floats = npt.NDArray[np.float64]
Progress = Callable[[int], None]

CANDIDATES = "Dropout rates tried"
MIN_OBJECTS = 100  # of either part: the 68.27 % coverage is then known to 5 points
FACTOR_RANGE = (0.1, 10.0)
COARSE_FACTORS = 93  # steps of 5 %, which move the 68.27 % coverage by 2.4 points
FINE_FACTORS = 61  # steps of 0.25 %, over 1.5 coarse ones to both sides


@dataclass(frozen=True)
class CalibrationSettings:
    """How a calibration is made.

    Attributes
    ----------
    dropout_rates : to try each bundle at; empty: its own
    share : of the held-out objects that choose
    apply : whether runs inflate by default; None: yes, but for converted networks
    posterior : passes, seed and batch
    seed : of the split into parts
    data : what the held-out objects are, for the card
    """

    dropout_rates: tuple[float, ...] = ()
    share: float = 0.5
    apply: bool | None = None
    posterior: PosteriorConfig = dataclasses.field(default_factory=PosteriorConfig)
    seed: int = 1
    data: str = ""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A bundle at a dropout rate, and how it did on the calibration part, uncorrected.

    Attributes
    ----------
    bundle : its script has the rate
    coverage : of equal-tailed intervals, mean over parameters, for each level
    miss : mean over parameters and levels of abs(coverage - level): what the choice goes by
    """

    bundle: Bundle
    coverage: tuple[Share, ...]
    miss: float

    @property
    def rate(self) -> float:
        """Dropout rate."""
        return self.bundle.metadata.dropout_rate


@dataclass(frozen=True, eq=False)
class Choice:
    """What the calibration part decides.

    Attributes
    ----------
    chosen : number of the candidate
    candidates : all, in the order they were tried
    factors : on the spread, for each parameter
    n_objects : of the calibration part
    """

    chosen: int
    candidates: tuple[Candidate, ...]
    factors: tuple[float, ...]
    n_objects: int

    @property
    def bundle(self) -> Bundle:
        """The chosen one, at the chosen rate."""
        return self.candidates[self.chosen].bundle


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is reported besides the test part, and chooses nothing.

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
    choice : see there
    metadata : of the calibrated bundle, results included
    before, after : the test part, without and with the correction, at the chosen rate
    """

    choice: Choice
    metadata: BundleMetadata
    before: Evaluation
    after: Evaluation

    def tables_for_people(self) -> tuple[ResultTable, ...]:
        """The correction, coverage with and without it, and the rates tried: the rest is in the card."""
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
    comparison : what is reported too
    progress : called with the number of objects done since the last call

    Raises
    ------
    UsageError
        Objects are too few, bundles differ in their parameters, or have no posterior.
    """
    check_candidates(bundles, settings.dropout_rates)
    _require_transforms(held_out.labels, bundles[0].metadata.parameters)
    calibration_part, test_part = held_out.split(seed=settings.seed, share=settings.share)
    if min(len(calibration_part), len(test_part)) < MIN_OBJECTS:
        raise UsageError(
            f"calibration: {len(calibration_part)} objects choose and {len(test_part)} test, "
            f"expected {MIN_OBJECTS} or more of both; give more held-out objects"
        )
    choice = choose(bundles, calibration_part, settings, progress=progress)
    return reported(choice, test_part, settings, comparison=comparison, progress=progress)


def check_candidates(bundles: Sequence[Bundle], rates: Sequence[float] = ()) -> None:
    """Refuse bundles without a posterior, or with other parameters than the first.

    Parameters
    ----------
    rates : dropout rates they are tried at; empty: their own

    Raises
    ------
    BundleError
        There is nothing to calibrate, or to choose between.
    """
    for bundle in bundles:
        metadata = bundle.metadata
        without_dropout = 0 in (rates or [metadata.dropout_rate])
        if head_of(metadata.head).is_point and without_dropout and metadata.members == 1:
            raise BundleError(
                f"{metadata.name}: a point head without dropout has no posterior, so there is nothing to calibrate; "
                "train it with a Gaussian head, or with dropout"
            )
        names, expected = (
            [f"{parameter.name} {parameter.unit}".strip() for parameter in of.metadata.parameters]
            for of in (bundle, bundles[0])
        )
        if names != expected or bundle.metadata.input != bundles[0].metadata.input:
            raise BundleError(
                f"{metadata.name}: has the parameters {', '.join(names)} of {bundle.grid.label}, expected those of "
                f"{bundles[0].metadata.name}: {', '.join(expected)} of {bundles[0].grid.label}, with the same input; "
                "calibrate bundles that differ apart"
            )


def _require_transforms(labels: Floats, parameters: tuple[ParameterInfo, ...]) -> None:
    """Refuse labels such as fluxes below 0 where a logarithm is estimated: no posterior covers them."""
    for values, parameter in zip(labels.T, parameters, strict=True):
        n_bad = int((~np.isfinite(to_output(values, parameter))).sum())
        if n_bad:
            raise UsageError(
                f"calibration: {n_bad} of {len(labels)} labels of {parameter.name} have no {parameter.transform}; leave these "
                "objects out"
            )


def choose(
    bundles: Sequence[Bundle],
    part: HeldOut,
    settings: CalibrationSettings,
    *,
    progress: Progress | None = None,
) -> Choice:
    """The candidate whose coverage is closest to nominal on the calibration part, and its factors.

    Parameters
    ----------
    part : the calibration part, and no other object
    """
    candidates, outputs = list[Candidate](), list[Outputs]()
    for bundle in candidate_bundles(bundles, settings.dropout_rates):
        found = _run(bundle, part, settings, progress)
        candidates.append(_tried(bundle, found, part, settings.seed))
        outputs.append(found)
    best = int(np.argmin([candidate.miss for candidate in candidates]))
    metadata = candidates[best].bundle.metadata
    kept = outputs[best].finite
    passes = read_passes(outputs[best].numbers[kept], metadata)
    factors = inflation_factors(passes, part.labels[kept], metadata.parameters, seed=settings.seed)
    return Choice(best, tuple(candidates), factors, int(kept.sum()))


def _run(bundle: Bundle, part: HeldOut, settings: CalibrationSettings, progress: Progress | None) -> Outputs:
    """The passes on a part, where they fail for a few objects at most.

    Raises
    ------
    BundleError
        The network gives non-finite numbers for most.
    """
    outputs = run_held_out(bundle, part, settings.posterior, progress=progress)
    n_good = int(outputs.finite.sum())
    if 2 * n_good < len(part):
        raise BundleError(
            f"{bundle.metadata.name} at dropout rate {bundle.metadata.dropout_rate:g}: gives finite numbers for {n_good} of "
            f"{len(part)} objects; are its unit and zero point right?"
        )
    return outputs


def candidate_bundles(bundles: Sequence[Bundle], rates: Sequence[float]) -> list[Bundle]:
    """Each bundle at each rate, or at its own."""
    if not rates:
        return list(bundles)
    return [with_dropout_rate(bundle, rate) for bundle in bundles for rate in rates]


def with_dropout_rate(bundle: Bundle, rate: float) -> Bundle:
    """The same weights at another dropout rate: a copy, with the sha256 of the original.

    Raises
    ------
    BundleError
        Its script has no dropout rate that can be set, or does not heed it.
    """
    if rate == bundle.metadata.dropout_rate:
        return bundle
    script = _copied(bundle.script)
    for module in script.modules():
        if hasattr(module, "dropout_rate"):
            module.dropout_rate = rate
    if not hasattr(script, "dropout_rate"):
        raise BundleError(
            f"{bundle.metadata.name}: its script has no attribute dropout_rate, so its rate stays at "
            f"{bundle.metadata.dropout_rate:g}; train a network for each rate, and calibrate them together"
        )
    metadata = dataclasses.replace(bundle.metadata, dropout_rate=rate)
    check_behavior(script, metadata, source=f"{metadata.name} at dropout rate {rate:g}")
    return Bundle(metadata, bundle.sha256, script)


def _copied(script: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    load: Any = torch.jit.load
    return load(buffer).eval()


def _tried(bundle: Bundle, outputs: Outputs, part: HeldOut, seed: int) -> Candidate:
    parameters, labels = bundle.metadata.parameters, part.labels[outputs.finite]
    passes = read_passes(outputs.numbers[outputs.finite], bundle.metadata)
    transform = transforms(cdf_at(passes, labels, parameters), *limits_reached(labels, parameters), seed=seed)
    covered = [equal_tailed_cover(transform, level) for level in LEVELS]
    return Candidate(
        bundle,
        tuple(share_of(hits.mean(axis=1)) for hits in covered),
        float(_misses(transform).mean()),
    )


def _misses(transform: Floats) -> Floats:
    """(level, parameter) abs(coverage - level) of integral transforms (object, parameter)."""
    return np.stack([np.abs(equal_tailed_cover(transform, level).mean(axis=0) - level) for level in LEVELS])


def inflation_factors(
    passes: Passes, labels: Floats, parameters: tuple[ParameterInfo, ...], *, seed: int = 1
) -> tuple[float, ...]:
    """Factor on each parameter's spread that makes the largest of the three abs(coverage - level) smallest.

    The largest, not the mean: residuals with heavy tails ask for less spread at 68.27 % and for more at 99.73 %; a mean would
    serve the level where most objects change sides and give up another. A log score would follow the few objects
    farthest off. Found on a grid, since coverage goes by steps of one object: 5 % wide, then 0.25 %; the middle
    of the best ones, to four digits.

    Parameters
    ----------
    passes : of the calibration part
    labels : (object, parameter) float64, physical units
    seed : of what is drawn within point masses, the same numbers for every factor
    """
    at_limits = limits_reached(labels, parameters)

    def largest_misses(factors: Floats) -> Floats:
        """(parameter,) of factors (parameter,)."""
        cdf = cdf_at(passes.inflated(factors), labels, parameters)
        return np.asarray(_misses(transforms(cdf, *at_limits, seed=seed)).max(axis=0))

    n, (low, high) = len(parameters), np.log(FACTOR_RANGE)
    coarse = np.linspace(low, high, COARSE_FACTORS)
    center = _best(np.tile(coarse[:, None], n), largest_misses)
    reach = 1.5 * (coarse[1] - coarse[0])
    fine = center + np.linspace(-reach, reach, FINE_FACTORS)[:, None]
    return tuple(float(f"{factor:.4g}") for factor in np.exp(_best(fine, largest_misses)))


def _best(ln_factors: Floats, misses: Callable[[Floats], Floats]) -> Floats:
    """(parameter,) mean of those of ln_factors (step, parameter) whose misses are smallest."""
    found = np.stack([misses(np.exp(row)) for row in ln_factors])
    is_best = found <= found.min(axis=0) + 1e-12
    return np.asarray((ln_factors * is_best).sum(axis=0) / is_best.sum(axis=0))


def reported(
    choice: Choice,
    part: HeldOut,
    settings: CalibrationSettings,
    *,
    comparison: Comparison | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """What a choice does on the test part, which decides nothing.

    Parameters
    ----------
    part : the test part
    comparison : what is reported too
    """
    bundle = choice.bundle
    outputs = _run(bundle, part, settings, progress)
    before = judge(outputs, bundle.metadata, part, seed=settings.seed)
    after = judge(outputs, bundle.metadata, part, factors=choice.factors, seed=settings.seed)
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
        """Of the compared bundles on the test part, then of other populations."""
        if comparison.bundles:
            names = _told_apart([self.bundle, *comparison.bundles])
            others = [self._judged(other, part, None) for other in comparison.bundles]
            yield comparison_table(dict(zip(names, [own, *others], strict=True)))
        for name, objects in comparison.populations.items():
            found = self._judged(self.bundle, objects, self.factors)
            words = "" if self.factors is None else "corrected"
            for table in (*both_coverages(found, words), *residual_tables(found)):
                yield dataclasses.replace(table, caption=f"{name}. {table.caption}")

    def _judged(self, bundle: Bundle, part: HeldOut, factors: tuple[float, ...] | None) -> Evaluation:
        outputs = _run(bundle, part, self.settings, self.progress)
        return judge(outputs, bundle.metadata, part, factors=factors, seed=self.settings.seed)


def _told_apart(bundles: Sequence[Bundle]) -> list[str]:
    """Names, with version and number where they are those of an earlier one."""
    names = list[str]()
    for number, bundle in enumerate(bundles):
        name = bundle.metadata.name
        names.append(f"{name} {bundle.metadata.version} ({number})" if name in names else name)
    return names


def result_tables(
    choice: Choice, before: Evaluation, after: Evaluation, *, apply: bool
) -> tuple[ResultTable, ...]:
    """All that goes into the card: first what runs give, then the other one of corrected and uncorrected."""
    as_run, other = (after, before) if apply else (before, after)
    words = ("corrected", "without the correction") if apply else ("uncorrected", "with the correction")
    return (
        *both_coverages(as_run, words[0]),
        *both_coverages(other, words[1]),
        *residual_tables(as_run),
        *(binned_coverage(after, name, before) for name in STRATA if name in after.strata),
        pit_table(before, after),
        candidate_table(choice),
    )


def factor_table(calibration: Calibration) -> ResultTable:
    """The correction, and whether runs apply it."""
    info = calibration.metadata.calibration
    applied = "applied" if info is not None and info.apply else "not applied"
    rows = zip(calibration.metadata.parameters, calibration.choice.factors, strict=True)
    return ResultTable(
        f"Factors that posteriors are widened by, {applied} by default",
        ("parameter", "factor"),
        tuple((parameter.name, factor) for parameter, factor in rows),
    )


def candidate_table(choice: Choice) -> ResultTable:
    """Bundles and rates tried on the calibration part, as in figure 8 of the paper."""
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
