"""Damage: outputs that are not as they were written count as not done; they are named, removed and made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from galbatch import catalog, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig
from galbatch.core.pixels import HealpixPixel
from galbatch.execution.outputs import Stage
from galbatch.planning import Plan

__all__ = ["Damaged", "damaged_leaves", "discard", "of_stage", "recorded"]

Output = Literal["cutouts", "leaf", "pass outputs"]


@dataclass(frozen=True)
class Damaged:
    """A file, or group of files, of the outputs that is not as it was written.

    Attributes
    ----------
    output : what it belongs to
    pixel : of the partition; None for Zarr's files above the groups
    path, problem : where it is, and what is wrong with it
    """

    output: Output
    pixel: HealpixPixel | None
    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def recorded(config: RunConfig) -> list[Damaged]:
    """Return the damage that `galbatch verify` found last."""
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
    """Read all leaves of a run, and record and return what is wrong with them, by the names of their partitions."""
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
    """Return the damage that a stage mends: it makes cutouts, or results, or both."""
    return [one for one in damaged if stage in ("all", "ingest" if one.output == "cutouts" else "infer")]


def discard(config: RunConfig, damaged: Iterable[Damaged]) -> None:
    """Remove what is damaged, so that from now on the outputs alone say what is left, and the records of it."""
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
