"""Progress of a run: the partitions that are done, failed and left, read from its outputs.

A partition's cutouts exist when its ``_done.json`` says so, its results when its leaf exists. There is no other record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from galbatch import catalog, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig
from galbatch.core.fingerprint import refuse_difference
from galbatch.errors import FingerprintError
from galbatch.execution import leaf
from galbatch.execution.outputs import FAILED_FILE
from galbatch.planning import PartitionPlan, Plan

__all__ = ["Progress", "read_progress"]


@dataclass(frozen=True)
class Progress:
    """The partitions of a plan that are done, failed and left, read from the outputs.

    Attributes
    ----------
    ingested, inferred : names of the partitions whose cutouts, or results, exist
    failed : reasons of the partitions that failed and are still left, by name
    """

    plan: Plan
    ingested: frozenset[str]
    inferred: frozenset[str]
    failed: Mapping[str, str]

    @property
    def left(self) -> list[PartitionPlan]:
        """The partitions without a leaf."""
        return [part for part in self.plan.partitions if part.partition.name not in self.inferred]


def read_progress(config: RunConfig, plan: Plan) -> Progress:
    """Read from the outputs what is done.

    Raises
    ------
    FingerprintError
        An output was written with other settings or inputs, or belongs to another division of the sky.
    """
    ingested = _read_store(config, plan)
    inferred = _read_leaves(config, plan)
    if config.posterior.keep_pass_outputs:
        _refuse_foreign_pass_outputs(config, plan)
    failed = storage.read_json(storage.join(config.catalog.path, FAILED_FILE)) or {}
    still = {name: reason for name, reason in failed.items() if name not in inferred}
    return Progress(plan, frozenset(ingested), frozenset(inferred), still)


def _read_store(config: RunConfig, plan: Plan) -> set[str]:
    """Return the names of the partitions whose cutouts exist on every grid; refuse cutouts of another run."""
    store, ingested = config.cutouts.store, set()
    for part in plan.partitions:
        for grid in plan.grids:
            done = ingest.read_done(store, part.partition, grid.grid)
            if done is None:
                break
            refuse_difference(
                f"{store} {part.partition.name} {grid.grid.label}", done["fingerprint"], part.ingest
            )
        else:
            ingested.add(part.partition.name)
    planned = {(p.partition.pixel, g.grid) for p in plan.partitions for g in plan.grids}
    foreign = [key for key in ingest.list_done(store) if key not in planned]
    if foreign:
        raise FingerprintError(
            f"{store} holds cutouts of another division of the sky or grid, such as "
            f"{foreign[0][0].path}/{foreign[0][1].label}; choose another [cutouts] store, or run galbatch clean"
        )
    return ingested


def _read_leaves(config: RunConfig, plan: Plan) -> set[str]:
    """Return the names of the partitions that have a leaf; refuse leaves of another run."""
    path, inferred = config.catalog.path, set()
    leaves = set(catalog.list_leaves(path))
    for part in plan.partitions:
        if part.partition.pixel in leaves:
            footer = catalog.read_footer(path, part.partition)
            refuse_difference(f"{path} {part.partition.name}", leaf.footer_fingerprint(footer), part.leaf)
            if config.posterior.keep_pass_outputs:
                _refuse_lost_pass_outputs(config, part, footer or {})
            inferred.add(part.partition.name)
            leaves.discard(part.partition.pixel)
    if leaves:
        raise FingerprintError(
            f"{path} holds {len(leaves)} leaves of another division of the sky, such as "
            f"{min(leaves).name}; choose another [catalog] path, or run galbatch clean"
        )
    return inferred


def _refuse_lost_pass_outputs(config: RunConfig, part: PartitionPlan, footer: Mapping[str, str]) -> None:
    """Refuse a leaf without the pass outputs that the run is asked to keep: it would never get them."""
    path = config.catalog.path
    if not pass_outputs.were_kept(footer):
        raise FingerprintError(
            f"{path} {part.partition.name}: written without keep_pass_outputs = true; choose another [catalog] path: passes are "
            "reproducible"
        )
    fingerprint = part.leaf.as_json()
    for model in config.models:
        problem = pass_outputs.problem_of(path, part.partition, model.name, fingerprint=fingerprint)
        if problem:
            raise FingerprintError(problem)


def _refuse_foreign_pass_outputs(config: RunConfig, plan: Plan) -> None:
    parts = {part.partition.pixel: part for part in plan.partitions}
    where = pass_outputs.pass_outputs_path(config.catalog.path)
    for pixel, model in pass_outputs.list_done(config.catalog.path):
        if pixel not in parts:
            raise FingerprintError(
                f"{where} holds pass outputs of another division of the sky, such as {pixel.path}/{model}; choose another "
                "[catalog] path, or run galbatch clean"
            )
        done = pass_outputs.read_done(config.catalog.path, pixel, model) or {}
        refuse_difference(f"{where} {pixel.path} {model}", done.get("fingerprint"), parts[pixel].leaf)
