"""Objects, tile footprints and config -> partitions with projected bytes. No I/O.

The plan divides the sky into HEALPix pixels of adaptive order, says which tiles and grids each one needs,
and fixes the fingerprints by which outputs are known again. It depends on config and inputs alone, never on
the number of workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galbatch import sky
from galbatch.config import FlagsConfig, ModelConfig, RunConfig
from galbatch.errors import FingerprintError
from galbatch.ingest import INGEST_VERSION, bytes_per_object, tiles_near
from galbatch.models import INFER_VERSION, Bundle
from galbatch.types import BLOCK_OBJECTS, Grid, ObjectTable, Partition, PixelFlag, Tile

__all__ = [
    "ENGINE",
    "MAX_HEALPIX_ORDER",
    "Fingerprint",
    "GridPlan",
    "ModelPlan",
    "PartitionPlan",
    "Plan",
    "divide",
    "make_plan",
    "object_flags",
    "refuse_difference",
]

MAX_HEALPIX_ORDER = 13
"""A pixel of this order is never split: 26 arcsec across, smaller than the field of two cutouts."""

ENGINE = "torchscript-float32"
"""How networks are executed; the only engine of this version."""


@dataclass(frozen=True)
class Fingerprint:
    """What an output depends on, part by part, so that a refusal can say what differs."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """sha256 of the parts, in hexadecimal."""
        return digest(dict(self.parts))

    def as_json(self) -> dict[str, Any]:
        """The form that is stored in ``_done.json`` and, as text, in a leaf's footer."""
        return {"digest": self.digest, "parts": dict(self.parts)}


def digest(value: Any) -> str:
    """sha256 of a JSON value or of an array's bytes, in hexadecimal."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return digest([str(item) for item in value])
        return hashlib.sha256(str(value.dtype).encode() + np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, pa.Table):
        return digest([[f.name, str(f.type), digest(_column_values(value, f.name))] for f in value.schema])
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _column_values(table: pa.Table, name: str) -> list[str]:
    return [repr(item) for item in table.column(name).to_pylist()]


def refuse_difference(where: str, found: Mapping[str, Any] | None, expected: Fingerprint) -> None:
    """Refuse an output that was written with another fingerprint.

    Raises
    ------
    FingerprintError
        With the parts that differ, the value found and the value of this run.
    """
    if found is not None and found.get("digest") == expected.digest:
        return
    parts = (found or {}).get("parts", {})
    differing = sorted(key for key in {*parts, *expected.parts} if parts.get(key) != expected.parts.get(key))
    lines = [
        f"{where} was written with {key} {_short(parts.get(key))}; this run uses {_short(expected.parts.get(key))}"
        for key in differing
    ]
    advice = "choose another output path in run.toml, or run galbatch clean"
    raise FingerprintError("\n".join([*lines, advice]) if lines else f"{where} has no fingerprint; {advice}")


def _short(value: str | None) -> str:
    if value is None:
        return "(nothing)"
    is_digest = len(value) == 64 and set(value) <= set("0123456789abcdef")
    return f"{value[:12]}.." if is_digest else value


@dataclass(frozen=True)
class ModelPlan:
    """One network of the run.

    Attributes
    ----------
    name, where : as in ``[[models]]``
    path, sha256 : the bundle's file and identity
    grid : the cutouts it needs
    bands : survey bands, in the order of the bundle's input
    selected : (object,) bool over the whole object table
    """

    name: str
    where: str | None
    path: str
    sha256: str
    grid: Grid
    bands: tuple[str, ...]
    selected: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, config: ModelConfig, path: str, bundle: Bundle, selected: npt.NDArray[np.bool_]) -> ModelPlan:
        """From a ``[[models]]`` section, its bundle's path and the loaded bundle."""
        bands = config.bands or tuple(bundle.bands)
        return cls(config.name, config.where, path, bundle.sha256, bundle.grid, bands, selected)


@dataclass(frozen=True)
class GridPlan:
    """One grid of the store with the union of its networks' bands, and the objects that need it."""

    grid: Grid
    bands: tuple[str, ...]
    needed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PartitionPlan:
    """What one partition needs, and the fingerprints its outputs carry.

    `tiles` are indices into the plan's tiles; bytes are projections.
    """

    partition: Partition
    tiles: tuple[int, ...]
    read_bytes: int
    write_bytes: int
    ingest: Fingerprint
    leaf: Fingerprint


