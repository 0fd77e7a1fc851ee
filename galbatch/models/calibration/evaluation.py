"""The evaluation of a bundle on held-out objects with known truth, as in section 6 of the GaMPEN paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from galbatch.core.types import ab_mag
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
from galbatch.models.engines import choose_engine, executor
from galbatch.models.heads import outputs_per_pass, read_passes
from galbatch.models.inference.sampling import run_passes
from galbatch.models.metadata import BundleMetadata, ParameterInfo
from galbatch.models.networks import draw_keys, member_keys
from galbatch.models.networks.keys import mix
from galbatch.models.posterior import (
    DensityScores,
    Passes,
    Quantity,
    density_scores,
    from_output,
    mixture_cdf,
    output_limits,
    quantities_of,
    summarize_draws,
    summarize_mixture,
    to_output,
)
from galbatch.models.posterior.devices.arrays import host_array
from galbatch.models.training.data import ImageRows, cleaned_rows, split_objects

__all__ = ["Evaluation", "HeldOut", "Outputs", "PassSettings", "evaluate", "judge", "run_held_out"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

OBJECTS_AT_ONCE = 256
RELEASED_DRAWS = 1000  # The paper's number of passes, each with one draw.
LARGEST_DRAW = 1e100  # The exponential of an output may be infinite; draws are clipped, as infinite ones have no kernel density.


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Objects with known truth that were not used in training.

    Attributes
    ----------
    images : (image, band, y, x) float32, nJy, read by row
    labels : (object, parameter) float64, truth in physical units, in the order of the bundle's parameters
    rows : (object,) int64, rising, row of each object's image; None: one image per object, in the same order
    object_id : (object,) int64 or str, ids by which objects are divided; None: their numbers, from 0
    auxiliary : (object, number) float32; None for a bundle that takes none
    strata : true values (object,) by which results are binned: magnitude, size_arcsec; those among the labels need not be given
    weights : (object,) float64, by which the objects have the colors and magnitudes of a target list; None: there is none
    """

    images: ImageRows
    labels: Floats
    rows: Rows | None = None
    object_id: npt.NDArray[np.generic] | None = None
    auxiliary: npt.NDArray[np.float32] | None = None
    strata: Mapping[str, Floats] = field(default_factory=dict)
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> npt.NDArray[np.generic]:
        """The ids of the objects, (object,), or their numbers from 0 if there are no ids."""
        return np.arange(len(self)) if self.object_id is None else self.object_id

    def take(self, chosen: Rows) -> HeldOut:
        """Return the objects with the indices `chosen`, (object,) int64. The images are shared, not copied."""
        rows = np.arange(len(self)) if self.rows is None else self.rows
        return dataclasses.replace(
            self,
            labels=self.labels[chosen],
            rows=rows[chosen],
            object_id=self.ids[
                chosen
            ],  # Numbers, too, as those of the part would differ from those of the whole.
            auxiliary=None if self.auxiliary is None else self.auxiliary[chosen],
            strata={name: values[chosen] for name, values in self.strata.items()},
            weights=None if self.weights is None else self.weights[chosen],
        )

    def split(self, *, seed: int, share: float) -> tuple[HeldOut, HeldOut]:
        """Return the objects divided into two parts by a hash of (seed, id); the first has about `share` of all."""
        parts = split_objects(self.ids, seed=seed, validation_share=share, test_share=0.0)
        return self.take(parts.validation), self.take(parts.training)


