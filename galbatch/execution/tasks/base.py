"""The tasks of a partition: all that a worker needs to cut its objects, to measure their cutouts, or to infer; and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from galbatch.config import CutoutsConfig, FlagsConfig, PhotometryConfig, PosteriorConfig
from galbatch.core.fingerprint import Fingerprint
from galbatch.core.pixels import OlderOutput, Partition
from galbatch.core.types import Grid, ObjectTable, Resampling, Tile

if TYPE_CHECKING:
    # Tasks are made from these, in another process: a worker that only cuts loads none of them.
    from galbatch import dashboard, ingest
    from galbatch.objects import PartitionObjects
    from galbatch.planning import ModelPlan, PartitionPlan, Plan

__all__ = [
    "GridTask",
    "InferTask",
    "IngestTask",
    "ModelTask",
    "PhotometryTask",
    "TaskResult",
    "infer_task",
    "ingest_task",
    "photometry_task",
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
    light : light that is added to the cutouts; None: none
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
    light: ingest.AddedLight | None = None


@dataclass(frozen=True)
class PhotometryTask:
    """Everything that is needed to measure the cutouts of one partition.

    Attributes
    ----------
    n_objects : number of objects of the partition
    ingest_fingerprint : fingerprint that the cutouts in the store must have
    fingerprint : fingerprint of the photometry
    """

    partition: Partition
    n_objects: int
    grids: tuple[GridTask, ...]
    store: str
    settings: PhotometryConfig
    ingest_fingerprint: Fingerprint
    fingerprint: Fingerprint


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
    photometry : fingerprint that the photometry in the store must have; None: the leaf has none
    flags : thresholds of the flags that follow from it
    base : leaves of an older catalog from which values are taken
    a_b : extinction in mag per unit E(B-V) by band, where magnitudes are dereddened
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
    a_b: Mapping[str, float] = field(default_factory=dict)
    photometry: Fingerprint | None = None
    flags: FlagsConfig = field(default_factory=FlagsConfig)


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
        light=None if plan.light is None else plan.light.of(objects.table.object_id),
    )


def photometry_task(plan: Plan, part: PartitionPlan, *, store: str) -> PhotometryTask:
    """Return the task that measures the cutouts of `part`; the plan has photometry."""
    assert part.photometry is not None, "no task is made where [photometry] is off"
    assert plan.photometry is not None
    objects = plan.take(part.partition)
    return PhotometryTask(
        partition=part.partition,
        n_objects=len(objects.table),
        grids=_grid_tasks(plan, objects),
        store=store,
        settings=plan.photometry,
        ingest_fingerprint=part.ingest,
        fingerprint=part.photometry,
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
        a_b=plan.a_b,
        photometry=part.photometry,
        flags=plan.flags,
    )


def _grid_tasks(plan: Plan, objects: PartitionObjects) -> tuple[GridTask, ...]:
    # An object is cut on a grid only if [cutouts] states the grid, or a network with that grid selects the object.
    return tuple(
        GridTask(g.grid, g.bands, np.flatnonzero(g.needed(objects.selected)), g.settings) for g in plan.grids
    )
