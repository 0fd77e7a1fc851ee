"""The work on one partition, in plain Python without Dask: cut its objects, or run the networks and write its leaf.

Tasks are idempotent: each writes only the group and leaf of its own partition, and the last step commits the whole.
Running a task twice, or on another worker after the first one died, gives the same output.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import api, catalog, dashboard, ingest, models
from galbatch.config import CutoutsConfig, FlagsConfig, PosteriorConfig
from galbatch.core.columns import PASSES, PIXEL_FLAGS, Column, provenance_columns
from galbatch.core.fingerprint import Fingerprint, refuse_difference
from galbatch.core.pixels import OlderOutput, Partition
from galbatch.core.prefetch import prefetch
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock, CutoutSpec, Grid, ObjectTable, Resampling, Tile
from galbatch.errors import FingerprintError
from galbatch.execution import growth
from galbatch.execution.leaf import leaf_footer, leaf_table, provenance
from galbatch.execution.networks import LoadedModel, auxiliary_of, execution_of, load_network, require_engine
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
    "execution_of",
    "infer_partition",
    "infer_task",
    "ingest_partition",
    "ingest_task",
    "load_network",
    "require_engine",
]


@dataclass(frozen=True)
class GridTask:
    """The cutouts of one partition on one grid.

    Attributes
    ----------
    grid : size and pixel scale of the cutouts
    bands : bands of the cutouts, in order
    rows : (cutout,) intp, index into the partition's objects
    settings : for each band a digest of the settings that its pixels depend on
    """

    grid: Grid
    bands: tuple[str, ...]
    rows: npt.NDArray[np.intp]
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class IngestTask:
    """Everything that is needed to cut one partition; small enough to be sent with the task.

    Attributes
    ----------
    objects : ids and positions, in HEALPix order
    object_flags : (object,) int32, `PixelFlag` bits that follow from the object list alone
    tiles : the tiles that cover the partition
    base : groups of an older store from which cutouts are taken
    """

    partition: Partition
    objects: ObjectTable
    object_flags: npt.NDArray[np.int32]
    tiles: tuple[Tile, ...]
    grids: tuple[GridTask, ...]
    store: str
    planes: tuple[str, ...]
    resampling: Resampling
    flags: FlagsConfig
    fingerprint: Fingerprint
    base: OlderOutput | None = None


@dataclass(frozen=True)
class ModelTask:
    """One network of a task.

    Attributes
    ----------
    network : the planned network
    selected : (object,) bool, whether the network's `where` selects the object
    """

    network: ModelPlan
    selected: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class InferTask:
    """Everything that is needed to infer one partition, except the cutouts and the networks' weights.

    Those are read by the worker: a bundle has up to 540 MB, too much to send with each task.

    Attributes
    ----------
    object_flags : (object,) int32, `PixelFlag` bits that follow from the object list alone
    ingest_fingerprint : fingerprint that the cutouts in the store must have
    fingerprint : fingerprint of the leaf to write
    base : leaves of an older catalog from which values are taken
    """

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
    base: OlderOutput | None = None


@dataclass(frozen=True)
class TaskResult:
    """The counts of a finished task; its output is in the store or the catalog.

    Attributes
    ----------
    n_taken : number of cutouts, or of objects' values in a network, that were taken from the base; they are not counted else
    seconds : wall time
    batch : rows (objects times passes) in one call of the network, at most the configured number; 0 for ingest
    notes : human-readable lines for the user
    worker : address of the worker that ran the task
    flags : number of objects with each flag, by column and flag
    samples : some objects with pictures and values, the newest last
    """

    partition: Partition
    n_objects: int
    n_cutouts: int
    n_passes: int
    seconds: float
    batch: int = 0
    notes: tuple[str, ...] = ()
    worker: str | None = None
    n_taken: int = 0
    flags: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[dashboard.Sample, ...] = ()


def ingest_task(plan: Plan, part: PartitionPlan, *, cutouts: CutoutsConfig, flags: FlagsConfig) -> IngestTask:
    """Return the task that cuts the objects of `part`, from the part of the plan that it needs."""
    objects = plan.take(part.partition)
    return IngestTask(
        partition=part.partition,
        objects=objects.table,
        object_flags=objects.flags,
        tiles=tuple(plan.tiles[index] for index in part.tiles),
        grids=_grid_tasks(plan, objects),
        store=cutouts.store,
        planes=cutouts.planes,
        resampling=cutouts.resampling,
        flags=flags,
        fingerprint=part.ingest,
        base=plan.base.groups_of(part.partition),
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
    """Return the task that runs the networks on the cutouts of `part` and writes its leaf.

    Parameters
    ----------
    plan : Plan
    part : PartitionPlan
    store, catalog_path : str
        Paths of the cutout store and of the catalog.
    posterior : PosteriorConfig
    device : {"cpu", "cuda"}
        Device that the networks run on.
    """
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
        base=plan.base.leaves_of(part.partition),
    )


def _grid_tasks(plan: Plan, objects: PartitionObjects) -> tuple[GridTask, ...]:
    # An object is cut on a grid only if a network with that grid selects it.
    return tuple(
        GridTask(g.grid, g.bands, np.flatnonzero(objects.needed(g.models)), g.settings) for g in plan.grids
    )


def ingest_partition(task: IngestTask) -> TaskResult:
    """Cut the partition's objects on every grid and commit the groups in the store.

    Raises
    ------
    TileError
        A tile cannot be read.
    OutputError, OSError
        The store cannot be written.
    """
    started = time.monotonic()
    n_taken, notes = 0, list[str]()
    for grid in task.grids:
        stored = growth.stored_cutouts(task, grid)
        ingest.write_partition(
            task.store,
            task.partition,
            grid.grid,
            cut_rows(task, grid, grid.rows, stored=stored),
            planes=task.planes,
            fingerprint=task.fingerprint.as_json(),
        )
        if stored is not None:
            n_taken += int(stored.taken.sum())
            notes += [f"partition {task.partition.name}: {note}" for note in stored.notes]
    n_cutouts = sum(len(grid.rows) for grid in task.grids) - n_taken
    seconds = time.monotonic() - started
    return TaskResult(
        task.partition, len(task.objects), n_cutouts, 0, seconds, notes=tuple(notes), n_taken=n_taken
    )


def cut_rows(
    task: IngestTask,
    grid: GridTask,
    rows: npt.NDArray[np.intp],
    *,
    stored: ingest.BaseCutouts | None = None,
) -> Iterator[CutoutBlock]:
    """Cut the partition's objects at `rows` (cutout,) in blocks of up to 256, but for those that are stored; nothing is written."""
    return ingest.cut_blocks(
        task.objects.take(rows),
        task.tiles,
        spec=CutoutSpec(grid.grid, grid.bands, task.resampling, grid.settings),
        flags=task.flags,
        object_flags=task.object_flags[rows],
        stored=stored,
    )


