"""The time and memory that a run will take, measured on a few of its own objects in this process; nothing is written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from galbatch import cluster, ingest, models
from galbatch.config import PosteriorConfig, RunConfig
from galbatch.core.columns import MC_ERROR, PASSES
from galbatch.core.types import CutoutBlock, ObjectTable
from galbatch.errors import BundleError
from galbatch.execution import tasks
from galbatch.execution.networks import auxiliary_of, execution_of, load_network, require_engine
from galbatch.models.networks import is_audited
from galbatch.planning import InferenceMemory, ModelPlan, Plan, project_inference

__all__ = ["NetworkRate", "Rates", "measure_memory", "measure_rates"]

# 32 objects of 8 passes fill one batch of the default 256 rows.
MEASURED_OBJECTS = 32
MEASURED_PASSES = 8
# With a full-size GaMPEN at 96 px, adaptive passes of 8 objects take a minute on a CPU.
ADAPTIVE_OBJECTS = 8
# Partitions that are looked at, and those that are cut, until one has pixels: a list may reach far beyond its tiles.
MOST_PARTITIONS = 256
MOST_CUT = 8
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class NetworkRate:
    """The time that a network takes.

    Attributes
    ----------
    pass_s : seconds that one worker takes for one pass of one object
    passes : mean number of passes per object
    calibrated_passes : mean number that a stopping calibration would leave, estimated from the errors that the measured objects have
        shown; None where the network has one, or none would change anything
    """

    pass_s: float
    passes: float
    calibrated_passes: float | None = None


@dataclass(frozen=True)
class Rates:
    """The time that one worker takes, measured on this machine with a few of the run's own objects.

    Attributes
    ----------
    n_measured : number of objects that were measured, all with pixels; 0 if none has any
    cutout_s : seconds for all cutouts of an object on one grid
    networks : rate of each network, by its name; networks without an object that they can be run on are left out
    is_as_planned : False if this machine lacks the run's GPU or engine, so that TorchScript on the CPU was measured instead
    """

    n_measured: int
    cutout_s: float
    networks: Mapping[str, NetworkRate]
    is_as_planned: bool = True

    def rows(self, plan: Plan, config: RunConfig) -> list[tuple[str, str]]:
        """Return rows of the plan's table, (label, text): the projected time of each step with the configured workers."""
        workers, called = cluster.kind_of(config.cluster).workers_planned()
        # Objects outside every tile take no time: the measured ones all lie on tiles.
        cut_s = sum(grid.n_covered for grid in plan.grids) * self.cutout_s / workers
        where = "on this machine" if self.is_as_planned else "by scripts on this machine's CPU"
        to_cut = f"{_duration(cut_s)} with {called}" if self.n_measured else NOT_MEASURED
        adaptive = config.posterior.passes == "adaptive"
        return [
            *([("time to cut", to_cut)] if plan.grids else []),
            *(
                self.network_rows(plan, adaptive=adaptive, workers=workers, called=called)
                if plan.models
                else []
            ),
            (
                "measured on",
                f"{self.n_measured} of the objects, {where}"
                if self.n_measured
                else "no object: none with pixels was found",
            ),
        ]

    def network_rows(self, plan: Plan, *, adaptive: bool, workers: int, called: str) -> list[tuple[str, str]]:
        """Return the rows about networks; those that could not be measured are named."""
        labels = ("time to infer", "passes an object", "time of a pass")
        if not self.networks:
            return [(label, NOT_MEASURED) for label in labels]
        rates = [(m.n_covered, self.networks[m.name]) for m in plan.models if m.name in self.networks]
        infer_s = sum(n * rate.passes * rate.pass_s for n, rate in rates) / workers
        missing = [m.name for m in plan.models if m.n_covered and m.name not in self.networks]
        without = f"; {', '.join(missing)}: {NOT_MEASURED}" if missing else ""
        passes = ", ".join(f"{name} {rate.passes:.0f}" for name, rate in self.networks.items())
        if adaptive:
            passes += f": mean of {min(ADAPTIVE_OBJECTS, self.n_measured)} objects, adaptive"
        for name, rate in self.networks.items():
            if rate.calibrated_passes is not None and rate.calibrated_passes < rate.passes:
                passes += (
                    f"; about {rate.calibrated_passes:.0f} for {name} with a stopping calibration (galbatch models calibrate "
                    "--stopping-only)"
                )
        times = ", ".join(f"{name} {1e3 * rate.pass_s:.2f} ms" for name, rate in self.networks.items())
        return list(zip(labels, (f"{_duration(infer_s)} with {called}{without}", passes, times), strict=True))


