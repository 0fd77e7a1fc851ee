"""Inference for a block of objects: cutouts in, result columns out."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.core.columns import EMBEDDING, MODEL_FLAGS, OOD_DISTANCE, PASSES
from galbatch.core.flags import ModelFlag
from galbatch.core.types import CutoutBlock
from galbatch.errors import BundleError
from galbatch.models.bundle import Bundle, Ensemble
from galbatch.models.engines.choice import Execution, executor
from galbatch.models.heads import outputs_per_pass
from galbatch.models.inference.adaptive import (
    AdaptiveSampling,
    ObjectGroup,
    PassSource,
    StoppedObjects,
    StoppingRule,
    join_stopped,
)
from galbatch.models.inference.audit import Audit
from galbatch.models.inference.domain import FeatureDistance
from galbatch.models.inference.flags import input_flags, value_flags
from galbatch.models.inference.results import network_columns
from galbatch.models.inference.sampling import (
    GROUP_OBJECTS,
    OUTPUT_BYTES,
    RawPasses,
    Sampler,
    places_for,
)
from galbatch.models.inference.summaries import (
    all_finite,
    columns_of,
    magnitudes_that_may_miss,
    summarizes_on_device,
    without_overflow,
)
from galbatch.models.metadata import ImageInfo
from galbatch.models.networks import draw_keys, is_audited

__all__ = ["BlockInputs", "BlockReceivers", "infer_block", "no_pixels", "nonfinite_images"]

# Outputs that wait to be summarized with others, half a megabyte: a block of 256 objects with 48 passes of 9 outputs has as many.
NUMBERS_WAITING = 2**17
CENTER_PX = 1  # With a NaN this near to the central pixel there is nothing to measure.

Values = dict[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.intp]
Outputs = tuple[npt.NDArray[np.float32], ...]
Keep = Callable[[int, Outputs], None]


@dataclass(frozen=True)
class BlockInputs:
    """The inputs of a network for a block of objects.

    Attributes
    ----------
    cutouts : cutouts with the network's size, pixel scale and bands, the bands in its order; None for a network that takes no pixels
    selected : (object,) bool; objects that are not selected get no values and the flag NOT_SELECTED
    auxiliary : (object, number) float32, None for a network that takes none; an object for which one is NaN gets no
        values and the flag MISSING_PIXELS
    max_missing_share : an object gets no values if a larger share of a band's pixels is missing; a band without any never has
    ids : (object,) int64 or str, needed where there are no cutouts, which have them
    more_cutouts : cutouts of the same objects on the further grids of a network that takes several
    """

    cutouts: CutoutBlock | None
    selected: npt.NDArray[np.bool_]
    auxiliary: npt.NDArray[np.float32] | None = None
    max_missing_share: float = 1.0
    ids: npt.NDArray[Any] | None = None
    more_cutouts: tuple[CutoutBlock, ...] = ()

    @property
    def blocks(self) -> tuple[CutoutBlock, ...]:
        """The cutouts on each grid; none for a network that takes no pixels."""
        return () if self.cutouts is None else (self.cutouts, *self.more_cutouts)

    @property
    def object_id(self) -> npt.NDArray[Any]:
        """The ids (object,) of the objects, int64 or str."""
        if self.cutouts is not None:
            return self.cutouts.object_id
        if self.ids is None:
            raise ValueError("inputs without cutouts need ids")
        return self.ids

    def images(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        """Return the images (row, band, y, x) on each grid of the objects at `rows`, in nJy, finite: missing pixels are 0, the level of the sky."""
        return [np.nan_to_num(block.image[rows], nan=0.0, posinf=0.0, neginf=0.0) for block in self.blocks]


@dataclass(frozen=True)
class BlockReceivers:
    """Functions that receive results which do not become columns.

    Attributes
    ----------
    keep : called once for each object that was run, in the order of the block's rows, with the row and the outputs of all
        passes, one array (pass, output) float32 per bundle
    audit : called once with the audit of adaptive sampling
    ran : called for objects that have stopped, with their number and that of their passes
    """

    keep: Keep | None = None
    audit: Callable[[Audit], None] | None = None
    ran: Callable[[int, int], None] | None = None


ON_CPU = Execution()
NOBODY = BlockReceivers()


def infer_block(
    network: Bundle | Ensemble,
    inputs: BlockInputs,
    *,
    name: str,
    posterior: PosteriorConfig,
    execution: Execution = ON_CPU,
    receivers: BlockReceivers = NOBODY,
) -> Values:
    """Run a network on a block of objects.

    Objects are prepared in groups of 16, and run until they have enough passes. The features of a limited number are kept at a time:
    only the columns, and outputs that are kept, take memory in proportion to the size of the block.

    Parameters
    ----------
    network : a bundle, or an ensemble of several that are pooled
    inputs : cutouts, auxiliary inputs, and which objects are selected
    name : name of the network in the run, which is the prefix of the result columns
    posterior : number of passes, quantiles, seed and batch size
    execution : engine and device that compute the passes
    receivers : functions that receive the outputs of the passes and the audit

    Returns
    -------
    one array (object,) per result column, by name. An object without a value has the column's missing value, and a flag that
    says why

    Raises
    ------
    BundleError
        Size, pixel scale or number of bands of the cutouts, or the number of auxiliary inputs, do not fit the network; or the
        engine cannot be made in this process.
    """
    ensemble = network if isinstance(network, Ensemble) else Ensemble((network,))
    _check_inputs(ensemble, inputs)
    selected = inputs.selected
    specs = network_columns(ensemble, name=name, quantiles=posterior.quantiles)
    values: Values = {column.name: column.empty(len(selected)) for column in specs}
    nonfinite: npt.NDArray[np.bool_] = np.zeros(len(selected), np.bool_)
    unusable = nonfinite
    for block in inputs.blocks:
        partial, useless = nonfinite_images(block.image, max_missing_share=inputs.max_missing_share)
        nonfinite, unusable = nonfinite | partial, unusable | useless
    if inputs.auxiliary is not None:
        lacking = ~np.isfinite(inputs.auxiliary).all(axis=1)
        nonfinite, unusable = nonfinite | lacking, unusable | lacking
    flags = np.where(selected, 0, int(ModelFlag.NOT_SELECTED)).astype(np.int32)
    flags[selected & nonfinite] |= ModelFlag.MISSING_PIXELS
    values[MODEL_FLAGS.name(name)] = flags
    runner = _BlockRunner(inputs, _Results(name, values), ensemble, posterior, execution)
    rows = np.flatnonzero(selected & ~unusable)
    in_order = None if receivers.keep is None else _InOrder(receivers.keep, rows)

    def receive(stopped: StoppedObjects) -> None:
        if receivers.ran is not None:
            receivers.ran(len(stopped.rows), len(stopped.rows) * stopped.n_passes)
        if in_order is not None:
            in_order.add(stopped)

    runner.run(rows, receive)
    if receivers.audit is not None:
        # In the order of the rows, so that the sums do not depend on which objects end first.
        receivers.audit(
            sum(
                (one for _, one in sorted(runner.audits.items(), key=lambda pair: pair[0])),
                Audit(posterior.quantiles),
            )
        )
    return values


def _check_inputs(ensemble: Ensemble, inputs: BlockInputs) -> None:
    """Raise a BundleError if cutouts or auxiliary inputs do not fit the network."""
    metadata, images = ensemble.metadata, ensemble.metadata.input.images
    given_grids = [block.grid for block in inputs.blocks]
    if given_grids != [one.grid for one in images]:
        wanted_text, given_text = (
            " and ".join(grid.label for grid in grids) or "no size"
            for grids in ([one.grid for one in images], given_grids)
        )
        raise BundleError(f"{metadata.name}: takes cutouts of {wanted_text}, given {given_text}")
    for block, one in zip(inputs.blocks, images, strict=True):
        if len(block.bands) != len(one.bands):
            raise BundleError(
                f"{metadata.name}: takes {len(one.bands)} bands ({', '.join(one.bands)}), "
                f"given {', '.join(block.bands) or 'none'}"
            )
    wanted = metadata.input.n_auxiliary
    given = 0 if inputs.auxiliary is None else inputs.auxiliary.shape[1]
    if wanted != given:
        names = ", ".join(column.label for column in metadata.input.auxiliary_inputs) or "none"
        raise BundleError(f"{metadata.name}: takes {wanted} auxiliary inputs ({names}), given {given}")


def no_pixels(n_objects: int) -> npt.NDArray[np.float32]:
    """Return the images (object, 0, 0, 0) float32 of objects for networks that take columns alone."""
    return np.zeros((n_objects, 0, 0, 0), np.float32)


def packed_images(
    images: Sequence[npt.NDArray[np.float32]], taken: Sequence[ImageInfo], *, n_objects: int
) -> npt.NDArray[np.float32]:
    """Return images (object, band, y, x) float32 of each grid, in nJy, in the units of a bundle, packed as its `prefix` takes them."""
    parts = [one * np.float32(1.0 / info.njy_per_unit) for one, info in zip(images, taken, strict=True)]
    if len(parts) < 2:
        return parts[0] if parts else no_pixels(n_objects)
    return np.concatenate([part.reshape(n_objects, -1) for part in parts], axis=1)[:, None, None]


def nonfinite_images(
    image: npt.NDArray[np.float32], *, max_missing_share: float = 1.0
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which images have pixels that are not finite, and which are unusable for that reason.

    Parameters
    ----------
    image : (object, band, y, x) float32
    max_missing_share : largest share of a band's pixels that may be missing

    Returns
    -------
    nonfinite : (object,) bool, whether any pixel is not finite
    unusable : (object,) bool, whether a band has no finite pixel or a larger share is missing, or a pixel within 1 px of the center
        in any band
    """
    finite = np.isfinite(image)
    nonfinite = np.asarray(~finite.all(axis=(1, 2, 3)))
    middle = image.shape[-1] // 2
    center = slice(max(0, middle - CENTER_PX), middle + CENTER_PX + 1)
    no_center = np.asarray(~finite[:, :, center, center].all(axis=(1, 2, 3)))
    no_band = ~np.asarray(finite.any(axis=(2, 3))).all(axis=1)
    # Most cutouts are whole: only the others are counted.
    too_few = np.zeros(len(image), np.bool_)
    missing = 1.0 - finite[nonfinite].mean(axis=(2, 3))  # (object, band)
    too_few[nonfinite] = (missing > max_missing_share).any(axis=1)
    return nonfinite, np.asarray(no_center | no_band | too_few)


