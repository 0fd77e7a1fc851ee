"""The stopping calibration of a bundle, measured with many passes of held-out objects; true values are not needed.

Let z be a pass's CDF at a quantile less the level, over the density there in units of the posterior's standard deviation. The
variance of z over n passes, shown, is an unbiased estimate of the variance e2 of a pass, and the quantile's squared error is e2 / n.
For each parameter, level and checkpoint n the regression E[e2 | shown] is fitted (isotonic, over a dozen bins of equal numbers): the
target is the variance of all passes but the n, which are independent of them. All runs of n passes in an object's passes are used.

Objects stop where the expected error is small enough, so that a few that have large jumps among many quiet ones may stop too early. How
far that goes is measured with the held-out objects themselves (fitted on one half, judged on the other, both ways), and the earliest start
is taken with which they hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from galbatch.config import PosteriorConfig
from galbatch.errors import UsageError
from galbatch.models.bundle import Bundle, Ensemble
from galbatch.models.calibration.evaluation import HeldOut
from galbatch.models.engines import choose_engine, executor
from galbatch.models.heads import head_of, read_passes
from galbatch.models.inference import GROUP_OBJECTS, VarianceTable, run_passes, schedule
from galbatch.models.metadata import BundleMetadata, StoppingInfo
from galbatch.models.networks import draw_keys
from galbatch.models.posterior import Floats, member_cdf_errors, quantities_of
from galbatch.models.posterior.devices.arrays import finite_objects, host_array
from galbatch.models.training.data import cleaned_rows

__all__ = [
    "EARLIEST_START",
    "MIN_STOPPING_OBJECTS",
    "StoppingSettings",
    "calibrate_stopping",
    "fit_stopping",
    "stops_by_quantiles",
]

# The default quantiles, and 3 sigma: between them a run may take any.
LEVELS = (0.00135, 0.02275, 0.15865, 0.5, 0.84135, 0.97725, 0.99865)
DEFAULT_LEVELS = slice(1, -1)
# At most half of 1000 passes, as the other half is the target. More passes change little: the own variance is then known.
CHECKPOINTS = (32, 48, 64, 80, 96, 128, 192, 256, 384, 500)
EARLIEST_START = 32
STARTS = (EARLIEST_START, 48, 64, 96)
N_BINS = 12
SIGNIFICANT = 2.0  # Standard errors by which the means of two bins differ; closer ones are joined.
TINY = 1e-300
# Held-out objects hold if the RMS error is at most this multiple of the stated one. Both are known to about 5 % from 128 objects.
HOLDS = 1.1
# Fewer stopped objects than this say nothing about a start.
MIN_STOPPED = 30
# The start must hold at the default tolerance and at its double.
TOLERANCES = (0.05, 0.1)
# Each object is judged several times, beginning with the pass at each quarter of its passes.
N_BEGINNINGS = 4
# With half of them a bin of the regression has two objects, whose few jumps decide.
MIN_STOPPING_OBJECTS = 48
DIGITS = 4  # A variance is known to a few per cent.

Progress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class StoppingSettings:
    """Settings of a stopping calibration.

    Attributes
    ----------
    n_objects : number of held-out objects, the first of those given
    n_passes : number of passes of each
    seed : seed of the dropout masks
    batch : largest number of rows (object times pass) that run at a time
    device : cpu or cuda
    data : description of the objects, for the model card
    """

    n_objects: int = 128
    n_passes: int = 1000
    seed: int = 1
    batch: int = 256
    device: str = "cpu"
    data: str = ""


def stops_by_quantiles(metadata: BundleMetadata) -> bool:
    """Return whether a stopping calibration means something: whether passes differ, and are distributions."""
    return metadata.passes_differ and not head_of(metadata.head).is_point


def calibrate_stopping(
    bundle: Bundle,
    held_out: HeldOut,
    settings: StoppingSettings | None = None,
    *,
    progress: Progress | None = None,
) -> StoppingInfo:
    """Run passes of held-out objects, and return the stopping calibration of the bundle; labels are not read.

    Parameters
    ----------
    bundle : bundle with dropout and a head that predicts distributions
    held_out : objects that were not used in training
    settings : numbers of objects and passes; None: the defaults
    progress : function called with the number of objects done since the last call

    Raises
    ------
    UsageError
        The passes of the bundle do not differ or are single values, or there are too few objects.
    """
    settings = settings or StoppingSettings()
    metadata, n_objects = bundle.metadata, min(settings.n_objects, len(held_out))
    if not stops_by_quantiles(metadata):
        raise UsageError(
            f"{metadata.name}: a stopping calibration is of networks with dropout whose passes are distributions; this one needs none"
        )
    engine = choose_engine(Ensemble((bundle,)), kind="auto", precision="auto", device=settings.device)
    runs = executor(bundle, engine, settings.device)
    scale = 1.0 / metadata.input.njy_per_unit
    rows = np.arange(len(held_out)) if held_out.rows is None else held_out.rows
    found = []
    for start in range(0, n_objects, GROUP_OBJECTS):
        some = slice(start, min(start + GROUP_OBJECTS, n_objects))
        keys = draw_keys(
            np.arange(some.start, some.stop),
            seed=settings.seed,
            bundle_sha256=bundle.sha256,
            passes=range(settings.n_passes),
        )
        raw = run_passes(
            bundle,
            cleaned_rows(held_out.images, rows[some], scale),
            keys,
            batch=settings.batch,
            auxiliary=None if held_out.auxiliary is None else held_out.auxiliary[some],
            executor=runs,
        )
        # Passes themselves are not kept: a binned head with 900 bins has 0.9 million numbers per object.
        found.append(cdf_errors(host_array(raw.outputs)[finite_objects(raw.outputs)], metadata))
        if progress is not None:
            progress(some.stop - some.start)
    return fit_stopping(np.concatenate(found), metadata, data=settings.data)


def cdf_errors(outputs: npt.NDArray[np.float32], metadata: BundleMetadata) -> Floats:
    """Return z of each pass at the quantiles from all passes.

    Parameters
    ----------
    outputs : (object, pass, output) float32, finite
    metadata : metadata of the bundle

    Returns
    -------
    (object, parameter, level, member, pass) float64
    """
    passes = read_passes(outputs.astype(np.float64), metadata)
    n_parameters = len(metadata.parameters)
    # The posterior of a parameter without its magnitude, which has the same quantiles.
    found = [member_cdf_errors(passes.marginal(i), np.asarray(LEVELS)) for i in range(n_parameters)]
    return np.stack(found, axis=1)


def fit_stopping(z: Floats, metadata: BundleMetadata, *, data: str = "") -> StoppingInfo:
    """Return the stopping calibration from the errors of the CDFs of held-out objects' passes.

    Parameters
    ----------
    z : (object, parameter, level, member, pass) float64, as `cdf_errors` returns it
    metadata : metadata of the bundle
    data : description of the objects

    Raises
    ------
    UsageError
        There are too few objects.
    """
    if len(z) < MIN_STOPPING_OBJECTS:
        raise UsageError(
            f"stopping calibration: {len(z)} held-out objects with finite outputs, expected {MIN_STOPPING_OBJECTS} or more; "
            "give more objects"
        )
    quantities = [q for q in quantities_of(metadata.parameters) if not q.is_magnitude]
    judged = []
    for half in (0, 1):
        is_judged = np.arange(len(z)) % 2 == half
        table = VarianceTable(_fitted(z[~is_judged], STARTS[0]), quantities, LEVELS)
        judged.append(_trials(z[is_judged], table))
    trials = _Trials(*(np.concatenate(parts) for parts in zip(*judged, strict=True)))
    n_passes = z.shape[-1]
    for start in STARTS:
        ratio = _actual_over_stated(trials, DEFAULT_LEVELS, start, n_passes)
        if ratio <= HOLDS:
            break
    # A later start is no cure at 3 sigma, which few passes reach; and the last one is taken where none holds. Then the variances
    # are larger by what is lacking.
    ratios = ratio, _actual_over_stated(trials, slice(None), start, n_passes)
    inner, outer = (max(1.0, ratio / HOLDS) ** 2 for ratio in ratios)
    factor = np.array([max(inner, outer), *[inner] * (len(LEVELS) - 2), max(inner, outer)])
    raised = trials._replace(stated=trials.stated * factor[:, None])
    info = _fitted(z, start)
    expected = tuple(
        tuple(
            tuple(_rounded(more * np.asarray(bins)) for bins in of_level)
            for more, of_level in zip(factor.tolist(), of_parameter, strict=True)
        )
        for of_parameter in info.expected
    )
    found = _actual_over_stated(raised, DEFAULT_LEVELS, start, n_passes)
    return dataclasses.replace(
        info, expected=expected, actual_over_stated=round(found, DIGITS) or None, data=data
    )


def _fitted(z: Floats, start: int) -> StoppingInfo:
    """Return the regressions of objects' errors `z`, for objects that stop from `start` on."""
    n_objects, n_parameters, n_levels, _, n_passes = z.shape
    checkpoints = tuple(n for n in CHECKPOINTS if 2 * n <= n_passes)
    bins = []
    for n in checkpoints:
        shown, rest = _shown_and_rest(z, n)
        bins.append(
            [
                [_regression(shown[:, i, j], rest[:, i, j]) for j in range(n_levels)]
                for i in range(n_parameters)
            ]
        )
    upper, expected = (
        tuple(
            tuple(tuple(of_n[i][j][which] for of_n in bins) for j in range(n_levels))
            for i in range(n_parameters)
        )
        for which in (0, 1)
    )
    return StoppingInfo(start, LEVELS, checkpoints, upper, expected, n_objects, n_passes)


