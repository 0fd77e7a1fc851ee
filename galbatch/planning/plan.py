"""Objects, tile footprints and config -> partitions with projected bytes. No I/O.

The plan divides the sky into HEALPix pixels of adaptive order, says which tiles and grids each one needs,
and fixes the fingerprints by which outputs are known again. It depends on config and inputs alone, never on
the number of workers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import storage
from galbatch.config import ModelConfig, RunConfig
from galbatch.core.fingerprint import Fingerprint, digest
from galbatch.core.pixels import HealpixPixel, Partition
from galbatch.core.types import BLOCK_OBJECTS, Grid, Tile
from galbatch.errors import ConfigError
from galbatch.ingest import (
    INGEST_VERSION,
    PREFETCHED_OBJECTS,
    Footprint,
    blocks_in_memory,
    bytes_per_object,
)
from galbatch.models import INFER_VERSION
from galbatch.objects import ObjectSource, PartitionObjects, SelectedObjects
from galbatch.planning.projection import GridPlan, Projection, Projector

if TYPE_CHECKING:
    from galbatch.models import Ensemble  # loads torch, which planning does without

__all__ = [
    "ENGINE_OF",
    "MAX_HEALPIX_ORDER",
    "GridPlan",
    "ModelPlan",
    "PartitionPlan",
    "Plan",
    "divide",
    "make_plan",
]

ENGINE_OF = "engine of "
"""What the parts of a leaf's fingerprint begin with that name the engine of a network."""

BytesOf = Callable[[int, int], int]

MAX_HEALPIX_ORDER = 13
"""A pixel of this order is never split: 26 arcsec across, smaller than the field of two cutouts."""

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
        """From a ``[[models]]`` section, its bundles' paths, the loaded bundles and what executes them."""
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
    """What one partition needs, and the fingerprints its outputs carry.

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
    notes : what the user should know before starting
    """

    objects: SelectedObjects
    tiles: tuple[Tile, ...]
    models: tuple[ModelPlan, ...]
    grids: tuple[GridPlan, ...]
    partitions: tuple[PartitionPlan, ...]
    oversize: tuple[Partition, ...]
    notes: tuple[str, ...] = ()

    def take(self, partition: Partition) -> PartitionObjects:
        """The objects of a partition with their flags and selections."""
        return self.objects.take(partition.start, partition.stop)

    @property
    def rejected(self) -> pa.Table:
        """Rows of the object list that were left out, with the reason."""
        return self.objects.source.rejected

    @cached_property
    def projection(self) -> Projection:
        """What all partitions take together."""
        return Projection.sum([part.projection for part in self.partitions], len(self.grids))

    @property
    def read_amplification(self) -> float:
        """Bytes read over the bytes of the cutouts' own pixels in the tiles.

        Below 1 where cutouts overlap on tiles that are read whole.
        """
        window_bytes = self.projection.window_bytes
        return self.projection.read_bytes / window_bytes if window_bytes else 0.0

    def stated(self, what: Literal["release", "background"]) -> list[str]:
        """Data releases or background products of the tiles, without those that are not known."""
        return sorted({value for tile in self.tiles if (value := getattr(tile, what))})

    @property
    def is_remote(self) -> bool:
        """Whether any tile is read by requests over a network."""
        return any(storage.reads_by_request(tile.image.path) for tile in self.tiles)

    def worker_memory_bytes(self, planes: Sequence[str], *, store: str) -> int:
        """Projected memory of a worker while it cuts.

        Blocks with image, mask and variance: the one that is cut, those that wait for a shard to be full, and if
        `store` is on S3 those that are written meanwhile. Beside them `planes`, the stored ones, of a block on
        their way into shards; from S3 the windows of some objects, in bytes as they come; and the process itself.
        """
        prefetched = PREFETCHED_OBJECTS if self.is_remote else 0
        return PROCESS_BYTES + max(_grid_memory_bytes(grid, planes, store, prefetched) for grid in self.grids)


def _grid_memory_bytes(grid: GridPlan, planes: Sequence[str], store: str, prefetched: int) -> int:
    of_object = bytes_per_object(grid.grid, grid.bands, ("image", "mask", "variance"))
    blocks = blocks_in_memory(store, grid.grid, grid.bands) * BLOCK_OBJECTS * of_object
    shards = BLOCK_OBJECTS * bytes_per_object(grid.grid, grid.bands, planes)
    return blocks + shards + prefetched * of_object


@dataclass(frozen=True)
class _Limits:
    objects: int
    bytes_: int


def divide(
    healpix_29: npt.NDArray[np.int64],
    *,
    max_objects: int,
    max_bytes: int,
    bytes_of: BytesOf | None = None,
) -> list[Partition]:
    """Divide sorted objects into HEALPix pixels of adaptive order.

    A pixel is split while it holds more than `max_objects` objects or needs more than `max_bytes`, down to
    order 13 or a single object.

    Parameters
    ----------
    healpix_29 : (object,) int64, sorted, order 29 NESTED
    bytes_of : bytes that the objects `start` to `stop` read plus write; None counts none

    Returns
    -------
    Partitions in HEALPix order; together they hold each object exactly once.
    """

    def rank(index: int) -> int:
        return int(np.searchsorted(healpix_29, index))

    return _divide(rank, _Limits(max_objects, max_bytes), bytes_of)


