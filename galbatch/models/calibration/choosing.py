"""The choice of a calibration: the dropout rate, and the inflation factors, that make intervals cover what they say."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from galbatch.errors import BundleError
from galbatch.models.bundle import Bundle, check_behavior
from galbatch.models.calibration.coverage import LEVELS, Share, equal_tailed_cover, share_of
from galbatch.models.calibration.evaluation import (
    HeldOut,
    Outputs,
    PassSettings,
    cdf_at,
    limits_reached,
    run_held_out,
    transforms,
)
from galbatch.models.heads import head_of, read_passes
from galbatch.models.metadata import ParameterInfo
from galbatch.models.posterior import Passes

__all__ = [
    "CalibrationSettings",
    "Candidate",
    "Choice",
    "check_candidates",
    "choose",
    "inflation_factors",
    "run_part",
    "with_dropout_rate",
]

Floats = npt.NDArray[np.float64]
Progress = Callable[[int], None]

FACTOR_RANGE = (0.1, 10.0)
COARSE_FACTORS = 93  # steps of 5 %, which move the 68.27 % coverage by 2.4 points
FINE_FACTORS = 61  # steps of 0.25 %, over 1.5 coarse ones to both sides


@dataclass(frozen=True)
class CalibrationSettings:
    """Settings of a calibration.

    Attributes
    ----------
    dropout_rates : to try each bundle at; empty: its own
    share : of the held-out objects that choose
    apply : whether runs inflate by default; None: yes, but for converted networks
    passes : how many passes of an object are run, and how
    seed : of the split into parts
    data : what the held-out objects are, for the card
    """

    dropout_rates: tuple[float, ...] = ()
    share: float = 0.5
    apply: bool | None = None
    passes: PassSettings = dataclasses.field(default_factory=PassSettings)
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
        """The dropout rate."""
        return self.bundle.metadata.dropout_rate


@dataclass(frozen=True, eq=False)
class Choice:
    """The decision of the calibration part.

    Attributes
    ----------
    chosen : number of the candidate
    candidates : all, in the order they were tried
    factors : inflation factor of each parameter
    n_objects : of the calibration part
    """

    chosen: int
    candidates: tuple[Candidate, ...]
    factors: tuple[float, ...]
    n_objects: int

    @property
    def bundle(self) -> Bundle:
        """The chosen bundle, at the chosen rate."""
        return self.candidates[self.chosen].bundle


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


def choose(
    bundles: Sequence[Bundle],
    part: HeldOut,
    settings: CalibrationSettings,
    *,
    progress: Progress | None = None,
) -> Choice:
    """Choose the candidate whose coverage is closest to nominal on the calibration part, and its factors.

    Parameters
    ----------
    bundles : candidates, each tried at the rates of the settings
    part : the calibration part, and no other object
    settings : rates, passes and seed
    progress : called with the number of objects done since the last call
    """
    candidates, outputs = list[Candidate](), list[Outputs]()
    for bundle in candidate_bundles(bundles, settings.dropout_rates):
        found = run_part(bundle, part, settings.passes, progress=progress)
        parameters, labels = bundle.metadata.parameters, part.labels[found.finite]
        passes = read_passes(found.numbers[found.finite], bundle.metadata)
        transform = transforms(
            cdf_at(passes, labels, parameters), *limits_reached(labels, parameters), seed=settings.seed
        )
        covered = [equal_tailed_cover(transform, level).mean(axis=1) for level in LEVELS]
        coverage = tuple(share_of(hits) for hits in covered)
        candidates.append(Candidate(bundle, coverage, float(coverage_misses(transform).mean())))
        outputs.append(found)
    best = int(np.argmin([candidate.miss for candidate in candidates]))
    metadata = candidates[best].bundle.metadata
    kept = outputs[best].finite
    passes = read_passes(outputs[best].numbers[kept], metadata)
    factors = inflation_factors(passes, part.labels[kept], metadata.parameters, seed=settings.seed)
    return Choice(best, tuple(candidates), factors, int(kept.sum()))


def run_part(
    bundle: Bundle, part: HeldOut, passes: PassSettings, *, progress: Progress | None = None
) -> Outputs:
    """Run the passes on a part, where they fail for a few objects at most.

    Raises
    ------
    BundleError
        The network gives non-finite numbers for most.
    """
    outputs = run_held_out(bundle, part, passes, progress=progress)
    n_good = int(outputs.finite.sum())
    # A few overflows are left out; when most fail, the images are in another unit than the network's.
    if 2 * n_good < len(part):
        raise BundleError(
            f"{bundle.metadata.name} at dropout rate {bundle.metadata.dropout_rate:g}: gives finite numbers for {n_good} of "
            f"{len(part)} objects; are its unit and zero point right?"
        )
    return outputs


def candidate_bundles(bundles: Sequence[Bundle], rates: Sequence[float]) -> list[Bundle]:
    """Return each bundle at each rate, or at its own."""
    if not rates:
        return list(bundles)
    return [with_dropout_rate(bundle, rate) for bundle in bundles for rate in rates]


def with_dropout_rate(bundle: Bundle, rate: float) -> Bundle:
    """Return the same weights at another dropout rate: a copy, with the sha256 of the original.

    Raises
    ------
    BundleError
        Its script has no dropout rate that can be set, or ignores it.
    """
    if rate == bundle.metadata.dropout_rate:
        return bundle
    # TorchScript modules are copied through a file: copy.deepcopy shares their attributes.
    buffer = io.BytesIO()
    torch.jit.save(bundle.script, buffer)
    buffer.seek(0)
    load: Any = torch.jit.load
    script = load(buffer).eval()
    # Every dropout layer holds the rate, and so does the network itself.
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


def coverage_misses(transform: Floats) -> Floats:
    """Return (level, parameter) abs(coverage - level) of integral transforms (object, parameter)."""
    return np.stack([np.abs(equal_tailed_cover(transform, level).mean(axis=0) - level) for level in LEVELS])


def inflation_factors(
    passes: Passes, labels: Floats, parameters: tuple[ParameterInfo, ...], *, seed: int = 1
) -> tuple[float, ...]:
    """Return the factor on each parameter's widths that makes the largest of the three abs(coverage - level) smallest.

    The largest, not the mean: residuals with heavy tails ask for narrower posteriors at 68.27 % and for wider ones at 99.73 %; a mean would
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
        cdf = cdf_at(passes.inflated(factors), labels, parameters)
        return coverage_misses(transforms(cdf, *at_limits, seed=seed)).max(axis=0)

    # Steps of equal ratio, as a factor of 2 is as far from 1 as one of 1/2.
    n, (low, high) = len(parameters), np.log(FACTOR_RANGE)
    coarse = np.linspace(low, high, COARSE_FACTORS)
    center = _best(np.tile(coarse[:, None], n), largest_misses)
    reach = 1.5 * (coarse[1] - coarse[0])
    fine = center + np.linspace(-reach, reach, FINE_FACTORS)[:, None]
    return tuple(float(f"{factor:.4g}") for factor in np.exp(_best(fine, largest_misses)))


def _best(ln_factors: Floats, misses: Callable[[Floats], Floats]) -> Floats:
    """Return (parameter,) the mean of those of ln_factors (step, parameter) whose misses are smallest."""
    found = np.stack([misses(np.exp(row)) for row in ln_factors])
    # Several factors may be equally good, as coverage goes by steps of one object; 1e-12 is round-off of the means.
    is_best = found <= found.min(axis=0) + 1e-12
    return (ln_factors * is_best).sum(axis=0) / is_best.sum(axis=0)
