"""How do time and memory of planning, progress, finish and verify grow with the number of leaves?

Leaves of one object each, with all columns of demo:gampen, are written as a run writes them; their values are missing. Each
number of leaves has a process of its own, so that its memory is not that of another one.
Run: python benchmarks/leaves.py [NUMBER ..]
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import RESULTS
from scheduling import resident_mib, toy_plan

from galbatch import catalog, models
from galbatch.config import RunConfig
from galbatch.core.columns import PIXEL_FLAGS
from galbatch.core.prefetch import map_in_threads
from galbatch.execution import finishing, verifying
from galbatch.execution.leaf import leaf_footer, leaf_table
from galbatch.execution.progress import read_progress
from galbatch.planning import PartitionPlan, Plan


def main(numbers: list[int]) -> None:
    """Measure each number in a process of its own; report."""
    rows = []
    for number in numbers:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(number)], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    content = {
        "question": __doc__.splitlines()[0],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "measured": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "leaves.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(n_objects: int) -> dict[str, Any]:
    """Return seconds, processor seconds and added memory of each step, for about `n_objects` leaves."""
    with tempfile.TemporaryDirectory() as folder:
        row: dict[str, Any] = {}
        config, plan = _measured(row, "plan", lambda: toy_plan(folder, n_objects))
        config = config.model_copy(
            update={
                "catalog": config.catalog.model_copy(update={"path": f"{folder}/catalog"}),
                "cutouts": config.cutouts.model_copy(update={"store": f"{folder}/store", "keep": False}),
            }
        )
        write_leaves(config, plan)
        progress = _measured(row, "progress", lambda: read_progress(config, plan))
        if len(progress.inferred) != len(plan.partitions):
            raise SystemExit(f"{len(progress.inferred)} leaves of {len(plan.partitions)} count as done")
        _measured(row, "finish", lambda: finishing.finish(config, plan))
        problems = _measured(row, "verify", lambda: verifying.verify_outputs(config.catalog.path))
        if problems:
            raise SystemExit("\n".join(problems[:5]))
        return {"leaves": len(plan.partitions)} | row


def _measured(row: dict[str, Any], name: str, step: Callable[[], Any]) -> Any:
    before_mib, before_s, started = resident_mib(), time.process_time(), time.perf_counter()
    result = step()
    row[f"{name}_s"] = round(time.perf_counter() - started, 2)
    row[f"{name}_processor_s"] = round(time.process_time() - before_s, 2)
    row[f"{name}_added_mib"] = round(resident_mib() - before_mib, 1)
    return result


def write_leaves(config: RunConfig, plan: Plan) -> None:
    """Write the leaf of each partition, as a run does that fails for every object."""
    network = models.load_ensemble((models.bundle_path("demo:gampen"),))
    columns = [
        PIXEL_FLAGS,
        *models.result_columns(network.metadata, name="gampen", quantiles=config.posterior.quantiles),
    ]

    def write(part: PartitionPlan) -> None:
        objects = plan.take(part.partition).table
        values = {column.name: column.empty(len(objects)) for column in columns}
        values[PIXEL_FLAGS.name] = np.zeros(len(objects), np.int32)
        footer = leaf_footer(
            part.leaf,
            len(objects),
            bundles={"gampen": ["0" * 64]},
            keeps_pass_outputs=False,
            audits={},
        )
        table = leaf_table(objects, columns, values)
        catalog.write_leaf(config.catalog.path, part.partition, table, footer=footer)

    for _ in map_in_threads(write, plan.partitions, n_threads=4):
        pass


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main([int(number) for number in sys.argv[1:]] or [1_000, 3_000, 10_000])
