"""Checks of workers before work is submitted: that each has a GPU of its own, and sees the same files as this process."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from collections.abc import Sequence

from distributed import Client

from galbatch import models, storage
from galbatch.cluster.base import count_of
from galbatch.cluster.pool import GPU, Pool
from galbatch.errors import ClusterError, GalbatchError

__all__ = ["require_distinct_gpus", "require_paths"]


def require_distinct_gpus(client: Client) -> None:
    """Raise an error if torch finds no GPU on a worker with the resource, or if two workers share a GPU.

    Raises
    ------
    ClusterError
        The message names the workers.
    """
    # torch is asked on each worker: CUDA_VISIBLE_DEVICES alone does not tell which GPU a process has taken.
    found: dict[str, tuple[bool, str]] = client.run(_gpu_of_worker, workers=Pool.of(client).able("cuda"))
    without = {worker: said for worker, (has_gpu, said) in found.items() if not has_gpu}
    if without:
        worker, said = min(without.items())
        raise ClusterError(
            f"{count_of(len(without), 'worker')} with the resource {GPU} cannot compute on one; {worker}: {said}; start it where there is "
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
    """Return whether torch finds a GPU in this process, and the GPU's UUID or the reason why not."""
    try:
        return True, models.gpu_identity()
    except GalbatchError as error:
        return False, str(error)


def require_paths(client: Client, *, written: Sequence[str], read: Sequence[str]) -> None:
    """Raise an error if workers do not see the folders and files of the run as this process does.

    Parameters
    ----------
    client : distributed.Client
    written : sequence of str
        Folders of the outputs; they exist.
    read : sequence of str
        Paths of some input files.

    Raises
    ------
    ClusterError
        A worker sees another folder under a path, cannot write in it, or cannot see a file.
    """
    # A random token tells this run's folder from another machine's folder of the same path.
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
            f"{count_of(len(wrong), 'worker')} of {len(problems)}: {worker}: {problem}; inputs and outputs must lie on storage that all "
            "workers share under the same path, such as a shared file system or s3://"
        )


def _look(probes: Sequence[str], files: Sequence[str], token: str) -> str:
    """Return what is wrong with the first folder or file that this worker cannot use; empty if all is well."""
    try:
        for probe in probes:
            if storage.read_json(probe) != {"token": token}:
                return f"{os.path.dirname(probe)} is not there, or another folder"
            # Reading may work where writing is not allowed.
            answer = f"{probe}-{uuid.uuid4().hex}"
            storage.publish(answer, b"")
            storage.remove(answer)
        missing = [path for path in files if not storage.exists(path)]
    except OSError as error:
        return str(error)
    return f"{missing[0]} is not there" if missing else ""
