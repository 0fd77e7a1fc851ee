"""The run: read inputs, plan, submit a bounded window of partitions, retry, finish.

Progress is read from the outputs: a partition's cutouts are there when its ``_done.json`` says so, its
results when its leaf is. A run that was stopped at any moment is continued by running it again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
from distributed import Client

from galbatch import __version__, catalog, cluster, dashboard, ingest, models, storage
from galbatch.catalog import pass_outputs
from galbatch.config import ModelConfig, RunConfig
from galbatch.core.columns import PIXEL_FLAGS, Column
from galbatch.core.fingerprint import Fingerprint, refuse_difference
from galbatch.core.pixels import Partition
from galbatch.core.types import Grid
from galbatch.errors import (
    BundleError,
    ConfigError,
    FingerprintError,
)
from galbatch.execution import tasks
from galbatch.execution.submission import Attempt, SubmissionQueue
from galbatch.objects import kept_names, open_objects, write_parquet
from galbatch.planning.plan import ENGINE_OF, ModelPlan, PartitionPlan, Plan, make_plan

__all__ = [
    "Progress",
    "RunResult",
    "Stage",
    "clean",
    "execute",
    "prepare",
    "progress",
    "verify_against",
]

Stage = Literal["ingest", "infer", "all"]
FAILED_FILE = "_failed.json"
REJECTED_FILE = "rejected.parquet"


@dataclass(frozen=True)
class Progress:
    """What is there and what is left, read from the outputs."""

    plan: Plan
    ingested: frozenset[str]
    inferred: frozenset[str]
    failed: Mapping[str, str]

    @property
    def left(self) -> list[PartitionPlan]:
        """Partitions without a leaf."""
        return [part for part in self.plan.partitions if part.partition.name not in self.inferred]


@dataclass
class RunResult:
    """How a run ended. `failed` maps a partition's name to its reason."""

    n_objects: int = 0
    n_inferred: int = 0
    n_passes: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    complete: bool = False


def tile_index_of(store: str) -> str:
    """What the paths of the tile indexes begin with: beside the store, as they belong to its inputs."""
    return store.rstrip("/") + "_tiles"


def prepare(config: RunConfig, workers: cluster.Workers | None = None) -> Plan:
    """Read the inputs (object list, tile headers, bundles) and plan.

    Parameters
    ----------
    workers : where the headers of many tiles are read; None: here

    Raises
    ------
    UsageError
        An input is missing or wrong; the message says which and what to do.
    """
    networks = [_network(config, model) for model in config.models]
    _require_free_names(config, networks)
    recorded = _recorded_engines(config.catalog.path)
    plans = [
        ModelPlan.of(model, _paths(model), network, engine=_engine(config, network, recorded.get(model.name)))
        for model, network in zip(config.models, networks, strict=True)
    ]
    fed = dict.fromkeys(name for plan in plans for name in plan.auxiliary_inputs)
    objects = open_objects(config.objects, inputs=tuple(fed))
    tiles = ingest.read_surveys(
        config.survey,
        index=tile_index_of(config.cutouts.store),
        map_files=None if workers is None else workers.map,
    )
    return make_plan(config, objects, tiles, plans)


def _engine(config: RunConfig, network: models.Ensemble, recorded: str | None) -> str:
    """The engine of a network: the one that began the run, where it is as asked for, else what is best on the device."""
    wanted = config.posterior
    if recorded is not None:
        began = models.Engine.named(recorded)
        if wanted.engine in ("auto", began.kind) and wanted.precision in ("auto", began.precision):
            return began.name
    return models.choose_engine(
        network, kind=wanted.engine, precision=wanted.precision, device=cluster.kind_of(config.cluster).device
    ).name


def _recorded_engines(catalog_path: str) -> dict[str, str]:
    """Names of the engines, by network, in the fingerprint of a leaf that is there; nothing without leaves."""
    leaves = catalog.list_leaves(catalog_path)
    if not leaves:
        return {}
    footer = catalog.read_footer(catalog_path, min(leaves))
    parts = (tasks.footer_fingerprint(footer) or {}).get("parts", {})
    return {key.removeprefix(ENGINE_OF): name for key, name in parts.items() if key.startswith(ENGINE_OF)}


def _paths(model: ModelConfig) -> tuple[str, ...]:
    return tuple(models.bundle_path(spec) for spec in model.bundle)


