"""The commands galbatch plan, run, retry, status and clean, which take a run.toml."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from galbatch.cli.options import LOG_FORMATS, ClusterKind, LogFormat, RunToml, Scheduler, WaitLock, Workers
from galbatch.cli.printing import out, print_command, print_error, print_line, print_table, print_verbatim
from galbatch.errors import UsageError

if TYPE_CHECKING:
    from galbatch.config import ClusterConfig, ModelConfig, RunConfig, Stage
    from galbatch.dashboard import ProgressSink

__all__ = ["clean", "plan", "retry", "run", "status"]

# The file of failures and the log have all of them.
MAX_FAILED_SHOWN = 20


def plan(run_toml: RunToml) -> None:
    """Show what a run would take: partitions, bytes, memory and time.

    Reads the inputs, times a few cutouts and passes on this machine, and writes only the tile index.
    """
    from galbatch import api

    made = api.plan(run_toml)
    print_table(("", ""), made.rows, prose=True)
    for line in made.notes:
        print_line(line)


def run(
    run_toml: RunToml,
    stage: Annotated[
        str,
        typer.Option(
            help="ingest (make cutouts only), photometry (measure existing cutouts), infer (from existing cutouts) or all"
        ),
    ] = "all",
    workers: Workers = None,
    cluster: ClusterKind = None,
    scheduler: Scheduler = None,
    wait_lock: WaitLock = False,
    log_format: LogFormat = "text",
) -> None:
    """Run what is not done yet: cutouts, posteriors, catalog.

    It may be stopped at any time; the same command continues from there.
    """
    from galbatch import config

    to_run = _parse_stage(stage)
    parsed = config.read_config(run_toml).with_cluster(workers=workers, kind=cluster, scheduler=scheduler)
    _import_ahead(parsed.cluster)
    _execute(parsed, to_run, wait_lock=wait_lock, log_format=log_format)


def retry(
    run_toml: RunToml,
    workers: Workers = None,
    cluster: ClusterKind = None,
    scheduler: Scheduler = None,
    wait_lock: WaitLock = False,
    log_format: LogFormat = "text",
) -> None:
    """Do the failed and damaged partitions again, and no others.

    Damaged is what galbatch verify recorded, and what shows it when the progress is read.
    """
    from galbatch import config

    parsed = config.read_config(run_toml).with_cluster(workers=workers, kind=cluster, scheduler=scheduler)
    _import_ahead(parsed.cluster)
    _execute(
        parsed, _whole_stage(parsed.models), only_failed=True, wait_lock=wait_lock, log_format=log_format
    )


def _import_ahead(workers: ClusterConfig) -> None:
    """Let the process that workers are forked from import their code, while this one imports its own, which takes a second."""
    from galbatch import cluster, execution

    cluster.kind_of(workers).import_ahead(execution.CODE_OF_TASKS)


def _execute(
    parsed: RunConfig,
    stage: Stage,
    *,
    only_failed: bool = False,
    wait_lock: bool = False,
    log_format: str = "text",
) -> None:
    """Do the work, print how it ended, and exit."""
    from galbatch import api, catalog

    with _display(log_format) as display:
        result = api.run(parsed, stage=stage, only_failed=only_failed, wait_lock=wait_lock, progress=display)
    for line in catalog.doubts(parsed.catalog.path) if result.finished else ():
        print_error(line)
    failed = sorted(result.failed.items())
    for name, reason in failed[:MAX_FAILED_SHOWN]:
        print_error(f"failed: {name}: {reason}")
    if len(failed) > MAX_FAILED_SHOWN:
        print_error(f"and {len(failed) - MAX_FAILED_SHOWN} more, which galbatch status names")
    raise typer.Exit(1 if failed else 0)


@contextmanager
def _display(log_format: str) -> Iterator[ProgressSink]:
    """Yield what shows a run: bars on a terminal, lines elsewhere, or JSON."""
    from galbatch import dashboard

    if log_format not in LOG_FORMATS:
        raise UsageError(f"--log-format {log_format}: expected {' or '.join(LOG_FORMATS)}")
    if log_format == "json":
        yield dashboard.JsonLines(print_verbatim)
    elif out.is_terminal:
        with dashboard.ProgressBars.on(out) as bars:
            yield bars
    else:
        yield dashboard.TextLines(print_line)


def _whole_stage(networks: Sequence[ModelConfig]) -> Stage:
    """Return the stage that makes all outputs of a run: without networks these are the cutouts."""
    return "all" if networks else "ingest"


def _parse_stage(text: str) -> Stage:
    """Return the stage that `text` names, or raise UsageError."""
    from galbatch import config

    stages: tuple[Stage, ...] = get_args(config.Stage)
    for stage in stages:
        if stage == text:
            return stage
    raise UsageError(f"--stage {text}: expected {', '.join(stages[:-1])} or {stages[-1]}")


def status(
    run_toml: RunToml,
    watch: Annotated[
        bool, typer.Option("--watch", help="follow the run that is in progress until it ends; plans nothing")
    ] = False,
) -> None:
    """Show which partitions are done, damaged, failed (with reasons) and left, and how far the run is that is in progress.

    Works while a run is in progress, too, from any machine that sees the outputs.
    """
    from galbatch import cluster, config, dashboard, execution

    if watch:
        # On a terminal as often as the run writes; into a file a line a minute.
        lines = dashboard.follow(
            config.read_config(run_toml).catalog.path, every_s=0.0 if out.is_terminal else 60.0
        )
        for line in lines:
            print_line(line)
        return
    parsed = config.read_config(run_toml)
    with cluster.to_look(parsed.cluster) as workers:
        made = execution.prepare(parsed, workers, loads=False)
    state = execution.read_progress(parsed, made)
    # Progress is read from the outputs themselves, so it is right whatever stopped the run.
    cut = [part for part in made.partitions if part.partition.name in state.ingested]
    inferred = [part for part in made.partitions if part.partition.name in state.inferred]
    counts = {
        "all": list(made.partitions),
        **({"cutouts done": cut} if made.grids else {}),
        **({"catalog done": inferred} if made.models else {}),
        "left": state.left,
    }
    rows = [
        (label, str(len(parts)), str(sum(part.partition.n_objects for part in parts)))
        for label, parts in counts.items()
    ]
    print_table(("", "partitions", "objects"), rows, right=(1, 2))
    if news := dashboard.last_news(parsed.catalog.path):
        print_line(news)
    for one in state.damaged:
        print_line(f"damaged: {one}")
    for name, reason in sorted(state.failed.items()):
        print_line(f"failed: {name}: {reason}")
    if state.damaged or state.failed:
        print_command(f"to do these again alone: galbatch retry {run_toml}")
    if state.left:
        stage = "" if made.models else f" --stage {_whole_stage(parsed.models)}"
        print_command(f"to continue: galbatch run {run_toml}{stage}")


def clean(
    run_toml: RunToml,
    yes: Annotated[bool, typer.Option("--yes", help="delete without asking")] = False,
) -> None:
    """Delete the run's outputs; asks first.

    Deletes the cutout store, the catalog, its pass outputs, the evidence of injected galaxies beside it and the tile index, but no other
    files in their folders. No other command deletes outputs.
    """
    from galbatch import config, execution, storage
    from galbatch.catalog import pass_outputs

    parsed = config.read_config(run_toml)
    if not yes:
        outputs = [parsed.cutouts.store, parsed.catalog.path]
        kept = pass_outputs.pass_outputs_path(parsed.catalog.path)
        # Pass outputs are named only if there are any; every run has the first two.
        outputs += [kept] if storage.exists(kept) else []
        typer.confirm(f"delete {', '.join(outputs[:-1])} and {outputs[-1]}?", abort=True)
    removed = execution.clean(parsed, notify=print_error)
    print_line(
        f"removed {len(removed)} entr{'ies' if len(removed) > 1 else 'y'}" if removed else "nothing to remove"
    )