@dataclass(frozen=True)
class _Results:
    """The result columns (object,) of a block, by names that begin with `name`; each group fills in its own rows."""

    name: str
    values: Values


class _InOrder:
    """Objects that wait to be kept until those before them have stopped: outputs are kept in the order of the rows.

    Parameters
    ----------
    keep : receives the row and the outputs of an object
    rows : (object,) rising rows of all objects
    """

    def __init__(self, keep: Keep, rows: Rows) -> None:
        self._keep = keep
        self._left = iter(rows.tolist())
        self._next = next(self._left, None)
        self._waiting: dict[int | None, Outputs] = {}

    def add(self, stopped: StoppedObjects) -> None:
        """Add objects that have stopped, and keep those that are due."""
        self._waiting |= zip(stopped.rows.tolist(), stopped.outputs_of_each(), strict=True)
        while self._next is not None and self._next in self._waiting:
            self._keep(self._next, self._waiting.pop(self._next))
            self._next = next(self._left, None)


def _joined(stopped: Iterator[StoppedObjects]) -> Iterator[StoppedObjects]:
    """Yield objects joined with others of as many passes, once their outputs are many or no more come.

    To summarize 256 objects at once takes a third of the time, for each, that 16 take.
    """
    parts: dict[int, list[StoppedObjects]] = {}
    for part in stopped:
        waiting = parts.setdefault(part.n_passes, [])
        waiting.append(part)
        if sum(math.prod(raw.outputs.shape) for one in waiting for raw in one.raws) >= NUMBERS_WAITING:
            yield join_stopped(parts.pop(part.n_passes))
    yield from (join_stopped(waiting) for waiting in parts.values())


