"""Adaptive sampling: passes are run up to one checkpoint after another, and at each the objects that have enough stop.

Whether an object stops depends on its own passes alone, and the checkpoints are the same for all objects. So its number of
passes does not depend on other objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.models.bundle import Ensemble
from galbatch.models.inference.audit import BlockAudit
from galbatch.models.inference.learned import LearnedErrors
from galbatch.models.inference.sampling import (
    GROUP_OBJECTS,
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
from galbatch.models.posterior.devices.arrays import (
    PassArray,
    finite_objects,
    host_array,
    join_arrays,
    repeat_passes,
    take_rows,
)

__all__ = ["AdaptiveSampling", "ObjectGroup", "PassSource", "StoppedObjects", "StoppingRule", "join_stopped"]

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
            is_vector=ensemble.is_vector,
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

    def estimate(self, outputs: Sequence[PassArray], keys: Sequence[Keys]) -> QuantileEstimate:
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
        found = QuantileEstimate.join(parts)
        return found if self.learned is None else self.learned.replace_errors(found, outputs[0].shape[1])


@dataclass(frozen=True)
class PassSource:
    """One bundle as a source of passes for some objects.

    Attributes
    ----------
    sampler : sampler of the bundle, with the features of the objects
    keys : (object, pass) int64, for the largest number of passes
    has_dropout : whether passes differ; if not, only one is run
    """

    sampler: Sampler
    keys: Keys
    has_dropout: bool

    def take(self, rows: Rows) -> PassSource:
        """Return the source of the objects with these indices."""
        return PassSource(self.sampler.take(rows), self.keys[rows], self.has_dropout)

    def join(self, others: Sequence[PassSource]) -> PassSource:
        """Return the source of these objects and of those of other sources of the same bundle, in this order."""
        keys = np.concatenate([self.keys, *(other.keys for other in others)]) if others else self.keys
        return PassSource(self.sampler.join([other.sampler for other in others]), keys, self.has_dropout)

    def more(self, wanted: Sequence[_WantedPasses]) -> list[PassOutputs]:
        """Run passes for several sets of objects in common batches, and return each set's joined to its earlier ones."""
        # Without dropout the first pass is the only one, for any number that is asked for.
        keys = [
            self.keys[one.rows, one.passes.start : one.passes.stop if self.has_dropout else SINGLE_PASS]
            for one in wanted
        ]
        pairs = [(one.rows, part) for one, part in zip(wanted, keys, strict=True) if part.shape[1]]
        found = iter(self.sampler.run_together(pairs) if pairs else ())
        joined = []
        for one, part in zip(wanted, keys, strict=True):
            parts = [one.before] if one.before is not None else []
            parts += [next(found)] if part.shape[1] else []
            outputs, fired = ([getattr(some, name) for some in parts] for name in ("outputs", "fired"))
            joined.append(PassOutputs(join_arrays(outputs, axis=1), join_arrays(fired, axis=1)))
        return joined

    def raw(self, rows: Rows, outputs: PassArray, top: TopFeatures | None) -> RawPasses:
        """Return the passes of some objects together with their features.

        Parameters
        ----------
        rows : (object,) indices of the objects
        outputs : (object, pass, output) float32, of these objects
        top : largest features of these objects
        """
        last, crop = (None if part is None else part[rows] for part in (self.sampler.last, self.sampler.crop))
        if top is None:
            return RawPasses(outputs, last, crop)
        return RawPasses(outputs, last, crop, top.index, top.activation, top.frequency)


@dataclass(frozen=True)
class _WantedPasses:
    """Passes that some objects need.

    Attributes
    ----------
    rows : (object,) indices of the objects in the source
    before : their earlier passes; None: there are none
    passes : numbers of the passes to run
    """

    rows: Rows
    before: PassOutputs | None
    passes: range


@dataclass(frozen=True)
class StoppedObjects:
    """Objects that stopped after the same number of passes.

    Attributes
    ----------
    rows : (object,) indices in the block
    raws : passes and features of each bundle; a bundle without dropout repeats its single pass
    keys : one array (object, pass) int64 per bundle
    estimate : estimate by which it was decided to stop, from these passes; None where the number of passes is fixed
    """

    rows: Rows
    raws: tuple[RawPasses, ...]
    keys: tuple[Keys, ...]
    estimate: QuantileEstimate | None

    @property
    def stopping_error(self) -> npt.NDArray[np.float64] | None:
        """The error by which it was decided to stop, (object,) float64, as in `QuantileEstimate`; None as `estimate`."""
        return None if self.estimate is None else self.estimate.stopping_error

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
        return zip(*(host_array(raw.outputs) for raw in self.raws), strict=True)