def _divide(rank: Callable[[int], int], limits: _Limits, bytes_of: BytesOf | None) -> list[Partition]:
    """As `divide`, where `rank` says how many objects come before an index of order 29."""
    result: list[Partition] = []
    pending = _partitions(0, range(12), rank)[::-1]
    while pending:
        partition = pending.pop()
        if partition.n_objects == 0:
            continue
        if _is_small(partition, limits, bytes_of) or partition.healpix_order == MAX_HEALPIX_ORDER:
            result.append(partition)
        else:
            children = range(4 * partition.healpix_pixel, 4 * partition.healpix_pixel + 4)
            pending.extend(_partitions(partition.healpix_order + 1, children, rank)[::-1])
    return result


def _partitions(healpix_order: int, pixels: range, rank: Callable[[int], int]) -> list[Partition]:
    """Neighboring pixels of one order."""
    bounds = [rank(HealpixPixel(healpix_order, pixel).index_range[0]) for pixel in (*pixels, pixels.stop)]
    return [
        Partition(healpix_order, pixel, start, stop)
        for pixel, (start, stop) in zip(pixels, pairwise(bounds), strict=True)
    ]


def _is_small(partition: Partition, limits: _Limits, bytes_of: BytesOf | None) -> bool:
    if partition.n_objects == 1:
        return True
    if partition.n_objects > limits.objects:
        return False
    return bytes_of is None or bytes_of(partition.start, partition.stop) <= limits.bytes_


def make_plan(
    config: RunConfig, source: ObjectSource, tiles: Sequence[Tile], models: Sequence[ModelPlan]
) -> Plan:
    """Plan the run.

    Parameters
    ----------
    tiles : all tiles of the surveys, whatever their band
    models : the networks, in the order of ``[[models]]``

    Raises
    ------
    ConfigError
        No network selects any object.
    """
    planner = _Planner(config, source, tiles, models)
    partitions = [planner.plan(partition) for partition in planner.divide()]
    oversize = tuple(part.partition for part in partitions if planner.is_oversize(part))
    return Plan(
        planner.objects,
        planner.tiles,
        planner.models,
        planner.grids,
        tuple(partitions),
        oversize,
        tuple(planner.notes()),
    )


def _grids(models: Sequence[ModelPlan]) -> list[GridPlan]:
    """One entry a distinct grid: union of the bands in order of first use."""
    result = []
    for grid in sorted({model.grid for model in models}):
        sharing = tuple(number for number, model in enumerate(models) if model.grid == grid)
        bands = tuple(dict.fromkeys(band for number in sharing for band in models[number].bands))
        result.append(GridPlan(grid, bands, sharing))
    return result


