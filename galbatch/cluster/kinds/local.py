"""The kind "local": worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster, Status

from galbatch.cluster.base import ClusterKind, Notify, count_of
from galbatch.cluster.kinds.ending import end_workers
from galbatch.cluster.kinds.forking import forked, import_ahead
from galbatch.cluster.kinds.worker_plugins import register_plugins
from galbatch.errors import ClusterError

__all__ = [
    "RESTART_S",
    "Local",
    "free_address",
    "kept_by_malloc",
    "patient_with_workers",
    "replace_workers",
    "short_logs",
    "started",
    "threads",
]

ENDED = (Status.closed, Status.closing, Status.failed)
"""States of a nanny that will not start a worker any more."""

START_ATTEMPTS = 3

CLOSE_S = 30.0
"""The longest time to wait for the scheduler and the nannies to end, in seconds, after the workers have."""

RESTART_S = 180
"""The longest time to wait for a worker to restart: a process that imports torch from a busy file system takes minutes."""


class Local(ClusterKind):
    """Worker processes on this machine's cores, one thread each; they infer on the CPU."""

    name = "local"
    starts_processes = True

    @property
    def n_workers(self) -> int:
        """The number of worker processes to start: as configured, else one for every two cores, at least one."""
        # os.cpu_count counts hardware threads, of which two mostly share a core.
        return self.config.workers or max(1, (os.cpu_count() or 1) // 2)

    def workers_planned(self) -> tuple[int, str]:
        return self.n_workers, count_of(self.n_workers, "worker")

    @contextmanager
    def connect(self, notify: Notify) -> Iterator[Client]:
        # Each worker computes with one thread (Dask's nannies set OMP_NUM_THREADS=1): workers are the parallelism, and one
        # thread gives the same bits on any machine with the same kind of processor.
        with (
            kept_by_malloc(),
            forked(),
            patient_with_workers(),
            started(
                LocalCluster,
                notify,
                n_workers=self.n_workers,
                threads_per_worker=1,
                processes=True,
                # The plan projects what a worker takes; Dask would end one that takes more than its share of the machine.
                memory_limit=0,
                host="127.0.0.1",
                dashboard_address=free_address(self.config.dashboard_address),
                # Where workers are forked from a process that is older than these variables, they would not have them.
                env=dict(os.environ),
                # logging.ERROR: below it, Dask warns of every worker that ends with the run.
                silence_logs=40,
            ) as workers,
            Client(workers) as client,
        ):
            register_plugins(client)
            yield client

    def import_ahead(self, module: str) -> None:
        with kept_by_malloc():
            import_ahead(module)

    def replace_workers(self, client: Client) -> int:
        return replace_workers(client)


@contextmanager
def threads(n_threads: int) -> Iterator[Client]:
    """Yield a connection to one worker with threads of this process, for short work of other libraries that ask for Dask."""
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=n_threads,
            processes=False,
            dashboard_address="127.0.0.1:0",
            # A limit would be that of the whole process, whatever else it holds.
            memory_limit=0,
            silence_logs=40,
        ) as workers,
        Client(workers) as client,
    ):
        yield client


@contextmanager
def started(make: Callable[..., Any], notify: Notify, **options: Any) -> Iterator[Any]:
    """Yield a cluster of this process whose workers have started; it ends with the context, in a minute at most.

    Raises
    ------
    ClusterError
        A worker ended each time while it started.
    TimeoutError
        The workers did not end as they were asked. They were killed then.
    """
    others = set(multiprocessing.active_children())
    workers = _made(make, notify, **options)
    try:
        yield workers
    finally:
        try:
            end_workers(workers)
            # Without a limit Dask would wait for ever for a nanny that hangs.
            workers.close(timeout=CLOSE_S)
        finally:
            # Python asks what is left of its children to end by SIGTERM, which workers leave to the run, and waits for them.
            for child in set(multiprocessing.active_children()) - others:
                child.kill()


def _made(make: Callable[..., Any], notify: Notify, **options: Any) -> Any:
    """Return a cluster of this process; it is made again if a worker ends while it starts."""
    for n_left in reversed(range(START_ATTEMPTS)):
        try:
            return make(**options)
        except RuntimeError as error:
            # Dask has ended all workers then, and says no more than that one of them failed.
            if not n_left:
                raise ClusterError(
                    f"workers end while they start ({error}), {START_ATTEMPTS} times in a row; look for what ends them: too "
                    "little memory, a limit of processes, a file system that is full"
                ) from error
            notify(f"a worker ended while it started ({error}): starting all again")
    raise AssertionError("unreachable")


def replace_workers(client: Client) -> int:
    """Start workers of a cluster of this process again whose nannies have ended; return their number.

    A nanny starts its worker again, but ends itself if the worker dies while it starts, and Dask does not replace nannies.
    """
    workers: Any = client.cluster

    async def replace() -> int:
        ended = [name for name, nanny in workers.workers.items() if nanny.status in ENDED]
        for name in ended:
            del workers.workers[name]
        n_missing = len(workers.worker_spec) - len(workers.workers)
        if n_missing > 0:
            # The number stays: this makes Dask compare the workers that there should be with those that there are.
            workers.scale(len(workers.worker_spec))
        return n_missing

    return int(workers.sync(replace))


def patient_with_workers() -> Any:
    """Return a context manager in which a cluster of this process waits three minutes for a worker that starts again."""
    # Dask gives up a worker after 15 s, which an import of torch takes on a busy machine.
    return dask.config.set({"distributed.deploy.lost-worker-timeout": f"{RESTART_S} s"})


def short_logs() -> Any:
    """Return a context manager; connections that are made within it keep the last 10 messages for Dask's developers, not 1000."""
    # Each connection of the scheduler and of the client keeps them, with up to 4 kB of task each: 2 GB where 512 workers join.
    return dask.config.set({"distributed.admin.low-level-log-length": 10})


def kept_by_malloc() -> Any:
    """Return a context manager; workers that start within it keep up to 256 MiB of freed memory per arena of malloc.

    Passes allocate and free buffers of some MB all the time. With the defaults of glibc and Dask each buffer goes back to
    the system and comes as new pages, which takes as long as the computation itself (1.43 instead of 0.76 ms of processor
    time per pass).
    """
    # Processes read these variables once, when they start: they must be set by the nanny before.
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": 2**28 for name in names})


def free_address(address: str) -> str:
    """Return `address`, or the same host with port 0, which means any free port, if the port is in use."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        # A port that was closed a moment ago still counts as in use otherwise; Dask could take it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return address