def infer_partition(task: InferTask) -> TaskResult:
    """Run every network on the partition's cutouts and commit its leaf.

    Raises
    ------
    FingerprintError
        The store's cutouts do not exist or were made with other settings or inputs.
    BundleError
        A bundle cannot be loaded, or its file has changed.
    """
    started = time.monotonic()
    task, notes = _fit_batch(task)
    loaded = [LoadedModel.load(task, model) for model in task.models]
    of_pixels = provenance_columns(tuple(dict.fromkeys(b for grid in task.grids for b in grid.bands)))
    columns = [PIXEL_FLAGS, *of_pixels, *(column for model in loaded for column in model.columns)]
    sampler = dashboard.Sampler(api.thumbnail_png)
    values = _infer_grids(task, loaded, columns, sampler)
    # Before the leaf: a leaf that says its pass outputs were kept has them.
    for model in loaded:
        if model.writer is not None:
            model.writer.finish(task.fingerprint.as_json())
    footer = _footer(task, loaded)
    table = leaf_table(task.objects, columns, values)
    catalog.write_leaf(task.catalog, task.partition, table, footer=footer)
    made = (values[PASSES.name(model.planned.name)][~model.taken] for model in loaded)
    return TaskResult(
        task.partition,
        len(task.objects),
        0,
        sum(int(np.maximum(passes, 0).sum()) for passes in made),
        time.monotonic() - started,
        batch=task.posterior.batch,
        notes=(*notes, *(note for model in loaded for note in model.notes)),
        n_taken=sum(int(model.taken.sum()) for model in loaded),
        flags=dashboard.flag_counts(columns, values),
        samples=sampler.kept(),
    )


