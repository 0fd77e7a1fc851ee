"""The demo: simulate a survey with known truth, run galbatch on it, verify the catalog, and write a report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from galbatch import api, catalog, cluster, dashboard, execution, reporting
from galbatch.config import RunConfig, read_config
from galbatch.core.columns import DEC, ID, MODEL_FLAGS, PASSES, PIXEL_FLAGS, RA
from galbatch.core.texts import continued, fill
from galbatch.simulation import simulate_survey

__all__ = ["run_demo", "write_run_toml"]

# At least this many partitions, so that one can watch them finish one after the other.
N_PARTITIONS = 8

RUN_TOML = """\
# Written by galbatch demo: a whole run on the simulated survey next to this file.
[survey]
layout = "hsc"
tiles = "survey/deepCoadd-results/**/calexp-*.fits"
bands = ["g", "r"]

[objects]
path = "survey/objects.parquet"
keep = ["z_best"]

[plan]
max_objects_per_partition = {max_objects}   # small, so that the demo has several partitions

[cutouts]
store = "cutouts.zarr"

[[models]]
name = "gampen"
bundle = "demo:gampen"

[[models]]
name = "sfnet"
bundle = "demo:sfnet"

[posterior]
passes = "adaptive"
tolerance = 0.25       # of a posterior standard deviation: the passes of these small networks differ more than a full one's
min_passes = 32
max_passes = 400
keep_pass_outputs = true   # the outputs of every pass, for galbatch draws

[catalog]
path = "catalog"
name = "galbatch_demo"

