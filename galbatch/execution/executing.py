"""Execute a plan: submit a bounded number of partitions at a time, retry, finish.

A run that was stopped at any moment is continued by running it again, as progress is read from the outputs.
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
    """How a run ended.

    Attributes
    ----------
    n_inferred : objects with results, also those of earlier runs
    n_passes : passes of this run
    failed : reasons of the partitions that failed, by name
    complete : whether every partition has a leaf
    """

    n_objects: int = 0
    n_inferred: int = 0
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
    """Do what is left of the run.

    Raises
    ------
    FingerprintError, LockedError, OutputError, ClusterError
        Nothing was started.
    SchedulerLost
        What is done stays.
    """
    started = time.monotonic()
    with locked(config, stage):
        before = read_progress(config, plan)
        sink = sink or dashboard.Silent()
        kind = cluster.kind_of(config.cluster)
        kind.check_workers(client, _worker_needs(config, plan, stage), sink.note)
        if len(plan.rejected):
            write_parquet(storage.join(config.catalog.path, REJECTED_FILE), plan.rejected)
        run = _Run(config, plan, client, stage, sink)
        run.work(before)
        if stage != "ingest":
            finishing.record_failures(config, run.result.failed)
            run.result.complete = finishing.finish(config, plan)
    run.result.seconds = time.monotonic() - started
    return run.result


def _worker_needs(config: RunConfig, plan: Plan, stage: Stage) -> cluster.WorkerNeeds:
    """Return what the workers must see and do: one tile of each band, the bundles and the outputs of the stage."""
    tiles = {tile.band: tile.image.path for tile in plan.tiles} if stage != "infer" else {}
    bundles = [path for model in plan.models for path in model.paths] if stage != "ingest" else []
    outputs = [config.cutouts.store] if stage == "ingest" else [config.cutouts.store, config.catalog.path]
    return cluster.WorkerNeeds(infers=stage != "ingest", written=outputs, read=[*tiles.values(), *bundles])


class _Run:
    """The work that is left of a run, and the sink that its progress is reported to."""

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
        """See each partition that is left through both steps."""
        waiting = self._announce(before)
        self._prepare_outputs(before, waiting)
        if waiting:
            queue = SubmissionQueue(self.config, self.plan, self.client, then=self._then, note=self.sink.note)
            queue.work(waiting)
            self.result.failed = queue.failed

    def _announce(self, before: Progress) -> list[Attempt]:
        """Report what is done to the sink, and return the first steps of what is left."""
        waiting = []
        done = {"ingest": 0, "infer": 0}
        for part in self.plan.partitions:
            name, n_objects = part.partition.name, part.partition.n_objects
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
        return waiting

    @property
    def _removes_cutouts(self) -> bool:
        """Whether a partition's cutouts go once its leaf is there; ``--stage ingest`` is asked for cutouts."""
        return not self.config.cutouts.keep and self.stage == "all"

    def _prepare_outputs(self, before: Progress, waiting: Sequence[Attempt]) -> None:
        """Remove cutouts that are left over, and make the Zarr groups of what is to be done."""
        store, catalog_path = self.config.cutouts.store, self.config.catalog.path
        if self._removes_cutouts:
            # A run that was stopped between a leaf and the removal of its cutouts, or in the removal, left them there.
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
        to_cut = [attempt.part.partition for attempt in waiting if attempt.step == "ingest"]
        grids = [grid.grid for grid in self.plan.grids]
        ingest.create_groups(store, attributes=attributes, partitions=to_cut, grids=grids)
        if self.config.posterior.keep_pass_outputs and self.stage != "ingest":
            pass_outputs.create_groups(catalog_path, [attempt.part.partition for attempt in waiting])

    def _then(self, attempt: Attempt, result: tasks.TaskResult) -> Attempt | None:
        """Count the result of a step; return the attempt that the partition needs next, if any."""
        self.sink.advance(attempt.step, result.n_objects)
        if attempt.step == "ingest":
            return Attempt(attempt.part, "infer") if self.stage == "all" else None
        self.result.n_inferred += result.n_objects
        self.result.n_passes += result.n_passes
        if self._removes_cutouts:
            ingest.remove_partition(self.config.cutouts.store, attempt.part.partition)
        return None
