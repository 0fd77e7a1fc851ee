"""Damaged outputs: what is not as it was written counts as not done, is named, removed and made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from galbatch import catalog, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig, Stage
from galbatch.core.pixels import HealpixPixel
from galbatch.planning import Plan

__all__ = ["Damaged", "damaged_leaves", "discard", "of_stage", "recorded"]

Output = Literal["cutouts", "leaf", "pass outputs"]


@dataclass(frozen=True)
class Damaged:
    """A file of the outputs, or a group of files, that is not as it was written: truncated, changed or gone.

    Attributes
    ----------
    output : the output that it belongs to: cutout store, catalog or kept pass outputs
    pixel : the partition's HEALPix pixel; None for files of Zarr that belong to no partition
    path : where it is
    problem : human-readable description of what is wrong with it
    """

    output: Output
    pixel: HealpixPixel | None
    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def recorded(config: RunConfig) -> list[Damaged]:
    """Return the damage that the last `galbatch verify` recorded beside the run's outputs."""
    path = config.catalog.path
    places: list[tuple[Output, str, Callable[[str], HealpixPixel | None]]] = [
        ("cutouts", config.cutouts.store, ingest.damaged_pixel),
        ("leaf", path, catalog.damaged_leaf),
    ]
    if config.posterior.keep_pass_outputs:
        places.append(("pass outputs", pass_outputs.pass_outputs_path(path), pass_outputs.damaged_pixel))
    return [
        Damaged(output, pixel_of(name), storage.join(root, name), problem)
        for output, root, pixel_of in places
        for name, problem in storage.read_damage(root).items()
    ]


def damaged_leaves(catalog_path: str, plan: Plan) -> dict[str, str]:
    """Read every leaf of a catalog in full, record what is damaged, and return the problem of each by its partition's name."""
    problems = {
        part.partition: problem
        for part in plan.partitions
        if (problem := catalog.leaf_damage(catalog_path, part.partition))
    }
    storage.record_damage(
        catalog_path, {f"dataset/{pixel.path}.parquet": problem for pixel, problem in problems.items()}
    )
    return {
        pixel.name: f"infer: {catalog.leaf_path(catalog_path, pixel)}: {problem}"
        for pixel, problem in problems.items()
    }


def of_stage(damaged: Iterable[Damaged], stage: Stage) -> list[Damaged]:
    """Return the damage that a stage can repair: `ingest` makes cutouts again, `infer` leaves and pass outputs, `all` both.

    `photometry` repairs none: its own groups lie among the cutouts, and are made again with them.
    """
    return [one for one in damaged if stage in ("all", "ingest" if one.output == "cutouts" else "infer")]


def discard(config: RunConfig, damaged: Iterable[Damaged]) -> None:
    """Delete what is damaged, and its records: afterwards these partitions count as not done, as if they had never been made."""
    path = config.catalog.path
    records = set()
    for one in damaged:
        if one.output == "cutouts":
            records.add(config.cutouts.store)
            if one.pixel is not None:
                ingest.remove_partition(config.cutouts.store, one.pixel)
            continue
        records.add(path if one.output == "leaf" else pass_outputs.pass_outputs_path(path))
        if one.pixel is not None:
            catalog.remove_leaf(path, one.pixel)
            if one.output == "pass outputs":
                pass_outputs.remove_partition(path, one.pixel)
    for output in sorted(records):
        storage.record_damage(output, {})