def _network(config: RunConfig, model: ModelConfig) -> models.Ensemble:
    """The bundles of a ``[[models]]``, if they fit each other and what the run feeds them."""
    try:
        network = models.load_ensemble(_paths(model), calibrated=model.calibrated)
    except BundleError as error:
        raise BundleError(f"run.toml: [[models]] {model.name}: {error}") from None
    _require_bands(config, model, network)
    taken = [column.name for column in network.metadata.input.auxiliary_inputs]
    if len(model.auxiliary_inputs or taken) != len(taken):
        raise ConfigError(
            f"run.toml: [[models]] {model.name}: auxiliary_inputs names {len(model.auxiliary_inputs)} columns, the bundle takes {len(taken)} "
            f"({', '.join(taken) or 'none'})"
        )
    return network


def _require_free_names(config: RunConfig, networks: Sequence[models.Ensemble]) -> None:
    """Refuse kept columns that are called as results are, which the leaves would refuse after all has been cut."""
    columns: list[Column] = [PIXEL_FLAGS]
    for model, network in zip(config.models, networks, strict=True):
        columns += models.result_columns(network.metadata, name=model.name, posterior=config.posterior)
    kept = pa.schema([(name, pa.null()) for name in kept_names(config.objects)])
    catalog.leaf_schema(columns, id_type=pa.int64(), kept=kept)


def _require_bands(config: RunConfig, model: ModelConfig, network: models.Ensemble) -> None:
    name, bands = model.name, model.bands or tuple(network.bands)
    if len(bands) != len(network.bands):
        raise ConfigError(
            f"run.toml: [[models]] {name}: bands names {len(bands)} bands, the bundle takes {len(network.bands)} "
            f"({', '.join(network.bands)})"
        )
    missing = [band for band in bands if band not in config.bands]
    if missing:
        raise ConfigError(
            f"run.toml: [[models]] {name}: needs band {', '.join(missing)}; [survey] bands has "
            f"{', '.join(config.bands)}: add it there, or name the bands to feed with [[models]] bands"
        )


def progress(config: RunConfig, plan: Plan) -> Progress:
    """Read from the outputs what is done.

    Raises
    ------
    FingerprintError
        An output was written with other settings or inputs, or belongs to another division of the sky.
    """
    ingested = {p.partition.name for p in plan.partitions if _is_ingested(config, plan, p)}
    _refuse_foreign_cutouts(config, plan)
    leaves = set(catalog.list_leaves(config.catalog.path))
    inferred = set()
    for part in plan.partitions:
        if part.partition.pixel in leaves:
            found = catalog.read_footer(config.catalog.path, part.partition)
            where = f"{config.catalog.path} {part.partition.name}"
            refuse_difference(where, tasks.footer_fingerprint(found), part.leaf)
            _refuse_lost_pass_outputs(config, part, found or {})
            inferred.add(part.partition.name)
            leaves.discard(part.partition.pixel)
    if leaves:
        raise FingerprintError(
            f"{config.catalog.path} holds {len(leaves)} leaves of another division of the sky, such as "
            f"{min(leaves).name}; choose another [catalog] path, or run galbatch clean"
        )
    if config.posterior.keep_pass_outputs:
        _refuse_foreign_pass_outputs(config, plan)
    failed = storage.read_json(storage.join(config.catalog.path, FAILED_FILE)) or {}
    still = {name: reason for name, reason in failed.items() if name not in inferred}
    return Progress(plan, frozenset(ingested), frozenset(inferred), still)


def _refuse_lost_pass_outputs(config: RunConfig, part: PartitionPlan, footer: Mapping[str, str]) -> None:
    """Refuse a leaf without the pass outputs that the run is asked to keep: it would never get them."""
    if not config.posterior.keep_pass_outputs:
        return
    where = f"{config.catalog.path} {part.partition.name}"
    if not pass_outputs.were_kept(footer):
        raise FingerprintError(
            f"{where}: written without keep_pass_outputs = true; choose another [catalog] path: passes are reproducible"
        )
    for model in config.models:
        fingerprint = part.leaf.as_json()
        problem = pass_outputs.problem_of(
            config.catalog.path, part.partition, model.name, fingerprint=fingerprint
        )
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


def _is_ingested(config: RunConfig, plan: Plan, part: PartitionPlan) -> bool:
    for grid in plan.grids:
        done = ingest.read_done(config.cutouts.store, part.partition, grid.grid)
        if done is None:
            return False
        where = f"{config.cutouts.store} {part.partition.name} {grid.grid.label}"
        refuse_difference(where, done["fingerprint"], part.ingest)
    return True


