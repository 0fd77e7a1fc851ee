"""Kind "local": worker processes on this machine's cores."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster

from galbatch.cluster.base import ClusterKind, Notify, count_of

__all__ = ["Local", "free_address", "kept_by_malloc"]


class Local(ClusterKind):
    """Worker processes on this machine's cores, one thread each; they infer on the CPU."""

    name = "local"

    @property
    def n_workers(self) -> int:
        """The number of processes to start: as configured, else one per two cores, at least one."""
        return self.config.workers or max(1, (os.cpu_count() or 1) // 2)

    def workers_planned(self) -> tuple[int, str]:
        return self.n_workers, count_of(self.n_workers, "worker")

    @contextmanager
    def connect(self, notify: Notify) -> Iterator[Client]:
        # One computing thread a worker (Dask's nannies set OMP_NUM_THREADS=1): workers are
        # the parallelism, and one thread gives the same bits on any machine of a kind.
        with (
            kept_by_malloc(),
            LocalCluster(
                n_workers=self.n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=free_address(self.config.dashboard_address),
                silence_logs=40,  # logging.ERROR: Dask warns of every worker that ends with the run
            ) as workers,
            Client(workers) as client,
        ):
            yield client


def kept_by_malloc() -> Any:
    """Return a context in which workers start that keep the memory they free, up to 256 MiB in each thread's arena.

    Passes free and take buffers of some MB all the time. With glibc's and Dask's defaults each goes back to the system and
    comes as fresh pages: that took as much time again as the computing (1.43 against 0.76 ms of processor time a pass).
    """
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    return dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": 2**28 for name in names})


def free_address(address: str) -> str:
    """Return `address`, or the same host with port 0 (any free port) where the port is taken."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return f"{host}:0"
    return address