def join_stopped(parts: Sequence[StoppedObjects]) -> StoppedObjects:
    """Return the objects of several groups, all with the same number of passes, as one part."""
    if len(parts) == 1:
        return parts[0]
    estimates = [part.estimate for part in parts if part.estimate is not None]
    return StoppedObjects(
        np.concatenate([part.rows for part in parts]),
        tuple(join_raw_passes(raws) for raws in zip(*(part.raws for part in parts), strict=True)),
        tuple(np.concatenate(keys) for keys in zip(*(part.keys for part in parts), strict=True)),
        QuantileEstimate.join(estimates) if estimates else None,
    )


@dataclass(frozen=True)
class ObjectGroup:
    """Objects that are ready for their passes.

    Attributes
    ----------
    rows : (object,) indices in the block
    sources : one source of passes per bundle
    """

    rows: Rows
    sources: tuple[PassSource, ...]


@dataclass(frozen=True)
class _RunningObjects:
    """Objects that continue to run, all with the same number of passes.

    Attributes
    ----------
    rows : (object,) indices in the block
    places : (object,) indices in the sources
    n_passes : number of passes of each object
    passes : passes of each bundle; empty before the first ones
    """

    rows: Rows
    places: Rows
    n_passes: int = 0
    passes: tuple[PassOutputs, ...] = ()

    def take(self, some: npt.NDArray[np.bool_]) -> _RunningObjects:
        """Return the objects for which `some`, (object,) bool, is true."""
        taken = tuple(
            PassOutputs(take_rows(part.outputs, some), take_rows(part.fired, some)) for part in self.passes
        )
        return replace(self, rows=self.rows[some], places=self.places[some], passes=taken)

    @property
    def outputs(self) -> list[PassArray]:
        """The outputs of each bundle, (object, pass, output) float32; a bundle without dropout repeats its single pass."""
        return [repeat_passes(part.outputs, self.n_passes) for part in self.passes]

    def keys(self, sources: Sequence[PassSource]) -> list[Keys]:
        """Return the keys of each bundle, (object, pass) int64."""
        return [source.keys[self.places, : self.n_passes] for source in sources]