@dataclass(frozen=True)
class Plan:
    """The whole run, before anything is started."""

    objects: ObjectTable
    object_flags: npt.NDArray[np.int32]
    tiles: tuple[Tile, ...]
    models: tuple[ModelPlan, ...]
    grids: tuple[GridPlan, ...]
    partitions: tuple[PartitionPlan, ...]
    oversize: tuple[Partition, ...]
    rejected: pa.Table | None = None

    @property
    def read_bytes(self) -> int:
        """Bytes of tile pixels that all partitions read together."""
        return sum(p.read_bytes for p in self.partitions)

    @property
    def write_bytes(self) -> int:
        """Bytes of cutouts that all partitions write together."""
        return sum(p.write_bytes for p in self.partitions)

    @property
    def read_amplification(self) -> float:
        """Bytes read over bytes of the tiles that are touched; below 1 where objects are sparse."""
        touched = {index for p in self.partitions for index in p.tiles}
        total = sum(_tile_bytes(self.tiles[index]) for index in touched)
        return self.read_bytes / total if total else 0.0

    @property
    def worker_memory_bytes(self) -> int:
        """Projected memory of one worker: two blocks of cutouts with mask and variance, and the process."""
        block = max(_window_bytes(g, 1.0) * BLOCK_OBJECTS for g in self.grids)
        return 600 * 2**20 + 2 * block


def object_flags(objects: ObjectTable, flags: FlagsConfig) -> npt.NDArray[np.int32]:
    """NEIGHBOR and DUPLICATE_POSITION bits from the whole object list.

    Returns
    -------
    (object,) int32 in PixelFlag bits
    """
    radius_of = {
        PixelFlag.NEIGHBOR: flags.neighbor_radius_arcsec,
        PixelFlag.DUPLICATE_POSITION: flags.duplicate_radius_arcsec,
    }
    # One search serves both: 6 s for 10 million objects.
    nearest = sky.nearest_arcsec(objects.ra_deg, objects.dec_deg, within_arcsec=max(radius_of.values()))
    result = np.zeros(len(objects), np.int32)
    for bit, radius_arcsec in radius_of.items():
        result[nearest < radius_arcsec] |= int(bit)
    return result


@dataclass(frozen=True)
class _Limits:
    objects: int
    bytes_: int


def divide(
    healpix_29: npt.NDArray[np.int64], *, max_objects: int, max_bytes: int, bytes_of: Any = None
) -> list[Partition]:
    """Divide sorted objects into HEALPix pixels of adaptive order.

    A pixel is split while it holds more than `max_objects` objects or needs more than `max_bytes`, down to
    order 13 or a single object.

    Parameters
    ----------
    healpix_29 : (object,) int64, sorted, order 29 NESTED
    bytes_of : callable (start, stop) -> bytes that these objects read plus write; None counts none

    Returns
    -------
    Partitions in HEALPix order; together they hold each object exactly once.
    """
    limits = _Limits(max_objects, max_bytes)
    result: list[Partition] = []
    pending = [
        Partition(0, pixel, *np.searchsorted(healpix_29, sky.pixel_range(0, pixel)).tolist())
        for pixel in reversed(range(12))
    ]
    while pending:
        partition = pending.pop()
        if partition.n_objects == 0:
            continue
        if _is_small(partition, limits, bytes_of) or partition.healpix_order == MAX_HEALPIX_ORDER:
            result.append(partition)
        else:
            pending.extend(reversed(_children(partition, healpix_29)))
    return result


def _is_small(partition: Partition, limits: _Limits, bytes_of: Any) -> bool:
    if partition.n_objects == 1:
        return True
    if partition.n_objects > limits.objects:
        return False
    return bytes_of is None or bytes_of(partition.start, partition.stop) <= limits.bytes_


def _children(partition: Partition, healpix_29: npt.NDArray[np.int64]) -> list[Partition]:
    order = partition.healpix_order + 1
    children = []
    for pixel in range(4 * partition.healpix_pixel, 4 * partition.healpix_pixel + 4):
        inside = healpix_29[partition.start : partition.stop]
        start, stop = np.searchsorted(inside, sky.pixel_range(order, pixel)) + partition.start
        children.append(Partition(order, pixel, int(start), int(stop)))
    return children


def make_plan(
    config: RunConfig, objects: ObjectTable, tiles: Sequence[Tile], models: Sequence[ModelPlan]
) -> Plan:
    """Plan the run.

    Parameters
    ----------
    objects : sorted by HEALPix index
    tiles : all tiles of the survey, whatever their band
    models : networks with their selection over `objects`
    """
    grids = _grids(models, len(objects))
    planner = _Planner(config, objects, tuple(tiles), tuple(models), grids)
    partitions = divide(
        objects.healpix_29,
        max_objects=config.plan.max_objects_per_partition,
        max_bytes=config.plan.max_bytes_per_partition,
        bytes_of=lambda start, stop: sum(planner.bytes_of(start, stop)),
    )
    plans = tuple(planner.plan(partition) for partition in partitions)
    limit = _Limits(config.plan.max_objects_per_partition, config.plan.max_bytes_per_partition)
    oversize = tuple(
        p.partition
        for p in plans
        if p.partition.n_objects > limit.objects or p.read_bytes + p.write_bytes > limit.bytes_
    )
    return Plan(objects, planner.flags, planner.tiles, planner.models, grids, plans, oversize)


