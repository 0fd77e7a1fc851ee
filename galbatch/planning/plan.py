"""The plan of a run: its networks, grids and partitions, with projected bytes and fingerprints.

A plan depends on config and inputs alone, not on the number of workers. The objects of a partition are read when they are
asked for; nothing else here does I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from galbatch import storage
from galbatch.config import DensityGrid, FlagsConfig, ModelConfig, PhotometryConfig
from galbatch.core.columns import case_of_network, model_of_network
from galbatch.core.fingerprint import Fingerprint
from galbatch.core.pixels import HealpixPixel, Partition
from galbatch.core.types import BLOCK_OBJECTS, Grid, Tile, ab_mag
from galbatch.ingest import PREFETCHED_OBJECTS, AddedLight, blocks_in_memory, bytes_per_object
from galbatch.objects import PartitionObjects, SelectedObjects
from galbatch.planning.base import Base
from galbatch.planning.projection import GridPlan, Projection, grid_text

if TYPE_CHECKING:
    from galbatch.models import EnsembleInfo, ParameterInfo  # loads torch, which planning does without

__all__ = ["GridPlan", "ModelPlan", "PartitionPlan", "Plan"]

PROCESS_BYTES = 400 * 2**20
"""Memory of a worker that cuts, without pixels: 230 MiB of libraries (without torch), open files, and resampling."""


@dataclass(frozen=True)
class ModelPlan:
    """One network of a run.

    Attributes
    ----------
    name : the network's name: that in ``[[models]]``, with that of a case after a dot
    where, calibrated : the values in ``[[models]]`` or its case
    paths, sha256 : path and sha256 of each of its bundles; several bundles are an ensemble
    grid : size and pixel scale of its cutouts; None for a network that takes no pixels
    bands : survey bands that it takes, in the order of the bundle's input
    auxiliary_inputs : columns of the object list that it takes, in the order of the bundle's input
    inflated : for each bundle, whether its posteriors are inflated; follows from `calibrated` and the bundle
    stopping : digest of the stopping calibration of each bundle by which objects stop; empty if they stop by the allowance for
        undetected jumps, or have a fixed number of passes
    opinion : digest of the second opinion that is shipped beside its first bundle; "" if the bundle's file holds it, or there is none
    embedding_dtype : type of the column of the network's last features; None: there is none
    densities : grids on which densities of parameters are columns
    more_grids : further grids of a network that takes several, each with its number of bands, which are the last of `bands`
    engine : name of the `galbatch.models.Engine` that runs it; "": it is still to be chosen
    release, background : data release and background product of the images it was trained on; "" if unknown
    citation : what to cite for the network; "" if the bundle states nothing
    trained : smallest and largest value of each quantity in training, by its name; quantities without a stated range are not there
    prior : human-readable text on whose prior its posteriors are under
    max_missing_share : largest share of a band's pixels that may be missing where an object gets values
    settings : digest of all that its values depend on beside pixels and auxiliary inputs
    n_selected : number of objects that `where` selects
    n_covered : number of those that a tile covers: the others have no pixels, and no passes of a network that takes pixels
    """

    name: str
    where: str | None
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    grid: Grid | None
    bands: tuple[str, ...]
    auxiliary_inputs: tuple[str, ...] = ()
    calibrated: bool | None = None
    inflated: tuple[bool, ...] = ()
    stopping: tuple[str, ...] = ()
    opinion: str = ""
    embedding_dtype: Literal["float16", "float32"] | None = None
    densities: tuple[DensityGrid, ...] = ()
    more_grids: tuple[tuple[Grid, int], ...] = ()
    engine: str = "torchscript-float32"
    release: str = ""
    background: str = ""
    citation: str = ""
    trained: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    prior: str = ""
    max_missing_share: float = 1.0
    settings: str = ""
    n_selected: int = 0
    n_covered: int = 0

    @property
    def model(self) -> str:
        """Name of the model, with which the names of its columns begin."""
        return model_of_network(self.name)

    @property
    def case(self) -> str:
        """Name of the case; "" for a model without cases."""
        return case_of_network(self.name)

    @property
    def inputs(self) -> tuple[tuple[Grid, tuple[str, ...]], ...]:
        """Each grid of its cutouts, with the bands that it takes there; none for a network that takes no pixels."""
        if self.grid is None:
            return ()
        start = len(self.bands) - sum(n for _, n in self.more_grids)
        found = [(self.grid, self.bands[:start])]
        for grid, n_bands in self.more_grids:
            found.append((grid, self.bands[start : start + n_bands]))
            start += n_bands
        return tuple(found)

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        paths: tuple[str, ...],
        ensemble: EnsembleInfo,
        *,
        engine: str,
        stopping: tuple[str, ...] = (),
    ) -> ModelPlan:
        """Return the plan of a ``[[models]]`` section, made with the paths of its bundles, the loaded bundles and their engine."""
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
            stopping=stopping,
            opinion=ensemble.opinion,
            embedding_dtype=ensemble.embedding_dtype,
            densities=ensemble.densities,
            more_grids=tuple((one.grid, len(one.bands)) for one in trained.more_grids),
            engine=engine,
            release=trained.release,
            background=trained.background,
            citation=ensemble.metadata.citation,
            trained=dict(_trained_ranges(ensemble.metadata.parameters)),
            prior="; ".join(dict.fromkeys(ensemble.priors)),
        )


def _trained_ranges(parameters: Sequence[ParameterInfo]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield name and range in training of each parameter that states one, and of the magnitude that is derived from it."""
    for one in parameters:
        if one.training_range is None:
            continue
        low, high = one.training_range
        yield one.name, (low, high)
        if one.magnitude is not None and low > 0:
            yield one.magnitude, (float(ab_mag(high)), float(ab_mag(low)))


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One partition of a plan.

    Attributes
    ----------
    tiles : index into the plan's tiles of each tile that the partition's cutouts may touch
    projection : the cost of cutting it
    ingest, leaf : fingerprints of its cutouts and of its leaf
    photometry : fingerprint of the photometry of its cutouts; None: none is made
    """

    partition: Partition
    tiles: tuple[int, ...]
    projection: Projection
    ingest: Fingerprint
    leaf: Fingerprint
    photometry: Fingerprint | None = None


@dataclass(frozen=True)
class Plan:
    """The plan of a whole run.

    Attributes
    ----------
    objects : all objects; `take` returns those of a partition
    tiles : the tiles in bands that any network takes
    models, grids, partitions : the parts of the plan
    oversize : partitions above the limits of ``[plan]`` that cannot be divided further
    notes : human-readable lines for the user, to be shown before the run starts
    base : older outputs from which cutouts and values are taken
    photometry : what is measured in the cutouts; None: nothing
    flags : thresholds of the flags
    a_b : extinction in mag per unit E(B-V) by band; empty: magnitudes are not dereddened
    light : light that is added to the objects' cutouts; None: none
    """

    objects: SelectedObjects
    tiles: tuple[Tile, ...]
    models: tuple[ModelPlan, ...]
    grids: tuple[GridPlan, ...]
    partitions: tuple[PartitionPlan, ...]
    oversize: tuple[Partition, ...]
    notes: tuple[str, ...] = ()
    base: Base = field(default_factory=Base)
    photometry: PhotometryConfig | None = None
    flags: FlagsConfig = field(default_factory=FlagsConfig)
    a_b: Mapping[str, float] = field(default_factory=dict)
    light: AddedLight | None = None

    @property
    def has_engines(self) -> bool:
        """Whether the engines of all networks are chosen, so that the fingerprints of leaves are known."""
        return all(model.engine for model in self.models)

    @cached_property
    def by_pixel(self) -> Mapping[HealpixPixel, PartitionPlan]:
        """The partitions by their HEALPix pixel."""
        return {part.partition.pixel: part for part in self.partitions}

    def take(self, partition: Partition) -> PartitionObjects:
        """Return the objects of a partition, with their flags and the networks that select them."""
        return self.objects.take(partition.start, partition.stop)

    @property
    def grids_text(self) -> str:
        """The grids of the store and the bands of each, as the fingerprint of cutouts has them."""
        return ", ".join(grid_text(one.grid, one.bands) for one in self.grids)

    @property
    def rejected(self) -> pa.Table:
        """The rows of the object list that were left out, with the reason for each."""
        return self.objects.source.rejected

    @cached_property
    def projection(self) -> Projection:
        """The projection of all partitions together."""
        return Projection.sum([part.projection for part in self.partitions], len(self.grids))

    @property
    def read_amplification(self) -> float:
        """The bytes read from tiles, divided by the bytes of the cutouts' own pixels in the tiles.

        It is below 1 where cutouts overlap on tiles that are read whole; 0 if nothing is cut.
        """
        window_bytes = self.projection.window_bytes
        return self.projection.read_bytes / window_bytes if window_bytes else 0.0

    def tile_labels(self, what: Literal["release", "background"]) -> list[str]:
        """Return the data releases or background products of the tiles, sorted, without those that are unknown."""
        return sorted({value for tile in self.tiles if (value := getattr(tile, what))})

    @property
    def is_remote(self) -> bool:
        """Whether any tile is read by requests over a network."""
        return any(storage.reads_by_request(tile.image.path) for tile in self.tiles)

    def worker_memory_bytes(self, planes: Sequence[str], *, store: str) -> int:
        """Return the projected memory of a worker that cuts, in bytes.

        Parameters
        ----------
        planes : sequence of str
            The planes that are stored.
        store : str
            Path of the cutout store: on S3, blocks are written while the next ones are cut.
        """
        # Windows of these objects are fetched ahead from S3.
        prefetched = PREFETCHED_OBJECTS if self.is_remote else 0

        def grid_bytes(plan: GridPlan) -> int:
            of_object = bytes_per_object(plan.grid, plan.bands, ("image", "mask", "variance"))
            # Blocks being cut, waiting for a full shard, or being written, with all three planes.
            blocks = blocks_in_memory(store, plan.grid, plan.bands) * BLOCK_OBJECTS * of_object
            # The stored planes of a block while they are encoded.
            shards = BLOCK_OBJECTS * bytes_per_object(plan.grid, plan.bands, planes)
            return blocks + shards + prefetched * of_object

        # Grids are cut one after the other.
        return PROCESS_BYTES + max((grid_bytes(plan) for plan in self.grids), default=0)
