"""The demo: simulate a survey with known truth, run all of galbatch on it, verify, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from galbatch import catalog, cluster, dashboard, reporting
from galbatch.config import read_config
from galbatch.core.columns import MODEL_FLAGS, PASSES, PIXEL_FLAGS
from galbatch.core.flags import PixelFlag
from galbatch.execution import run
from galbatch.simulation import simulate_survey

__all__ = ["run_demo"]

RUN_TOML = """\
# Written by galbatch demo: a whole run on the simulated survey beside this file.
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


NETWORKS = ("gampen", "sfnet")


def run_demo(folder: Path, *, n_objects: int, workers: int, console: Console) -> int:
    """Run the demo in `folder`; returns the exit code. Run again, it goes on from where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    run_toml = folder / "run.toml"
    run_toml.write_text(
        RUN_TOML.format(max_objects=max(1, n_objects // 8), workers=workers), encoding="utf-8"
    )
    survey = folder / "survey"
    with _step(console, f"simulate {n_objects} galaxies in 4 patches and 2 bands"):
        simulate_once(survey, n_objects, processes=workers)
    config = read_config(run_toml)
    with _step(console, "plan"):
        plan = run.prepare(config)
    console.print(f"  {len(plan.objects)} objects in {len(plan.partitions)} partitions")
    with cluster.connect(config.cluster) as client:
        console.print(f"  dashboard: {dashboard.watch(client)}", soft_wrap=True, highlight=False)
        with dashboard.ProgressBars.on(console) as bars:
            result = run.execute(config, plan, client, sink=bars)
    with _step(console, "verify"):
        problems = [] if result.failed else catalog.verify(config.catalog.path)
    problems += [f"{name}: {reason}" for name, reason in result.failed.items()]
    for problem in problems:
        console.print(f"  problem: {problem}", soft_wrap=True)
    page = folder / "report.html"
    truth = str(survey / "truth.parquet")
    with _step(console, "report"):
        reporting.write_report(config.catalog.path, str(page), truth=truth, store=config.cutouts.store)
    console.print(_closing_table(config.catalog.path, truth, result))
    console.print(_next_commands(folder, config.catalog.path), soft_wrap=True, highlight=False)
    return 1 if problems else 0


def simulate_once(survey: Path, n_objects: int, *, processes: int) -> None:
    """Simulate the demo's survey, or keep the one that an earlier call finished with the same size."""
    mark = survey / "finished.txt"
    wanted = f"{n_objects} galaxies\n"
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        simulate_survey(
            str(survey), n_objects=n_objects, patches=4, bands=("g", "r"), seed=20261121, processes=processes
        )
        mark.write_text(wanted, encoding="utf-8")


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    started = time.monotonic()
    with console.status(title):
        yield
    console.print(f"{title}: {time.monotonic() - started:.1f} s", highlight=False)


def _closing_table(catalog_path: str, truth: str, result: run.RunResult) -> Table:
    table = Table("galbatch demo", "", box=None, pad_edge=False)
    table.add_row("objects", f"{result.n_inferred} of {result.n_objects} in the catalog")
    if result.n_passes:
        table.add_row("galaxies/s", f"{result.n_inferred / result.seconds:.1f} (cut, two networks)")
    found = catalog.read_catalog(catalog_path, columns=[PIXEL_FLAGS.name, *map(PASSES.name, NETWORKS)])
    for name in NETWORKS:
        table.add_row(f"{name} passes", _span(found.column(PASSES.name(name)).to_numpy()))
    flags = found.column(PIXEL_FLAGS.name).to_numpy()
    counted = [
        f"{int(((flags & int(bit)) != 0).sum())} {bit.name}"
        for bit in PixelFlag
        if ((flags & int(bit)) != 0).any()
    ]
    table.add_row("flags", f"{int((flags != 0).sum())} objects flagged: {', '.join(counted)}")
    for row in reporting.truth_recovery(catalog_path, truth):
        table.add_row(
            f"{row.model} {row.parameter}",
            f"R\u00b2 {row.r2:.3f}, 68 % interval covers {100 * row.coverage68:.0f} %",
        )
    return table


def _span(passes: npt.NDArray[np.int32]) -> str:
    """Passes of the objects that have values."""
    used = passes[passes > 0]
    return f"median {np.median(used):g}, {used.min()} to {used.max()} an object" if len(used) else "none"


def _next_commands(folder: Path, catalog_path: str) -> str:
    """With an object that every network has values of, if there is one."""
    all_flags = [PIXEL_FLAGS.name, *map(MODEL_FLAGS.name, NETWORKS)]
    found = catalog.read_catalog(catalog_path, columns=["object_id", "ra_deg", "dec_deg", *all_flags])
    flags = np.stack([found.column(name).to_numpy() for name in all_flags])
    shown = found.slice(int(np.argmin(np.count_nonzero(flags, axis=0))), 1).to_pylist()[0]
    return "\n".join(
        [
            "next:",
            f"  open {folder / 'report.html'}",
            f"  galbatch draws {catalog_path} {shown['object_id']} --plot corner.png",
            f"  galbatch cone {catalog_path} -- {shown['ra_deg']:.4f} {shown['dec_deg']:.4f} 60",
            f"  python -c \"import pandas as pd; print(pd.read_parquet('{folder / 'catalog' / 'dataset'}').describe())\"",
        ]
    )
