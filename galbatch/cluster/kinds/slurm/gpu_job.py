"""The processes of a job with GPUs, run as a program: a Dask worker for each GPU, and workers that cut for them.

    python -m galbatch.cluster.kinds.slurm.gpu_job SCHEDULER --name NAME --gpus N --nthreads N [options of dask worker]

`--nthreads` is that of all workers. It runs on the job's node, where SLURM has set CUDA_VISIBLE_DEVICES to the job's GPUs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from galbatch.cluster.kinds.local_cuda import THREADS
from galbatch.cluster.pool import GPU

__all__ = ["WorkerCommand", "main", "worker_commands"]


@dataclass(frozen=True)
class WorkerCommand:
    """A command that starts a worker, and what its environment has besides this one's."""

    words: Sequence[str]
    environment: Mapping[str, str]


def worker_commands(
    name: str, gpus: Sequence[str], n_cutting: int, options: Sequence[str]
) -> list[WorkerCommand]:
    """Return the commands of a job's workers.

    Parameters
    ----------
    name : str
        Name of the job; the workers' are ``NAME-0``, ``NAME-1``, .., as the run expects.
    gpus : sequence of str
        The job's GPUs, as CUDA_VISIBLE_DEVICES names them: one worker each.
    n_cutting : int
        Number of workers without a GPU.
    options : sequence of str
        Options of ``dask worker`` that all have.
    """
    # Workers with and without a GPU take unequal shares of the job's memory, which SLURM limits. The last of two limits counts.
    dask = [sys.executable, "-m", "distributed.cli.dask_worker", *options, "--memory-limit", "0"]

    def command(number: int, *own: str, **environment: str) -> WorkerCommand:
        return WorkerCommand([*dask, "--name", f"{name}-{number}", *own], environment)

    found = [
        command(number, "--nthreads", str(THREADS), "--resources", f"{GPU}=1", CUDA_VISIBLE_DEVICES=gpu)
        for number, gpu in enumerate(gpus)
    ]
    # Networks of workers without a GPU are never run, and torch must not take one of the others'.
    return found + [
        command(number, "--nthreads", "1", CUDA_VISIBLE_DEVICES="")
        for number in range(len(gpus), len(gpus) + n_cutting)
    ]


def main(arguments: Sequence[str]) -> int:
    """Start the workers, pass signals on to them, and return when all have ended: 0, or the first exit code that is not."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--name", required=True)
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--nthreads")
    given, options = parser.parse_known_args(arguments)
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = listed.split(",") if listed else [str(number) for number in range(given.gpus)]
    commands = worker_commands(given.name, gpus[: given.gpus], given.processes - given.gpus, options)
    started = [subprocess.Popen(one.words, env=os.environ | dict(one.environment)) for one in commands]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in started:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        codes = [process.wait() for process in started]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
