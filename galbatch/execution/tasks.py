"""One partition, in plain Python without Dask: cut its objects, or infer and write its leaf.

Tasks are idempotent: they write only their own partition's group and leaf, and commit by one last step. So
running one twice, or on another worker after a first one died, harms nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import catalog, ingest, models
from galbatch.catalog import pass_outputs
from galbatch.config import FlagsConfig, PosteriorConfig
from galbatch.core.columns import PASSES, PIXEL_FLAGS
from galbatch.core.fingerprint import Fingerprint, refuse_difference
from galbatch.core.pixels import Partition
from galbatch.core.prefetch import prefetch
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, Grid, ObjectTable, Tile
from galbatch.errors import FingerprintError
from galbatch.execution.leaf import leaf_footer, leaf_table
from galbatch.objects import PartitionObjects
from galbatch.planning import ModelPlan, PartitionPlan, Plan

__all__ = [
    "GridTask",
    "InferTask",
    "IngestTask",
    "ModelTask",
    "TaskResult",
    "auxiliary_of",
    "cut_rows",
    "infer_partition",
    "infer_task",
    "ingest_partition",
    "ingest_task",
    "load_network",
]


@dataclass(frozen=True)
class GridTask:
    """The cutouts of one grid: which bands, and which of the partition's objects."""

    grid: Grid
    bands: tuple[str, ...]
    rows: npt.NDArray[np.intp]


@dataclass(frozen=True)
class IngestTask:
    """Everything that cutting one partition needs; small enough to travel with the task."""

    partition: Partition
    objects: ObjectTable
    object_flags: npt.NDArray[np.int32]
    tiles: tuple[Tile, ...]
    grids: tuple[GridTask, ...]
    store: str
    planes: tuple[str, ...]
    flags: FlagsConfig
    fingerprint: Fingerprint


@dataclass(frozen=True)
class ModelTask:
    """One network and the partition's objects that it is for."""

    network: ModelPlan
    selected: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InferTask:
    """Everything that inferring one partition needs, but for the cutouts and the networks' weights."""

    partition: Partition
    objects: ObjectTable
    object_flags: npt.NDArray[np.int32]
    grids: tuple[GridTask, ...]
    models: tuple[ModelTask, ...]
    posterior: PosteriorConfig
    store: str
    catalog: str
    ingest_fingerprint: Fingerprint
    fingerprint: Fingerprint
    device: str = "cpu"


@dataclass(frozen=True)
class TaskResult:
    """The report of a task; the work itself is in the store and the catalog.

    Attributes
    ----------
    batch : objects in a forward pass, at most what was asked for; 0 for ingest
    notes : human-readable lines for the user
    """

    partition: Partition
    n_objects: int
    n_cutouts: int
    n_passes: int
    seconds: float
    batch: int = 0
    notes: tuple[str, ...] = ()


def ingest_task(
    plan: Plan, part: PartitionPlan, *, store: str, planes: tuple[str, ...], flags: FlagsConfig
) -> IngestTask:
    """Return the task that cuts `part`."""
    objects = plan.take(part.partition)
    return IngestTask(
        partition=part.partition,
        objects=objects.table,
        object_flags=objects.flags,
        tiles=tuple(plan.tiles[index] for index in part.tiles),
        grids=_grid_tasks(plan, objects),
        store=store,
        planes=planes,
        flags=flags,
        fingerprint=part.ingest,
    )


def infer_task(
    plan: Plan,
    part: PartitionPlan,
    *,
    store: str,
    catalog_path: str,
    posterior: PosteriorConfig,
    device: str = "cpu",
) -> InferTask:
    """Return the task that infers `part` on a device, cpu or cuda, and writes its leaf."""
    objects = plan.take(part.partition)
    return InferTask(
        partition=part.partition,
        objects=objects.table,
        object_flags=objects.flags,
        grids=_grid_tasks(plan, objects),
        models=tuple(
            ModelTask(model, selected) for model, selected in zip(plan.models, objects.selected, strict=True)
        ),
        posterior=posterior,
        store=store,
        catalog=catalog_path,
        ingest_fingerprint=part.ingest,
        fingerprint=part.leaf,
        device=device,
    )


