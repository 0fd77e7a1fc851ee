"""The plan of a run: its networks, grids and partitions, with projected bytes and fingerprints.

A plan depends on config and inputs alone, never on the number of workers. Objects are read through their source when a
partition is taken; nothing else here does I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from galbatch import storage
from galbatch.config import ModelConfig
from galbatch.core.fingerprint import Fingerprint
from galbatch.core.pixels import Partition
from galbatch.core.types import BLOCK_OBJECTS, Grid, Tile
from galbatch.ingest import PREFETCHED_OBJECTS, blocks_in_memory, bytes_per_object
from galbatch.objects import PartitionObjects, SelectedObjects
from galbatch.planning.projection import GridPlan, Projection

if TYPE_CHECKING:
    from galbatch.models import Ensemble  # loads torch, which planning does without

__all__ = ["GridPlan", "ModelPlan", "PartitionPlan", "Plan"]

PROCESS_BYTES = 400 * 2**20
"""A worker that cuts, without pixels: 230 MiB of libraries without torch, open files, what reprojection takes."""


@dataclass(frozen=True)
class ModelPlan:
    """One network of the run.

    Attributes
    ----------
    name, where : as in ``[[models]]``
    paths, sha256 : the files and identities of its bundles: several are an ensemble
    grid : the cutouts it needs
    bands : survey bands, in the order of the bundle's input
    auxiliary_inputs : its columns of the object list, in the order of the bundle's input
    calibrated : as in ``[[models]]``: whether posteriors are inflated
    inflated : for each bundle whether its posteriors are
    engine : name of the `galbatch.models.Engine` that executes it
    release, background : of the images it was trained on; "" if unknown
    n_selected : objects that `where` selects
    """

    name: str
    where: str | None
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    grid: Grid
    bands: tuple[str, ...]
    auxiliary_inputs: tuple[str, ...] = ()
    calibrated: bool | None = None
    inflated: tuple[bool, ...] = ()
    engine: str = "torchscript-float32"
    release: str = ""
    background: str = ""
    n_selected: int = 0

    @classmethod
    def of(cls, config: ModelConfig, paths: tuple[str, ...], ensemble: Ensemble, *, engine: str) -> ModelPlan:
        """Return the plan of a ``[[models]]`` section from its bundles' paths, the loaded bundles and the name of their engine."""
        trained = ensemble.metadata.input
        return cls(
            config.name,
            config.where,
            paths,
            ensemble.sha256,
            ensemble.grid,
            config.bands or tuple(ensemble.bands),
            auxiliary_inputs=config.auxiliary_inputs
            or tuple(column.name for column in trained.auxiliary_inputs),
            calibrated=config.calibrated,
            inflated=tuple(factors is not None for factors in ensemble.inflation_factors),
            engine=engine,
            release=trained.release,
            background=trained.background,
        )


@dataclass(frozen=True)
class PartitionPlan:
    """One partition: the tiles it needs, the cost of cutting it, and the fingerprints its outputs carry.

    `tiles` are indices into the plan's tiles.
    """

    partition: Partition
    tiles: tuple[int, ...]
    projection: Projection
    ingest: Fingerprint
    leaf: Fingerprint


@dataclass(frozen=True)
class Plan:
    """The whole run, before anything is started.

    Attributes
    ----------
    objects : all objects; those of a partition come from `take`
    oversize : partitions larger than the limits that cannot be divided further
    notes : human-readable lines for the user, before anything is started
    """

    objects: SelectedObjects
    tiles: tuple[Tile, ...]
    models: tuple[ModelPlan, ...]
    grids: tuple[GridPlan, ...]
    partitions: tuple[PartitionPlan, ...]
    oversize: tuple[Partition, ...]
    notes: tuple[str, ...] = ()

    def take(self, partition: Partition) -> PartitionObjects:
        """Return the objects of a partition with their flags and selections."""
        return self.objects.take(partition.start, partition.stop)

    @property
    def rejected(self) -> pa.Table:
        """Rows of the object list that were left out, with the reason."""
        return self.objects.source.rejected

    @cached_property
    def projection(self) -> Projection:
        """The projection of all partitions together."""
        return Projection.sum([part.projection for part in self.partitions], len(self.grids))

    @property
    def read_amplification(self) -> float:
        """The bytes read over the bytes of the cutouts' own pixels in the tiles.

        Below 1 where cutouts overlap on tiles that are read whole.
        """
        window_bytes = self.projection.window_bytes
        return self.projection.read_bytes / window_bytes if window_bytes else 0.0

    def stated(self, what: Literal["release", "background"]) -> list[str]:
        """Return the data releases or background products of the tiles, sorted, without those that are unknown."""
        return sorted({value for tile in self.tiles if (value := getattr(tile, what))})

    @property
    def is_remote(self) -> bool:
        """Whether any tile is read by requests over a network."""
        return any(storage.reads_by_request(tile.image.path) for tile in self.tiles)

    def worker_memory_bytes(self, planes: Sequence[str], *, store: str) -> int:
        """Return the projected memory of a worker, in bytes, while it cuts.

        Blocks with image, mask and variance: the one that is cut, those that wait for a shard to be full, and if
        `store` is on S3 those that are written meanwhile. Beside them `planes`, the stored ones, of a block on
        their way into shards; from S3 the windows of some objects, in bytes as they come; and the process itself.
        """
        prefetched = PREFETCHED_OBJECTS if self.is_remote else 0

        def grid_bytes(plan: GridPlan) -> int:
            of_object = bytes_per_object(plan.grid, plan.bands, ("image", "mask", "variance"))
            blocks = blocks_in_memory(store, plan.grid, plan.bands) * BLOCK_OBJECTS * of_object
            shards = BLOCK_OBJECTS * bytes_per_object(plan.grid, plan.bands, planes)
            return blocks + shards + prefetched * of_object

        return PROCESS_BYTES + max(grid_bytes(plan) for plan in self.grids)
