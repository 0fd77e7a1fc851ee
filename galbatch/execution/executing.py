"""Execution of a plan: partitions are submitted, a bounded number at a time, and the catalog is finished.

Progress is read from the outputs, so executing the same plan again continues a run that was stopped at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

from distributed import Client

from galbatch import __version__, cluster, dashboard, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig, Stage
from galbatch.core.pixels import Partition
from galbatch.core.process import deferred_signals
from galbatch.core.texts import counted
from galbatch.errors import CatalogError, ConfigError, DamagedError, OutputError, Stopped
from galbatch.execution import damage, finishing, tasks
from galbatch.execution.bundles import EngineChoice
from galbatch.execution.outputs import REJECTED_FILE, HeldOutputs, locked, writes_catalog
from galbatch.execution.progress import Progress, read_progress
from galbatch.execution.submission import Attempt, FaultKind, Pauses, SubmissionQueue, fault_of, reason_of
from galbatch.objects import write_parquet
from galbatch.planning import Plan

__all__ = ["RunResult", "execute", "execute_held"]


@dataclass
class RunResult:
    """The result of a run.

    Attributes
    ----------
    n_objects : number of objects of the plan
    n_inferred : number of objects in the catalog, including those of earlier runs
    n_new : number of objects that this run put there
    n_passes : number of passes made by this run
    n_cut : number of cutouts cut by this run
    n_cutouts_taken : number of cutouts taken from ``[cutouts] base``
    n_values_taken : number of objects whose values were taken from ``[catalog] base``, summed over the networks
    seconds : wall time of this run
    failed : the reason why each partition failed, by its name
    complete : whether every partition has a leaf
    finished : whether the catalog's metadata was written; not without leaves, if one proved damaged, or if the disk stayed full
    """

    n_objects: int = 0
    n_inferred: int = 0
    n_new: int = 0
    n_passes: int = 0
    n_cut: int = 0
    n_cutouts_taken: int = 0
    n_values_taken: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    finished: bool = False

    @property
    def taken_text(self) -> str:
        """A human-readable text on what was taken from the base; "" if nothing was."""
        if not self.n_cutouts_taken + self.n_values_taken:
            return ""
        return (
            f"from the base: {counted(self.n_cutouts_taken, 'cutout')} ({self.n_cut} cut), values of "
            f"{counted(self.n_values_taken, 'object')} over all networks ({counted(self.n_passes, 'pass', 'passes')} made)"
        )


def execute(
    config: RunConfig,
    plan: Plan,
    client: Client,
    *,
    stage: Stage = "all",
    sink: dashboard.ProgressSink | None = None,
    only_failed: bool = False,
) -> RunResult:
    """Execute the part of a plan that is not done yet. What is damaged is named, removed, and made again.

    Parameters
    ----------
    config : RunConfig
    plan : Plan
    client : distributed.Client
        Connection to the workers.
    stage : {"ingest", "photometry", "infer", "all"}
        Make cutouts, measure existing cutouts, infer from existing cutouts, or all.
    sink : ProgressSink or None
        Shows the progress. None shows nothing.
    only_failed : bool
        Do only the partitions that failed or are damaged, not those that were never begun.

    Returns
    -------
    RunResult

    Raises
    ------
    FingerprintError, LockedError, OutputError, ClusterError
        The run cannot begin; nothing was written.
    LockLost
        Another run took over a lock; nothing was written since.
    Stopped
        SIGTERM or SIGINT came, in a process whose main thread this is; partitions that are done stay.
    SchedulerLost
        The connection was lost; partitions that are done stay.
    """
    sink = sink or dashboard.Silent()
    with locked(config, stage, notify=sink.note) as held:
        return execute_held(held, plan, client, sink=sink, only_failed=only_failed)


def execute_held(
    held: HeldOutputs,
    plan: Plan,
    client: Client,
    *,
    sink: dashboard.ProgressSink | None = None,
    only_failed: bool = False,
    before: Progress | None = None,
) -> RunResult:
    """Do as `execute`, under locks that the caller holds; they name the config and the stage.

    Parameters
    ----------
    before : Progress or None
        The progress, where the caller has read it under the same locks; None reads it here.

    Raises
    ------
    LockLost
        Another run took over a lock; nothing was written since.
    Stopped
        SIGTERM or SIGINT came; partitions that are done stay.
    """
    started, config, stage = time.monotonic(), held.config, held.stage
    if stage == "ingest" and not plan.grids:
        raise ConfigError(
            "--stage ingest: nothing is to be cut: no network of the run takes pixels, and [cutouts] states no size_px; run without "
            "--stage"
        )
    # Under the locks: another run could change the outputs between reading and writing.
    before = before or read_progress(config, plan)
    sink = sink or dashboard.Silent()
    # One tile of each band stands for all tiles of its folder; checking all would take longer than the run.
    tiles = {tile.band: tile.image.path for tile in plan.tiles} if stage in ("ingest", "all") else {}
    infers = writes_catalog(stage)
    bundles = [path for model in plan.models for path in model.paths] if infers else []
    outputs = [
        *([config.cutouts.store] if plan.grids else []),
        *([config.catalog.path] if infers else []),
    ]
    needs = cluster.WorkerNeeds(infers=infers, written=outputs, read=[*tiles.values(), *bundles])
    cluster.kind_of(config.cluster).check_workers(client, needs, sink.note)
    if len(plan.rejected):
        write_parquet(storage.join(config.catalog.path, REJECTED_FILE), plan.rejected)
    _discard_damage(config, before, stage, sink)
    run = _Run(held, plan, client, sink)
    with closing(run.choice):
        run.work(before, only=before.troubled if only_failed else None)
        if infers:
            # Also after failures: the catalog opens without the missing leaves, and its properties say so.
            run.finish()
    if not infers:
        # Failures of the other steps stay; those of this one are done or failed once more.
        done = before.ingested if stage == "ingest" else before.measured
        earlier = {name: reason for name, reason in before.failed.items() if name in done}
        run.sink.replace(earlier | run.result.failed)
    run.result.seconds = time.monotonic() - started
    return run.result


def _discard_damage(config: RunConfig, before: Progress, stage: Stage, sink: dashboard.ProgressSink) -> None:
    """Name what is damaged, and remove what this stage makes again; until it is there it counts as failed."""
    for one in before.damaged:
        sink.note(f"damaged: {one}")
    damaged = damage.of_stage(before.damaged, stage)
    if not damaged:
        return
    if writes_catalog(stage):
        # Were the run killed after the removal, `galbatch retry` would not know of these partitions otherwise.
        reasons = {one.pixel.name: f"damaged: {one}" for one in damaged if one.pixel is not None}
        finishing.record_failures(config.catalog.path, {**reasons, **before.failed})
    damage.discard(config, damaged)


def _finish(config: RunConfig, plan: Plan, result: RunResult) -> None:
    """Finish the catalog, and note whether it is complete. Leaves that prove damaged only now have failed."""
    try:
        n_leaves = finishing.finish(config, plan)
        result.complete, result.finished = n_leaves == len(plan.partitions), n_leaves > 0
    except (CatalogError, DamagedError):
        damaged = damage.damaged_leaves(config.catalog.path, plan)
        if not damaged:
            raise
        result.failed |= damaged
    finishing.record_failures(config.catalog.path, result.failed)


def _done_event(attempt: Attempt, result: tasks.TaskResult) -> dashboard.Event:
    """Return the event of a step that was done."""
    name = result.partition.name
    text = f"{attempt.step}: {name}: {result.n_objects} objects in {result.seconds:.1f} s"
    numbers = {
        "objects": result.n_objects,
        "cutouts": result.n_cutouts,
        "passes": result.n_passes,
        "seconds": round(result.seconds, 3),
    }
    return dashboard.Event(
        attempt.step, text, name, result.worker, numbers, flags=result.flags, samples=result.samples
    )


class _Run:
    """One execution of a plan: its work, its result, and the sink that shows its progress."""

    def __init__(self, held: HeldOutputs, plan: Plan, client: Client, sink: dashboard.ProgressSink) -> None:
        self.held = held
        self.config = held.config
        self.plan = plan
        self.client = client
        self.stage = held.stage
        self.sink = finishing.KeptFailures(sink, held.config.catalog.path)
        self.result = RunResult(n_objects=len(plan.objects))
        self._inferred: frozenset[str] = frozenset()
        self._pauses = Pauses(held.config.cluster.pause_limit, sink.note)
        self.choice = EngineChoice(held.config, plan, sink.note)
        self._queue: SubmissionQueue | None = None
        # The name of the signal that came; "" if none did.
        self._came: Callable[[], str] = lambda: ""
        # Partitions whose cutouts could not be removed when their leaf was written.
        self._not_removed: list[Partition] = []

    def work(self, before: Progress, *, only: frozenset[str] | None = None) -> None:
        """Do all steps that are left of each partition, or of those named in `only`."""
        if writes_catalog(self.stage) and before.ingested:
            self._choose_engines()
        waiting = []
        done = {"ingest": 0, "photometry": 0, "infer": 0}
        # Cutouts of a partition with results are missed only where they are to be kept.
        uncut = {one.pixel for one in before.damaged if one.output == "cutouts" and self.config.cutouts.keep}
        for part in self.plan.partitions:
            name, n_objects = part.partition.name, part.partition.n_objects
            is_asked = only is None or name in only
            # Cutouts of a finished partition may have been removed ([cutouts] keep = false): they count as done.
            inferred = name in before.inferred and part.partition.pixel not in uncut
            ingested = name in before.ingested or inferred
            done["ingest"] += n_objects * ingested
            done["infer"] += n_objects * (name in before.inferred)
            measured = name in before.measured or inferred
            done["photometry"] += n_objects * measured
            step = self.next_step(ingested=ingested, measured=measured, inferred=name in before.inferred)
            if is_asked and step is not None:
                waiting.append(Attempt(part, step))
        self._inferred = before.inferred
        self.sink.failed |= before.failed
        self.result.n_inferred = done["infer"]
        for name, n_done in done.items():
            if self.shows(name):
                self.sink.start(name, len(self.plan.objects), n_done)
        self._pauses.until_it_works(lambda: self.prepare_outputs(before, waiting))
        if waiting:
            self._submit(waiting)

    def _submit(self, waiting: Sequence[Attempt]) -> None:
        """Submit these steps and what follows from them, until nothing is left to do."""
        queue = self._queue = SubmissionQueue(
            self.config,
            self.plan,
            self.client,
            next_attempt=self.next_attempt,
            sink=self.sink,
            cuts=self.stage == "all" and bool(self.plan.grids),
        )
        self._pauses = queue.pauses
        with deferred_signals() as came, self.sink:
            self._came = came
            queue.work(waiting, locks=self.held.handles, check=lambda: self.check(came()))
            self.check(came())
        self.result.failed = queue.failed
        for partition in self._not_removed:
            self._remove_cutouts(partition)

    def check(self, signal: str) -> None:
        """Raise an error if the run must end: a signal came, or a lock was lost."""
        if signal:
            raise Stopped(
                f"stopped by {signal}, {self.result.n_new} objects are new in the catalog; what is done stays, the same command "
                "continues from there"
            )
        self.held.require()
        # After the first tasks, which the workers begin meanwhile.
        if self._queue is not None and self._queue.is_busy and writes_catalog(self.stage):
            self.choice.begin()
        self.choice.require()
        self.sink.write_due()

    def _choose_engines(self) -> None:
        """Let the plan have the engines of its networks, without which nothing is inferred; they are waited for."""
        self.plan = self.choice.plan(lambda: self.check(self._came()))
        if self._queue is not None:
            self._queue.plan = self.plan

    def _infer_attempt(self, attempt: Attempt) -> Attempt:
        """Return the step of a partition after its cutouts are there."""
        self._choose_engines()
        part = self.plan.by_pixel[attempt.part.partition.pixel]
        return Attempt(part, "infer", n_failed=attempt.n_failed)

    def next_step(
        self, *, ingested: bool, measured: bool, inferred: bool
    ) -> Literal["ingest", "photometry", "infer"] | None:
        """Return the first step of this stage that a partition lacks; None if it has all of them."""
        if not ingested and self.stage in ("ingest", "all"):
            return "ingest"
        if not measured and self.measures:
            return "photometry"
        return "infer" if not inferred and writes_catalog(self.stage) else None

    @property
    def measures(self) -> bool:
        """Whether cutouts are measured in this stage: before the networks, or alone."""
        return self.plan.photometry is not None and self.stage != "ingest"

    def shows(self, step: str) -> bool:
        """Return whether a step has a bar of its own: photometry, a hundredth of inference, only where it is all that is done."""
        cuts = bool(self.plan.grids) or step != "ingest"
        return self.stage == step or (self.stage == "all" and step != "photometry" and cuts)

    @property
    def removes_cutouts(self) -> bool:
        """Whether the cutouts of a partition are deleted after its leaf is written."""
        # With --stage ingest the cutouts are what is asked for, with --stage infer they are an input.
        return not self.config.cutouts.keep and self.stage == "all" and bool(self.plan.grids)

    def prepare_outputs(self, before: Progress, waiting: Sequence[Attempt]) -> None:
        """Remove cutouts that are left over, and create the Zarr groups of the partitions to do."""
        store, catalog_path = self.config.cutouts.store, self.config.catalog.path
        if self.removes_cutouts:
            # A run that was stopped between writing a leaf and removing its cutouts left them in the store.
            there = ingest.list_pixels(store)
            for part in self.plan.partitions:
                if part.partition.name in before.inferred and part.partition.pixel in there:
                    ingest.remove_partition(store, part.partition)
        # Created here, not by the tasks: partitions share parent groups, which two workers would create at the same time.
        above = {one.output for one in before.damaged if one.pixel is None}
        to_cut = {attempt.part.partition.pixel for attempt in waiting if attempt.step == "ingest"}
        if "cutouts" in above:  # the files above all groups are written once more
            to_cut |= {pixel for pixel, _ in ingest.list_done(store)}
        if self.plan.grids and (waiting or to_cut):
            grids = [grid.grid for grid in self.plan.grids]
            ingest.create_groups(store, attributes=self.store_attributes(), partitions=to_cut, grids=grids)
        if self.config.posterior.keep_pass_outputs and writes_catalog(self.stage):
            to_infer = {attempt.part.partition.pixel for attempt in waiting}
            if "pass outputs" in above:
                to_infer |= {pixel for pixel, _ in pass_outputs.list_done(catalog_path)}
            if to_infer:
                pass_outputs.create_groups(catalog_path, to_infer)

    def store_attributes(self) -> dict[str, Any]:
        """Return the attributes of the store's root."""
        return {
            "survey": [survey.layout for survey in self.config.survey],
            "grids": {grid.grid.label: list(grid.bands) for grid in self.plan.grids},
            "unit": "nJy",
            "release": self.plan.tile_labels("release"),
            "background": self.plan.tile_labels("background"),
            "galbatch_version": __version__,
        }

    def next_attempt(self, attempt: Attempt, result: tasks.TaskResult) -> Attempt | None:
        """Count the result of a step, and return the next step of its partition, if any."""
        if not attempt.repairs and self.shows(attempt.step):
            self.sink.advance(attempt.step, result.n_objects)
        self.sink.record(_done_event(attempt, result))
        inferred = attempt.part.partition.name in self._inferred
        if attempt.step == "ingest":
            self.result.n_cut += result.n_cutouts
            self.result.n_cutouts_taken += result.n_taken
            # Photometry lies among the cutouts, and went with those that were damaged.
            if self.stage == "ingest" or (inferred and not self.measures):
                return None
            if self.measures:
                return Attempt(attempt.part, "photometry", n_failed=attempt.n_failed)
            return self._infer_attempt(attempt)
        if attempt.step == "photometry":
            return self._infer_attempt(attempt) if writes_catalog(self.stage) and not inferred else None
        self.result.n_inferred += result.n_objects
        self.result.n_new += result.n_objects
        self.result.n_passes += result.n_passes
        self.result.n_values_taken += result.n_taken
        if self.removes_cutouts and not self._remove_cutouts(attempt.part.partition):
            self._not_removed.append(attempt.part.partition)
        return None

    def _remove_cutouts(self, partition: Partition) -> bool:
        """Remove the cutouts of a partition; return False where the store does not let them go now."""
        try:
            ingest.remove_partition(self.config.cutouts.store, partition)
        except (OutputError, OSError) as error:
            # The partition is done, so this is no failure: the next run removes what is left over.
            if not self._not_removed:
                self.sink.note(f"the cutouts of partition {partition.name} stay for now: {error}")
            return False
        return True

    def finish(self) -> None:
        """Write the catalog's metadata and the list of failures, after pauses if a disk is full."""
        self._choose_engines()
        try:
            self._pauses.until_it_works(lambda: _finish(self.config, self.plan, self.result))
        except (OutputError, OSError) as error:
            # Nothing can be written there, however long the run waited. Running again finishes the catalog.
            if fault_of(error).kind is not FaultKind.RESOURCE:
                raise
            self.result.failed["catalog"] = f"finish: {reason_of(error)}"
