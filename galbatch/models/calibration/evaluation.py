"""The evaluation of a bundle on objects with known truth that nothing was trained on: section 6 of the GaMPEN paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from galbatch.core.types import ab_mag, njy_per_unit
from galbatch.models.bundle import Bundle, Ensemble
from galbatch.models.calibration.coverage import (
    LEVELS,
    Share,
    closed_cover,
    equal_tailed_cover,
    randomized_transform,
    released_intervals,
    share_of,
)
from galbatch.models.heads import outputs_per_pass, read_passes
from galbatch.models.inference.sampling import run_passes
from galbatch.models.metadata import BundleMetadata, ParameterInfo
from galbatch.models.networks import draw_keys, member_keys
from galbatch.models.networks.keys import mix
from galbatch.models.posterior import (
    Passes,
    Quantity,
    from_output,
    mixture_cdf,
    output_limits,
    quantities_of,
    summarize_draws,
    summarize_mixture,
    to_output,
)
from galbatch.models.training.data import ImageRows, cleaned_rows, split_objects

__all__ = ["Evaluation", "HeldOut", "Outputs", "PassSettings", "evaluate", "judge", "run_held_out"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

OBJECTS_AT_ONCE = 256
RELEASED_DRAWS = 1000  # the paper's passes, one draw each
LARGEST_DRAW = 1e100  # an exp beyond is held there: a kernel density of infinite draws is none


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Objects with known truth.

    Attributes
    ----------
    images : (image, band, y, x) float32, nJy, by row
    labels : (object, parameter) float64, physical units, in the order of the bundle's parameters
    rows : (object,) int64, rising: the image of each; None: image for image
    object_id : (object,) int64 or str, what splits hang on; None: their numbers, from 0
    auxiliary : (object, auxiliary input) float32; None: the bundle takes none
    strata : true values (object,) that results are shown by: magnitude, size_arcsec; taken from the labels where they
        are among these
    """

    images: ImageRows
    labels: Floats
    rows: Rows | None = None
    object_id: npt.NDArray[np.generic] | None = None
    auxiliary: npt.NDArray[np.float32] | None = None
    strata: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> npt.NDArray[np.generic]:
        """The ids of the objects, (object,), or their numbers."""
        return np.arange(len(self)) if self.object_id is None else self.object_id

    def take(self, chosen: Rows) -> HeldOut:
        """Return some of the objects."""
        rows = np.arange(len(self)) if self.rows is None else self.rows
        return dataclasses.replace(
            self,
            labels=self.labels[chosen],
            rows=rows[chosen],
            object_id=self.ids[chosen],
            auxiliary=None if self.auxiliary is None else self.auxiliary[chosen],
            strata={name: values[chosen] for name, values in self.strata.items()},
        )

    def split(self, *, seed: int, share: float) -> tuple[HeldOut, HeldOut]:
        """Divide the objects into two parts without a common one, by a hash of (seed, id); the first holds about `share` of all."""
        parts = split_objects(self.ids, seed=seed, validation_share=share, test_share=0.0)
        return self.take(parts.validation), self.take(parts.training)


@dataclass(frozen=True)
class PassSettings:
    """The number of passes that held-out objects get, their seed, and the batch.

    Attributes
    ----------
    n_passes : of each object; one is run where dropout is off
    seed : of the dropout masks
    batch : rows (object times pass) a forward sees at most
    """

    n_passes: int = 64
    seed: int = 1
    batch: int = 256


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of the passes for held-out objects.

    Attributes
    ----------
    numbers : (object, pass, output) float32
    keys : (object, pass) int64
    finite : (object,) whether all numbers are; the others are left out
    """

    numbers: npt.NDArray[np.float32]
    keys: npt.NDArray[np.int64]
    finite: Bools


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Posteriors compared with the truth.

    Attributes
    ----------
    parameters : of the bundle
    labels : (object, parameter) float64, the truth, physical units
    cdf : (object, parameter) of the posteriors at the truth, both in the standardized space
    transform : (object, parameter) the same, drawn within the point mass for truths at a parameter's limits: uniform in 0..1
        if the posteriors are right
    at_low, at_high : (object, parameter) truths at or beyond a parameter's limits
    released : (object, parameter, level, end) intervals as GaMPEN's released code defines them, physical units
    median, mode : (object, quantity) point values of the parameters and the magnitudes derived from them
    strata : true values (object,): magnitude, size_arcsec
    n_passes : of each object
    n_failed : objects left out, because the network gave no finite numbers for them
    """

    parameters: tuple[ParameterInfo, ...]
    labels: Floats
    cdf: Floats
    transform: Floats
    at_low: Bools
    at_high: Bools
    released: Floats
    median: Floats
    mode: Floats
    strata: Mapping[str, Floats]
    n_passes: int
    n_failed: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, name: str) -> int:
        """Return the number of the parameter of that name."""
        return [parameter.name for parameter in self.parameters].index(name)

    @property
    def quantities(self) -> list[Quantity]:
        """The quantities of `median` and `mode`: parameters and magnitudes."""
        return quantities_of(self.parameters)

    def truth(self, quantity: Quantity) -> Floats:
        """Return the truth, (object,), in the quantity's unit."""
        truth = self.labels[:, quantity.index]
        return ab_mag(truth) if quantity.is_magnitude else truth

    def covered(self, level: float) -> Bools:
        """Tell, (object, parameter) bool, whether the equal-tailed interval holds the truth."""
        return equal_tailed_cover(self.transform, level)

    def covered_closed(self, level: float) -> Bools:
        """Tell, (object, parameter) bool, whether the catalog's interval, ends included, holds the truth clamped as it is."""
        return closed_cover(self.cdf, self.at_low, self.at_high, level)

    def covered_released(self, level: float) -> Bools:
        """Tell, (object, parameter) bool, whether the released code's interval, ends included, holds the truth."""
        ends = self.released[:, :, LEVELS.index(level)]
        return np.asarray((ends[..., 0] <= self.labels) & (self.labels <= ends[..., 1]))

    def coverage(self, name: str, level: float = LEVELS[0]) -> Share:
        """Return the share of truths of one parameter in the equal-tailed interval."""
        return share_of(self.covered(level)[:, self.index(name)])

    def r2(self, name: str) -> float:
        """Return the coefficient of determination of a parameter's or magnitude's median (equation 17 of the paper)."""
        (i,) = [i for i, quantity in enumerate(self.quantities) if quantity.name == name]
        truth = self.truth(self.quantities[i])
        return float(1 - np.square(self.median[:, i] - truth).mean() / truth.var())


