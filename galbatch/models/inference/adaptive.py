"""Adaptive sampling: passes are run up to one checkpoint after another, and at each the objects that have enough stop.

Whether an object stops depends on its own passes alone, and the checkpoints are the same for all objects. So its number of
passes does not depend on other objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.models.bundle import Ensemble
from galbatch.models.inference.audit import Audit, GroupAudit
from galbatch.models.inference.learned import LearnedErrors
from galbatch.models.inference.sampling import (
    PassOutputs,
    RawPasses,
    Sampler,
    TopFeatures,
    join_raw_passes,
)
from galbatch.models.inference.stopping import (
    FIRST_CHECKPOINT,
    QuantileEstimate,
    estimate_quantiles,
    schedule,
)
from galbatch.models.inference.summaries import posterior_of, slices_of
from galbatch.models.posterior import quantities_of

__all__ = ["PassSource", "StoppedObjects", "StoppingRule", "join_stopped", "sample_adaptively"]

# The variance of a pass may turn out smaller than it seemed: objects are looked at again from this share of the number of passes
# on that they seem to need.
EARLY = 0.8
SINGLE_PASS = 1  # Without dropout all passes are equal, so only one is run.

Keys = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class StoppingRule:
    """The rule that decides whether an object has enough passes.

    Attributes
    ----------
    ensemble : network whose posterior is estimated
    checkpoints : rising numbers of passes after which objects may stop; all stop at the last one
    levels : levels of the quantiles whose errors are checked, in (0, 1), rising
    tolerance : largest allowed Monte Carlo error of a quantile, in posterior standard deviations
    method : mixture or samples, as in ``[posterior]``
    learned : errors as the bundles' stopping calibrations expect them; None: those that an object's own passes show, with an
        allowance for undetected jumps
    """

    ensemble: Ensemble
    checkpoints: tuple[int, ...]
    levels: tuple[float, ...]
    tolerance: float
    method: str
    learned: LearnedErrors | None = None

    @classmethod
    def of(cls, ensemble: Ensemble, posterior: PosteriorConfig) -> StoppingRule:
        """Return the rule for a network by the settings in ``[posterior]``."""
        learned = LearnedErrors.of(ensemble, posterior)
        checkpoints = schedule(
            posterior,
            has_dropout=ensemble.has_dropout,
            is_point=ensemble.is_point,
            start=FIRST_CHECKPOINT if learned is None else learned.start,
        )
        return cls(ensemble, checkpoints, posterior.quantiles, posterior.tolerance, posterior.method, learned)

    def needed_passes(self, found: QuantileEstimate, n_passes: int) -> npt.NDArray[np.float64]:
        """Return the number of passes before which an object cannot stop, (object,), by its estimate from `n_passes`.

        The squared error falls with one over the number; so does the allowance for undetected jumps itself, which may be most of it.
        """
        excess = found.stopping_error / self.tolerance
        return EARLY * n_passes * (excess if self.learned is None else np.square(excess))

    @property
    def is_adaptive(self) -> bool:
        """Whether objects may have different numbers of passes."""
        return len(self.checkpoints) > 1

    def estimate(self, outputs: Sequence[npt.NDArray[np.float32]], keys: Sequence[Keys]) -> QuantileEstimate:
        """Return an estimate of every quantile, and of its error, from the passes so far.

        Parameters
        ----------
        outputs : one array (object, pass, output) float32 per bundle
        keys : one array (object, pass) int64 per bundle
        """
        quantities = quantities_of(self.ensemble.metadata.parameters)
        parts = []
        for some in slices_of(outputs):
            passes, draws = posterior_of(
                self.ensemble,
                [part[some] for part in outputs],
                [part[some] for part in keys],
                method=self.method,
            )
            parts.append(
                estimate_quantiles(
                    passes, quantities, self.levels, draws=draws, allows_jumps=self.learned is None
                )
            )
        # All arrays have objects along the first axis.
        names = [field.name for field in dataclasses.fields(QuantileEstimate)]
        found = QuantileEstimate(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
        return found if self.learned is None else self.learned.replace_errors(found, outputs[0].shape[1])


@dataclass(frozen=True)
class PassSource:
    """One bundle as a source of passes for the objects of a group.

    Attributes
    ----------
    sampler : sampler of the bundle, with the features of the group's objects
    keys : (object, pass) int64, for the largest number of passes
    has_dropout : whether passes differ; if not, only one is run
    """

    sampler: Sampler
    keys: Keys
    has_dropout: bool

    def more(self, rows: Rows, before: PassOutputs | None, passes: range) -> PassOutputs:
        """Run passes for objects of the group, and return them joined to earlier ones.

        Parameters
        ----------
        rows : (object,) indices of the objects in the group
        before : earlier passes of these objects; None: there are none
        passes : numbers of the passes to run
        """
        # Without dropout the first pass is the only one, for any number that is asked for.
        stop = passes.stop if self.has_dropout else SINGLE_PASS
        keys = self.keys[rows, passes.start : stop]
        if before is not None and not keys.shape[1]:
            return before
        found = self.sampler.run(rows, keys)
        if before is None:
            return found
        outputs = np.concatenate([before.outputs, found.outputs], axis=1)
        return PassOutputs(outputs, np.concatenate([before.fired, found.fired], axis=1))

    def raw(self, rows: Rows, outputs: npt.NDArray[np.float32], top: TopFeatures | None) -> RawPasses:
        """Return the passes of some objects together with their features.

        Parameters
        ----------
        rows : (object,) indices of the objects in the group
        outputs : (object, pass, output) float32, of these objects
        top : largest features of all objects of the group
        """
        last, crop = (None if part is None else part[rows] for part in (self.sampler.last, self.sampler.crop))
        if top is None:
            return RawPasses(outputs, last, crop)
        return RawPasses(outputs, last, crop, top.index[rows], top.activation[rows], top.frequency[rows])


@dataclass(frozen=True)
class StoppedObjects:
    """Objects of a group that stopped after the same number of passes.

    Attributes
    ----------
    rows : (object,) indices in the group, or in the block
    raws : passes and features of each bundle; a bundle without dropout repeats its single pass
    keys : one array (object, pass) int64 per bundle
    stopping_error : (object,) float64, error by which it was decided to stop (see `QuantileEstimate`); None where the number of
        passes is fixed
    """

    rows: Rows
    raws: tuple[RawPasses, ...]
    keys: tuple[Keys, ...]
    stopping_error: npt.NDArray[np.float64] | None

    @property
    def n_passes(self) -> int:
        """The number of passes of each object and bundle."""
        return int(self.keys[0].shape[1])

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Whether all outputs of an object are finite, (object,) bool."""
        return _finite([raw.outputs for raw in self.raws])

    def outputs_of_each(self) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
        """Iterate over the objects, and yield for each the outputs (pass, output) float32 of all bundles."""
        return zip(*(raw.outputs for raw in self.raws), strict=True)


