"""Cutouts in, result columns out: the one place where a network meets a block."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch.config import PosteriorConfig
from galbatch.core.columns import MODEL_FLAGS, OOD_DISTANCE, PASSES
from galbatch.core.flags import ModelFlag
from galbatch.core.types import CutoutBlock, njy_per_unit
from galbatch.errors import BundleError
from galbatch.models.bundle import Bundle, Ensemble
from galbatch.models.engines.choice import Execution, executor
from galbatch.models.inference.adaptive import (
    PassSource,
    StoppedObjects,
    StoppingRule,
    sample_adaptively,
)
from galbatch.models.inference.audit import Audit
from galbatch.models.inference.flags import input_flags, ood_distance, value_flags
from galbatch.models.inference.results import result_columns
from galbatch.models.inference.sampling import GROUP_OBJECTS, Sampler
from galbatch.models.inference.summaries import all_finite, columns_of, magnitudes_that_may_miss
from galbatch.models.networks import draw_keys, is_audited

__all__ = ["BlockInputs", "BlockReceivers", "infer_block", "nonfinite_images"]

CENTER_PX = 1  # a NaN this near the central pixel leaves nothing to measure

Values = dict[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.intp]
Outputs = tuple[npt.NDArray[np.float32], ...]
Keep = Callable[[int, Outputs], None]


@dataclass(frozen=True)
class BlockInputs:
    """The inputs of a network for a block of objects.

    Attributes
    ----------
    cutouts : on the network's grid, with as many bands as it takes, in its order
    selected : (object,) bool; the others get no values and NOT_SELECTED
    auxiliary : (object, auxiliary input) float32, of networks that take some; an object that lacks one (NaN) gets no
        values and NONFINITE_INPUT
    """

    cutouts: CutoutBlock
    selected: npt.NDArray[np.bool_]
    auxiliary: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class BlockReceivers:
    """Functions that are given what does not become a column.

    Attributes
    ----------
    keep : called once for each object that was run, in the order of the block's rows, as groups come to their end, with
        the row and of each bundle the outputs of all passes, (pass, output) float32
    audit : called once with what adaptive passes stated of the audited objects against what was found
    """

    keep: Keep | None = None
    audit: Callable[[Audit], None] | None = None


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
    """Run a network on a block.

    Objects are worked on in groups of 16, each to its end before the next starts, so that nothing grows with the block
    but the columns.

    Parameters
    ----------
    network : a bundle, or several that are pooled; each gets as many passes
    inputs : cutouts, auxiliary inputs, and which objects are run
    name : prefix of the result columns
    posterior : passes, quantiles, seed, batch
    execution : what computes the passes, and where
    receivers : who is given the outputs of the passes, and the audit

    Returns
    -------
    One array (object,) per result column, with the column's missing value where there is no value, and then a flag says why.

    Raises
    ------
    BundleError
        The cutouts' grid or number of bands, or the number of auxiliary inputs, is not the network's; or this process cannot
        provide the engine.
    """
    ensemble = network if isinstance(network, Ensemble) else Ensemble((network,))
    _check_inputs(ensemble, inputs)
    cutouts, selected = inputs.cutouts, inputs.selected
    specs = result_columns(ensemble.metadata, name=name, posterior=posterior)
    values: Values = {column.name: column.empty(len(cutouts)) for column in specs}
    nonfinite, unusable = nonfinite_images(cutouts.image)
    if inputs.auxiliary is not None:
        lacking = ~np.isfinite(inputs.auxiliary).all(axis=1)
        nonfinite, unusable = nonfinite | lacking, unusable | lacking
    flags = np.where(selected, 0, int(ModelFlag.NOT_SELECTED)).astype(np.int32)
    flags[selected & nonfinite] |= ModelFlag.NONFINITE_INPUT
    values[MODEL_FLAGS.name(name)] = flags
    runner = _BlockRunner(inputs, _Results(name, values), ensemble, posterior, execution)
    audit = Audit(posterior.quantiles)
    for group in runner.run(np.flatnonzero(selected & ~unusable), keeps=receivers.keep is not None):
        audit += group.audit
        if receivers.keep is not None:
            for row, outputs in sorted(group.kept.items()):
                receivers.keep(row, outputs)
    if receivers.audit is not None:
        receivers.audit(audit)
    return values


def _check_inputs(ensemble: Ensemble, inputs: BlockInputs) -> None:
    metadata, cutouts = ensemble.metadata, inputs.cutouts
    if cutouts.grid != ensemble.grid:
        raise BundleError(
            f"{metadata.name}: takes cutouts of {ensemble.grid.label}, given {cutouts.grid.label}"
        )
    if len(cutouts.bands) != len(ensemble.bands):
        raise BundleError(
            f"{metadata.name}: takes {len(ensemble.bands)} bands ({', '.join(ensemble.bands)}), "
            f"given {', '.join(cutouts.bands) or 'none'}"
        )
    wanted = len(metadata.input.auxiliary_inputs)
    given = 0 if inputs.auxiliary is None else inputs.auxiliary.shape[1]
    if wanted != given:
        names = ", ".join(column.name for column in metadata.input.auxiliary_inputs) or "none"
        raise BundleError(f"{metadata.name}: takes {wanted} auxiliary inputs ({names}), given {given}")


def nonfinite_images(image: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell images with pixels that are not finite, and those that are unusable.

    Parameters
    ----------
    image : (object, band, y, x) float32

    Returns
    -------
    nonfinite : (object,) bool, some pixel is not finite
    unusable : (object,) bool, a whole band is not finite, or a pixel within 1 px of the center of any band
    """
    finite = np.isfinite(image)
    nonfinite = np.asarray(~finite.all(axis=(1, 2, 3)))
    middle = image.shape[-1] // 2
    center = slice(max(0, middle - CENTER_PX), middle + CENTER_PX + 1)
    no_center = np.asarray(~finite[:, :, center, center].all(axis=(1, 2, 3)))
    no_band = ~np.asarray(finite.any(axis=(2, 3))).all(axis=1)
    return nonfinite, np.asarray(no_center | no_band)