def _refuse_foreign_cutouts(config: RunConfig, plan: Plan) -> None:
    planned = {(p.partition.pixel, g.grid) for p in plan.partitions for g in plan.grids}
    foreign = [key for key in ingest.list_done(config.cutouts.store) if key not in planned]
    if foreign:
        raise FingerprintError(
            f"{config.cutouts.store} holds cutouts of another division of the sky or grid, such as "
            f"{foreign[0][0].path}/{foreign[0][1].label}; choose another [cutouts] store, or run galbatch clean"
        )


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
    with _locked(config, stage):
        before = progress(config, plan)
        sink = sink or dashboard.Silent()
        kind = cluster.kind_of(config.cluster)
        kind.check_workers(client, _worker_needs(config, plan, stage), sink.note)
        if len(plan.rejected):
            write_parquet(storage.join(config.catalog.path, REJECTED_FILE), plan.rejected)
        run = _Run(config, plan, client, stage, sink)
        run.work(before)
        if stage != "ingest":
            _record_failures(config, run.result.failed)
            _finish(config, plan, run.result)
    run.result.seconds = time.monotonic() - started
    return run.result


def _worker_needs(config: RunConfig, plan: Plan, stage: Stage) -> cluster.WorkerNeeds:
    """Return what the workers must see and do: one tile of each band, the bundles and the outputs of the stage."""
    tiles = {tile.band: tile.image.path for tile in plan.tiles} if stage != "infer" else {}
    bundles = [path for model in plan.models for path in model.paths] if stage != "ingest" else []
    outputs = [config.cutouts.store] if stage == "ingest" else [config.cutouts.store, config.catalog.path]
    return cluster.WorkerNeeds(infers=stage != "ingest", written=outputs, read=[*tiles.values(), *bundles])


def lock_of(output: str) -> str:
    """Path of the lock beside an output: not inside, where Zarr would take it for a part of the store."""
    return output.rstrip("/") + "_lock.json"


def check_outputs(config: RunConfig, stage: Stage) -> list[str]:
    """The outputs that a stage writes; makes their folders.

    Raises
    ------
    OutputError
        One cannot be written where it is asked for.
    """
    store, catalog_path = config.cutouts.store, config.catalog.path
    outputs = [store] if stage == "ingest" else [store, catalog_path]
    for output in outputs:
        storage.check_writable(output)
    return outputs


@contextmanager
def _locked(config: RunConfig, stage: Stage) -> Iterator[None]:
    with ExitStack() as stack:
        for output in check_outputs(config, stage):
            stack.enter_context(storage.Lock(lock_of(output)))
        yield


class _Run:
    """What is left of the run, and what the sink is told of it."""

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
        if self._removes_cutouts:
            self._remove_leftovers(before)
        waiting = self._announce(before)
        if not waiting:
            return
        self._make_groups([attempt.part.partition for attempt in waiting if attempt.step == "ingest"])
        if self.config.posterior.keep_pass_outputs and self.stage != "ingest":
            pass_outputs.create_groups(
                self.config.catalog.path, [attempt.part.partition for attempt in waiting]
            )
        queue = SubmissionQueue(self.config, self.plan, self.client, then=self._then, note=self.sink.note)
        queue.work(waiting)
        self.result.failed = queue.failed

    def _announce(self, before: Progress) -> list[Attempt]:
        """Tell the sink what is there, and list the first steps of what is left."""
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

    def _remove_leftovers(self, before: Progress) -> None:
        """Cutouts of partitions whose leaf is there: a run was stopped between leaf and removal, or in it."""
        there = ingest.list_pixels(self.config.cutouts.store)
        for part in self.plan.partitions:
            if part.partition.name in before.inferred and part.partition.pixel in there:
                ingest.remove_partition(self.config.cutouts.store, part.partition)

    def _make_groups(self, partitions: list[Partition]) -> None:
        grids: list[Grid] = [grid.grid for grid in self.plan.grids]
        attributes = {
            "survey": [survey.layout for survey in self.config.survey],
            "grids": {grid.grid.label: list(grid.bands) for grid in self.plan.grids},
            "unit": "nJy",
            "release": self.plan.stated("release"),
            "background": self.plan.stated("background"),
            "galbatch_version": __version__,
        }
        ingest.create_groups(
            self.config.cutouts.store, attributes=attributes, partitions=partitions, grids=grids
        )

    def _then(self, attempt: Attempt, result: tasks.TaskResult) -> Attempt | None:
        """Take in the result of a step; return what the partition needs next, if anything."""
        self.sink.advance(attempt.step, result.n_objects)
        if attempt.step == "ingest":
            return Attempt(attempt.part, "infer") if self.stage == "all" else None
        self.result.n_inferred += result.n_objects
        self.result.n_passes += result.n_passes
        if self._removes_cutouts:
            ingest.remove_partition(self.config.cutouts.store, attempt.part.partition)
        return None


def _record_failures(config: RunConfig, failed: dict[str, str]) -> None:
    path = storage.join(config.catalog.path, FAILED_FILE)
    if failed:
        storage.publish_json(path, failed)
    else:
        storage.remove(path)