def join_stopped(parts: Sequence[StoppedObjects]) -> StoppedObjects:
    """Return the objects of several groups, all with the same number of passes, as one part."""
    if len(parts) == 1:
        return parts[0]
    errors = [part.stopping_error for part in parts if part.stopping_error is not None]
    return StoppedObjects(
        np.concatenate([part.rows for part in parts]),
        tuple(join_raw_passes(raws) for raws in zip(*(part.raws for part in parts), strict=True)),
        tuple(np.concatenate(keys) for keys in zip(*(part.keys for part in parts), strict=True)),
        np.concatenate(errors) if errors else None,
    )


@dataclass(frozen=True)
class _RunningObjects:
    """Objects of a group that continue to run, all with the same number of passes.

    Attributes
    ----------
    rows : (object,) indices in the group
    n_passes : number of passes of each object
    passes : passes of each bundle; empty before the first ones
    """

    rows: Rows
    n_passes: int = 0
    passes: tuple[PassOutputs, ...] = ()

    def take(self, some: npt.NDArray[np.bool_]) -> _RunningObjects:
        """Return the objects for which `some`, (object,) bool, is true."""
        taken = tuple(PassOutputs(part.outputs[some], part.fired[some]) for part in self.passes)
        return _RunningObjects(self.rows[some], self.n_passes, taken)

    def up_to(self, n_passes: int, sources: Sequence[PassSource]) -> _RunningObjects:
        """Run further passes until each object has `n_passes`, and return the objects with all of them."""
        wanted = range(self.n_passes, n_passes)
        before = self.passes or (None,) * len(sources)
        more = (source.more(self.rows, part, wanted) for source, part in zip(sources, before, strict=True))
        return _RunningObjects(self.rows, n_passes, tuple(more))

    @property
    def outputs(self) -> list[npt.NDArray[np.float32]]:
        """The outputs of each bundle, (object, pass, output) float32; a bundle without dropout repeats its single pass."""
        n_objects, n_passes = len(self.rows), self.n_passes
        return [
            np.broadcast_to(part.outputs, (n_objects, n_passes, part.outputs.shape[2]))
            for part in self.passes
        ]

    def keys(self, sources: Sequence[PassSource]) -> list[Keys]:
        """Return the keys of each bundle, (object, pass) int64."""
        return [source.keys[self.rows, : self.n_passes] for source in sources]