def _grids(models: Sequence[ModelPlan], n_objects: int) -> tuple[GridPlan, ...]:
    """One entry a distinct grid: union of the bands in order of first use, and of the selections."""
    result = []
    for grid in sorted({model.grid for model in models}):
        sharing = [model for model in models if model.grid == grid]
        bands = tuple(dict.fromkeys(band for model in sharing for band in model.bands))
        needed = np.zeros(n_objects, bool)
        for model in sharing:
            needed |= model.selected
        result.append(GridPlan(grid, bands, needed))
    return tuple(result)


def _window_bytes(grid: GridPlan, share: float) -> int:
    """Bytes of image, variance (float32) and mask (uint16) of one object's cutout."""
    return int(share * bytes_per_object(grid.grid, grid.bands, ("image", "mask", "variance")))


def _tile_bytes(tile: Tile) -> int:
    ny, nx = tile.shape_px
    return ny * nx * 4 * (1 + (tile.mask is not None) + (tile.weight is not None))


class _Planner:
    """Holds what each partition's plan is made from, so that it is worked out once."""

    def __init__(
        self,
        config: RunConfig,
        objects: ObjectTable,
        tiles: tuple[Tile, ...],
        models: tuple[ModelPlan, ...],
        grids: tuple[GridPlan, ...],
    ) -> None:
        self.config = config
        self.objects = objects
        self.models = models
        self.grids = grids
        used = {band for grid in grids for band in grid.bands}
        self.tiles = tuple(tile for tile in tiles if tile.band in used)
        self.flags = object_flags(objects, config.flags)
        self.radius_deg = max(grid.grid.half_diagonal_deg for grid in grids)
        self.common_ingest = self._common_ingest_parts()
        self.common_infer = self._common_infer_parts()

    def bytes_of(self, start: int, stop: int) -> tuple[int, int]:
        """Bytes read and bytes written for the objects `start` to `stop`."""
        read = write = 0
        for grid in self.grids:
            n_cutouts = int(np.count_nonzero(grid.needed[start:stop]))
            read += n_cutouts * _window_bytes(grid, 1.0)
            write += n_cutouts * bytes_per_object(grid.grid, grid.bands, self.config.cutouts.planes)
        return read, write

    def plan(self, partition: Partition) -> PartitionPlan:
        rows = slice(partition.start, partition.stop)
        objects = self.objects.take(rows)
        near = tuple(tiles_near(objects, self.tiles, radius_deg=self.radius_deg))
        read_bytes, write_bytes = self.bytes_of(partition.start, partition.stop)
        ingest = Fingerprint({**self.common_ingest, **self._partition_parts(partition, objects, near)})
        leaf = Fingerprint(
            {
                **ingest.parts,
                **self.common_infer,
                "kept columns": digest(objects.kept),
                "selected objects": digest([digest(m.selected[rows]) for m in self.models]),
            }
        )
        return PartitionPlan(partition, near, read_bytes, write_bytes, ingest, leaf)

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
        parts = {"INFER_VERSION": str(INFER_VERSION), "engine": ENGINE}
        parts["posterior"] = json.dumps(self.config.posterior.model_dump(), sort_keys=True)
        parts["models"] = " ".join(model.name for model in self.models)
        for model in self.models:
            parts[f"bundle {model.name}"] = model.sha256
            parts[f"bands of {model.name}"] = "+".join(model.bands)
        return parts

    def _partition_parts(
        self, partition: Partition, objects: ObjectTable, near: tuple[int, ...]
    ) -> dict[str, str]:
        rows = slice(partition.start, partition.stop)
        needed = [digest(grid.needed[rows]) for grid in self.grids]
        tiles = [
            [tile.tile_id, tile.band, dataclasses.astuple(tile.identity) if tile.identity else None]
            for tile in (self.tiles[index] for index in near)
        ]
        return {
            "division": f"{partition.name} of {partition.n_objects} objects",
            "objects": digest(
                [digest(a) for a in (objects.object_id, objects.ra_deg, objects.dec_deg)]
                + [digest(self.flags[rows]), *needed]
                + [[band, digest(width)] for band, width in sorted(objects.psf_fwhm_arcsec.items())]
            ),
            "tiles": digest(sorted(tiles, key=str)),
        }
