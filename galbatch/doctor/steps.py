"""The steps of the doctor, most valuable first, and the processes in which they run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from galbatch import storage
from galbatch.config import read_config
from galbatch.doctor import access, machine, networks, projection, storage_rates
from galbatch.doctor.findings import Finding, Step, StepResult

__all__ = ["MOST_S", "SCHEMA", "answer", "examine", "steps_of"]

SCHEMA = 1
"""The version of the JSON: raised where a name changes its meaning or goes."""

MOST_S = 600.0
"""The time of all steps, in seconds; steps that are left then are left out."""

SIZES_PX = (239, 143, 96)
"""The sizes of cutouts of the released GaMPENs."""

ENGINES = {
    "cpu": ("rebuilt-float32", "torchscript-float32", "rebuilt-bfloat16"),
    "cuda": (
        "rebuilt-float16",
        "rebuilt-float32",
        "torchscript-float32",
        "rebuilt-bfloat16",
        "compiled-float16",
    ),
}
"""The engines that are timed on each device, the one that ``auto`` takes first."""

ANSWERS: Mapping[str, Callable[..., Finding]] = {
    "machine": machine.machine,
    "gpus": machine.gpus,
    "agreement": networks.agreement,
    "passes": networks.passes,
    "storage": storage_rates.storage_rate,
    "credentials": access.credentials,
    "clusters": access.clusters,
    "run": projection.projected_run,
}
"""The functions that answer, by the first part of a step's name."""


def answer(name: str, arguments: Mapping[str, Any]) -> Finding:
    """Return the answer of the step of that name, made in this process."""
    return ANSWERS[name.partition(":")[0]](**arguments)


def steps_of(run_toml: str | None = None, *, device: str = "cpu", width: float = 1.0) -> list[Step]:
    """Return the steps in their order.

    Parameters
    ----------
    run_toml : path of a run.toml whose outputs are timed and whose hours are projected; None: the current folder is timed
    device : cpu or cuda, on which networks run
    width : part of the paper's channels of the network that is timed

    Raises
    ------
    ConfigError
        The run.toml is wrong.
    """
    # The outputs of a run are read here, so that a wrong config ends the command before anything is measured.
    places = _places(run_toml)
    timed = [(engine, size_px) for engine in ENGINES[device] for size_px in SIZES_PX]
    first = [one for one in timed if one[0] == ENGINES[device][0]]
    steps = [
        Step("machine", 60, {}),
        Step("gpus", 60, {}),
        Step("credentials", 30, {}),
        Step("clusters", 40, {}),
    ]
    steps.append(Step(f"agreement:{device}", 120, {"device": device}))
    steps += [_passes(one, device, width) for one in first]
    steps += [Step(f"storage:{label}", 60, {"folder": folder, "label": label}) for label, folder in places]
    if run_toml is not None:
        steps.append(Step("run", 180, {"run_toml": run_toml}))
    return steps + [_passes(one, device, width) for one in timed if one not in first]


def _passes(timed: tuple[str, int], device: str, width: float) -> Step:
    engine, size_px = timed
    # Compiling takes minutes.
    limit_s = 240 if engine.startswith("compiled") else 90
    arguments = {"engine": engine, "size_px": size_px, "device": device, "width": width}
    return Step(f"passes:{engine}:{size_px}px", limit_s, arguments)


def _places(run_toml: str | None) -> Sequence[tuple[str, str]]:
    """Return label and folder of what is timed: the outputs of the run, or the nearest folder above them that exists."""
    if run_toml is None:
        return [("this folder", os.getcwd())]
    config = read_config(run_toml)
    outputs = {"cutouts": config.cutouts.store, "catalog": config.catalog.path}
    return [(label, _existing(path)) for label, path in outputs.items()]


def _existing(path: str) -> str:
    if not storage.has_local_path(path):
        return path
    return str(next(one for one in [Path(path), *Path(path).parents] if one.is_dir()))


def examine(steps: Sequence[Step], *, most_s: float = MOST_S) -> Iterator[StepResult]:
    """Yield the result of each step as it comes; a step that fails or takes too long stops no other.

    Parameters
    ----------
    steps : as `steps_of` returns
    most_s : time of all steps, in seconds
    """
    end_s = time.monotonic() + most_s
    for step in steps:
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            yield StepResult(step, None, f"left out: the {most_s:g} s of all steps are over", 0.0)
        else:
            yield _run(step, min(step.limit_s, left_s))


def _run(step: Step, limit_s: float) -> StepResult:
    """Run a step in a process of its own, which ends with its children: at the limit, and when it or this process is killed."""
    started = time.monotonic()
    # The step ends when its end of this pipe says that this process is gone, however that came.
    reading, writing = os.pipe()
    command = [
        sys.executable,
        "-m",
        "galbatch.doctor",
        step.name,
        json.dumps(dict(step.arguments)),
        f"{reading}",
    ]
    # Files, not pipes: children of a step that was killed would hold its pipes open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, start_new_session=True, pass_fds=[reading]
        )
        try:
            code = process.wait(limit_s)
            problem = "" if code == 0 else _last_line(_text(errors), code)
        except subprocess.TimeoutExpired:
            problem = f"killed after its limit of {limit_s:.0f} s"
        finally:
            # Also after Ctrl-C. The step leads a group of its own, so that its workers end with it.
            _kill(process)
            os.close(reading)
            os.close(writing)
        finding = None
        if not problem:
            read = json.loads(_text(output).splitlines()[-1])
            finding = Finding(tuple((label, text) for label, text in read["rows"]), read["data"])
    return StepResult(step, finding, problem, time.monotonic() - started)


def _text(file: IO[bytes]) -> str:
    """Return what a process has written into a file."""
    file.seek(0)
    return file.read().decode(errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    # There is no such group where all of it have ended.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(errors: str, code: int) -> str:
    lines = [line for line in errors.splitlines() if line.strip()]
    if code < 0:
        # What it wrote before is not why.
        return f"its process was killed by {signal.Signals(-code).name}"
    return access.redacted(lines[-1].strip()) if lines else f"its process ended with code {code}"
