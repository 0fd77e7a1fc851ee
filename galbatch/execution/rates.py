"""The time and memory that a run will take: a few of its own objects are cut and inferred here; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from galbatch import cluster, models
from galbatch.config import PosteriorConfig, RunConfig
from galbatch.core.columns import PASSES
from galbatch.core.types import CutoutBlock
from galbatch.errors import BundleError
from galbatch.execution import tasks
from galbatch.planning import InferenceMemory, ModelPlan, PartitionPlan, Plan, project_inference

__all__ = ["NetworkRate", "Rates", "measure_memory", "measure_rates"]

MEASURED_OBJECTS = 32
MEASURED_PASSES = 8
ADAPTIVE_OBJECTS = 8  # of a full GaMPEN at 96 px these take a minute on a CPU


@dataclass(frozen=True)
class NetworkRate:
    """The time a network takes.

    Attributes
    ----------
    pass_s : seconds of one worker for one pass of one object
    passes : mean number of passes of an object
    """

    pass_s: float
    passes: float


@dataclass(frozen=True)
class Rates:
    """The time one worker takes, measured on this machine on a few of the run's own objects.

    Attributes
    ----------
    n_measured : number of objects measured
    cutout_s : seconds for all cutouts of an object on one grid
    networks : by name, without those that have no cutout
    is_as_planned : false: this machine lacks the GPU or engine of the run, and scripts ran on its CPU
    """

    n_measured: int
    cutout_s: float
    networks: Mapping[str, NetworkRate]
    is_as_planned: bool = True

    def rows(self, plan: Plan, config: RunConfig) -> list[tuple[str, str]]:
        """Return lines of the plan's table: the projected time of each step with the configured workers."""
        workers, called = cluster.kind_of(config.cluster).workers_planned()
        n_cutouts = sum(plan.projection.n_cutouts)
        rates = [(m.n_selected, self.networks[m.name]) for m in plan.models if m.name in self.networks]
        infer_s = sum(n * rate.passes * rate.pass_s for n, rate in rates)
        where = "on this machine" if self.is_as_planned else "by scripts on this machine's CPU"
        return [
            ("time to cut", f"{_duration(n_cutouts * self.cutout_s / workers)} with {called}"),
            ("time to infer", f"{_duration(infer_s / workers)} with {called}"),
            ("passes an object", self._passes(config.posterior)),
            ("time of a pass", ", ".join(f"{k} {1e3 * r.pass_s:.2f} ms" for k, r in self.networks.items())),
            ("measured on", f"{self.n_measured} of the objects, {where}"),
        ]

    def _passes(self, posterior: PosteriorConfig) -> str:
        each = ", ".join(f"{name} {rate.passes:.0f}" for name, rate in self.networks.items())
        if posterior.passes != "adaptive":
            return each
        return f"{each}: mean of {min(ADAPTIVE_OBJECTS, self.n_measured)} objects, adaptive"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def measure_rates(config: RunConfig, plan: Plan) -> Rates:
    """Cut a few objects of the middle partition and infer them in memory; nothing is written.

    Where passes are adaptive, a few objects are run to their end: their mean number of passes stands for all.
    """
    rates = Rates(0, 0.0, {})
    for number in range(len(plan.grids)):
        part = _middle(plan, number)
        if part is None:
            continue
        task = tasks.ingest_task(
            plan, part, store=config.cutouts.store, planes=config.cutouts.planes, flags=config.flags
        )
        grid = task.grids[number]
        rows = grid.rows[:MEASURED_OBJECTS]
        started = time.monotonic()
        cutouts = next(tasks.cut_rows(task, grid, rows))
        cutout_s = max(rates.cutout_s, (time.monotonic() - started) / len(rows))
        rates = replace(rates, n_measured=max(rates.n_measured, len(rows)), cutout_s=cutout_s)
        for model in (m for m in plan.models if m.grid == grid.grid):
            auxiliary = tasks.auxiliary_of(task.objects, rows, model.auxiliary_inputs)
            rates = _with_network(rates, config, model, cutouts.select_bands(model.bands), auxiliary)
    return rates