@dataclass(frozen=True)
class PassSettings:
    """The number of passes for held-out objects, and how they are run.

    Attributes
    ----------
    n_passes : number of passes of each object; a network without dropout runs one
    seed : seed of the dropout masks
    batch : largest number of rows (object times pass) that run at a time
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
    keys : (object, pass) int64, from which masks and draws are made
    finite : (object,) bool, whether all numbers are finite; other objects are left out of results
    """

    numbers: npt.NDArray[np.float32]
    keys: npt.NDArray[np.int64]
    finite: Bools


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The comparison of posteriors with the truth.

    Attributes
    ----------
    parameters : parameters of the bundle
    labels : (object, parameter) float64, truth in physical units
    cdf : (object, parameter) float64, CDF of the posteriors at the truth, both in the standardized space
    transform : (object, parameter) float64, probability integral transform: the CDF, or a random number within the point mass for
        a truth at a parameter's limit; uniform in 0..1 if the posteriors are right
    at_low, at_high : (object, parameter) bool, whether the truth is at or beyond the lower, the upper limit
    released : (object, parameter, level, 2) float64, ends of the intervals as GaMPEN's released code defines them, in physical
        units
    median, mode : (object, quantity) float64, point estimates of the parameters and of the magnitudes derived from them
    strata : true values (object,): magnitude, size_arcsec
    n_passes : number of passes of each object
    n_failed : number of objects left out, as the network gave non-finite numbers for them
    densities : scores of the densities of each redshift, by the parameter's name
    weights : (object,) float64, weights of the objects, as in `HeldOut`; None: there are none
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
    densities: Mapping[str, DensityScores] = field(default_factory=dict)
    weights: Floats | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def index(self, name: str) -> int:
        """Return the index of the parameter of that name."""
        return [parameter.name for parameter in self.parameters].index(name)

    @property
    def quantities(self) -> list[Quantity]:
        """The quantities of `median` and `mode`, in their order: parameters and magnitudes."""
        return quantities_of(self.parameters)

    def truth(self, quantity: Quantity) -> Floats:
        """Return the true values of a quantity, (object,), in its unit."""
        truth = self.labels[:, quantity.index]
        return ab_mag(truth) if quantity.is_magnitude else truth

    def covered(self, level: float) -> Bools:
        """Return whether the equal-tailed intervals of probability `level` contain the truth, (object, parameter) bool."""
        return equal_tailed_cover(self.transform, level)

    def covered_closed(self, level: float) -> Bools:
        """Return whether the catalog's closed intervals contain the truth, both clamped to the limits, (object, parameter) bool."""
        return closed_cover(self.cdf, self.at_low, self.at_high, level)

    def covered_released(self, level: float) -> Bools:
        """Return whether the released code's closed intervals contain the truth, (object, parameter) bool."""
        # (object, parameter, 2), for the three levels of the paper only.
        ends = self.released[:, :, LEVELS.index(level)]
        return (ends[..., 0] <= self.labels) & (self.labels <= ends[..., 1])

    def coverage(self, name: str, level: float = LEVELS[0]) -> Share:
        """Return the share of objects whose equal-tailed interval contains the truth of the parameter of that name."""
        return share_of(self.covered(level)[:, self.index(name)])

    def r2(self, name: str) -> float:
        """Return R^2 of the median of a parameter or magnitude (equation 17 of the GaMPEN paper)."""
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
    """Return the comparison of a bundle's posteriors with the truth.

    Parameters
    ----------
    bundle : bundle with any head
    images : (object, band, y, x) float32, nJy
    labels : (object, parameter) float64, truth in physical units
    passes : number of passes per object, their seed and batch size; None: the defaults
    calibrated : whether posteriors are inflated by the bundle's factors; None: the bundle's own default
    auxiliary : (object, number) float32; None for a bundle that takes none

    Raises
    ------
    BundleError
        `calibrated` is true, but the bundle holds no inflation factors.
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
    """Run the passes for all held-out objects; a network without dropout runs one.

    Parameters
    ----------
    bundle : bundle to run
    held_out : objects
    passes : number of passes per object, their seed and batch size
    progress : function called with the number of objects done since the last call
    """
    metadata, n = bundle.metadata, len(held_out)
    # Keys by number, not by id, as held-out objects from an array have no ids.
    keys = draw_keys(
        np.arange(n),
        seed=passes.seed,
        bundle_sha256=bundle.sha256,
        passes=np.arange(passes.n_passes if metadata.passes_differ else 1),
    )
    # The fastest engine that only rounds: what is calibrated serves every precision.
    engine = choose_engine(Ensemble((bundle,)), kind="auto", precision="float32", device="cpu")
    runs = executor(bundle, engine, "cpu")
    scale = 1.0 / metadata.input.njy_per_unit
    rows = np.arange(n) if held_out.rows is None else held_out.rows
    # The empty first part gives the result its shape where there are no objects.
    parts = [np.empty((0, keys.shape[1], outputs_per_pass(metadata)), np.float32)]
    for start in range(0, n, OBJECTS_AT_ONCE):
        some = slice(start, start + OBJECTS_AT_ONCE)
        images = cleaned_rows(held_out.images, rows[some], scale)
        auxiliary = None if held_out.auxiliary is None else held_out.auxiliary[some]
        raw = run_passes(bundle, images, keys[some], batch=passes.batch, auxiliary=auxiliary, executor=runs)
        parts.append(host_array(raw.outputs))
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
    """Return the comparison of posteriors with the truth.

    Parameters
    ----------
    outputs : outputs for the objects of `held_out`
    metadata : metadata of the bundle
    held_out : objects with their true values
    factors : factors by which posteriors are inflated, one per parameter; None: not inflated
    seed : seed of the random numbers for truths at limits
    """
    # Objects whose passes failed are left out of all results, and counted.
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
        densities=_redshift_densities(outputs, metadata, held_out, kept=kept, factors=factors),
        weights=None if held_out.weights is None else held_out.weights[kept],
    )


def _redshift_densities(
    outputs: Outputs,
    metadata: BundleMetadata,
    held_out: HeldOut,
    *,
    kept: Rows,
    factors: tuple[float, ...] | None,
) -> dict[str, DensityScores]:
    """Return the scores of the densities of each redshift, by the parameter's name, of the objects `kept`."""
    # Redshifts alone: the scores take a hundred times as long as the CDF at the truth.
    wanted = [q for q in quantities_of(metadata.parameters) if q.parameter.is_redshift]
    parts: dict[str, list[DensityScores]] = {quantity.name: [] for quantity in wanted}
    for start in range(0, len(kept) if wanted else 0, OBJECTS_AT_ONCE):
        rows = kept[start : start + OBJECTS_AT_ONCE]
        passes = read_passes(outputs.numbers[rows], metadata)
        if factors is not None:
            passes = passes.inflated(factors)
        for quantity in wanted:
            truth = held_out.labels[rows, quantity.index]
            parts[quantity.name].append(density_scores(passes, quantity, truth))
    return {
        name: DensityScores(
            *(np.concatenate([getattr(part, one.name) for part in found]) for one in fields(DensityScores))
        )
        for name, found in parts.items()
        if found
    }