def _infer_grids(
    task: InferTask, loaded: Sequence[LoadedModel], columns: Sequence[Column], sampler: dashboard.Sampler
) -> dict[str, npt.NDArray[Any]]:
    """Run the networks on the cutouts of every grid, and return the values of the columns, (object,) each, by name."""
    # Rows that no network takes keep these: null for floats, and flags that say so.
    values = {column.name: column.empty(len(task.objects)) for column in columns}
    flags = values[PIXEL_FLAGS.name] = task.object_flags.copy()
    for grid in task.grids:
        # The next block is read while the networks run on this one.
        on_grid = [model for model in loaded if model.planned.grid == grid.grid]
        with prefetch(_read_cutouts(task, grid, on_grid)) as blocks:
            for rows, cutouts in blocks:
                # An object on two grids gets the flags of both cutouts, and the rest from the larger: grids are sorted by size.
                flags[rows] |= cutouts.flags
                for name, result in provenance(cutouts).items():
                    values[name][rows] = result
                for model in on_grid:
                    for name, result in model.infer(cutouts, rows).items():
                        values[name][rows] = result
                sampler.look(cutouts, rows, columns, values)
    return values


def _footer(task: InferTask, loaded: Sequence[LoadedModel]) -> dict[str, str]:
    return leaf_footer(
        task.fingerprint,
        len(task.objects),
        bundles={model.planned.name: model.planned.sha256 for model in loaded},
        keeps_pass_outputs=task.posterior.keep_pass_outputs,
        audits={model.planned.name: model.audit for model in loaded if model.audit is not None},
    )


def _fit_batch(task: InferTask) -> tuple[InferTask, tuple[str, ...]]:
    """Return the task with a batch that fits into the GPU's memory, and notes for the user; on a CPU the same task."""
    if task.device == "cpu":
        return task, ()
    measured = []
    for model in task.models:
        network, execution = load_network(model.network), execution_of(model.network, task.device)
        measured.append(models.measure_memory(network, execution, task.posterior))
    batch, notes = task.posterior.batch, list[str]()
    # Batches are fitted after all networks have been measured, so that the weights of all are on the GPU.
    for memory in measured:
        batch = models.fitting_batch(memory, models.gpu_memory(), batch=batch, notify=notes.append)
    smaller = task.posterior.model_copy(update={"batch": batch})
    where = f"partition {task.partition.name}"
    return replace(task, posterior=smaller), tuple(f"{where}: {note}" for note in notes)


def _read_cutouts(
    task: InferTask, grid: GridTask, on_grid: Sequence[LoadedModel]
) -> Iterator[tuple[npt.NDArray[np.intp], CutoutBlock]]:
    """Yield the blocks of cutouts on a grid, each with the index of its objects in the partition, (object,) intp.

    Blocks of which all values are in the base come without pixels.
    """
    done = ingest.read_done(task.store, task.partition, grid.grid)
    where = f"{task.store} {task.partition.name} {grid.grid.label}"
    if done is None:
        raise FingerprintError(f"{where}: no cutouts there; run galbatch run --stage ingest first")
    refuse_difference(where, done["fingerprint"], task.ingest_fingerprint)
    # Without objects the store has a group with _done.json but without arrays to read.
    if not len(grid.rows):
        return
    # The store's blocks are those that ingest cut: 256 objects each, in the order of `grid.rows`.
    starts = range(0, len(grid.rows), BLOCK_OBJECTS)
    rows = (grid.rows[start : start + BLOCK_OBJECTS] for start in starts)

    def needs_planes(start: int, cutouts: CutoutBlock) -> bool:
        block = grid.rows[start : start + len(cutouts)]
        return any(model.needs_pixels(cutouts, block) for model in on_grid)

    blocks = ingest.read_blocks(
        task.store,
        task.partition,
        grid.grid,
        needs_planes=None if task.base is None else needs_planes,
    )
    yield from zip(rows, blocks, strict=True)
