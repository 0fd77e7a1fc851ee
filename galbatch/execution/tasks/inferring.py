"""The last step of a partition: the networks run on its cutouts, and its leaf is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import api, catalog, dashboard, ingest, models
from galbatch.core.columns import PASSES, PIXEL_FLAGS, Column, photometry_columns, provenance_columns
from galbatch.core.fingerprint import refuse_difference
from galbatch.core.prefetch import prefetch
from galbatch.core.types import BLOCK_OBJECTS, CutoutBlock
from galbatch.errors import BundleError, FingerprintError
from galbatch.execution.leaf import leaf_footer, leaf_table, provenance
from galbatch.execution.networks import LoadedModel, execution_of, load_network, model_columns, require_engine
from galbatch.execution.tasks.base import GridTask, InferTask, TaskResult
from galbatch.execution.tasks.reading import read_cutouts
from galbatch.objects import EBV
from galbatch.photometry import photometry_flags

__all__ = ["infer_partition", "missing_engine"]


def missing_engine(task: InferTask) -> str | None:
    """Return which engine of the task's networks this process cannot provide, and why; None if it has all.

    Raises
    ------
    BundleError
        A bundle cannot be read.
    """
    for model in task.models:
        network, execution = load_network(model.network), execution_of(model.network, task.device)
        try:
            require_engine(network, execution)
        except BundleError as error:
            return f"the engine {model.network.engine} of {model.network.name} on {task.device}: {error}"
    return None


def infer_partition(task: InferTask) -> TaskResult:
    """Run every network on the partition's cutouts and commit its leaf.

    Raises
    ------
    FingerprintError
        The store's cutouts do not exist or were made with other settings or inputs.
    BundleError
        A bundle cannot be loaded, or its file has changed.
    """
    with dashboard.TaskCounts() as counts:
        result = _infer(task, counts)
        counts.finished(galaxies=result.n_objects, passes=result.n_passes)
    return result


def _infer(task: InferTask, counts: dashboard.TaskCounts) -> TaskResult:
    """Do as `infer_partition`; what has been inferred so far is added to `counts`."""
    started = time.monotonic()
    task, notes = _fit_batch(task)
    loaded = [LoadedModel.load(task, model, ran=_counted_in(counts, task)) for model in task.models]
    bands = tuple(dict.fromkeys(band for grid in task.grids for band in grid.bands))
    of_pixels = [
        *(provenance_columns(bands) if task.grids else ()),
        *(photometry_columns(bands) if task.photometry else ()),
    ]
    planned, ensembles = [model.planned for model in loaded], [model.ensemble for model in loaded]
    of_models = model_columns(planned, ensembles, quantiles=task.posterior.quantiles, a_b=task.a_b)
    columns = [PIXEL_FLAGS, *of_pixels, *of_models]
    sampler = dashboard.Sampler(api.thumbnail_png)
    values = _infer_grids(task, loaded, columns, sampler)
    for model in (model for model in loaded if len(model.planned.inputs) != 1):
        _infer_elsewhere(task, model, values)
    for model in loaded:
        if task.a_b:
            model.deredden(values, task.objects.kept.column(EBV).to_numpy())
        model.compare(values)
        # Before the leaf: a leaf that says its pass outputs were kept has them.
        if model.writer is not None:
            model.writer.finish(task.fingerprint.as_json())
    footer = _footer(task, loaded)
    table = leaf_table(task.objects, columns, values)
    catalog.write_leaf(task.catalog, task.partition, table, footer=footer)
    made = (values[PASSES.name(model.planned.model)][model.selected & ~model.taken] for model in loaded)
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


def _counted_in(counts: dashboard.TaskCounts, task: InferTask) -> Callable[[int, int], None]:
    """Return a function that takes the numbers of objects that a network has run, and of their passes, and counts them as under way."""
    # Every network does its part of each galaxy.
    n_asked = sum(int(np.count_nonzero(model.selected)) for model in task.models)

    def ran(n_objects: int, n_passes: int) -> None:
        counts.add(galaxies=n_objects * len(task.objects) / n_asked, passes=n_passes)

    return ran


def _infer_grids(
    task: InferTask, loaded: Sequence[LoadedModel], columns: Sequence[Column], sampler: dashboard.Sampler
) -> dict[str, npt.NDArray[Any]]:
    """Run the networks on the cutouts of every grid, and return the values of the columns, (object,) each, by name."""
    # Rows that no network takes keep these: null for floats, and flags that say so.
    values = {column.name: column.empty(len(task.objects)) for column in columns}
    flags = values[PIXEL_FLAGS.name] = task.object_flags.copy()
    for grid in task.grids:
        # The next block is read while the networks run on this one.
        on_grid = [model for model in loaded if [one for one, _ in model.planned.inputs] == [grid.grid]]
        measured = _photometry(task, grid)
        for name, result in measured.items():
            values[name][grid.rows] = result

        def needs_planes(
            cutouts: CutoutBlock, rows: npt.NDArray[np.intp], on_grid: Sequence[LoadedModel] = on_grid
        ) -> bool:
            return any(model.needs_pixels(cutouts, rows) for model in on_grid)

        reading = read_cutouts(
            task.store,
            task.partition,
            grid,
            fingerprint=task.ingest_fingerprint,
            needs_planes=None if task.base is None else needs_planes,
        )
        with prefetch(reading) as blocks:
            for rows, cutouts in blocks:
                # An object on two grids gets the flags of both cutouts, and the rest from the larger: grids are sorted by size.
                flags[rows] |= cutouts.flags
                if measured:
                    flags[rows] |= photometry_flags(
                        {name: values[name][rows] for name in measured},
                        cutouts,
                        thresholds=task.flags,
                    )
                for name, result in provenance(cutouts).items():
                    values[name][rows] = result
                for model in on_grid:
                    model.fill(values, [cutouts], rows)
                sampler.look(cutouts, rows, columns, values)
    return values


def _infer_elsewhere(task: InferTask, model: LoadedModel, values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Run a network that takes several grids, or columns alone, and fill in its values."""
    for rows, blocks in _blocks_of_grids(task, model):
        model.fill(values, blocks, rows)