def _middle(plan: Plan, grid: int) -> PartitionPlan | None:
    """Return the middle one of the partitions with cutouts of a grid; None without any."""
    parts = [part for part in plan.partitions if part.projection.n_cutouts[grid]]
    return parts[len(parts) // 2] if parts else None


@dataclass(frozen=True)
class _Measured:
    """A network and the cutouts that it is measured on."""

    name: str
    network: models.Ensemble
    execution: models.Execution
    cutouts: CutoutBlock
    auxiliary: npt.NDArray[np.float32] | None

    def run(self, posterior: PosteriorConfig, n_objects: int) -> tuple[float, npt.NDArray[np.int32]]:
        """Return the seconds for the first objects, and the number of passes of each of them that could be run."""
        first = np.arange(len(self.cutouts)) < n_objects
        started = time.monotonic()
        values = models.infer_block(
            self.network,
            models.BlockInputs(self.cutouts, first, auxiliary=self.auxiliary),
            name=self.name,
            posterior=posterior,
            execution=self.execution,
        )
        passes = values[PASSES.name(self.name)]
        return time.monotonic() - started, passes[passes > 0]


def _with_network(
    rates: Rates,
    config: RunConfig,
    model: ModelPlan,
    cutouts: CutoutBlock,
    auxiliary: npt.NDArray[np.float32] | None,
) -> Rates:
    """Return the rates with the time a network takes on `cutouts`; without it if none of them can be run."""
    network = tasks.load_network(model)
    execution = _execution(config, model, network)
    measured = _Measured(model.name, network, execution or models.Execution(), cutouts, auxiliary)
    fixed = config.posterior.model_copy(update={"passes": MEASURED_PASSES})
    measured.run(fixed, len(cutouts))  # warms up
    elapsed_s, passes = measured.run(fixed, len(cutouts))
    if not len(passes):
        return rates
    rate = NetworkRate(elapsed_s / float(passes.sum()), _mean_passes(measured, config.posterior, passes))
    networks = {**rates.networks, model.name: rate}
    return replace(rates, networks=networks, is_as_planned=rates.is_as_planned and execution is not None)


def measure_memory(config: RunConfig, plan: Plan) -> InferenceMemory:
    """Return the projected memory of a worker while it infers, from what a few rows take here.

    Where this machine lacks the GPU or engine of the run, the scripts' float32 stands for it, which takes as much or more.
    """
    device = cluster.kind_of(config.cluster).device
    found = {}
    for model in plan.models:
        network = tasks.load_network(model)
        execution = _execution(config, model, network)
        memory = models.measure_memory(network, execution or models.Execution(), config.posterior)
        if execution is None and device == "cuda":
            memory = replace(
                memory, n_rows=config.posterior.batch, n_groups=models.Execution(device=device).n_threads
            )
        found[model.name] = memory
    return project_inference(plan, found, config.posterior, device=device)


def _mean_passes(measured: _Measured, posterior: PosteriorConfig, tried: npt.NDArray[np.int32]) -> float:
    """Return the mean number of passes of an object in the run; `tried` are those of `MEASURED_PASSES`, single ones without dropout."""
    if (tried == 1).all():
        return 1.0
    if isinstance(posterior.passes, int):
        return float(posterior.passes)
    _, passes = measured.run(posterior, ADAPTIVE_OBJECTS)
    return float(passes.mean()) if len(passes) else float(posterior.max_passes)


def _execution(config: RunConfig, model: ModelPlan, network: models.Ensemble) -> models.Execution | None:
    """Return the planned engine and device; None if this machine cannot provide them."""
    planned = models.Execution(models.Engine.named(model.engine), cluster.kind_of(config.cluster).device)
    try:
        for bundle in network.bundles:
            models.executor(bundle, planned.engine, planned.device)
    except BundleError:
        return None
    return planned