def _judge_some(
    outputs: Outputs,
    metadata: BundleMetadata,
    labels: Floats,
    rows: Rows,
    factors: tuple[float, ...] | None,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return CDF, released intervals, median and mode, as in `Evaluation`, of a few objects."""
    passes = read_passes(outputs.numbers[rows], metadata)
    if factors is not None:
        passes = passes.inflated(factors)
    keys = member_keys(outputs.keys[rows], metadata.n_shares)
    draws = physical_draws(passes, keys, metadata.parameters)
    # (object, parameter, level, 2)
    released = np.stack([released_intervals(draws[..., i]) for i in range(draws.shape[2])], axis=1)
    summaries = [_summary(passes, quantity) for quantity in quantities_of(metadata.parameters)]
    median, mode = (np.stack(column, axis=1) for column in zip(*summaries, strict=True))
    return cdf_at(passes, labels, metadata.parameters), released, median, mode


def _summary(passes: Passes, quantity: Quantity) -> tuple[Floats, Floats]:
    """Return median and mode, (object,) each, computed as in the catalog."""
    if passes.is_point:
        summary = summarize_draws(passes.mean, quantity, [0.5])
    else:
        summary = summarize_mixture(passes, quantity, [0.5])
    return summary.quantiles[:, 0], summary.mode


def physical_draws(
    passes: Passes, keys: npt.NDArray[np.int64], parameters: tuple[ParameterInfo, ...]
) -> Floats:
    """Return draws (object, draw, parameter) in physical units: 1,000 or a few more; for a point head its passes."""
    repeats = 1 if passes.is_point else -(-RELEASED_DRAWS // keys.shape[1])
    # Each further draw from a pass has another key, a hash of the pass's key plus a number.
    words = keys.view(np.uint64)
    drawn = [passes.draws(mix(words + np.uint64(number)).view(np.int64)) for number in range(repeats)]
    draws = np.concatenate(drawn, axis=1)
    physical = np.stack([from_output(draws[..., i], p) for i, p in enumerate(parameters)], axis=2)
    return np.clip(physical, -LARGEST_DRAW, LARGEST_DRAW)


def cdf_at(passes: Passes, labels: Floats, parameters: tuple[ParameterInfo, ...]) -> Floats:
    """Return the CDF of the posteriors at the truth, (object, parameter), in the standardized space.

    For a point head it is the rank k of the truth among its n passes, as (k + 1/2) / (n + 1).
    """
    found = [
        mixture_cdf(passes.marginal(i), to_output(labels[:, i], parameter))
        for i, parameter in enumerate(parameters)
    ]
    cdf = np.stack(found, axis=1)
    if passes.is_point:
        # The middle of the interval between two ranks, so that 0 and 1 do not occur.
        n = passes.mean.shape[1]
        return (n * cdf + 0.5) / (n + 1)
    return cdf


def limits_reached(labels: Floats, parameters: tuple[ParameterInfo, ...]) -> tuple[Bools, Bools]:
    """Return whether the truth is at or beyond the lower, and the upper limit of a parameter, (object, parameter) bool each."""
    # Compared as standardized values, to which both are mapped by the same function.
    low, high = np.array([output_limits(parameter) for parameter in parameters]).T
    standard = np.stack([to_output(labels[:, i], p) for i, p in enumerate(parameters)], axis=1)
    return standard <= low, standard >= high


def transforms(cdf: Floats, at_low: Bools, at_high: Bools, *, seed: int) -> Floats:
    """Return the randomized probability integral transforms, (object, parameter)."""
    # One generator for all parameters, in their order, so that every factor is tried with the same random numbers.
    rng = np.random.default_rng(seed)
    columns = [randomized_transform(cdf[:, i], at_low[:, i], at_high[:, i], rng) for i in range(cdf.shape[1])]
    return np.stack(columns, axis=1)


def strata_of(labels: Floats, parameters: tuple[ParameterInfo, ...]) -> dict[str, Floats]:
    """Return the first magnitude and the first size, (object,) each, among the labels, by the names of strata."""
    found: dict[str, Floats] = {}
    # Known by unit and name: the metadata do not say which parameter is the total magnitude.
    for values, parameter in zip(labels.T, parameters, strict=True):
        if parameter.unit == "arcsec":
            found.setdefault("size_arcsec", values)
        elif parameter.magnitude is not None:
            found.setdefault("magnitude", ab_mag(values))
        elif parameter.unit == "mag" and parameter.name.startswith("mag"):
            found.setdefault("magnitude", values)
    return found