class _Planner:
    """Holds what each partition's plan is made from, so that it is worked out once."""

    def __init__(
        self,
        config: RunConfig,
        source: ObjectSource,
        tiles: Sequence[Tile],
        models: Sequence[ModelPlan],
    ) -> None:
        self.config = config
        self.objects = SelectedObjects(source, [model.where for model in models], config.flags)
        grids = _grids(models)
        used = {band for grid in grids for band in grid.bands}
        self.tiles = tuple(tile for tile in tiles if tile.band in used)
        surveys = [[tile for tile in self.tiles if tile.band in survey.run_bands] for survey in config.survey]
        self._footprint = Footprint(self.tiles)
        self._projector = Projector(self.objects, surveys, grids, planes=config.cutouts.planes)
        self.models = tuple(
            dataclasses.replace(model, n_selected=int(n))
            for model, n in zip(models, self._projector.n_selected, strict=True)
        )
        whole = self._projector.project(0, len(self.objects))
        self.grids = tuple(
            dataclasses.replace(grid, n_cutouts=n) for grid, n in zip(grids, whole.n_cutouts, strict=True)
        )
        if not any(whole.n_cutouts):
            raise ConfigError(_nothing_selected(self.models, len(self.objects)))
        self._radius_deg = max(grid.grid.half_diagonal_deg for grid in grids)
        self._limits = _Limits(config.plan.max_objects_per_partition, config.plan.max_bytes_per_partition)
        self._common_ingest = self._common_ingest_parts()
        self._common_infer = self._common_infer_parts()

    def divide(self) -> list[Partition]:
        def bytes_of(start: int, stop: int) -> int:
            return self._projector.project(start, stop).total_bytes

        return _divide(self.objects.rank, self._limits, bytes_of)

    def is_oversize(self, part: PartitionPlan) -> bool:
        return (
            part.partition.n_objects > self._limits.objects
            or part.projection.total_bytes > self._limits.bytes_
        )

    def plan(self, partition: Partition) -> PartitionPlan:
        objects = self.objects.take(partition.start, partition.stop)
        near = tuple(self._footprint.near(objects.table, radius_deg=self._radius_deg))
        ingest = Fingerprint({**self._common_ingest, **self._partition_parts(partition, objects, near)})
        leaf = Fingerprint(
            {
                **ingest.parts,
                **self._common_infer,
                "kept columns": digest(objects.table.kept),
                "columns fed": digest([[n, digest(v)] for n, v in sorted(objects.table.inputs.items())]),
                "selected objects": digest([digest(selected) for selected in objects.selected]),
            }
        )
        projection = self._projector.project(partition.start, partition.stop)
        return PartitionPlan(partition, near, projection, ingest, leaf)

    def notes(self) -> Iterator[str]:
        """What the user should know before starting."""
        if n_outside := self._projector.n_outside:
            yield (
                f"outside every tile: {n_outside} of {len(self.objects)} objects; they stay in the catalog without "
                "values, with the flag OUTSIDE_FOOTPRINT"
            )
        for model in self.models:
            if not model.n_selected:
                yield f"[[models]] {model.name}: where = {model.where!r} selects no object"
            yield from _differences(model, self.tiles)

    def _common_ingest_parts(self) -> dict[str, str]:
        surveys = [survey.model_dump(exclude={"tiles"}) for survey in self.config.survey]
        return {
            "INGEST_VERSION": str(INGEST_VERSION),
            "survey": json.dumps(surveys, sort_keys=True),
            "grids": ", ".join(f"{g.grid.label} {'+'.join(g.bands)}" for g in self.grids),
            "planes": " ".join(self.config.cutouts.planes),
            "flag thresholds": json.dumps(self.config.flags.model_dump(), sort_keys=True),
        }

    def _common_infer_parts(self) -> dict[str, str]:
        # What is asked of the engine is not what it is: that follows below for each network.
        unused = set() if self.config.posterior.passes == "adaptive" else {"min_passes", "max_passes"}
        posterior = self.config.posterior.model_dump(
            exclude={"engine", "precision", "keep_pass_outputs"} | unused
        )
        parts = {"INFER_VERSION": str(INFER_VERSION), "posterior": json.dumps(posterior, sort_keys=True)}
        parts["models"] = " ".join(model.name for model in self.models)
        for model in self.models:
            parts[f"bundle {model.name}"] = ", ".join(model.sha256)
            parts[f"{ENGINE_OF}{model.name}"] = model.engine
            parts[f"bands of {model.name}"] = "+".join(model.bands)
            parts[f"auxiliary inputs of {model.name}"] = "+".join(model.auxiliary_inputs)
            parts[f"calibration of {model.name}"] = ", ".join(
                "applied" if applied else "not applied" for applied in model.inflated
            )
        return parts

    def _partition_parts(
        self, partition: Partition, objects: PartitionObjects, near: tuple[int, ...]
    ) -> dict[str, str]:
        table = objects.table
        columns = (table.object_id, table.ra_deg, table.dec_deg, objects.flags)
        needed = [digest(objects.needed(grid.models)) for grid in self.grids]
        psf = [[band, digest(width)] for band, width in sorted(table.psf_fwhm_arcsec.items())]
        tiles = [_tile_parts(self.tiles[index]) for index in near]
        return {
            "division": f"{partition.name} of {partition.n_objects} objects",
            "objects": digest([*map(digest, columns), *needed, *psf]),
            "tiles": digest(sorted(tiles, key=str)),
        }


def _tile_parts(tile: Tile) -> list[object]:
    """What the cutouts owe to a tile: its files, and what a table of tiles may state beside them."""
    identity = tile.identity and [tile.identity.size_bytes, tile.identity.version]
    return [tile.tile_id, tile.band, identity, tile.njy_per_unit, tile.psf_fwhm_arcsec]


def _nothing_selected(models: Sequence[ModelPlan], n_objects: int) -> str:
    wheres = "; ".join(f"[[models]] {model.name}: where = {model.where!r}" for model in models)
    return f"run.toml: no network is for any of the {n_objects} objects: {wheres}"


def _differences(model: ModelPlan, tiles: Sequence[Tile]) -> Iterator[str]:
    """Where the tiles' data release or background is known to differ from what the network was trained on."""
    for what in ("release", "background"):
        trained = getattr(model, what)
        bands_of: dict[str, list[str]] = {}
        for tile in tiles:
            found = getattr(tile, what)
            if tile.band in model.bands and found and trained and _kind(found) != _kind(trained):
                bands_of.setdefault(found, []).append(tile.band)
        for found, bands in sorted(bands_of.items()):
            in_order = ", ".join(band for band in model.bands if band in bands)
            yield (
                f"[[models]] {model.name} was trained on {what} {trained!r}; the tiles in {in_order} are of "
                f"{found!r}"
            )


def _kind(text: str) -> str:
    """What is compared of "global sky: meshes of 8000 px" and "Global sky": the words before the colon."""
    return text.partition(":")[0].strip().casefold()
