"""Planning and running from Python, and from the command line, which calls these functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from galbatch import cluster, dashboard, execution
from galbatch.config import CutoutsConfig, RunConfig, Stage, read_config
from galbatch.core.texts import counted, html_card, size
from galbatch.execution import Rates, RunResult
from galbatch.planning import InferenceMemory, Plan

__all__ = ["RunPlan", "plan", "run"]

# A dense field may have thousands of partitions that cannot be split: five names show where they lie.
MAX_OVERSIZE_SHOWN = 5


@dataclass(frozen=True, repr=False, eq=False)
class RunPlan:
    """The plan of a run with its cost: what it would read and write, and the memory and time that it would take.

    Attributes
    ----------
    config : RunConfig
    plan : Plan
        Objects, tiles, networks, grids and partitions.
    memory : InferenceMemory
        Memory of a worker that runs the networks.
    rates : Rates
        Time of a few cutouts and passes, measured on this machine.
    """

    config: RunConfig
    plan: Plan
    memory: InferenceMemory
    rates: Rates

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Labels and texts of the plan, as ``galbatch plan`` prints them."""
        return [*plan_rows(self.plan, self.memory, self.config), *self.rates.rows(self.plan, self.config)]

    @property
    def notes(self) -> list[str]:
        """Lines that the user should read before the run is started."""
        oversize = self.plan.oversize
        lines = [
            f"larger than the limits, and cannot be split further: {one.name} ({counted(one.n_objects, 'object')})"
            for one in oversize[:MAX_OVERSIZE_SHOWN]
        ]
        if len(oversize) > MAX_OVERSIZE_SHOWN:
            lines.append(f"and {len(oversize) - MAX_OVERSIZE_SHOWN} more")
        return [*lines, *(f"note: {note}" for note in self.plan.notes)]

    def __repr__(self) -> str:
        n_objects, n_parts = len(self.plan.objects), len(self.plan.partitions)
        return f"<RunPlan: {counted(n_objects, 'object')} in {counted(n_parts, 'partition')}>"

    def _repr_html_(self) -> str:
        return html_card("galbatch plan", self.rows, notes=self.notes)


def plan(run: str | os.PathLike[str] | RunConfig) -> RunPlan:
    """Return what a run would take: partitions, bytes, memory and time.

    Reads the inputs, times a few cutouts and passes on this machine, and writes only the tile index.

    Parameters
    ----------
    run : path of a run.toml, or RunConfig
        As `galbatch.read_config` returns.

    Raises
    ------
    UsageError
        The config or an input is missing or wrong; the message says which one and what to do.
    """
    config = _config(run)
    with cluster.to_look(config.cluster) as workers:
        made = execution.prepare(config, workers)
    # Below this line no worker is needed: the rates are measured in this process.
    rates = execution.measure_rates(config, made)
    return RunPlan(config, made, execution.measure_memory(config, made), rates)


def plan_rows(made: Plan, inference: InferenceMemory, config: RunConfig) -> list[tuple[str, str]]:
    """Return what a run reads, writes and holds in memory, as label and text.

    Parameters
    ----------
    made : Plan
        The plan with its projection of bytes and requests.
    inference : InferenceMemory
        Memory of a worker that runs the networks.
    config : RunConfig
        The planes that are stored, and where, which change the memory of a worker that cuts; how objects are chosen.
    """
    sizes = sorted(part.partition.n_objects for part in made.partitions)
    least, most = sizes[0], counted(sizes[-1], "object")
    # Workers on a CPU have no device memory.
    on_gpu = f", and {size(inference.device_bytes)} on its GPU" if inference.device_bytes else ""
    listed, chosen_by = made.objects.source.listed, config.objects
    is_chosen = chosen_by.region is not None or chosen_by.where is not None
    return [
        *([("rows in the list", str(listed.n_listed))] if is_chosen else []),
        *([("in the region", f"{listed.n_in_region}: {chosen_by.region}")] if chosen_by.region else []),
        *([("chosen by where", f"{listed.n_chosen}: {chosen_by.where}")] if chosen_by.where else []),
        ("objects", f"{len(made.objects)}, {made.rejected.num_rows} rejected"),
        *((f"cutouts {g.grid.label}", f"{g.n_cutouts} in {' '.join(g.bands)}") for g in made.grids),
        *((f"network {m.name}", counted(m.n_selected, "object")) for m in made.models),
        ("partitions", f"{len(sizes)}, of {most if least == sizes[-1] else f'{least} to {most}'}"),
        *(_cutting_rows(made, config.cutouts) if made.grids else []),
        *([("memory to infer", f"{size(inference.host_bytes)} a worker{on_gpu}")] if made.models else []),
    ]