def evaluate(
    bundle: Bundle,
    images: ImageRows,
    labels: Floats,
    *,
    passes: PassSettings | None = None,
    calibrated: bool | None = None,
    auxiliary: npt.NDArray[np.float32] | None = None,
) -> Evaluation:
    """Compare a bundle's posteriors with the truth.

    Parameters
    ----------
    bundle : any head
    images : (object, band, y, x) float32, nJy
    labels : (object, parameter) float64, physical units
    passes : how many passes of an object are run, and how
    calibrated : whether the bundle's post-hoc correction is applied; None: as the bundle says
    auxiliary : (object, auxiliary input) float32

    Raises
    ------
    BundleError
        `calibrated` is true, and the bundle holds no correction.
    """
    (factors,) = Ensemble((bundle,), calibrated).inflation_factors
    held_out = HeldOut(images, np.asarray(labels, dtype=np.float64), auxiliary=auxiliary)
    outputs = run_held_out(bundle, held_out, passes or PassSettings())
    return judge(outputs, bundle.metadata, held_out, factors=factors)


def run_held_out(
    bundle: Bundle,
    held_out: HeldOut,
    passes: PassSettings,
    *,
    progress: Callable[[int], None] | None = None,
) -> Outputs:
    """Run the passes on all objects, some at a time. One pass where dropout is off.

    Parameters
    ----------
    progress : called with the number of objects done since the last call
    """
    metadata, n = bundle.metadata, len(held_out)
    # By number, not by id: held-out objects of an array have none.
    keys = draw_keys(
        np.arange(n),
        seed=passes.seed,
        bundle_sha256=bundle.sha256,
        passes=np.arange(passes.n_passes if metadata.dropout_rate > 0 else 1),
    )
    scale = 1.0 / njy_per_unit(metadata.input.zero_point_mag)
    rows = np.arange(n) if held_out.rows is None else held_out.rows
    parts = [np.empty((0, keys.shape[1], outputs_per_pass(metadata)), np.float32)]
    for start in range(0, n, OBJECTS_AT_ONCE):
        some = slice(start, start + OBJECTS_AT_ONCE)
        images = cleaned_rows(held_out.images, rows[some], scale)
        auxiliary = None if held_out.auxiliary is None else held_out.auxiliary[some]
        raw = run_passes(bundle, images, keys[some], batch=passes.batch, auxiliary=auxiliary)
        parts.append(raw.outputs)
        if progress is not None:
            progress(len(images))
    numbers = np.concatenate(parts)
    return Outputs(numbers, keys, np.asarray(np.isfinite(numbers).all(axis=(1, 2))))


