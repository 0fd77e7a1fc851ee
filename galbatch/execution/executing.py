"""Execution of a plan: partitions are submitted, a bounded number at a time, and the catalog is finished.

Progress is read from the outputs, so executing the same plan again continues a run that was stopped at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from distributed import Client

from galbatch import __version__, cluster, dashboard, ingest, storage
from galbatch.catalog import pass_outputs
from galbatch.config import RunConfig
from galbatch.execution import finishing, tasks
from galbatch.execution.outputs import REJECTED_FILE, Stage, locked
from galbatch.execution.progress import Progress, read_progress
from galbatch.execution.submission import Attempt, SubmissionQueue
from galbatch.objects import write_parquet
from galbatch.planning import Plan

__all__ = ["RunResult", "execute"]


@dataclass
class RunResult:
    """The result of a run.

    Attributes
    ----------
    n_objects : number of objects of the plan
    n_inferred : number of objects in the catalog, including those of earlier runs
    n_new : number of objects that this run put there
    n_passes : number of passes made by this run
    seconds : wall time of this run
    failed : the reason why each partition failed, by its name
    complete : whether every partition has a leaf
    """

    n_objects: int = 0
    n_inferred: int = 0
    n_new: int = 0
    n_passes: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = False


def execute(
    config: RunConfig,
    plan: Plan,
    client: Client,
    *,
    stage: Stage = "all",
    sink: dashboard.ProgressSink | None = None,
) -> RunResult:
    """Execute the part of a plan that is not done yet.

    Parameters
    ----------
    config : RunConfig
    plan : Plan
    client : distributed.Client
        Connection to the workers.
    stage : {"ingest", "infer", "all"}
        Make cutouts, infer from existing cutouts, or both.
    sink : ProgressSink or None
        Shows the progress. None shows nothing.

    Returns
    -------
    RunResult

    Raises
    ------
    FingerprintError, LockedError, OutputError, ClusterError
        The run cannot begin; nothing was written.
    SchedulerLost
        The connection was lost; partitions that are done stay.
    """
    started = time.monotonic()
    with locked(config, stage):
        # Under the locks: another run could change the outputs between reading and writing.
        before = read_progress(config, plan)
        sink = sink or dashboard.Silent()
        # One tile of each band stands for all tiles of its folder; checking all would take longer than the run.
        tiles = {tile.band: tile.image.path for tile in plan.tiles} if stage != "infer" else {}
        bundles = [path for model in plan.models for path in model.paths] if stage != "ingest" else []
        outputs = [config.cutouts.store] if stage == "ingest" else [config.cutouts.store, config.catalog.path]
        needs = cluster.WorkerNeeds(
            infers=stage != "ingest", written=outputs, read=[*tiles.values(), *bundles]
        )
        cluster.kind_of(config.cluster).check_workers(client, needs, sink.note)
        if len(plan.rejected):
            write_parquet(storage.join(config.catalog.path, REJECTED_FILE), plan.rejected)
        run = _Run(config, plan, client, stage, sink)
        run.work(before)
        if stage != "ingest":
            # Also after failures: the catalog opens without the missing leaves, and its properties say so.
            finishing.record_failures(config, run.result.failed)
            run.result.complete = finishing.finish(config, plan)
    run.result.seconds = time.monotonic() - started
    return run.result


class _Run:
    """One execution of a plan: its work, its result, and the sink that shows its progress."""

    def __init__(
        self, config: RunConfig, plan: Plan, client: Client, stage: Stage, sink: dashboard.ProgressSink
    ) -> None:
        self.config = config
        self.plan = plan
        self.client = client
        self.stage = stage
        self.sink = sink
        self.result = RunResult(n_objects=len(plan.objects))

    def work(self, before: Progress) -> None:
        """Do all steps that are left of each partition."""
        waiting = []
        done = {"ingest": 0, "infer": 0}
        for part in self.plan.partitions:
            name, n_objects = part.partition.name, part.partition.n_objects
            # Cutouts of a finished partition may have been removed ([cutouts] keep = false): they count as done.
            ingested = name in before.ingested or name in before.inferred
            done["ingest"] += n_objects * ingested
            done["infer"] += n_objects * (name in before.inferred)
            if not ingested and self.stage != "infer":
                waiting.append(Attempt(part, "ingest"))
            elif name not in before.inferred and self.stage != "ingest":
                waiting.append(Attempt(part, "infer"))
        self.result.n_inferred = done["infer"]
        for step in ("ingest", "infer"):
            if self.stage in (step, "all"):
                self.sink.start(step, len(self.plan.objects), done[step])
        self.prepare_outputs(before, waiting)
        if waiting:
            queue = SubmissionQueue(
                self.config, self.plan, self.client, next_attempt=self.next_attempt, note=self.sink.note
            )
            queue.work(waiting)
            self.result.failed = queue.failed

    @property
    def removes_cutouts(self) -> bool:
        """Whether the cutouts of a partition are deleted after its leaf is written."""
        # With --stage ingest the cutouts are what is asked for, with --stage infer they are an input.
        return not self.config.cutouts.keep and self.stage == "all"

    def prepare_outputs(self, before: Progress, waiting: Sequence[Attempt]) -> None:
        """Remove cutouts that are left over, and create the Zarr groups of the partitions to do."""
        store, catalog_path = self.config.cutouts.store, self.config.catalog.path
        if self.removes_cutouts:
            # A run that was stopped between writing a leaf and removing its cutouts left them in the store.
            there = ingest.list_pixels(store)
            for part in self.plan.partitions:
                if part.partition.name in before.inferred and part.partition.pixel in there:
                    ingest.remove_partition(store, part.partition)
        if not waiting:
            return
        attributes = {
            "survey": [survey.layout for survey in self.config.survey],
            "grids": {grid.grid.label: list(grid.bands) for grid in self.plan.grids},
            "unit": "nJy",
            "release": self.plan.stated("release"),
            "background": self.plan.stated("background"),
            "galbatch_version": __version__,
        }
        # Created here, not by the tasks: partitions share parent groups, which two workers would create at the same time.
        to_cut = [attempt.part.partition for attempt in waiting if attempt.step == "ingest"]
        grids = [grid.grid for grid in self.plan.grids]
        ingest.create_groups(store, attributes=attributes, partitions=to_cut, grids=grids)
        if self.config.posterior.keep_pass_outputs and self.stage != "ingest":
            pass_outputs.create_groups(catalog_path, [attempt.part.partition for attempt in waiting])

    def next_attempt(self, attempt: Attempt, result: tasks.TaskResult) -> Attempt | None:
        """Count the result of a step, and return the next step of its partition, if any."""
        self.sink.advance(attempt.step, result.n_objects)
        if attempt.step == "ingest":
            return Attempt(attempt.part, "infer") if self.stage == "all" else None
        self.result.n_inferred += result.n_objects
        self.result.n_new += result.n_objects
        self.result.n_passes += result.n_passes
        if self.removes_cutouts:
            ingest.remove_partition(self.config.cutouts.store, attempt.part.partition)
        return None