def _grid_tasks(plan: Plan, objects: PartitionObjects) -> tuple[GridTask, ...]:
    return tuple(GridTask(g.grid, g.bands, np.flatnonzero(objects.needed(g.models))) for g in plan.grids)


def ingest_partition(task: IngestTask) -> TaskResult:
    """Cut the partition's objects on every grid and commit its groups in the store.

    Raises
    ------
    TileError
        A tile cannot be read.
    OutputError, OSError
        The store cannot be written.
    """
    started = time.monotonic()
    for grid in task.grids:
        ingest.write_partition(
            task.store,
            task.partition,
            grid.grid,
            cut_rows(task, grid, grid.rows),
            planes=task.planes,
            fingerprint=task.fingerprint.as_json(),
        )
    n_cutouts = sum(len(grid.rows) for grid in task.grids)
    return TaskResult(task.partition, len(task.objects), n_cutouts, 0, time.monotonic() - started)


def cut_rows(task: IngestTask, grid: GridTask, rows: npt.NDArray[np.intp]) -> Iterator[CutoutBlock]:
    """Cut the partition's objects at `rows`, a block at a time; nothing is written."""
    return ingest.cut_blocks(
        task.objects.take(rows),
        task.tiles,
        grid=grid.grid,
        bands=grid.bands,
        flags=task.flags,
        object_flags=task.object_flags[rows],
    )


def infer_partition(task: InferTask) -> TaskResult:
    """Run every network over the partition's cutouts and commit its leaf.

    Raises
    ------
    FingerprintError
        The store's cutouts were made with other settings or inputs, or are not there.
    BundleError
        A bundle cannot be loaded, or its file has changed.
    """
    started = time.monotonic()
    task, notes = _fitted(task)
    loaded = [_loaded(task, model) for model in task.models]
    specs = [
        models.result_columns(model.ensemble.metadata, name=model.task.network.name, posterior=task.posterior)
        for model in loaded
    ]
    values = {c.name: c.empty(len(task.objects)) for columns in specs for c in columns}
    flags = task.object_flags.copy()
    for grid in task.grids:
        with prefetch(_read_cutouts(task, grid)) as blocks:
            for rows, cutouts in blocks:
                flags[rows] |= cutouts.flags
                for model in loaded:
                    if model.task.network.grid == grid.grid:
                        _infer_into(values, rows, cutouts, task=task, model=model)
    for model in loaded:
        if model.kept is not None:
            model.kept.finish(task.fingerprint.as_json())
    columns = [PIXEL_FLAGS, *(column for spec in specs for column in spec)]
    footer = leaf_footer(
        task.fingerprint,
        len(task.objects),
        bundles={model.network.name: model.network.sha256 for model in task.models},
        keeps_pass_outputs=task.posterior.keep_pass_outputs,
        audits=_audits(task, loaded),
    )
    table = leaf_table(task.objects, columns, {PIXEL_FLAGS.name: flags, **values})
    catalog.write_leaf(task.catalog, task.partition, table, footer=footer)
    n_passes = sum(int(np.maximum(values[PASSES.name(m.network.name)], 0).sum()) for m in task.models)
    seconds = time.monotonic() - started
    return TaskResult(
        task.partition, len(task.objects), 0, n_passes, seconds, batch=task.posterior.batch, notes=notes
    )


def _fitted(task: InferTask) -> tuple[InferTask, tuple[str, ...]]:
    """Return the task with a batch that fits on the GPU, and notes for the user; on the CPU the task as it is."""
    if task.device == "cpu":
        return task, ()
    measured = [
        models.measure_memory(load_network(model.network), _execution(task, model.network), task.posterior)
        for model in task.models
    ]
    batch, notes = task.posterior.batch, list[str]()
    # Batches are fitted after all networks have been measured, so that the weights of all are on the GPU.
    for memory in measured:
        batch = models.fitting_batch(memory, models.gpu_memory(), batch=batch, notify=notes.append)
    smaller = task.posterior.model_copy(update={"batch": batch})
    where = f"partition {task.partition.name}"
    return replace(task, posterior=smaller), tuple(f"{where}: {note}" for note in notes)