def _shown_and_rest(z: Floats, n: int) -> tuple[Floats, Floats]:
    """Return the variance of a pass in each run of n passes, and in all passes but these: (object, parameter, level, run) each."""
    *shape, n_members, n_passes = z.shape
    n_runs = n_passes // n
    runs = z[..., : n_runs * n].reshape(*shape, n_members, n_runs, n)
    total, squares = z.sum(axis=-1)[..., None], _sum_of_squares(z)[..., None]
    of_run, squares_of_run = runs.sum(axis=-1), _sum_of_squares(runs)
    n_rest = n_passes - n
    shown = (squares_of_run - np.square(of_run) / n) / (n - 1)
    rest = (squares - squares_of_run - np.square(total - of_run) / n_rest) / (n_rest - 1)
    # The members' passes are independent, and the quantile is that of the mean of their CDFs.
    return tuple(np.maximum(part, 0.0).sum(axis=-2) / n_members**2 for part in (shown, rest))


def _sum_of_squares(values: Floats) -> Floats:
    """Return the sum of the squares along the last axis, without a temporary array of all squares."""
    return np.asarray(np.einsum("...i,...i->...", values, values))


def _regression(shown: Floats, rest: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return upper edges of bins of `shown`, and in each the mean of `rest`, which rises from bin to bin; both are (object, run)."""
    n_runs = shown.shape[1]
    shown, rest = shown.ravel(), rest.ravel()
    parts = np.array_split(np.argsort(shown, kind="stable"), N_BINS)
    # The runs of an object have one target, but for noise.
    n_free = np.array([len(np.unique(part // n_runs)) for part in parts])
    sizes = np.array([len(part) for part in parts])
    noise = np.array([rest[part].var() for part in parts]) / n_free
    means = isotonic_regression([rest[part].mean() for part in parts], weights=sizes).x
    edges = np.array([shown[part[-1]] for part in parts])
    # Steps that are noise would make those objects stop whose passes happen to show little.
    while len(means) > 1:
        step = np.diff(means) / np.sqrt(np.maximum(noise[1:] + noise[:-1], TINY))
        i = int(np.argmin(step))
        if step[i] >= SIGNIFICANT:
            break
        total = sizes[i] + sizes[i + 1]
        means[i + 1] = (sizes[i] * means[i] + sizes[i + 1] * means[i + 1]) / total
        noise[i + 1] = (sizes[i] ** 2 * noise[i] + sizes[i + 1] ** 2 * noise[i + 1]) / total**2
        sizes[i + 1] = total
        means, noise, sizes, edges = (np.delete(part, i) for part in (means, noise, sizes, edges))
    return _rounded(edges), _rounded(means)


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)


class _Trials(NamedTuple):
    """Runs of objects' passes at each checkpoint of a run that starts early; all are (trial, parameter, level, checkpoint) float64.

    Attributes
    ----------
    stated : expected squared error of the quantile
    apart : difference of the quantile from that of all passes
    """

    stated: Floats
    apart: Floats


def _trials(z: Floats, table: VarianceTable) -> _Trials:
    """Return trials of objects that the table was not fitted to; several of each, which begin at another of its passes."""
    n_members, n_passes = z.shape[-2:]
    checkpoints = _checkpoints(n_passes)
    stated: list[Floats] = []
    apart: list[Floats] = []
    at_end = z.mean(axis=(-2, -1))
    for beginning in range(0, n_passes, n_passes // N_BEGINNINGS):
        rolled = np.roll(z, -beginning, axis=-1)[..., : checkpoints[-1]]
        # Sums over an object's first passes, (object, parameter, level, member, checkpoint).
        sums, squares = (
            np.cumsum(np.add.reduceat(part, [0, *checkpoints[:-1]], axis=-1), axis=-1)
            for part in (rolled, np.square(rolled))
        )
        variance = np.maximum(squares - np.square(sums) / checkpoints, 0.0) / (checkpoints - 1)
        shown = variance.sum(axis=-2) / n_members**2
        found = [table.expected(shown[..., k], int(n)) / n for k, n in enumerate(checkpoints)]
        stated.append(np.stack(found, axis=-1))
        apart.append(sums.mean(axis=-2) / checkpoints - at_end[..., None])
    return _Trials(np.concatenate(stated), np.concatenate(apart))


def _checkpoints(n_passes: int) -> npt.NDArray[np.int64]:
    """Return the checkpoints at which an object may stop before its last pass; those of every start are among them."""
    return np.array(schedule(PosteriorConfig(max_passes=n_passes), start=STARTS[0])[:-1])


def _actual_over_stated(trials: _Trials, levels: slice, start: int, n_passes: int) -> float:
    """Return the RMS error over the stated one of objects that stop from `start` on, as a run's audit finds it from `n_passes`.

    It is the larger one of both tolerances; 0 where too few objects stop.
    """
    checkpoints = _checkpoints(n_passes)
    stated, apart = trials.stated[:, :, levels], trials.apart[:, :, levels]
    largest = 0.0
    for tolerance in TOLERANCES:
        stops = (stated <= tolerance**2).all(axis=(1, 2)) & (checkpoints >= start)
        which = np.flatnonzero(stops.any(axis=1))
        at = stops[which].argmax(axis=1)
        # The first n passes are among all N, so that they differ by sqrt(1 - n/N) times the error.
        expected = stated[which, :, :, at].sum(axis=(1, 2)) * (1.0 - checkpoints[at] / n_passes)
        actual = np.square(apart[which, :, :, at]).sum()
        if len(which) >= MIN_STOPPED and expected.sum() > 0:
            largest = max(largest, float(np.sqrt(actual / expected.sum())))
    return largest
