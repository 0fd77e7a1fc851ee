"""What workers must be able to do before work is given to them."""

from __future__ import annotations

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client

from galbatch import models, storage
from galbatch.cluster.pool import GPU, Pool
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError, GalbatchError

__all__ = ["HOW_TO_START", "Tell", "require_device", "require_distinct_gpus", "require_paths", "wait_for"]

Tell = Callable[[str], None]
"""Takes a line for people."""

HOW_TO_START = {
    "cpu": "dask worker {address} --nthreads 1",
    "cuda": 'dask worker {address} --resources "GPU=1" --nthreads 4',
}

POLL_S = 0.2


def wait_for(client: Client, cluster: ClusterConfig, device: str, *, n_workers: int, tell: Tell) -> None:
    """Wait until so many workers for `device` are there.

    Raises
    ------
    ClusterError
        They are not after ``[cluster] wait_s``.
    """
    started, told = time.monotonic(), False
    while len((pool := Pool.of(client)).able(device)) < n_workers:
        if time.monotonic() - started >= cluster.wait_s:
            command = HOW_TO_START[device].format(address=cluster.scheduler)
            raise ClusterError(
                f"{cluster.scheduler}: {pool.described(device)}, {n_workers} asked for, after {cluster.wait_s:g} s "
                f"([cluster] wait_s); start them with {command}, or ask for fewer with [cluster] workers"
            )
        if not told:
            tell(
                f"{cluster.scheduler}: {pool.described(device)}; waiting up to {cluster.wait_s:g} s for {n_workers}"
            )
            told = True
        time.sleep(POLL_S)


def require_device(client: Client, cluster: ClusterConfig, *, tell: Tell) -> None:
    """Wait for workers of a joined scheduler that can infer on its device, each on a GPU of its own.

    Raises
    ------
    ClusterError
        None is there after ``[cluster] wait_s``, torch finds no GPU on one, or two share one.
    """
    wait_for(client, cluster, cluster.device, n_workers=1, tell=tell)
    if cluster.device == "cuda":
        require_distinct_gpus(client)


def require_distinct_gpus(client: Client) -> None:
    """Refuse workers that share a GPU, or whose torch finds none.

    Raises
    ------
    ClusterError
        Says which.
    """
    found: dict[str, tuple[bool, str]] = client.run(_gpu_of_worker, workers=Pool.of(client).able("cuda"))
    without = {worker: said for worker, (has_gpu, said) in found.items() if not has_gpu}
    if without:
        worker, said = min(without.items())
        raise ClusterError(
            f"{_some(sorted(without))} with the resource {GPU} cannot compute on one; {worker}: {said}; start it where there is "
            "a GPU, with a torch that was built for CUDA, or without the resource"
        )
    sharing = defaultdict(list)
    for worker, (_, identity) in sorted(found.items()):
        sharing[identity].append(worker)
    for identity, workers in sharing.items():
        if len(workers) > 1:
            raise ClusterError(
                f"{' and '.join(workers[:2])} compute on the same GPU, {identity}: each worker needs one of its own; was CUDA used "
                "in this process before the workers started, or CUDA_VISIBLE_DEVICES the same for both?"
            )


def _gpu_of_worker() -> tuple[bool, str]:
    """Whether there is a GPU, and its identity or what is wrong."""
    try:
        return True, models.gpu_identity()
    except GalbatchError as error:
        return False, str(error)


def require_paths(client: Client, *, written: Sequence[str], read: Sequence[str]) -> None:
    """Refuse workers that do not see the run's folders and files as this process does.

    Parameters
    ----------
    written : folders of the outputs, which are there
    read : some files of the inputs

    Raises
    ------
    ClusterError
        A worker sees another folder there, cannot write in it, or cannot see a file.
    """
    token = uuid.uuid4().hex
    probes = [storage.join(folder, f".galbatch-probe-{token}") for folder in written]
    try:
        for probe in probes:
            storage.publish_json(probe, {"token": token})
        problems = client.run(_look, probes, list(read), token)
    finally:
        for probe in probes:
            storage.remove(probe)
    wrong = {worker: problem for worker, problem in sorted(problems.items()) if problem}
    if wrong:
        worker, problem = next(iter(wrong.items()))
        raise ClusterError(
            f"{_some(list(wrong))} of {len(problems)}: {worker}: {problem}; inputs and outputs must lie on storage that all "
            "workers share under the same path, such as a shared file system or s3://"
        )


def _look(probes: Sequence[str], files: Sequence[str], token: str) -> str:
    """What a worker misses; empty: nothing."""
    try:
        for probe in probes:
            if storage.read_json(probe) != {"token": token}:
                return f"{os.path.dirname(probe)} is not there, or another folder"
            answer = f"{probe}-{uuid.uuid4().hex}"
            storage.publish(answer, b"")
            storage.remove(answer)
        missing = [path for path in files if not storage.exists(path)]
    except OSError as error:
        return str(error)
    return f"{missing[0]} is not there" if missing else ""


def _some(workers: Sequence[Any]) -> str:
    return f"{len(workers)} worker{'s' if len(workers) > 1 else ''}"
