"""The choice of a dropout rate, and of the inflation factors with which intervals have their nominal coverage."""

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
from galbatch.models.metadata import BundleMetadata, ParameterInfo
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
COARSE_FACTORS = 93  # Steps of 5 %, which change the 68.27 % coverage by 2.4 percentage points.
FINE_FACTORS = 61  # Steps of 0.25 %, over 1.5 coarse steps to both sides.


@dataclass(frozen=True)
class CalibrationSettings:
    """Settings of a calibration.

    Attributes
    ----------
    dropout_rates : rates at which each bundle is tried; empty: its own rate
    share : share of the held-out objects in the calibration part
    apply : whether runs apply the correction by default; None: yes, except for converted networks
    passes : number of passes per object, their seed and batch size
    seed : seed of the division into parts
    data : description of the held-out objects, for the model card
    """

    dropout_rates: tuple[float, ...] = ()
    share: float = 0.5
    apply: bool | None = None
    passes: PassSettings = dataclasses.field(default_factory=PassSettings)
    seed: int = 1
    data: str = ""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A bundle at one dropout rate, and its coverage on the calibration part without correction.

    Attributes
    ----------
    bundle : bundle whose script has the rate
    coverage : coverage of equal-tailed intervals at each level, averaged over the parameters
    miss : mean of |coverage - level| over parameters and levels; the candidate with the smallest one is chosen
    """

    bundle: Bundle
    coverage: tuple[Share, ...]
    miss: float

    @property
    def rate(self) -> float:
        """The dropout rate of the bundle."""
        return self.bundle.metadata.dropout_rate


@dataclass(frozen=True, eq=False)
class Choice:
    """The candidate and the factors that were chosen on the calibration part.

    Attributes
    ----------
    chosen : index of the chosen candidate
    candidates : all candidates, in the order in which they were tried
    factors : inflation factor of each parameter
    n_objects : number of objects of the calibration part
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
    """Check that all bundles have a posterior, and the same parameters and inputs as the first.

    Parameters
    ----------
    bundles : candidates
    rates : dropout rates at which they are tried; empty: their own

    Raises
    ------
    BundleError
        A bundle has no posterior, gives classes or a vector, or differs from the first in parameters or inputs.
    """
    for bundle in bundles:
        metadata = bundle.metadata
        if head_of(metadata.head).is_vector:
            raise BundleError(
                f"{metadata.name}: gives a vector, which has no intervals whose coverage could be measured"
            )
        # One rate of 0 is enough to refuse: the candidate at that rate would have no posterior.
        without_dropout = not metadata.draws and 0 in (rates or [metadata.dropout_rate])
        if head_of(metadata.head).is_point and without_dropout and metadata.members == 1:
            raise BundleError(
                f"{metadata.name}: a point head without dropout has no posterior, so there is nothing to calibrate; "
                "train it with a Gaussian head, or with dropout"
            )
        if head_of(metadata.head).is_classes:
            raise BundleError(
                f"{metadata.name}: gives probabilities of classes, which have no intervals whose coverage could be measured"
            )
        names, expected = (
            [f"{parameter.name} {parameter.unit}".strip() for parameter in of.metadata.parameters]
            for of in (bundle, bundles[0])
        )
        if names != expected or bundle.metadata.input != bundles[0].metadata.input:
            raise BundleError(
                f"{metadata.name}: has the parameters {', '.join(names)} of {_input_text(metadata)}, expected those of "
                f"{bundles[0].metadata.name}: {', '.join(expected)} of {_input_text(bundles[0].metadata)}, with the same input; "
                "calibrate bundles that differ apart"
            )


def _input_text(metadata: BundleMetadata) -> str:
    grid = metadata.input.grid
    return metadata.input.text if grid is None else grid.label


