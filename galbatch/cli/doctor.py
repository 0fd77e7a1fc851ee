"""The command galbatch doctor: what this machine or cluster can do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from galbatch.cli.printing import print_error, print_line, print_table, print_verbatim
from galbatch.core.process import STOPPED_EXIT_CODE

if TYPE_CHECKING:
    from galbatch.doctor import StepResult

__all__ = ["doctor"]


def doctor(
    run_toml: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN.toml]", help="a run whose outputs are timed and whose hours are projected"
        ),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="run the networks on the GPU, not on the CPU")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document, at the end")] = False,
) -> None:
    """Show what this machine or cluster can do, in ten minutes at most: the first thing to run on a new one.

    Versions, cores, memory, GPUs; credentials (names only), SLURM, Kubernetes; whether networks give what they give on the CPU, and how
    many passes a second; rates of disks and object stores. Each step has a limit, and none stops the next. Exit code 1 if one failed.
    """
    from galbatch import doctor as room

    results: list[StepResult] = []
    is_stopped = False
    try:
        for result in room.examine(room.steps_of(run_toml, device="cuda" if gpu else "cpu")):
            results.append(result)
            if not as_json:
                _print(result)
    except KeyboardInterrupt:
        is_stopped = True
    if as_json:
        print_verbatim(
            json.dumps({"schema": room.SCHEMA, "steps": [_as_json(one) for one in results]}, indent=1)
        )
    if is_stopped:
        # The group's own message says that the same command continues: this one begins anew.
        print_error("galbatch: stopped; the steps that were left are not done")
        raise typer.Exit(STOPPED_EXIT_CODE)
    raise typer.Exit(1 if any(one.problem for one in results) else 0)


def _print(result: StepResult) -> None:
    """Print a step as a heading and its lines."""
    print_line("")
    print_line(f"{result.step.name} ({result.seconds:.0f} s)")
    if result.finding is None:
        print_line(f"  not done: {result.problem}")
    else:
        print_table(("", ""), result.finding.rows, prose=True)


def _as_json(result: StepResult) -> dict[str, Any]:
    return {
        "name": result.step.name,
        "seconds": round(result.seconds, 3),
        "problem": result.problem,
        "data": dict(result.finding.data) if result.finding is not None else None,
    }