def _cutting_rows(made: Plan, cutouts: CutoutsConfig) -> list[tuple[str, str]]:
    """Return what cutting reads, writes and holds in memory, as label and text."""
    takes = made.projection
    memory = made.worker_memory_bytes(cutouts.planes, store=cutouts.store)
    return [
        ("tiles", f"{len(made.tiles)} in {counted(len({tile.band for tile in made.tiles}), 'band')}"),
        ("bytes read", f"{size(takes.read_bytes)} of tiles"),
        (
            "read amplification",
            f"{made.read_amplification:.2f} (bytes read over bytes of the cutouts' pixels)",
        ),
        # Requests cost money and time on S3 only; local reads are counted in bytes.
        *([("S3 requests", f"{takes.requests} to read tiles")] if made.is_remote else []),
        ("bytes written", f"{size(takes.write_bytes)} of cutouts"),
        ("memory to cut", f"{size(memory)} a worker"),
    ]


def run(
    run: str | os.PathLike[str] | RunConfig,
    *,
    stage: Stage = "all",
    only_failed: bool = False,
    wait_lock: bool = False,
    progress: dashboard.ProgressSink | None = None,
) -> RunResult:
    """Run what is not done yet: cutouts, posteriors, catalog. It may be interrupted; the same call continues from there.

    Workers are started as ``[cluster]`` says. In a script the call stands below ``if __name__ == "__main__":``, because worker
    processes import the script; notebooks need nothing.

    Parameters
    ----------
    run : path of a run.toml, or RunConfig
        As `galbatch.read_config` returns; ``config.with_cluster(workers=2)`` is one with other workers.
    stage : {"ingest", "photometry", "infer", "all"}
        Make cutouts, infer from existing cutouts, or both.
    only_failed : bool
        Do only the partitions that failed or are damaged, as ``galbatch retry``.
    wait_lock : bool
        Wait for another run that writes the same outputs, instead of raising `LockedError`.
    progress : ProgressSink or None
        Shows the run; None: bars in a notebook and on a terminal, otherwise lines. ``dashboard.Silent()`` shows nothing.

    Returns
    -------
    RunResult
        With the reason for each partition that failed.

    Raises
    ------
    UsageError
        Config or inputs are wrong, or the outputs are another run's; nothing was started.
    Stopped
        The run was interrupted; partitions that are done stay.
    """
    config = _config(run)
    execution.require_stage(config.models, stage)
    # A missing package or GPU is reported before minutes go into planning.
    cluster.require(config.cluster)
    with (
        _display(progress) as display,
        # Before planning and before any worker starts: a run that waits for another one holds nothing.
        execution.locked(config, stage, waits=wait_lock, notify=display.note) as held,
        dashboard.Reporter(display, config.catalog.path) as reporter,
        cluster.on_demand(config.cluster, notify=reporter.note, imports=execution.CODE_OF_TASKS) as pool,
    ):
        # Where cutting comes first, the networks are checked while it goes on.
        made = execution.prepare(config, pool, loads=stage == "infer")
        for note in made.notes:
            reporter.note(f"note: {note}")
        # Outputs of other runs are refused before the first task. Where there are outputs, no worker runs yet, unless planning
        # read many headers on them.
        before = execution.read_progress(config, made)
        # Before the dashboard is imported: workers may still be starting in another thread, which imports the same packages, and
        # Python gives a thread half a module where two import a circle of modules from both ends.
        client = pool.client
        reporter.note(f"dashboard: {dashboard.watch(client)}")
        with dashboard.Broadcast(reporter, client, name=config.catalog.name) as sink:
            result = execution.execute_held(
                held, made, client, sink=sink, only_failed=only_failed, before=before
            )
        reporter.note(_result_line(result, stage))
    return result


def _config(run: str | os.PathLike[str] | RunConfig) -> RunConfig:
    return run if isinstance(run, RunConfig) else read_config(os.fspath(run))


@contextmanager
def _display(progress: dashboard.ProgressSink | None) -> Iterator[dashboard.ProgressSink]:
    """Yield `progress`, or what shows a run best where Python runs."""
    if progress is not None:
        yield progress
    elif dashboard.in_notebook():
        with dashboard.NotebookBars.shown() as in_notebook:
            yield in_notebook
    elif sys.stdout.isatty():
        with dashboard.ProgressBars.on(Console()) as bars:
            yield bars
    else:
        yield dashboard.TextLines(print)


def _result_line(result: RunResult, stage: Stage) -> str:
    """Return a line with the number of objects in the catalog and the rate; of a stage without catalog, only with what failed."""
    if stage not in ("infer", "all"):
        return f"{counted(len(result.failed), 'partition')} failed"
    # Of what this run did: a run that finds all done has no rate.
    rate = f", {result.n_new / result.seconds:.1f} galaxies/s" if result.n_new else ""
    taken = f"; {result.taken_text}" if result.taken_text else ""
    return f"{result.n_inferred} of {result.n_objects} objects in the catalog{rate}{taken}"
