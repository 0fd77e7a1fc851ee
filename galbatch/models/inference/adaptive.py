"""Rounds: a group of objects gets passes up to one checkpoint after another, and those that have enough stop.

Whether an object stops depends on its own passes alone, and the checkpoints are the same for all, so its number of
passes does not depend on what runs beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.models.bundle.ensemble import Ensemble
from galbatch.models.inference import stopping
from galbatch.models.inference.audit import Audit, GroupAudit
from galbatch.models.inference.sampling import PassOutputs, RawPasses, Sampler, TopFeatures
from galbatch.models.inference.stopping import QuantileEstimate
from galbatch.models.inference.summaries import posterior_of, slices_of
from galbatch.models.posterior.mixture import quantities_of

__all__ = ["PassSource", "StoppedObjects", "StoppingRule", "sample_adaptively", "stopping_checkpoints"]

SINGLE_PASS = 1  # without dropout all passes are equal

Keys = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


def stopping_checkpoints(ensemble: Ensemble, posterior: PosteriorConfig) -> tuple[int, ...]:
    """Numbers of passes after which objects may stop; the last is the most."""
    return stopping.schedule(posterior, has_dropout=ensemble.has_dropout, is_point=ensemble.is_point)


@dataclass(frozen=True)
class StoppingRule:
    """When an object has enough passes.

    Attributes
    ----------
    ensemble : the network
    posterior : quantiles, tolerance and method
    points : numbers of passes after which it is asked; all stop at the last
    """

    ensemble: Ensemble
    posterior: PosteriorConfig
    points: tuple[int, ...]

    def estimate(self, outputs: Sequence[npt.NDArray[np.float32]], keys: Sequence[Keys]) -> QuantileEstimate:
        """What the passes so far say; outputs (object, pass, output) and keys (object, pass) of each bundle."""
        quantities = quantities_of(self.ensemble.metadata.parameters)
        parts = []
        for some in slices_of(outputs):
            passes, draws = posterior_of(
                self.ensemble, [part[some] for part in outputs], [part[some] for part in keys], self.posterior
            )
            parts.append(
                stopping.estimate_quantiles(passes, quantities, self.posterior.quantiles, draws=draws)
            )
        names = [field.name for field in dataclasses.fields(QuantileEstimate)]
        return QuantileEstimate(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class PassSource:
    """Where the passes of a group come from: one bundle.

    Attributes
    ----------
    sampler : of the bundle, for the group's objects
    keys : (object, pass), for the most passes
    has_dropout : false: one pass stands for all
    """

    sampler: Sampler
    keys: Keys
    has_dropout: bool

    def more(self, rows: Rows, before: PassOutputs | None, passes: range) -> PassOutputs:
        """The passes `before` of the group's objects `rows`, and those numbered `passes`."""
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
        """What the bundle gave for `rows`, which `outputs` is of; `top` is of the whole group."""
        last, crop = (None if part is None else part[rows] for part in (self.sampler.last, self.sampler.crop))
        if top is None:
            return RawPasses(outputs, last, crop)
        return RawPasses(outputs, last, crop, top.index[rows], top.activation[rows], top.frequency[rows])


@dataclass(frozen=True)
class StoppedObjects:
    """Objects of a group that stopped after equally many passes.

    Attributes
    ----------
    rows : (object,) in the group
    raws : of each bundle, what it gave for them; a bundle without dropout repeats its one pass
    keys : of each bundle (object, pass)
    ran_out : (object,) which would have gone on, were there more checkpoints
    """

    rows: Rows
    raws: tuple[RawPasses, ...]
    keys: tuple[Keys, ...]
    ran_out: npt.NDArray[np.bool_]

    @property
    def n_passes(self) -> int:
        """Of each of the objects, and of each bundle."""
        return int(self.keys[0].shape[1])

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """(object,) whose outputs are."""
        return _finite([raw.outputs for raw in self.raws])

    def outputs_of_each(self) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
        """Of each object, and of each bundle, (pass, output)."""
        return zip(*(raw.outputs for raw in self.raws), strict=True)


