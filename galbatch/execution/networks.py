"""The networks of a task, loaded in this process: what they compute, and what is taken from the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from galbatch import catalog, models
from galbatch.catalog import pass_outputs
from galbatch.core.columns import CASE, DISAGREEMENT, IDENTITY, MODEL_FLAGS, Column, photometry_columns
from galbatch.core.flags import ModelFlag
from galbatch.core.types import CutoutBlock, ObjectTable
from galbatch.errors import BundleError
from galbatch.execution import growth
from galbatch.photometry import PHOTOMETRY_VERSION
from galbatch.planning import ModelPlan

if TYPE_CHECKING:
    from galbatch.execution.tasks import InferTask, ModelTask

__all__ = ["LoadedModel", "auxiliary_of", "execution_of", "load_network", "model_columns", "require_engine"]


def execution_of(model: ModelPlan, device: str) -> models.Execution:
    """Return how a planned network is run: by the engine of the plan, on `device`."""
    return models.Execution(models.Engine.named(model.engine), device)


def require_engine(network: models.Ensemble, execution: models.Execution) -> None:
    """Prepare an engine for each bundle of a network in this process.

    Raises
    ------
    BundleError
        This process cannot provide the engine or the device.
    """
    for bundle in network.bundles:
        models.executor(bundle, execution.engine, execution.device)


def load_network(model: ModelPlan) -> models.Ensemble:
    """Return the bundles of a planned network; a process keeps them in memory once they are loaded."""
    # The sha256 is checked: a bundle file that was replaced since the plan must not mix two networks in one catalog.
    return models.load_ensemble(
        model.paths,
        sha256=model.sha256,
        calibrated=model.calibrated,
        embedding_dtype=model.embedding_dtype,
        densities=model.densities,
    )


def model_columns(
    planned: Sequence[ModelPlan],
    ensembles: Sequence[models.EnsembleInfo],
    *,
    quantiles: Sequence[float],
    a_b: Mapping[str, float],
) -> list[Column]:
    """Return the result columns of all models, in the order of the leaf; cases of one model fill one set of columns.

    Parameters
    ----------
    planned, ensembles : the networks and their bundles, in the order of run.toml
    quantiles : levels of the quantiles
    a_b : extinction in mag per unit E(B-V) by band; empty: no dereddened magnitudes

    Raises
    ------
    BundleError
        The bundles of a model's cases have other columns.
    """
    of_model: dict[str, list[models.CaseInfo]] = {}
    first: dict[str, models.EnsembleInfo] = {}
    for one, ensemble in zip(planned, ensembles, strict=True):
        of_model.setdefault(one.model, []).append(case_info(one, ensemble))
        first.setdefault(one.model, ensemble)
    columns: list[Column] = []
    for name, cases in of_model.items():
        if differing := models.differing_columns(cases):
            some = ", ".join(column.lstrip("_") for column in differing[:5])
            raise BundleError(
                f"run.toml: [[models]] {name}: its cases fill one set of columns, and not all of their bundles have {some} in the same "
                "unit; give networks of the same parameters, or make them models of their own"
            )
        columns += models.network_columns(first[name], name=name, quantiles=quantiles, cases=cases, a_b=a_b)
    return columns


def case_info(planned: ModelPlan, ensemble: models.EnsembleInfo) -> models.CaseInfo:
    """Return a planned network as one of those that fill its model's columns."""
    return models.CaseInfo(planned.case, ensemble.metadata, planned.bands)


def auxiliary_of(
    objects: ObjectTable, rows: npt.NDArray[np.intp], names: Sequence[str]
) -> npt.NDArray[np.float32] | None:
    """Return the object list's columns `names` at `rows`, (row, number) float32, vectors in a row; None if there are no names."""
    return np.column_stack([objects.inputs[name][rows] for name in names]) if names else None