def _finish(config: RunConfig, plan: Plan, result: RunResult) -> None:
    """Write the HATS metadata from the leaves that are there; properties last."""
    there = set(catalog.list_leaves(config.catalog.path))
    partitions = [part.partition for part in plan.partitions if part.partition.pixel in there]
    result.complete = len(partitions) == len(plan.partitions)
    if not partitions:
        return
    properties = {
        "obs_collection": config.catalog.name,
        "galbatch_version": __version__,
        "galbatch_complete": str(result.complete).lower(),
        "galbatch_objects": str(len(plan.objects)),
        **{f"galbatch_engine_{model.name}": model.engine for model in plan.models},
        "galbatch_passes": str(config.posterior.passes),
        "galbatch_method": config.posterior.method,
        "galbatch_seed": str(config.posterior.seed),
        "galbatch_pass_outputs": str(config.posterior.keep_pass_outputs).lower(),
        **{f"galbatch_bundle_{model.name}": ", ".join(model.sha256) for model in plan.models},
        "galbatch_release": ", ".join(plan.stated("release")),
        "galbatch_background": ", ".join(plan.stated("background")),
        "galbatch_fingerprint": _common_fingerprint(plan).digest,
    }
    catalog.finish(
        config.catalog.path,
        partitions=partitions,
        properties=properties,
        n_rows_expected=sum(partition.n_objects for partition in partitions),
        added_up=tasks.audit_properties,
    )


def _common_fingerprint(plan: Plan) -> Fingerprint:
    """Fingerprint of the whole catalog: those of its leaves."""
    return Fingerprint({part.partition.name: part.leaf.digest for part in plan.partitions})


def clean(config: RunConfig) -> list[str]:
    """Delete the run's outputs, and nothing else that lies in their folders; returns the paths removed.

    Raises
    ------
    LockedError
        A run is writing them.
    """
    own = {
        config.cutouts.store: ingest.STORE_ENTRIES,
        config.catalog.path: (*catalog.CATALOG_ENTRIES, FAILED_FILE, REJECTED_FILE),
        pass_outputs.pass_outputs_path(config.catalog.path): pass_outputs.PASS_OUTPUT_ENTRIES,
    }
    indexes = ingest.index_paths(tile_index_of(config.cutouts.store), config.survey)
    removed = [path for path in indexes if storage.exists(path)]
    for path in removed:
        storage.remove(path)
    for folder, entries in own.items():
        if not storage.exists(folder):
            continue
        with storage.Lock(lock_of(folder)):
            there = [path for path in (storage.join(folder, e) for e in entries) if storage.exists(path)]
            for path in there:
                storage.remove(path)
            removed.extend(there)
        storage.remove_if_empty(folder)
    return removed


def verify_against(config: RunConfig, catalog_path: str, workers: cluster.Workers | None = None) -> list[str]:
    """Compare a catalog with the run that should have made it; returns the problems found.

    Every object of the list is there exactly once, and every leaf carries this run's fingerprint.
    """
    at = config.catalog.model_copy(update={"path": catalog_path})
    plan = prepare(config.model_copy(update={"catalog": at}), workers)  # its leaves tell the engine
    problems = []
    for part in plan.partitions:
        footer = catalog.read_footer(catalog_path, part.partition)
        if footer is None:
            problems.append(f"{catalog_path} {part.partition.name}: no leaf; galbatch run does what is left")
            continue
        try:
            where = f"{catalog_path} {part.partition.name}"
            refuse_difference(where, tasks.footer_fingerprint(footer), part.leaf)
        except FingerprintError as error:
            problems.append(str(error))
    return problems + _id_problems(plan, catalog_path)


def _id_problems(plan: Plan, catalog_path: str) -> list[str]:
    """Objects that are missing, too many or there twice; leaf by leaf, so that a catalog need not fit in memory."""
    n_missing = n_extra = n_twice = 0
    there = set(catalog.list_leaves(catalog_path))
    expected = {p.partition.pixel: p.partition for p in plan.partitions}
    for pixel in (*expected, *sorted(there - expected.keys())):
        found = Counter(catalog.leaf_ids(catalog_path, pixel) if pixel in there else [])
        listed = set(plan.take(expected[pixel]).table.object_id.tolist()) if pixel in expected else set()
        n_missing += len(listed - found.keys())
        n_extra += len(found.keys() - listed)
        n_twice += found.total() - len(found)
    if not n_missing + n_extra + n_twice:
        return []
    return [
        f"{catalog_path}: {n_missing} objects of the list are missing, {n_extra} are not in the list, "
        f"{n_twice} stand twice"
    ]