@dataclass(frozen=True)
class _Results:
    """The columns (object,) that groups fill, each its own rows, by names that begin with `name`."""

    name: str
    values: Values


@dataclass(frozen=True)
class _GroupResult:
    """The outputs of a group by row of the block, if they are kept, and its audit."""

    kept: dict[int, Outputs]
    audit: Audit


class _BlockRunner:
    """Runs the groups of a block."""

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
        self.n_threads = execution.n_threads
        # One thread at a time runs passes; the others summarize meanwhile.
        self.device = threading.Lock()

    def run(self, rows: Rows, *, keeps: bool) -> Iterator[_GroupResult]:
        """Run the objects of the block at `rows`; results come group by group, in order."""
        groups = [rows[start : start + GROUP_OBJECTS] for start in range(0, len(rows), GROUP_OBJECTS)]
        if self.n_threads == 1:
            yield from (self.run_group(group, keeps=keeps) for group in groups)
            return
        coming: deque[Future[_GroupResult]] = deque()
        with ThreadPoolExecutor(self.n_threads) as pool:
            try:
                for group in groups:
                    # As many wait to be kept as are worked on, never more: a thousand passes of a group may take 60 MB.
                    if len(coming) == 2 * self.n_threads:
                        yield coming.popleft().result()
                    coming.append(pool.submit(self.run_group, group, keeps=keeps))
                while coming:
                    yield coming.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)  # after a fault the rest would run in vain

    def run_group(self, rows: Rows, *, keeps: bool) -> _GroupResult:
        """Run the objects of the block at `rows` to their end, and fill in their columns."""
        object_id = self.inputs.cutouts.object_id[rows]
        audited = is_audited(object_id, seed=self.posterior.seed) & self.rule.is_adaptive
        with self.device:
            sources = self.sources(rows)
        stopped, audit = sample_adaptively(sources, self.rule, audited=audited, device=self.device)
        kept: dict[int, Outputs] = {}
        for part in stopped:
            self.fill(part, rows[part.rows])
            if keeps:
                kept |= dict(zip(rows[part.rows].tolist(), part.outputs_of_each(), strict=True))
        return _GroupResult(kept, audit)

    def sources(self, rows: Rows) -> list[PassSource]:
        """Return a source for each bundle, with the features of the objects at `rows` on the device."""
        cutouts, batch = self.inputs.cutouts, self.posterior.batch
        # The network sees 0, the sky's level, where there is no pixel.
        images = np.nan_to_num(cutouts.image[rows], nan=0.0, posinf=0.0, neginf=0.0)
        auxiliary = None if self.inputs.auxiliary is None else self.inputs.auxiliary[rows]
        sources = []
        for bundle, of_bundle in zip(self.ensemble.bundles, self.executors, strict=True):
            in_unit = images * np.float32(1.0 / njy_per_unit(bundle.metadata.input.zero_point_mag))
            sampler = Sampler(of_bundle, in_unit, batch=batch, auxiliary=auxiliary)
            keys = draw_keys(
                cutouts.object_id[rows],
                seed=self.posterior.seed,
                bundle_sha256=bundle.sha256,
                passes=range(self.rule.checkpoints[-1]),
            )
            sources.append(PassSource(sampler, keys, bundle.metadata.dropout_rate > 0))
        return sources

    def fill(self, stopped: StoppedObjects, rows: Rows) -> None:
        """Write the columns of objects that stopped together, which the block has at `rows`."""
        name, values = self.results.name, self.results.values
        found = columns_of(
            self.ensemble,
            stopped.raws,
            stopped.keys,
            method=self.posterior.method,
            quantiles=self.posterior.quantiles,
        )
        good = stopped.finite & all_finite(
            found, may_miss=magnitudes_that_may_miss(self.ensemble.metadata.parameters)
        )
        for key, column in found.items():
            values[key.name(name)][rows[good]] = column[good]
        values[PASSES.name(name)][rows] = stopped.n_passes
        flags = value_flags(
            self.ensemble,
            found,
            tolerance=self.posterior.tolerance,
            stopping_error=stopped.stopping_error,
        )
        flags = np.where(good, flags, int(ModelFlag.MODEL_FAILED))
        distances = []
        for bundle, raw in zip(self.ensemble.bundles, stopped.raws, strict=True):
            flags |= input_flags(bundle.metadata, raw, self.inputs.cutouts, rows)
            distances.append(ood_distance(bundle.metadata, raw))
        values[MODEL_FLAGS.name(name)][rows] |= flags.astype(np.int32)
        if OOD_DISTANCE.name(name) in values:
            # In units of each bundle's limit, so that the largest decides.
            known = [distance for distance in distances if distance is not None]
            values[OOD_DISTANCE.name(name)][rows] = np.maximum.reduce(known)