@dataclass(frozen=True)
class LoadedModel:
    """A network that is loaded in this process, with all that a task needs to run it.

    Attributes
    ----------
    task : the task that the network is run for
    selected : (object,) bool, the partition's objects that the network is for
    taken : (object,) bool, the objects whose values were taken from the base; filled in by `infer`
    base : the network's rows in an older catalog; None: there are none
    writer : writes the outputs of each pass next to the catalog; None: they are not kept
    audits : results of the audit of adaptive passes, one for each block
    ran : called with the numbers of objects and of their passes as they are made; None: nobody asks
    """

    task: InferTask
    planned: ModelPlan
    selected: npt.NDArray[np.bool_]
    ensemble: models.Ensemble
    taken: npt.NDArray[np.bool_]
    base: catalog.BaseRows | None
    writer: pass_outputs.PassOutputsWriter | None
    audits: list[models.Audit] = field(default_factory=list)
    ran: Callable[[int, int], None] | None = None

    @classmethod
    def load(
        cls, task: InferTask, model: ModelTask, *, ran: Callable[[int, int], None] | None = None
    ) -> LoadedModel:
        """Return a network of a task, loaded, with its rows in the base and a writer of its pass outputs, if they are kept."""
        ensemble, planned = load_network(model.network), model.network
        taken, base = np.zeros(len(task.objects), np.bool_), growth.base_rows(task, planned, ensemble)
        if not task.posterior.keep_pass_outputs:
            return cls(task, planned, model.selected, ensemble, taken, base, None, ran=ran)
        infos = ensemble.output_infos
        origin = pass_outputs.Origin(
            planned.name, tuple(info.as_json() for info in infos), task.posterior.seed, planned.engine
        )
        writer = pass_outputs.PassOutputsWriter(
            task.catalog,
            task.partition,
            origin,
            object_id=task.objects.object_id,
            n_outputs=[info.n_outputs for info in infos],
        )
        return cls(task, planned, model.selected, ensemble, taken, base, writer, ran=ran)

    @property
    def columns(self) -> Sequence[Column]:
        """The columns of the network's results, in the order of the leaf."""
        return growth.columns_of(self.task, self.planned, self.ensemble)

    @property
    def notes(self) -> list[str]:
        """Human-readable lines about the base."""
        where = f"partition {self.task.partition.name}"
        return [] if self.base is None else [f"{where}: {note}" for note in self.base.notes]

    def identity(self, blocks: Sequence[CutoutBlock], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """Return what the values of a block's objects follow from, (object,) int64; 0 for those that are not selected."""
        pixels = [np.zeros((len(rows), 0), np.int64)]
        for block, (_, bands) in zip(blocks, self.planned.inputs, strict=True):
            if block.pixel_digest is None:
                return np.zeros(len(rows), np.int64)
            pixels.append(block.pixel_digest[:, [block.bands.index(band) for band in bands]])
        found = growth.identity_of_rows(
            self.planned.settings,
            self.task.objects.object_id[rows],
            np.concatenate(pixels, axis=1),
            auxiliary_of(self.task.objects, rows, self.planned.auxiliary_inputs),
        )
        return np.where(self.selected[rows], found, 0)

    def in_base(self, identity: npt.NDArray[np.int64], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Return which objects' values are in the base, (object,) bool."""
        if self.base is None:
            return np.zeros(len(rows), np.bool_)
        return (identity != 0) & (self.base.identity[rows] == identity)

    def needs_pixels(self, cutouts: CutoutBlock, rows: npt.NDArray[np.intp]) -> bool:
        """Return whether any of a block's objects has to be computed."""
        known = self.in_base(self.identity([cutouts], rows), rows)
        return bool((self.selected[rows] & ~known).any())

    def fill(
        self,
        values: Mapping[str, npt.NDArray[Any]],
        blocks: Sequence[CutoutBlock],
        rows: npt.NDArray[np.intp],
    ) -> None:
        """Fill the results for a block into the columns `values` (object,) of the partition, in the rows of the network's objects.

        Rows of other cases of the model are theirs.
        """
        mine = self.selected[rows]
        for name, result in self.infer(blocks, rows).items():
            values[name][rows[mine]] = result[mine]

    def deredden(self, values: Mapping[str, npt.NDArray[Any]], ebv: npt.NDArray[np.float32]) -> None:
        """Fill the dereddened magnitudes of the network's objects in the columns `values` (object,) with those as observed less A_b E(B-V).

        `ebv` (object,) is NaN outside the map, where they stay missing.
        """
        own, quantiles = case_info(self.planned, self.ensemble), self.task.posterior.quantiles
        for one in models.dereddened(own, name=self.planned.model, quantiles=quantiles, a_b=self.task.a_b):
            observed = values[one.observed][self.selected]
            values[one.column][self.selected] = observed - np.float32(one.a_b) * ebv[self.selected]

    def compare(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill the disagreement of the network's objects with the photometry in `values` (object,), and its flag.

        Both are made anew for objects that were taken from the base, which may have had other photometry or none.
        """
        name, info, where = self.planned.model, self.ensemble.metadata.disagreement, self.selected
        if info is None:
            return
        flags, off = values[MODEL_FLAGS.name(name)], np.full(int(where.sum()), np.nan, np.float32)
        if self.task.photometry is not None:
            of_network = {column.name: values[column.name][where] for column in self.columns}
            off = models.disagreement(
                info,
                self.ensemble.metadata.parameters,
                {
                    column.name: values[column.name][where]
                    for column in photometry_columns(self.planned.bands)
                },
                of_network,
                model=name,
                bands=self.planned.bands,
                photometry_version=PHOTOMETRY_VERSION,
            )
        values[DISAGREEMENT.name(name)][where] = off
        limit = models.disagreement_limit(info, self.task.flags.inconsistent_rate)
        flags[where] &= np.int32(~ModelFlag.INCONSISTENT)
        flags[where] |= np.where(off > limit, np.int32(ModelFlag.INCONSISTENT), np.int32(0))

    @property
    def audit(self) -> models.Audit | None:
        """The sum of the audits of all blocks; None where the number of passes is fixed."""
        if self.task.posterior.passes != "adaptive":
            return None
        return sum(self.audits, models.Audit(self.task.posterior.quantiles))

    def infer(
        self, blocks: Sequence[CutoutBlock], rows: npt.NDArray[np.intp]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Return the results for a block, (object of the block, ..) by the name of their column.

        Parameters
        ----------
        blocks : the block on each grid of the network, with the bands of the grid; none for a network that takes no pixels
        rows : (object of the block,) intp, index of each object in the partition
        """
        identity = self.identity(blocks, rows)
        known = self.in_base(identity, rows)
        left = self.selected[rows] & ~known
        # By row of the block: those of the base come between those that are computed.
        kept: dict[int, Sequence[npt.NDArray[np.float32]]] = {}
        if left.any() or self.base is None:
            values = self._computed(blocks, rows, selected=left, keep=kept.__setitem__)
        else:
            values = {column.name: column.empty(len(rows)) for column in self.columns}
        if self.base is not None:
            (there,) = np.nonzero(known)
            for name, taken in self.base.values(rows[there]).items():
                values[name][there] = taken
            self.taken[rows[there]] = True
            if self.writer is not None:
                kept |= zip(there.tolist(), self.base.outputs(rows[there]), strict=True)
        for row in sorted(kept):
            # infer_block counts objects within the block, the writer within the partition.
            if self.writer is not None and len(kept[row][0]):
                self.writer.append(int(rows[row]), kept[row])
        values[IDENTITY.name(self.planned.model)] = identity
        if self.planned.case:
            values[CASE.name(self.planned.model)] = np.full(len(rows), self.planned.case, object)
        return values

    def _computed(
        self,
        blocks: Sequence[CutoutBlock],
        rows: npt.NDArray[np.intp],
        *,
        selected: npt.NDArray[np.bool_],
        keep: Callable[[int, Sequence[npt.NDArray[np.float32]]], None],
    ) -> dict[str, npt.NDArray[Any]]:
        """Return what the network computes for a block's objects that are `selected`, (object,) by column."""
        # Several networks may share a grid: each takes its own bands, in its own order.
        own = [
            block.select_bands(bands) for block, (_, bands) in zip(blocks, self.planned.inputs, strict=True)
        ]
        return models.infer_block(
            self.ensemble,
            models.BlockInputs(
                own[0] if own else None,
                selected,
                auxiliary=auxiliary_of(self.task.objects, rows, self.planned.auxiliary_inputs),
                max_missing_share=self.planned.max_missing_share,
                ids=self.task.objects.object_id[rows],
                more_cutouts=tuple(own[1:]),
            ),
            name=self.planned.model,
            posterior=self.task.posterior,
            execution=execution_of(self.planned, self.task.device),
            receivers=models.BlockReceivers(
                keep=None if self.writer is None else keep, audit=self.audits.append, ran=self.ran
            ),
        )