def _blocks_of_grids(
    task: InferTask, model: LoadedModel
) -> Iterator[tuple[npt.NDArray[np.intp], list[CutoutBlock]]]:
    """Yield blocks of a network that takes several grids or none: the index of the objects in the partition, and their cutouts on each grid.

    Of a network without grids all objects of the partition come, else those that it selects.
    """
    inputs = model.planned.inputs
    rows = np.flatnonzero(model.selected) if inputs else np.arange(len(task.objects))
    stored = {grid.grid: grid for grid in task.grids}
    # Without objects a group has no arrays to read.
    readers = [ingest.CutoutReader(task.store, task.partition, grid) for grid, _ in inputs if len(rows)]
    for start in range(0, len(rows), BLOCK_OBJECTS):
        some = rows[start : start + BLOCK_OBJECTS]
        blocks = []
        for (grid, _), reader in zip(inputs, readers, strict=True):
            # Other networks on the grid may have more objects there: they lie between.
            at = np.searchsorted(stored[grid].rows, some)
            block = reader.block(int(at[0]), int(at[-1]) + 1)
            blocks.append(block if len(block) == len(some) else block.take(at - at[0]))
        yield some, blocks


def _photometry(task: InferTask, grid: GridTask) -> dict[str, npt.NDArray[Any]]:
    """Return the photometry columns of the cutouts on a grid, (cutout,) each, by name; none where the run has no photometry."""
    if task.photometry is None:
        return {}
    where = f"{task.store} {task.partition.name} {grid.grid.label} photometry"
    done = ingest.read_photometry_done(task.store, task.partition, grid.grid)
    if done is None:
        raise FingerprintError(f"{where}: not there; run galbatch run --stage photometry first")
    refuse_difference(where, done["fingerprint"], task.photometry)
    return ingest.read_photometry(task.store, task.partition, grid.grid)


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
