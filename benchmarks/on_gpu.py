"""What does a machine with a GPU do: its tests, `galbatch doctor --gpu`, and a run with `local-cuda`?

One script for the first GPU: each part is done whatever came of those before, and one JSON under ``benchmarks/results/`` says what
came of all. Without a GPU it says so of each part; `--cpu` runs the doctor and the run on the CPU instead, to see that they work.

    python benchmarks/on_gpu.py [--cpu] [--objects 2000] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS

ROOT = Path(__file__).parents[1]
LIMIT_S = 900
KEPT_LINES = 30
NETWORKS = """
[[models]]
name = "gampen"
bundle = "demo:gampen"
[[models]]
name = "sfnet"
bundle = "demo:sfnet"
[cluster]
dashboard_address = "127.0.0.1:0"
"""


def part(command: Sequence[str], *, limit_s: float = LIMIT_S) -> dict[str, Any]:
    """Run one command of this Python; return its exit code, time and last lines."""
    started = time.monotonic()
    try:
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        code, output, errors = ended.returncode, ended.stdout, ended.stderr
    except subprocess.TimeoutExpired:
        code, output, errors = 124, "", f"killed after {limit_s:g} s"
    seconds = round(time.monotonic() - started, 1)
    print(f"{' '.join(command)}: exit code {code} in {seconds} s", flush=True)
    return {
        "command": list(command),
        "exit_code": code,
        "seconds": seconds,
        "stdout": output,
        "stderr": errors,
    }


def last_lines(found: dict[str, Any]) -> dict[str, Any]:
    """The same with the last lines of each stream alone."""
    return found | {name: found[name].splitlines()[-KEPT_LINES:] for name in ("stdout", "stderr")}


def doctor(run_toml: Path, *, on_gpu: bool) -> dict[str, Any]:
    """The doctor's JSON, parsed."""
    found = part(["galbatch", "doctor", str(run_toml), "--json", *(["--gpu"] if on_gpu else [])])
    try:
        read = json.loads(found["stdout"])
    except json.JSONDecodeError:
        return last_lines(found)
    return last_lines(found | {"stdout": ""}) | {"found": read}


def run(run_toml: Path, *, on_gpu: bool) -> dict[str, Any]:
    """A run of the whole survey; its last lines say objects, passes and time."""
    return last_lines(
        part(["galbatch", "run", str(run_toml), "--cluster", "local-cuda" if on_gpu else "local"])
    )


def survey(folder: Path, n_objects: int) -> Path:
    """A simulated survey and a run.toml with the sections that `galbatch simulate` prints for it."""
    printed = part(["galbatch", "simulate", str(folder), "--objects", str(n_objects)])["stdout"]
    sections = printed[printed.index("[survey]") :]
    run_toml = folder / "run.toml"
    run_toml.write_text(sections + NETWORKS, encoding="utf-8")
    return run_toml


def main() -> None:
    """All parts, most valuable first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="the doctor and the run on the CPU")
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=None, help="folder of the survey and the catalog")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp(prefix="galbatch-gpu-"))
    run_toml, found = survey(folder / "survey", options.objects), {}
    name = "on_a_cpu.json" if options.cpu else "on_a_gpu.json"
    parts = {
        "tests": lambda: last_lines(part(["pytest", "tests/gpu", "-q", "-p", "no:cacheprovider"])),
        "doctor": lambda: doctor(run_toml, on_gpu=not options.cpu),
        "run": lambda: run(run_toml, on_gpu=not options.cpu),
    }
    options.results.mkdir(exist_ok=True)
    for label, do in parts.items():
        found[label] = do()
        # Written after each, as a borrowed machine may be taken back.
        (options.results / name).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