@dataclass(frozen=True)
class _RunningObjects:
    """Objects of a group that have equally many passes.

    Attributes
    ----------
    rows : (object,) in the group
    n_passes : of each
    rounds : of each bundle; nothing before the first passes
    """

    rows: Rows
    n_passes: int = 0
    rounds: tuple[PassOutputs, ...] = ()

    def take(self, some: npt.NDArray[np.bool_]) -> _RunningObjects:
        rounds = tuple(PassOutputs(part.outputs[some], part.fired[some]) for part in self.rounds)
        return _RunningObjects(self.rows[some], self.n_passes, rounds)

    def up_to(self, n_passes: int, sources: Sequence[PassSource]) -> _RunningObjects:
        """With more passes."""
        passes = range(self.n_passes, n_passes)
        rounds = self.rounds or (None,) * len(sources)
        more = (source.more(self.rows, part, passes) for source, part in zip(sources, rounds, strict=True))
        return _RunningObjects(self.rows, n_passes, tuple(more))

    @property
    def outputs(self) -> list[npt.NDArray[np.float32]]:
        """Of each bundle (object, pass, output); a single pass is repeated."""
        n_objects, n_passes = len(self.rows), self.n_passes
        return [
            np.broadcast_to(part.outputs, (n_objects, n_passes, part.outputs.shape[2]))
            for part in self.rounds
        ]

    def keys(self, sources: Sequence[PassSource]) -> list[Keys]:
        """Of each bundle (object, pass)."""
        return [source.keys[self.rows, : self.n_passes] for source in sources]


def sample_adaptively(
    sources: Sequence[PassSource],
    rule: StoppingRule,
    *,
    audited: npt.NDArray[np.bool_],
    device: AbstractContextManager[object],
) -> tuple[list[StoppedObjects], Audit]:
    """Run a group's passes until each object has enough.

    Parameters
    ----------
    sources : the bundles
    rule : when an object stops
    audited : (object,) which objects of the group go on to the most passes, if these are more than the fewest
    device : held while passes run, and only then

    Returns
    -------
    The objects, those together that stopped together, and the audit.
    """
    audit = GroupAudit(audited, rule.posterior.quantiles)
    running, stopped = _RunningObjects(np.arange(len(audited))), []
    ran_out = np.zeros(len(audited), bool)
    for n_passes in rule.points:
        with device:
            running = running.up_to(n_passes, sources)
        if n_passes == rule.points[-1]:
            ran_out[running.rows] = _run_out(running, sources, rule, audit)
            stopped.append(running)
            break
        stops = _stops(running, sources, rule, audit)
        if stops.any():
            stopped.append(running.take(stops))
            running = running.take(~stops)
        if not len(running.rows):
            break
    with device:
        top = [_top(source.sampler, stopped, bundle) for bundle, source in enumerate(sources)]
    return [_finished(part, sources, top, ran_out) for part in stopped], audit.total


def _stops(
    running: _RunningObjects, sources: Sequence[PassSource], rule: StoppingRule, audit: GroupAudit
) -> npt.NDArray[np.bool_]:
    """(object,) of `running` that need no more passes; failed ones get no better with more."""
    finite = _finite(running.outputs)
    found = rule.estimate(running.outputs, running.keys(sources))
    enough = finite & found.converged(rule.posterior.tolerance)
    audit.stop(running.rows, found, running.n_passes, which=enough)
    return ~finite | (enough & ~audit.audited[running.rows])


def _run_out(
    running: _RunningObjects, sources: Sequence[PassSource], rule: StoppingRule, audit: GroupAudit
) -> npt.NDArray[np.bool_]:
    """(object,) of `running`, which have the most passes, that need more; none where the number is fixed."""
    if len(rule.points) == 1:
        return np.zeros(len(running.rows), bool)
    finite = _finite(running.outputs)
    found = rule.estimate(running.outputs, running.keys(sources))
    audit.compare(running.rows, found, running.n_passes, which=finite)
    return ~found.converged(rule.posterior.tolerance) & ~audit.has_stopped(running.rows)


def _top(sampler: Sampler, stopped: Sequence[_RunningObjects], bundle: int) -> TopFeatures | None:
    """Of the whole group, over the passes of each object."""
    rows = np.concatenate([part.rows for part in stopped])
    fired = [of_object for part in stopped for of_object in part.rounds[bundle].fired]
    return sampler.top([fired[i] for i in np.argsort(rows)])


def _finished(
    part: _RunningObjects,
    sources: Sequence[PassSource],
    top: Sequence[TopFeatures | None],
    ran_out: npt.NDArray[np.bool_],
) -> StoppedObjects:
    raws = (
        source.raw(part.rows, outputs, best)
        for source, outputs, best in zip(sources, part.outputs, top, strict=True)
    )
    return StoppedObjects(part.rows, tuple(raws), tuple(part.keys(sources)), ran_out[part.rows])


def _finite(outputs: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.bool_]:
    """(object,) whose outputs of all bundles are."""
    return np.asarray(np.logical_and.reduce([np.isfinite(part).all(axis=(1, 2)) for part in outputs]))
