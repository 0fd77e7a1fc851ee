"""Progress of a run: the partitions that are done, failed and left, read from the outputs.

The cutouts of a partition are done when their ``_done.json`` exists, its results when its leaf exists. There is no other
record of what was done, which could disagree with the outputs.
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
    """The partitions of a plan that are done, failed and left.

    Attributes
    ----------
    ingested : names of the partitions whose cutouts exist
    inferred : names of the partitions whose leaves exist
    failed : the reason why each partition failed in an earlier run, by its name; without those that were done since
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
    """Return the progress of a run, read from its outputs.

    Raises
    ------
    FingerprintError
        An output was written with other settings or inputs, or belongs to another division of the sky.
    """
    ingested = _read_store(config, plan)
    inferred = _read_leaves(config, plan)
    if config.posterior.keep_pass_outputs:
        # Pass outputs are written before the leaf, so a stopped run may leave some that belong to no leaf.
        parts = {part.partition.pixel: part for part in plan.partitions}
        path = pass_outputs.pass_outputs_path(config.catalog.path)
        for pixel, model in pass_outputs.list_done(config.catalog.path):
            if pixel not in parts:
                raise FingerprintError(
                    f"{path} holds pass outputs of another division of the sky, such as {pixel.path}/{model}; choose another "
                    "[catalog] path, or run galbatch clean"
                )
            done = pass_outputs.read_done(config.catalog.path, pixel, model) or {}
            refuse_difference(f"{path} {pixel.path} {model}", done.get("fingerprint"), parts[pixel].leaf)
    failed = storage.read_json(storage.join(config.catalog.path, FAILED_FILE)) or {}
    # A partition that failed and was done by a later run is still in the file.
    still = {name: reason for name, reason in failed.items() if name not in inferred}
    return Progress(plan, frozenset(ingested), frozenset(inferred), still)


def _read_store(config: RunConfig, plan: Plan) -> set[str]:
    """Return the names of the partitions whose cutouts exist on every grid; raise if cutouts are of another run."""
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
            # Reached without break: the cutouts exist on all grids.
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
    """Return the names of the partitions that have a leaf; raise if leaves are of another run."""
    path, inferred = config.catalog.path, set()
    leaves = set(catalog.list_leaves(path))
    for part in plan.partitions:
        if part.partition.pixel not in leaves:
            continue
        where = f"{path} {part.partition.name}"
        footer = catalog.read_footer(path, part.partition) or {}
        refuse_difference(where, leaf.footer_fingerprint(footer), part.leaf)
        if config.posterior.keep_pass_outputs:
            # The leaf would count as done, and the run would never make the pass outputs that it is asked to keep.
            if not pass_outputs.were_kept(footer):
                raise FingerprintError(
                    f"{where}: written without keep_pass_outputs = true; choose another [catalog] path: passes are "
                    "reproducible"
                )
            for model in config.models:
                problem = pass_outputs.problem_of(
                    path, part.partition, model.name, fingerprint=part.leaf.as_json()
                )
                if problem:
                    raise FingerprintError(problem)
        inferred.add(part.partition.name)
        leaves.discard(part.partition.pixel)
    # Leaves that no partition of this plan has would stay in the catalog beside the new ones.
    if leaves:
        raise FingerprintError(
            f"{path} holds {len(leaves)} leaves of another division of the sky, such as "
            f"{min(leaves).name}; choose another [catalog] path, or run galbatch clean"
        )
    return inferred