def choose(
    bundles: Sequence[Bundle],
    part: HeldOut,
    settings: CalibrationSettings,
    *,
    progress: Progress | None = None,
) -> Choice:
    """Return the candidate whose coverage on the calibration part is closest to nominal, with its inflation factors.

    Parameters
    ----------
    bundles : bundles to try at each rate of the settings
    part : the calibration part
    settings : rates, number of passes and seed
    progress : function called with the number of objects done since the last call
    """
    candidates, outputs = list[Candidate](), list[Outputs]()
    for bundle in candidate_bundles(bundles, settings.dropout_rates):
        found = run_part(bundle, part, settings.passes, progress=progress)
        parameters, labels = bundle.metadata.parameters, part.labels[found.finite]
        passes = read_passes(found.numbers[found.finite], bundle.metadata)
        transform = transforms(
            cdf_at(passes, labels, parameters), *limits_reached(labels, parameters), seed=settings.seed
        )
        # Averaged over the parameters of each object, (object,): their hits are correlated.
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
    """Return the outputs of the passes for a part of the held-out objects.

    Raises
    ------
    BundleError
        The network gives non-finite numbers for more than half of them.
    """
    outputs = run_held_out(bundle, part, passes, progress=progress)
    n_good = int(outputs.finite.sum())
    # A few objects may overflow, and are left out. If most do, the images are probably not in the network's unit.
    if 2 * n_good < len(part):
        raise BundleError(
            f"{bundle.metadata.name} at dropout rate {bundle.metadata.dropout_rate:g}: gives finite numbers for {n_good} of "
            f"{len(part)} objects; are its unit and zero point right?"
        )
    return outputs


def candidate_bundles(bundles: Sequence[Bundle], rates: Sequence[float]) -> list[Bundle]:
    """Return each bundle at each rate, or the bundles themselves if there are no rates."""
    if not rates:
        return list(bundles)
    return [with_dropout_rate(bundle, rate) for bundle in bundles for rate in rates]


def with_dropout_rate(bundle: Bundle, rate: float) -> Bundle:
    """Return a copy of a bundle with another dropout rate, with the same weights and the sha256 of the original.

    Raises
    ------
    BundleError
        The script has no attribute `dropout_rate`, or its passes do not depend on it.
    """
    if rate == bundle.metadata.dropout_rate:
        return bundle
    # Copied through a file in memory, as copy.deepcopy of a TorchScript module shares attributes with the original.
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
    """Return |coverage - level|, (level, parameter), from probability integral transforms (object, parameter)."""
    return np.stack([np.abs(equal_tailed_cover(transform, level).mean(axis=0) - level) for level in LEVELS])


def inflation_factors(
    passes: Passes, labels: Floats, parameters: tuple[ParameterInfo, ...], *, seed: int = 1
) -> tuple[float, ...]:
    """Return for each parameter the factor with which the largest of the three |coverage - level| is smallest.

    The largest is used, not the mean: residuals with heavy tails need narrower posteriors at 68.27 % and wider ones at 99.73 %,
    and a mean would favor the level at which most objects change sides. A logarithmic score would follow the few objects that
    are farthest off. As coverage changes in steps of one object, the factor is searched for on a grid, with steps of 5 % and
    then of 0.25 %. The result is the mean of the equally good ones, to four digits.

    Parameters
    ----------
    passes : distributions of the objects of the calibration part
    labels : (object, parameter) float64, truth in physical units
    parameters : parameters of the network
    seed : seed of the random numbers for truths at limits, which are the same for every factor
    """
    at_limits = limits_reached(labels, parameters)

    def largest_misses(factors: Floats) -> Floats:
        cdf = cdf_at(passes.inflated(factors), labels, parameters)
        return coverage_misses(transforms(cdf, *at_limits, seed=seed)).max(axis=0)

    # Steps of equal ratio, as 2 is as far from 1 as 1/2. (step, parameter)
    n, (low, high) = len(parameters), np.log(FACTOR_RANGE)
    coarse = np.linspace(low, high, COARSE_FACTORS)
    center = _best(np.tile(coarse[:, None], n), largest_misses)
    reach = 1.5 * (coarse[1] - coarse[0])
    fine = center + np.linspace(-reach, reach, FINE_FACTORS)[:, None]
    return tuple(float(f"{factor:.4g}") for factor in np.exp(_best(fine, largest_misses)))


def _best(ln_factors: Floats, misses: Callable[[Floats], Floats]) -> Floats:
    """Return the mean, (parameter,), of those of ln_factors (step, parameter) whose misses are smallest."""
    found = np.stack([misses(np.exp(row)) for row in ln_factors])
    # Several factors may be equally good, as coverage goes by steps of one object; 1e-12 is round-off of the means.
    is_best = found <= found.min(axis=0) + 1e-12
    return (ln_factors * is_best).sum(axis=0) / is_best.sum(axis=0)