def _duration(seconds: float) -> str:
    """Return a time as text: in seconds up to 90 s, in minutes up to 90 min, else in hours."""
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def measure_rates(config: RunConfig, plan: Plan) -> Rates:
    """Return the rates measured on a few objects of the run, which are cut and inferred in memory.

    With adaptive passes, a few objects get all their passes, and their mean number of passes is taken for all objects.
    """
    n_measured, cutout_s, networks, is_as_planned = 0, 0.0, dict[str, NetworkRate](), True
    for number, grid in enumerate(plan.grids):
        sample = _Sample.cut(config, plan, number)
        if sample is None:
            continue
        # Of several grids the slowest counts, as rows() multiplies by the cutouts of all grids.
        cutout_s = max(cutout_s, sample.cutout_s)
        n_measured = max(n_measured, int(sample.has_pixels.sum()))
        # A network that takes several grids is not measured: its sample would have to be cut on all of them.
        for model in (m for m in plan.models if m.grid == grid.grid and not m.more_grids):
            network = load_network(model)
            execution = _execution(cluster.kind_of(config.cluster).device, model, network)
            measured = _Measured(
                model.name,
                network,
                execution or models.Execution(),
                sample.cutouts.select_bands(model.bands),
                sample.has_pixels,
                auxiliary_of(sample.objects, sample.rows, model.auxiliary_inputs),
            )
            if (rate := measured.rate(config.posterior)) is not None:
                networks[model.name] = rate
                is_as_planned = is_as_planned and execution is not None
    for number, model in enumerate(plan.models):
        if model.grid is None and (rate := _rate_on_columns(config, plan, number)) is not None:
            networks[model.name] = rate
            n_measured = max(n_measured, min(MEASURED_OBJECTS, model.n_selected))
    return Rates(n_measured, cutout_s, networks, is_as_planned)