def judge(
    outputs: Outputs,
    metadata: BundleMetadata,
    held_out: HeldOut,
    *,
    factors: tuple[float, ...] | None = None,
    seed: int = 1,
) -> Evaluation:
    """Compare posteriors with the truth.

    Parameters
    ----------
    outputs : of the objects of `held_out`
    metadata : of the bundle
    factors : the posteriors are inflated by; None: as the network gives them
    seed : of what is drawn within point masses
    """
    kept = np.flatnonzero(outputs.finite)
    labels = held_out.labels[kept]
    chunks = [kept[start : start + OBJECTS_AT_ONCE] for start in range(0, len(kept), OBJECTS_AT_ONCE)]
    judged = [_judge_some(outputs, metadata, held_out.labels[rows], rows, factors) for rows in chunks]
    cdf, released, median, mode = (np.concatenate(column) for column in zip(*judged, strict=True))
    at_low, at_high = limits_reached(labels, metadata.parameters)
    strata = strata_of(labels, metadata.parameters) | {k: v[kept] for k, v in held_out.strata.items()}
    return Evaluation(
        metadata.parameters,
        labels,
        cdf,
        transforms(cdf, at_low, at_high, seed=seed),
        at_low,
        at_high,
        released,
        median,
        mode,
        strata,
        n_passes=outputs.keys.shape[1],
        n_failed=len(held_out) - len(kept),
    )


def _judge_some(
    outputs: Outputs,
    metadata: BundleMetadata,
    labels: Floats,
    rows: Rows,
    factors: tuple[float, ...] | None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return (cdf, released intervals, median, mode) of some objects."""
    passes = read_passes(outputs.numbers[rows], metadata)
    if factors is not None:
        passes = passes.inflated(factors)
    keys = member_keys(outputs.keys[rows], metadata.members)
    draws = physical_draws(passes, keys, metadata.parameters)
    released = np.stack([released_intervals(draws[..., i]) for i in range(draws.shape[2])], axis=1)
    summaries = [_summary(passes, quantity) for quantity in quantities_of(metadata.parameters)]
    median, mode = (np.stack(column, axis=1) for column in zip(*summaries, strict=True))
    return cdf_at(passes, labels, metadata.parameters), released, median, mode


def _summary(passes: Passes, quantity: Quantity) -> tuple[Floats, Floats]:
    """Return median and mode, (object,), as the catalog has them."""
    if passes.is_point:
        summary = summarize_draws(passes.mean, quantity, [0.5])
    else:
        summary = summarize_mixture(passes, quantity, [0.5])
    return summary.quantiles[:, 0], summary.mode


def physical_draws(
    passes: Passes, keys: npt.NDArray[np.int64], parameters: tuple[ParameterInfo, ...]
) -> Floats:
    """Draw (object, draw, parameter) in physical units: as many a pass as make 1,000; those of a point head are its passes."""
    repeats = 1 if passes.is_point else -(-RELEASED_DRAWS // keys.shape[1])
    # Further draws of a pass have keys of their own, mixed from the pass's key and a number.
    words = keys.view(np.uint64)
    drawn = [passes.draws(mix(words + np.uint64(number)).view(np.int64)) for number in range(repeats)]
    draws = np.concatenate(drawn, axis=1)
    physical = np.stack([from_output(draws[..., i], p) for i, p in enumerate(parameters)], axis=2)
    return np.clip(physical, -LARGEST_DRAW, LARGEST_DRAW)


def cdf_at(passes: Passes, labels: Floats, parameters: tuple[ParameterInfo, ...]) -> Floats:
    """Return (object, parameter) the CDF of the posteriors at the truth, in the standardized space.

    Of a point head the truth's rank among its n passes, in the middle of the ranks that are left open: (k + 1/2) / (n + 1).
    """
    found = [
        mixture_cdf(passes.marginal(i), to_output(labels[:, i], parameter))
        for i, parameter in enumerate(parameters)
    ]
    cdf = np.stack(found, axis=1)
    if passes.is_point:
        n = passes.mean.shape[1]
        return np.asarray((n * cdf + 0.5) / (n + 1))
    return cdf


def limits_reached(labels: Floats, parameters: tuple[ParameterInfo, ...]) -> tuple[Bools, Bools]:
    """Tell, (object, parameter) bool, whether truths lie at or beyond the lower, and the upper limit of the parameter."""
    low, high = np.array([output_limits(parameter) for parameter in parameters]).T
    standard = np.stack([to_output(labels[:, i], p) for i, p in enumerate(parameters)], axis=1)
    return standard <= low, standard >= high


def transforms(cdf: Floats, at_low: Bools, at_high: Bools, *, seed: int) -> Floats:
    """Return (object, parameter) randomized integral transforms."""
    # One generator for all parameters, in their order: the same numbers for every factor that is tried.
    rng = np.random.default_rng(seed)
    columns = [randomized_transform(cdf[:, i], at_low[:, i], at_high[:, i], rng) for i in range(cdf.shape[1])]
    return np.stack(columns, axis=1)


def strata_of(labels: Floats, parameters: tuple[ParameterInfo, ...]) -> dict[str, Floats]:
    """Return true magnitudes and sizes (object,) that are among the labels: the first of each."""
    found: dict[str, Floats] = {}
    for values, parameter in zip(labels.T, parameters, strict=True):
        if parameter.unit == "arcsec":
            found.setdefault("size_arcsec", values)
        elif parameter.magnitude is not None:
            found.setdefault("magnitude", ab_mag(values))
        elif parameter.unit == "mag" and parameter.name.startswith("mag"):
            found.setdefault("magnitude", values)
    return found