class _BlockRunner:
    """A runner of the groups of a block, in one thread or several."""

    def __init__(
        self,
        inputs: BlockInputs,
        results: _Results,
        ensemble: Ensemble,
        posterior: PosteriorConfig,
        execution: Execution,
    ) -> None:
        self.inputs = inputs
        self.results = results
        self.ensemble = ensemble
        self.posterior = posterior
        self.rule = StoppingRule.of(ensemble, posterior)
        self.executors = [executor(b, execution.engine, execution.device) for b in ensemble.bundles]
        self.distances = [FeatureDistance.of(b.metadata.domain) for b in ensemble.bundles]
        self.n_threads = execution.n_threads
        self.device_kind = execution.device
        self.keeps_on_device = summarizes_on_device(
            ensemble, device=execution.device, method=posterior.method
        )
        self.audits: dict[int, Audit] = {}
        self.has_failed = threading.Event()
        # One thread at a time reports what has stopped.
        self.receiving = threading.Lock()
        # One thread at a time runs passes; the others summarize meanwhile.
        self.device = threading.Lock()

    def run(self, rows: Rows, receive: Callable[[StoppedObjects], None]) -> None:
        """Run the objects at `rows` of the block, and give `receive` those that have stopped, in any order."""
        groups = [rows[start : start + GROUP_OBJECTS] for start in range(0, len(rows), GROUP_OBJECTS)]
        if self.n_threads == 1:
            for some in _joined(self.stopped(groups, receive)):
                self.fill(some)
            return
        # Each thread has its own groups, so that which objects share a batch does not depend on which thread is faster.
        shares = [groups[first :: self.n_threads] for first in range(self.n_threads)]
        with ThreadPoolExecutor(self.n_threads) as pool:
            for done in [pool.submit(self.run_and_fill, share, receive) for share in shares]:
                done.result()

    def run_and_fill(self, groups: Sequence[Rows], receive: Callable[[StoppedObjects], None]) -> None:
        """Run groups and summarize what stops at once: at the end of a block a GPU would stand still for its summaries."""
        with ExitStack() as unfinished:
            unfinished.callback(self.has_failed.set)
            for some in self.stopped(groups, receive):
                self.fill(some)
            unfinished.pop_all()

    def stopped(
        self, groups: Sequence[Rows], receive: Callable[[StoppedObjects], None]
    ) -> Iterator[StoppedObjects]:
        """Run groups of objects of the block until all have enough passes, and yield those that stop."""
        audited = is_audited(self.inputs.object_id, seed=self.posterior.seed) & self.rule.is_adaptive
        sampling = AdaptiveSampling(self.rule, audited, device=self.device)
        # After an error of another thread the remaining groups would run in vain.
        prepared = (
            ObjectGroup(group, self.sources(group)) for group in groups if not self.has_failed.is_set()
        )
        for parts in sampling.run(prepared, self.n_places):
            for part in parts:
                with self.receiving:
                    receive(part)
                yield part
        with self.device:
            self.audits |= sampling.audit.found

    def n_places(self, group: ObjectGroup) -> int:
        """Return the number of objects whose passes run together, by what those of a group take."""
        outputs = self.rule.checkpoints[-1] * sum(outputs_per_pass(b.metadata) for b in self.ensemble.bundles)
        features = sum(source.sampler.object_bytes for source in group.sources)
        return places_for(features + OUTPUT_BYTES * outputs, self.device_kind)

    def sources(self, rows: Rows) -> tuple[PassSource, ...]:
        """Prepare the dropout passes of the block's objects at `rows`: one `PassSource` for each bundle of the ensemble.

        The part of each network before its first dropout is computed here, once an object, on the device of the execution.
        """
        batch = self.posterior.batch
        images = self.inputs.images(rows)
        auxiliary = None if self.inputs.auxiliary is None else self.inputs.auxiliary[rows]
        sources = []
        for bundle, of_bundle in zip(self.ensemble.bundles, self.executors, strict=True):
            in_unit = packed_images(images, bundle.metadata.input.images, n_objects=len(rows))
            sampler = Sampler(
                of_bundle,
                in_unit,
                batch=batch,
                auxiliary=auxiliary,
                keeps_on_device=self.keeps_on_device,
            )
            keys = draw_keys(
                self.inputs.object_id[rows],
                seed=self.posterior.seed,
                bundle_sha256=bundle.sha256,
                passes=range(self.rule.checkpoints[-1]),
            )
            sources.append(PassSource(sampler, keys, bundle.metadata.passes_differ))
        return tuple(sources)

    def embedding(self, raw: RawPasses) -> npt.NDArray[np.floating]:
        """Return the last features (object, feature) in the type of their column; NaN for an object with one beyond its range."""
        assert raw.last is not None, "checked when the network was loaded"
        with np.errstate(over="ignore"):
            found = raw.last.astype(self.ensemble.embedding_dtype)
        found[~np.isfinite(found).all(axis=1)] = np.nan
        return found

    def fill(self, stopped: StoppedObjects) -> None:
        """Fill in the columns of objects with equal numbers of passes, whose rows are those of the block."""
        name, values, rows = self.results.name, self.results.values, stopped.rows
        found = columns_of(
            self.ensemble,
            stopped.raws,
            stopped.keys,
            method=self.posterior.method,
            quantiles=self.posterior.quantiles,
            estimate=stopped.estimate,
        )
        found, overflows = without_overflow(found)
        good = stopped.finite & all_finite(
            found, may_miss=magnitudes_that_may_miss(self.ensemble.metadata.parameters)
        )
        for key, column in found.items():
            values[key.name(name)][rows[good]] = column[good]
        values[PASSES.name(name)][rows] = stopped.n_passes
        if self.ensemble.embedding is not None:
            values[EMBEDDING.name(name)][rows[good]] = self.embedding(stopped.raws[0])[good]
        flags = value_flags(
            self.ensemble,
            found,
            tolerance=self.posterior.tolerance,
            stopping_error=stopped.stopping_error,
        )
        flags |= np.where(overflows, np.int32(ModelFlag.NO_MOMENTS), np.int32(0))
        flags = np.where(good, flags, int(ModelFlag.MODEL_FAILED))
        distances = []
        for bundle, raw, measure in zip(self.ensemble.bundles, stopped.raws, self.distances, strict=True):
            distance = None if measure is None or raw.last is None else measure(raw.last)
            flags |= input_flags(bundle.metadata.domain, raw, self.inputs.blocks, rows, distance=distance)
            distances.append(distance)
        values[MODEL_FLAGS.name(name)][rows] |= flags.astype(np.int32)
        if OOD_DISTANCE.name(name) in values:
            # Distances are in units of each bundle's limit, so they can be compared, and the largest decides.
            known = [distance for distance in distances if distance is not None]
            values[OOD_DISTANCE.name(name)][rows] = np.maximum.reduce(known)