def _rate_on_columns(config: RunConfig, plan: Plan, number: int) -> NetworkRate | None:
    """Return the rate of a network that takes columns alone, by its number, on a few objects of the middle partition."""
    objects = plan.take(plan.partitions[len(plan.partitions) // 2].partition)
    rows = np.flatnonzero(objects.selected[number])[:MEASURED_OBJECTS]
    if not len(rows):
        return None
    model = plan.models[number]
    network = load_network(model)
    execution = _execution(cluster.kind_of(config.cluster).device, model, network)
    auxiliary = auxiliary_of(objects.table, rows, model.auxiliary_inputs)
    measured = _Measured(
        model.name,
        network,
        execution or models.Execution(),
        None,
        np.ones(len(rows), np.bool_),
        auxiliary,
        objects.table.object_id[rows],
    )
    return measured.rate(config.posterior)


@dataclass(frozen=True)
class _Sample:
    """Some objects of a partition, cut on one grid.

    Attributes
    ----------
    cutouts : of the objects
    has_pixels : (cutout,) bool, some of them do
    cutout_s : seconds that an object took
    objects : all of the partition
    rows : (cutout,) intp, index into `objects`
    """

    cutouts: CutoutBlock
    has_pixels: npt.NDArray[np.bool_]
    cutout_s: float
    objects: ObjectTable
    rows: npt.NDArray[np.intp]

    @classmethod
    def cut(cls, config: RunConfig, plan: Plan, number: int) -> _Sample | None:
        """Cut a few objects that have pixels on one of the plan's grids; None if none is found.

        Objects outside every tile take no time to cut and no passes: they say nothing about the others.
        """
        parts = [part for part in plan.partitions if part.projection.n_cutouts[number] and part.tiles]
        # They are in HEALPix order: the first one may lie at the survey's edge, the middle one stands for all.
        outward = sorted(range(len(parts)), key=lambda index: abs(index - len(parts) // 2))
        n_cut = 0
        for part in (parts[index] for index in outward[:MOST_PARTITIONS]):
            task = tasks.ingest_task(plan, part, cutouts=config.cutouts, flags=config.flags)
            grid = task.grids[number]
            footprint = ingest.Footprint([tile for tile in task.tiles if tile.band in grid.bands])
            needed = task.objects.take(grid.rows)
            rows = grid.rows[footprint.covering(needed.ra_deg, needed.dec_deg) >= 0][:MEASURED_OBJECTS]
            if not len(rows):
                continue
            started = time.monotonic()
            cutouts = next(tasks.cut_rows(task, grid, rows))
            cutout_s = (time.monotonic() - started) / len(rows)
            # A tile may hold no data where the object is.
            has_pixels: npt.NDArray[np.bool_] = np.any(np.isfinite(cutouts.image), axis=(1, 2, 3))
            if has_pixels.any():
                return cls(cutouts, has_pixels, cutout_s, task.objects, rows)
            n_cut += 1
            if n_cut == MOST_CUT:
                break
        return None


@dataclass(frozen=True)
class _Measured:
    """A network, and the objects on which it is measured; `cutouts` are None for a network that takes columns alone."""

    name: str
    network: models.Ensemble
    execution: models.Execution
    cutouts: CutoutBlock | None
    has_pixels: npt.NDArray[np.bool_]
    auxiliary: npt.NDArray[np.float32] | None
    ids: npt.NDArray[Any] | None = None

    def run(
        self, posterior: PosteriorConfig, n_objects: int
    ) -> tuple[float, npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Run the first objects with pixels; return the seconds taken, and passes and errors (object,) of those that had any."""
        inputs = models.BlockInputs(self.cutouts, self.has_pixels, auxiliary=self.auxiliary, ids=self.ids)
        # Audited objects get all passes: one of a few would count as a hundred. They run only where there are no others.
        usual = self.has_pixels & ~is_audited(inputs.object_id, seed=posterior.seed)
        wanted = usual if usual.any() else self.has_pixels
        # infer_block takes a selection (object,) bool.
        inputs = dataclasses.replace(inputs, selected=wanted & (np.cumsum(wanted) <= n_objects))
        started = time.monotonic()
        values = models.infer_block(
            self.network,
            inputs,
            name=self.name,
            posterior=posterior,
            execution=self.execution,
        )
        passes = values[PASSES.name(self.name)]
        error = values[MC_ERROR.name(self.name)]
        return time.monotonic() - started, passes[passes > 0], error[passes > 0]

    def rate(self, posterior: PosteriorConfig) -> NetworkRate | None:
        """Return the rate of the network with the settings of the run; None if it can run none of the cutouts."""
        fixed = posterior.model_copy(update={"passes": MEASURED_PASSES})
        # The first run compiles the network and allocates its memory, so it is not timed.
        self.run(fixed, len(self.has_pixels))
        elapsed_s, passes, _ = self.run(fixed, len(self.has_pixels))
        if not len(passes):
            return None
        mean_passes: float = posterior.max_passes
        calibrated_passes = None
        if (passes == 1).all():
            # A network without dropout has one pass, whatever is asked for.
            mean_passes = 1.0
        elif isinstance(posterior.passes, int):
            mean_passes = posterior.passes
        else:
            _, adaptive, error = self.run(posterior, ADAPTIVE_OBJECTS)
            if len(adaptive):
                mean_passes = float(adaptive.mean())
                calibrated_passes = self._calibrated_passes(posterior, adaptive, error)
        return NetworkRate(elapsed_s / float(passes.sum()), mean_passes, calibrated_passes)

    def _calibrated_passes(
        self, posterior: PosteriorConfig, passes: npt.NDArray[np.int32], error: npt.NDArray[np.float32]
    ) -> float | None:
        """Return the mean number of passes with which the errors (object,) would be the tolerance; None if it is not wanted."""
        is_learnable = (
            posterior.method == "mixture" and self.network.has_dropout and not self.network.is_point
        )
        if not is_learnable or models.stopping_digests(self.network, posterior):
            return None
        # The squared error falls as one over the number of passes. An error that is missing asks for all.
        needed = passes * np.square(np.nan_to_num(error, nan=np.inf).astype(np.float64) / posterior.tolerance)
        return float(
            np.clip(needed, posterior.min_passes or models.EARLIEST_START, posterior.max_passes).mean()
        )


def measure_memory(config: RunConfig, plan: Plan) -> InferenceMemory:
    """Return the projected memory of a worker that infers, from the memory that a few rows take in this process.

    If this machine lacks the run's GPU or engine, TorchScript in float32 is measured instead, which takes as much or more.
    """
    device = cluster.kind_of(config.cluster).device
    found = {}
    for model in plan.models:
        network = load_network(model)
        execution = _execution(cluster.kind_of(config.cluster).device, model, network)
        memory = models.measure_memory(network, execution or models.Execution(), config.posterior)
        if execution is None and device == "cuda":
            # Measured on this CPU with its threads, but the run's worker holds a whole batch on its GPU.
            memory = memory.on_gpu(config.posterior)
        found[model.name] = memory
    return project_inference(plan, found, config.posterior, device=device)


def _execution(device: cluster.Device, model: ModelPlan, network: models.Ensemble) -> models.Execution | None:
    """Return the planned engine and device; None if this machine cannot provide them."""
    planned = execution_of(model, device)
    try:
        require_engine(network, planned)
    except BundleError:
        return None
    return planned