def _execution(task: InferTask, network: ModelPlan) -> models.Execution:
    return models.Execution(models.Engine.named(network.engine), task.device)


def load_network(model: ModelPlan) -> models.Ensemble:
    """Return the bundles of a planned network, from this process's memory if they are loaded."""
    return models.load_ensemble(model.paths, sha256=model.sha256, calibrated=model.calibrated)


def auxiliary_of(
    objects: ObjectTable, rows: npt.NDArray[np.intp], names: Sequence[str]
) -> npt.NDArray[np.float32] | None:
    """Return the object list's columns `names` as (row, auxiliary input) float32; None for no names."""
    return np.stack([objects.inputs[name][rows] for name in names], axis=1) if names else None


@dataclass(frozen=True)
class _Loaded:
    """A network in this process, where the outputs of its passes go (None: nowhere), and its audits of blocks."""

    task: ModelTask
    ensemble: models.Ensemble
    kept: pass_outputs.PassOutputsWriter | None
    audits: list[models.Audit] = field(default_factory=list)

    def keep(
        self, rows: npt.NDArray[np.intp]
    ) -> Callable[[int, Sequence[npt.NDArray[np.float32]]], None] | None:
        """Return the function that keeps the outputs of an object of a block, whose objects are the partition's at `rows`."""
        kept = self.kept
        return None if kept is None else lambda row, outputs: kept.append(int(rows[row]), outputs)


def _loaded(task: InferTask, model: ModelTask) -> _Loaded:
    ensemble, network = load_network(model.network), model.network
    if not task.posterior.keep_pass_outputs:
        return _Loaded(model, ensemble, None)
    infos = ensemble.output_infos
    origin = pass_outputs.Origin(
        network.name, tuple(info.as_json() for info in infos), task.posterior.seed, network.engine
    )
    writer = pass_outputs.PassOutputsWriter(
        task.catalog,
        task.partition,
        origin,
        object_id=task.objects.object_id,
        n_outputs=[info.n_outputs for info in infos],
    )
    return _Loaded(model, ensemble, writer)


def _audits(task: InferTask, loaded: Sequence[_Loaded]) -> dict[str, models.Audit]:
    """Return what the audits of adaptive passes found, by network; they add up over blocks and leaves."""
    if task.posterior.passes != "adaptive":
        return {}
    none = models.Audit(task.posterior.quantiles)
    return {model.task.network.name: sum(model.audits, none) for model in loaded}


def _read_cutouts(task: InferTask, grid: GridTask) -> Iterator[tuple[npt.NDArray[np.intp], CutoutBlock]]:
    """Yield the cutouts of a grid, a block at a time, with the rows of the partition that they belong to."""
    done = ingest.read_done(task.store, task.partition, grid.grid)
    where = f"{task.store} {task.partition.name} {grid.grid.label}"
    if done is None:
        raise FingerprintError(f"{where}: no cutouts there; run galbatch run --stage ingest first")
    refuse_difference(where, done["fingerprint"], task.ingest_fingerprint)
    if not len(grid.rows):  # such a group holds no arrays
        return
    starts = range(0, len(grid.rows), BLOCK_OBJECTS)
    rows = (grid.rows[start : start + BLOCK_OBJECTS] for start in starts)
    yield from zip(rows, ingest.read_blocks(task.store, task.partition, grid.grid), strict=True)


def _infer_into(
    values: dict[str, npt.NDArray[Any]],
    rows: npt.NDArray[np.intp],
    cutouts: CutoutBlock,
    *,
    task: InferTask,
    model: _Loaded,
) -> None:
    network = model.task.network
    results = models.infer_block(
        model.ensemble,
        models.BlockInputs(
            cutouts.select_bands(network.bands),
            model.task.selected[rows],
            auxiliary=auxiliary_of(task.objects, rows, network.auxiliary_inputs),
        ),
        name=network.name,
        posterior=task.posterior,
        execution=_execution(task, network),
        receivers=models.BlockReceivers(keep=model.keep(rows), audit=model.audits.append),
    )
    for name, result in results.items():
        values[name][rows] = result