[cluster]
kind = "local"
workers = {workers}
"""


def run_demo(folder: Path, *, n_objects: int, workers: int, console: Console) -> int:
    """Simulate a survey, run galbatch on it, verify the catalog, and write a report. A repeated call resumes.

    Parameters
    ----------
    folder : Path
        Folder for the survey, run.toml, cutouts, catalog and report; created if missing.
    n_objects : int
        Number of galaxies to simulate.
    workers : int
        Number of worker processes.
    console : Console
        Shows progress and results.

    Returns
    -------
    int
        Exit code: 0, or 1 if a partition failed or the catalog has problems.
    """
    folder.mkdir(parents=True, exist_ok=True)
    survey, page = folder / "survey", folder / "report.html"
    run_toml = write_run_toml(folder, n_objects=n_objects, workers=workers)
    with _step(console, f"simulate {n_objects} galaxies in 4 patches and 2 bands"):
        # The file is written last: a survey without it was interrupted, or has another size, and is simulated again.
        mark, size = survey / "finished.txt", f"{n_objects} galaxies\n"
        if not mark.exists() or mark.read_text(encoding="utf-8") != size:
            options: dict[str, Any] = {"patches": 4, "bands": ("g", "r"), "seed": 20261121}
            simulate_survey(str(survey), n_objects=n_objects, processes=workers, **options)
            mark.write_text(size, encoding="utf-8")
    config = read_config(run_toml)
    with _step(console, "plan"):
        plan = execution.prepare(config)
    console.print(f"  {len(plan.objects)} objects in {len(plan.partitions)} partitions")
    with cluster.connect(config.cluster) as client:
        console.print(f"  dashboard: {dashboard.watch(client)}", soft_wrap=True, highlight=False)
        with (
            dashboard.ProgressBars.on(console) as bars,
            dashboard.Reporter(bars, config.catalog.path) as reporter,
            dashboard.Broadcast(reporter, client, name=config.catalog.name) as sink,
        ):
            result = execution.execute(config, plan, client, sink=sink)
    with _step(console, "verify"):
        # If partitions failed, they are the problems to report.
        problems = [] if result.failed else catalog.verify(config.catalog.path)
    problems += [f"{name}: {reason}" for name, reason in result.failed.items()]
    for problem in problems:
        line = f"  problem: {problem}"
        console.print(fill(line, console.width) if console.is_terminal else line, soft_wrap=True)
    truth = str(survey / "truth.parquet")
    with _step(console, "report"):
        reporting.write_report(config.catalog.path, str(page), truth=truth, store=config.cutouts.store)
    console.print(_results_table(config, result, truth))
    for line in _next_commands(config, page).split("\n"):
        shown = continued(line, console.width) if console.is_terminal else line
        console.print(shown, soft_wrap=True, highlight=False)
    return 1 if problems else 0


def write_run_toml(folder: Path, *, n_objects: int, workers: int) -> Path:
    """Write the demo's run.toml into its folder, and return the file's path.

    The file names the simulated survey by the relative path ``survey``.
    """
    path = folder / "run.toml"
    max_objects = max(1, n_objects // N_PARTITIONS)
    path.write_text(RUN_TOML.format(max_objects=max_objects, workers=workers), encoding="utf-8")
    return path


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    """Show a spinner during a step, and the time it took afterwards."""
    started = time.monotonic()
    with console.status(title):
        yield
    console.print(f"{title}: {time.monotonic() - started:.1f} s", highlight=False)


def _results_table(config: RunConfig, result: execution.RunResult, truth: str) -> Table:
    """Return a table of the results: number of objects, passes, flags, and the recovery of the truth."""
    names = [model.name for model in config.models]
    found = catalog.read_catalog(config.catalog.path, columns=[PIXEL_FLAGS.name, *map(PASSES.name, names)])
    table = Table("galbatch demo", "", box=None, pad_edge=False)
    table.add_row("objects", f"{result.n_inferred} of {result.n_objects} in the catalog")
    if result.n_new:  # If an earlier call made the whole catalog, there is nothing to time.
        table.add_row("galaxies/s", f"{result.n_new / result.seconds:.1f} (cut, two networks)")
    for name in names:
        passes = found.column(PASSES.name(name)).to_numpy()
        used = passes[passes > 0]  # Objects without values have 0 passes.
        span = f"median {np.median(used):g}, {used.min()} to {used.max()} an object" if len(used) else "none"
        table.add_row(f"{name} passes", span)
    flags = found.column(PIXEL_FLAGS.name).to_numpy()
    counts = api.flag_counts(config.catalog.path, PIXEL_FLAGS.name)
    counted = ", ".join(f"{n} {flag.name}" for n, flag in counts if n)
    table.add_row("flags", f"{np.count_nonzero(flags)} objects flagged: {counted}")
    for row in reporting.truth_recovery(config.catalog.path, truth):
        recovered = f"R\u00b2 {row.r2:.3f}, 68 % interval covers {100 * row.coverage68:.0f} %"
        table.add_row(f"{row.model} {row.parameter}", recovered)
    return table


def _next_commands(config: RunConfig, page: Path) -> str:
    """Return commands to try next, with the id and position of the object that has the fewest flags."""
    path = config.catalog.path
    all_flags = [PIXEL_FLAGS.name, *(MODEL_FLAGS.name(model.name) for model in config.models)]
    found = catalog.read_catalog(path, columns=[ID.name, RA.name, DEC.name, *all_flags])
    # (object,) number of columns in which the object has a flag; argmin takes the first object with the fewest.
    n_flagged = np.count_nonzero([found.column(name).to_numpy() for name in all_flags], axis=0)
    shown = found.slice(int(np.argmin(n_flagged)), 1).to_pylist()[0]
    return "\n".join(
        [
            "next:",
            f"  open {page}",
            f"  galbatch draws {path} {shown['object_id']} --plot corner.png",
            f"  galbatch show {path} {shown['object_id']}",
            f"  galbatch cone {path} {shown['ra_deg']:.4f} {shown['dec_deg']:.4f} 60",
            f"  python -c \"import pandas as pd; print(pd.read_parquet('{page.with_name('catalog') / 'dataset'}').describe())\"",
        ]
    )