class AdaptiveSampling:
    """Adaptive sampling of the objects of a block, or of a part of it.

    A limited number of objects has its features on the device. All of them get their next passes in common batches, up to the
    checkpoint that is the next for each; those that stop leave their places to the next objects. So batches are full until the end of the
    block, though single objects run on, and errors are estimated for many objects at once.

    Parameters
    ----------
    rule : rule that decides when an object stops
    audited : (object of the block,) bool, objects that get the largest number of passes in any case
    device : lock that is held while passes run, and only then

    Attributes
    ----------
    audit : comparison of the errors estimated at stopping with those found, for the audited objects
    """

    def __init__(
        self,
        rule: StoppingRule,
        audited: npt.NDArray[np.bool_],
        *,
        device: AbstractContextManager[object],
    ) -> None:
        self.rule = rule
        self.audit = BlockAudit(audited, rule.levels)
        self.device = device
        self._audited = audited
        # The number of passes before which an object cannot stop. An estimate costs as much as some passes.
        self._due = np.zeros(len(audited))
        self._running: list[_RunningObjects] = []
        self._sources: tuple[PassSource, ...] = ()
        self._n_places = 0

    def run(
        self, groups: Iterator[ObjectGroup], n_places: Callable[[ObjectGroup], int]
    ) -> Iterator[list[StoppedObjects]]:
        """Run passes until each object has enough, and yield the objects that stop, in parts that have the same number of passes.

        Parameters
        ----------
        groups : objects of the block, whose features are computed when their turn comes
        n_places : returns the number of objects that may run at a time, by the first group; one group always may
        """
        while self._admit(groups, n_places):
            self._advance()
            stopped = []
            for place, objects in enumerate(self._running):
                stops, estimate = self._judge(objects)
                stopped.append((objects.take(stops), estimate))
                self._running[place] = objects.take(~stops)
            yield [self._stopped(part, estimate) for part, estimate in stopped if len(part.rows)]
            self._running = [part for part in self._running if len(part.rows)]

    def _admit(self, groups: Iterator[ObjectGroup], n_places: Callable[[ObjectGroup], int]) -> bool:
        """Give free places to the next groups, and return whether any object runs."""
        kept = [part.places for part in self._running]
        n_running = sum(len(places) for places in kept)
        new: list[ObjectGroup] = []
        while not n_running or n_running + GROUP_OBJECTS <= self._n_places:
            with self.device:
                group = next(groups, None)
            if group is None:
                break
            self._n_places = self._n_places or n_places(group)
            new.append(group)
            n_running += len(group.rows)
        if not new:
            return bool(self._running)
        with self.device:
            # Features of objects that have stopped are given up only here: to copy the others costs more than to keep them.
            old = [source.take(np.concatenate(kept)) for source in self._sources] if kept else []
            parts = [*([old] if old else []), *(list(group.sources) for group in new)]
            self._sources = tuple(first.join(others) for first, *others in zip(*parts, strict=True))
        rows = np.concatenate([group.rows for group in new])
        begins = _RunningObjects(rows, np.empty(len(rows), np.intp))
        start = 0
        for number, part in enumerate([*self._running, begins]):
            places = np.arange(start, start := start + len(part.rows))
            self._running[number : number + 1] = [replace(part, places=places)]
        return True

    def _advance(self) -> None:
        """Run the passes up to the next checkpoint of each object."""
        stops = [self._next_checkpoint(part.n_passes) for part in self._running]
        found = []
        for bundle, source in enumerate(self._sources):
            wanted = [
                _WantedPasses(
                    part.places, part.passes[bundle] if part.passes else None, range(part.n_passes, stop)
                )
                for part, stop in zip(self._running, stops, strict=True)
            ]
            with self.device:
                found.append(source.more(wanted))
        self._running = [
            replace(part, n_passes=stop, passes=passes)
            for part, stop, passes in zip(self._running, stops, zip(*found, strict=True), strict=True)
        ]

    def _next_checkpoint(self, n_passes: int) -> int:
        return next(point for point in self.rule.checkpoints if point > n_passes)

    def _judge(self, objects: _RunningObjects) -> tuple[npt.NDArray[np.bool_], QuantileEstimate | None]:
        """Return which objects stop now, (object,) bool, and the estimates of these; None where the number of passes is fixed."""
        rows, n_passes = objects.rows, objects.n_passes
        is_last = n_passes == self.rule.checkpoints[-1]
        # A fixed number of passes is the only checkpoint, and needs no estimate.
        if not self.rule.is_adaptive:
            return np.ones(len(rows), np.bool_), None
        finite = _finite(objects.outputs)
        # More passes do not help objects with non-finite outputs.
        is_due = (self._due[rows] <= n_passes) | is_last | ~finite
        stops, estimate = is_last | ~finite, None
        if is_due.any():
            judged = objects.take(is_due)
            found = self.rule.estimate(judged.outputs, judged.keys(self._sources))
            self._due[judged.rows] = self.rule.needed_passes(found, n_passes)
            converged = found.converged(self.rule.tolerance)
            compare = self.audit.compare if is_last else self.audit.stop
            compare(judged.rows, found, n_passes, which=finite[is_due] & (converged | is_last))
            # Audited objects run on to the last checkpoint; those that could stop are estimated once more there, from all passes.
            audited = self._audited[judged.rows]
            self._due[judged.rows[audited & converged]] = np.inf
            stops[is_due] |= converged & ~audited
            estimate = found.rows(stops[is_due])
        return stops, estimate

    def _stopped(self, objects: _RunningObjects, estimate: QuantileEstimate | None) -> StoppedObjects:
        """Return objects that have stopped, with their largest features."""
        raws = []
        for source, part, outputs in zip(self._sources, objects.passes, objects.outputs, strict=True):
            with self.device:
                top = source.sampler.top(part.fired, objects.places)
            raws.append(source.raw(objects.places, outputs, top))
        return StoppedObjects(
            objects.rows,
            tuple(raws),
            tuple(objects.keys(self._sources)),
            estimate,
        )


def _finite(outputs: Sequence[PassArray]) -> npt.NDArray[np.bool_]:
    """Return whether all outputs (object, pass, output) of all bundles are finite, (object,) bool."""
    return np.logical_and.reduce([finite_objects(part) for part in outputs])