def sample_adaptively(
    sources: Sequence[PassSource],
    rule: StoppingRule,
    *,
    audited: npt.NDArray[np.bool_],
    device: AbstractContextManager[object],
) -> tuple[list[StoppedObjects], Audit]:
    """Run passes for a group of objects until each has enough.

    Parameters
    ----------
    sources : one source of passes per bundle
    rule : rule that decides when an object stops
    audited : (object,) bool, objects of the group that get the largest number of passes in any case
    device : lock that is held while passes run, and only then

    Returns
    -------
    stopped : objects, in parts that have the same number of passes
    audit : comparison of the errors estimated at stopping with those found, for the audited objects
    """
    audit = GroupAudit(audited, rule.levels)
    running, stopped = _RunningObjects(np.arange(len(audited))), []
    stopping_error = np.full(len(audited), np.nan) if rule.is_adaptive else None
    # By row: the number of passes before which an object cannot stop. An estimate costs as much as some passes.
    due = np.zeros(len(audited))
    for n_passes in rule.checkpoints:
        with device:
            running = running.up_to(n_passes, sources)
        # A fixed number of passes is the only checkpoint, and needs no estimate.
        if stopping_error is None:
            break
        is_last = n_passes == rule.checkpoints[-1]
        finite = _finite(running.outputs)
        is_due = (due[running.rows] <= n_passes) | is_last
        converged = np.zeros(len(running.rows), np.bool_)
        if is_due.any():
            judged = running.take(is_due)
            found = rule.estimate(judged.outputs, judged.keys(sources))
            stopping_error[judged.rows] = found.stopping_error
            due[judged.rows] = rule.needed_passes(found, n_passes)
            converged[is_due] = found.converged(rule.tolerance)
            compare = audit.compare if is_last else audit.stop
            compare(judged.rows, found, n_passes, which=(finite & (converged | is_last))[is_due])
            # Audited objects that could stop are estimated once more, from all passes.
            due[judged.rows[audited[judged.rows] & converged[is_due]]] = np.inf
        if is_last:
            break
        # More passes do not help objects with non-finite outputs; audited ones run on to the last checkpoint.
        stops = ~finite | (converged & ~audited[running.rows])
        if stops.any():
            stopped.append(running.take(stops))
            running = running.take(~stops)
        if not len(running.rows):
            break
    if len(running.rows):
        stopped.append(running)
    return _stopped_objects(stopped, sources, stopping_error, device=device), audit.total


def _stopped_objects(
    stopped: Sequence[_RunningObjects],
    sources: Sequence[PassSource],
    stopping_error: npt.NDArray[np.float64] | None,
    *,
    device: AbstractContextManager[object],
) -> list[StoppedObjects]:
    """Return the stopped objects with their largest features, which are computed for the whole group at once."""
    # Objects have stopped in any order; the sampler has the features in that of the group.
    order = np.argsort(np.concatenate([part.rows for part in stopped]))
    tops = []
    for bundle, source in enumerate(sources):
        fired = [of_object for part in stopped for of_object in part.passes[bundle].fired]
        with device:
            tops.append(source.sampler.top([fired[i] for i in order]))
    return [
        StoppedObjects(
            part.rows,
            tuple(
                source.raw(part.rows, outputs, top)
                for source, outputs, top in zip(sources, part.outputs, tops, strict=True)
            ),
            tuple(part.keys(sources)),
            None if stopping_error is None else stopping_error[part.rows],
        )
        for part in stopped
    ]


def _finite(outputs: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.bool_]:
    """Return whether all outputs (object, pass, output) of all bundles are finite, (object,) bool."""
    return np.logical_and.reduce([np.isfinite(part).all(axis=(1, 2)) for part in outputs])
