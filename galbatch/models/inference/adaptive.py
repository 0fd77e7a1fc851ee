"""Adaptive sampling: a group of objects gets passes up to one checkpoint after another, and those that have enough stop.

Whether an object stops depends on its own passes alone, and the checkpoints are the same for all, so its number of
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
from galbatch.models.inference.sampling import PassOutputs, RawPasses, Sampler, TopFeatures
from galbatch.models.inference.stopping import QuantileEstimate, estimate_quantiles, schedule
from galbatch.models.inference.summaries import posterior_of, slices_of
from galbatch.models.posterior import quantities_of

__all__ = ["PassSource", "StoppedObjects", "StoppingRule", "sample_adaptively"]

SINGLE_PASS = 1  # without dropout all passes are equal

Keys = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class StoppingRule:
    """The rule by which an object has enough passes.

    Attributes
    ----------
    ensemble : the network
    checkpoints : rising numbers of passes after which objects may stop; all stop at the last
    levels : quantiles that must be known, in (0, 1), rising
    tolerance : largest Monte Carlo error of a quantile, in posterior standard deviations
    method : mixture or samples, as in ``[posterior]``
    """

    ensemble: Ensemble
    checkpoints: tuple[int, ...]
    levels: tuple[float, ...]
    tolerance: float
    method: str

    @classmethod
    def of(cls, ensemble: Ensemble, posterior: PosteriorConfig) -> StoppingRule:
        """Return the rule that ``[posterior]`` gives for a network."""
        return cls(
            ensemble,
            schedule(posterior, has_dropout=ensemble.has_dropout, is_point=ensemble.is_point),
            posterior.quantiles,
            posterior.tolerance,
            posterior.method,
        )

    @property
    def is_adaptive(self) -> bool:
        """Whether objects differ in their numbers of passes."""
        return len(self.checkpoints) > 1

    def estimate(self, outputs: Sequence[npt.NDArray[np.float32]], keys: Sequence[Keys]) -> QuantileEstimate:
        """Estimate every quantile, and its error, from the passes so far.

        Parameters
        ----------
        outputs : of each bundle (object, pass, output) float32
        keys : of each bundle (object, pass) int64
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
            parts.append(estimate_quantiles(passes, quantities, self.levels, draws=draws))
        names = [field.name for field in dataclasses.fields(QuantileEstimate)]
        return QuantileEstimate(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class PassSource:
    """A source of a group's passes: one bundle.

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
        """Run the passes numbered `passes` for the group's objects `rows`, and return them behind those of `before`."""
        # Without dropout the first pass is all there is, whatever number is asked for.
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
        """Return what the bundle gave for `rows`, which `outputs` is of; `top` is of the whole group."""
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
    stopping_error : (object,) float64, what the passes were judged by, see `QuantileEstimate`; None where their number
        was fixed
    """

    rows: Rows
    raws: tuple[RawPasses, ...]
    keys: tuple[Keys, ...]
    stopping_error: npt.NDArray[np.float64] | None

    @property
    def n_passes(self) -> int:
        """The number of passes of each of the objects, and of each bundle."""
        return int(self.keys[0].shape[1])

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """(object,) whether all outputs of the object are finite."""
        return _finite([raw.outputs for raw in self.raws])

    def outputs_of_each(self) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
        """Iterate over the objects: the outputs of each bundle, (pass, output) float32."""
        return zip(*(raw.outputs for raw in self.raws), strict=True)


@dataclass(frozen=True)
class _RunningObjects:
    """Objects of a group that have equally many passes.

    Attributes
    ----------
    rows : (object,) in the group
    n_passes : of each
    passes : of each bundle; empty before the first ones
    """

    rows: Rows
    n_passes: int = 0
    passes: tuple[PassOutputs, ...] = ()

    def take(self, some: npt.NDArray[np.bool_]) -> _RunningObjects:
        """Return those of the objects for which `some`, (object,), is true."""
        taken = tuple(PassOutputs(part.outputs[some], part.fired[some]) for part in self.passes)
        return _RunningObjects(self.rows[some], self.n_passes, taken)

    def up_to(self, n_passes: int, sources: Sequence[PassSource]) -> _RunningObjects:
        """Return the objects with `n_passes` passes each, those that they have included."""
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
    """Run a group's passes until each object has enough.

    Parameters
    ----------
    sources : the bundles
    rule : when an object stops
    audited : (object,) objects of the group that get the most passes in any case
    device : held while passes run, and only then

    Returns
    -------
    The objects, those together that stopped together, and the audit.
    """
    audit = GroupAudit(audited, rule.levels)
    running, stopped = _RunningObjects(np.arange(len(audited))), []
    stopping_error = np.full(len(audited), np.nan) if rule.is_adaptive else None
    for n_passes in rule.checkpoints:
        with device:
            running = running.up_to(n_passes, sources)
        if stopping_error is None:
            break
        finite = _finite(running.outputs)
        found = rule.estimate(running.outputs, running.keys(sources))
        stopping_error[running.rows] = found.stopping_error
        converged = found.converged(rule.tolerance)
        if n_passes == rule.checkpoints[-1]:
            audit.compare(running.rows, found, n_passes, which=finite)
            break
        audit.stop(running.rows, found, n_passes, which=finite & converged)
        # Objects that have failed get no better with more passes.
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
    """Give objects that have all their passes what is known of the whole group only: its largest features."""
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
    """Return (object,) whether all outputs of all bundles, (object, pass, output) each, are finite."""
    return np.logical_and.reduce([np.isfinite(part).all(axis=(1, 2)) for part in outputs])
