"""Progress of a run: the partitions that are done, failed and left, read from the outputs.

The cutouts of a partition are done when their ``_done.json`` exists, its results when its leaf exists. There is no other
record of what was done, which could disagree with the outputs. What is damaged, as `galbatch verify` recorded it or as it
shows here, is not done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from galbatch import catalog, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig
from galbatch.core.fingerprint import refuse_difference
from galbatch.core.prefetch import map_in_threads
from galbatch.errors import DamagedError, FingerprintError
from galbatch.execution import leaf
from galbatch.execution.damage import Damaged, recorded
from galbatch.execution.finishing import read_failures
from galbatch.planning import GRIDS, PartitionPlan, Plan, grid_text

__all__ = ["Progress", "read_progress"]

READING_THREADS = 16
"""Number of marks or footers read at the same time: on S3 each takes 50 ms, most of it waiting for the network."""


@dataclass(frozen=True)
class Progress:
    """The partitions of a plan that are done, failed and left.

    Attributes
    ----------
    ingested : names of the partitions whose cutouts exist
    measured : names of the partitions whose photometry exists; all where the plan has none
    inferred : names of the partitions whose leaves exist
    failed : the reason why each partition failed in an earlier run, by its name; without those that were done since
    damaged : files of the outputs that are not as they were written; what they belong to is not done
    """

    plan: Plan
    ingested: frozenset[str]
    inferred: frozenset[str]
    failed: Mapping[str, str]
    damaged: tuple[Damaged, ...] = ()
    measured: frozenset[str] = frozenset()

    @property
    def done(self) -> frozenset[str]:
        """The names of the partitions with a leaf; in a run without networks, those with cutouts."""
        return self.inferred if self.plan.models else self.ingested

    @property
    def left(self) -> list[PartitionPlan]:
        """The partitions that are not done."""
        return [part for part in self.plan.partitions if part.partition.name not in self.done]

    @property
    def troubled(self) -> frozenset[str]:
        """The names of the partitions that failed or are damaged."""
        return frozenset(self.failed) | {one.pixel.name for one in self.damaged if one.pixel is not None}


def read_progress(config: RunConfig, plan: Plan) -> Progress:
    """Return the progress of a run, read from its outputs.

    Raises
    ------
    FingerprintError
        An output was written with other settings or inputs, or belongs to another division of the sky.
    """
    damaged = recorded(config)
    ingested = frozenset(_read_store(config.cutouts.store, plan, damaged))
    measured = _read_photometry(config.cutouts.store, plan, ingested, damaged)
    # A run without networks writes no catalog: one that is at its path is of another run, and stays as it is.
    inferred = _read_leaves(config, plan, damaged) if plan.models else set[str]()
    if config.posterior.keep_pass_outputs:
        _refuse_foreign_pass_outputs(config.catalog.path, plan)
    if config.cutouts.keep:
        damaged += _lost(
            config.cutouts.store, plan, damaged, inferred, {"cutouts": ingested, "photometry": measured}
        )
    # Photometry lies among the cutouts: where either is damaged both are made again.
    remade = {one.pixel.name for one in damaged if one.output == "cutouts" and one.pixel is not None}
    # A partition that failed and was done by a later run is still in the file.
    failed = {
        name: reason for name, reason in read_failures(config.catalog.path).items() if name not in inferred
    }
    return Progress(plan, ingested - remade, frozenset(inferred), failed, tuple(damaged), measured - remade)


def _lost(
    store: str, plan: Plan, damaged: Iterable[Damaged], inferred: Set[str], there: Mapping[str, Set[str]]
) -> list[Damaged]:
    """Return what is to be kept and is gone from the store, though its partition has results and others have it; nothing twice."""
    known = {one.pixel for one in damaged if one.output == "cutouts"}
    lost = []
    for what, names in there.items():
        for part in plan.partitions if names else ():
            pixel = part.partition.pixel
            if part.partition.name in inferred - names and pixel not in known:
                known.add(pixel)
                path = storage.join(store, pixel.path)
                lost.append(
                    Damaged("cutouts", pixel, path, f"the finished partition's {what} can no longer be found")
                )
    return lost


def _read_store(store: str, plan: Plan, damaged: list[Damaged]) -> set[str]:
    """Return the names of the partitions whose cutouts exist on every grid; refuse cutouts of another run.

    Damage that shows is added to `damaged`; what is there already is not looked at.
    """
    if not plan.grids:
        # Nothing is to be cut: a store that is at the path is of another run, and is not read.
        return {part.partition.name for part in plan.partitions}
    known = {one.pixel for one in damaged if one.output == "cutouts"}
    parts = [part for part in plan.partitions if part.partition.pixel not in known]

    def is_ingested(part: PartitionPlan) -> bool | Damaged:
        is_done = True
        try:
            # All grids are looked at, as a run with one more would replace the cutouts on the others.
            for grid in plan.grids:
                done = ingest.read_done(store, part.partition, grid.grid)
                if done is None:
                    is_done = False
                    continue
                _refuse_other_grids(store, done["fingerprint"], plan)
                where = f"{store} {part.partition.name} {grid.grid.label}"
                refuse_difference(where, done["fingerprint"], part.ingest)
        except DamagedError as error:
            return Damaged("cutouts", part.partition.pixel, error.path, error.problem)
        return is_done

    ingested = _names_of_done(is_ingested, parts, damaged)
    planned = {(p.partition.pixel, g.grid) for p in plan.partitions for g in plan.grids}
    foreign = [key for key in ingest.list_done(store) if key not in planned]
    if foreign:
        raise FingerprintError(
            f"{store} holds cutouts of another division of the sky or grid, such as "
            f"{foreign[0][0].path}/{foreign[0][1].label}; choose another [cutouts] store, or run galbatch clean"
        )
    return ingested


def _read_photometry(store: str, plan: Plan, ingested: Set[str], damaged: list[Damaged]) -> frozenset[str]:
    """Return the names of the partitions whose photometry exists on every grid. One of other settings is made again: it costs little.

    Damage that shows is added to `damaged`.
    """
    if plan.photometry is None:
        return frozenset(part.partition.name for part in plan.partitions)
    parts = [part for part in plan.partitions if part.partition.name in ingested]

    def is_measured(part: PartitionPlan) -> bool | Damaged:
        assert part.photometry is not None
        try:
            marks = [ingest.read_photometry_done(store, part.partition, grid.grid) for grid in plan.grids]
        except DamagedError as error:
            return Damaged("cutouts", part.partition.pixel, error.path, error.problem)
        return all(mark and mark["fingerprint"]["digest"] == part.photometry.digest for mark in marks)

    return frozenset(_names_of_done(is_measured, parts, damaged))


def _refuse_other_grids(store: str, fingerprint: Mapping[str, Any], plan: Plan) -> None:
    """Raise a FingerprintError if a store was cut on other grids or in other bands than the plan has; it says how both go together."""
    found = fingerprint.get("parts", {}).get(GRIDS)
    if found in (None, plan.grids_text):
        return
    takers = [
        f"{model.name} takes {' and '.join(grid_text(grid, bands) for grid, bands in model.inputs)}"
        for model in plan.models
        if model.grid is not None
    ]
    raise FingerprintError(
        f"{store} holds cutouts of {found}; this run needs {plan.grids_text}"
        + (f" (network {'; '.join(takers)})" if takers else "")
        + ": to use the store, let [cutouts] state the size_px, pixel_scale_arcsec and bands that it holds, and let the networks "
        f"take these; or give [cutouts] store another path, and base = {store!r} to take the cutouts that are the same"
    )


def _read_leaves(config: RunConfig, plan: Plan, damaged: list[Damaged]) -> set[str]:
    """Return the names of the partitions that have a leaf; refuse leaves of another run.

    Damage that shows is added to `damaged`; what is there already is not looked at.
    """
    path = config.catalog.path
    leaves = set(catalog.list_leaves(path))
    known = {one.pixel for one in damaged if one.output != "cutouts"}
    there = [part for part in plan.partitions if part.partition.pixel in leaves]
    parts = [part for part in there if part.partition.pixel not in known]
    kept = [network.name for network in config.networks] if config.posterior.keep_pass_outputs else []

    def is_inferred(part: PartitionPlan) -> bool | Damaged:
        try:
            _require_leaf(path, part, kept)
        except DamagedError as error:
            is_leaf = error.path == catalog.leaf_path(path, part.partition.pixel)
            return Damaged(
                "leaf" if is_leaf else "pass outputs", part.partition.pixel, error.path, error.problem
            )
        return True

    inferred = _names_of_done(is_inferred, parts, damaged)
    leaves -= {part.partition.pixel for part in there}
    # Leaves that no partition of this plan has would stay in the catalog beside the new ones.
    if leaves:
        raise FingerprintError(
            f"{path} holds {len(leaves)} leaves of another division of the sky, such as "
            f"{min(leaves).name}; choose another [catalog] path, or run galbatch clean"
        )
    return inferred


def _names_of_done(
    is_done: Callable[[PartitionPlan], bool | Damaged], parts: Sequence[PartitionPlan], damaged: list[Damaged]
) -> set[str]:
    """Return the names of the partitions that `is_done` says are done; the damage that it returns is added to `damaged`."""
    names = set()
    for part, found in zip(parts, map_in_threads(is_done, parts, n_threads=READING_THREADS), strict=True):
        if isinstance(found, Damaged):
            damaged.append(found)
        elif found:
            names.add(part.partition.name)
    return names


def _require_leaf(path: str, part: PartitionPlan, kept: Sequence[str]) -> None:
    """Raise an error if a leaf was not written by this run, or lacks the pass outputs of the models in `kept`.

    Raises
    ------
    FingerprintError, DamagedError
    """
    footer = leaf.own_footer(path, part)
    # The leaf would count as done, and the run would never make the pass outputs that it is asked to keep.
    if kept and not pass_outputs.were_kept(footer):
        raise FingerprintError(
            f"{path} {part.partition.name}: written without keep_pass_outputs = true; choose another [catalog] path: "
            "passes are reproducible"
        )
    for model in kept:
        pass_outputs.require(path, part.partition, model, fingerprint=part.leaf.as_json())


def _refuse_foreign_pass_outputs(catalog_path: str, plan: Plan) -> None:
    # Pass outputs are written before the leaf, so a stopped run may leave some that belong to no leaf.
    parts = {part.partition.pixel: part for part in plan.partitions}
    where = pass_outputs.pass_outputs_path(catalog_path)
    for pixel, model in pass_outputs.list_done(catalog_path):
        if pixel not in parts:
            raise FingerprintError(
                f"{where} holds pass outputs of another division of the sky, such as {pixel.path}/{model}; choose another "
                "[catalog] path, or run galbatch clean"
            )
        try:
            done = pass_outputs.read_done(catalog_path, pixel, model) or {}
        except DamagedError:
            continue  # said where its leaf was read; without a leaf it is not done
        refuse_difference(f"{where} {pixel.path} {model}", done.get("fingerprint"), parts[pixel].leaf)
