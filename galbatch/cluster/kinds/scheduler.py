"""The kind "scheduler": the workers of a Dask scheduler that is already running."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client
from distributed.versions import VersionMismatchWarning

from galbatch.cluster.base import ClusterKind, Device, Notify, WorkerNeeds, count_of
from galbatch.cluster.checks import require_distinct_gpus, require_paths
from galbatch.cluster.pool import Pool
from galbatch.errors import ClusterError

__all__ = ["Difference", "RunningScheduler", "differences", "refused_workers", "require_alike"]

CONNECT_S = 15
"""Longest time for a scheduler to answer, and to come back after the connection was lost."""

# Time between two looks for workers; each look is a request to the scheduler.
POLL_S = 0.2

HOW_TO_START: dict[Device, str] = {
    "cpu": "dask worker {address} --nthreads 1 --memory-limit 0",
    "cuda": 'dask cuda worker {address} --resources "GPU=1" --nthreads 2 --memory-limit 0',
}

TLS_HINT = "tls:// needs certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, .._TLS__CLIENT__CERT and .._TLS__CLIENT__KEY"
"""How a scheduler with TLS is joined."""

COMPARED = {"python": 2, "galbatch": 9, "dask": 9, "distributed": 9, "torch": 2, "numpy": 1}
"""Packages that must agree on client and workers, with the number of parts of the version that are compared.

Tasks are pickles of galbatch's classes and numpy's arrays, Dask's protocol changes between releases, and torch reads the
bundles. 9 compares all parts."""

NOT_OF_SCHEDULER = ("torch", "numpy")
"""Packages that a scheduler does not need, as it passes tasks on without unpickling them."""


class RunningScheduler(ClusterKind):
    """The workers of a Dask scheduler that is already running. They stay when the run ends, and others may join at any time."""

    name = "scheduler"

    @property
    def address(self) -> str:
        """The address of the scheduler; the config requires one for this kind."""
        return str(self.config.scheduler)

    @property
    def device(self) -> Device:
        return self.config.device

    def workers_planned(self) -> tuple[int, str]:
        n_workers = self.config.workers or 1
        noun = "GPU worker" if self.device == "cuda" else "worker"
        return n_workers, f"{count_of(n_workers, noun)} of {self.address}"

    @contextmanager
    def connect(self, notify: Notify) -> Iterator[Client]:
        with _connected(self.address) as client:
            # Also for cuda any worker will do at first: they read the headers of tiles.
            self._wait_for(client, "cpu", n_workers=self.config.workers or 1, notify=notify)
            require_alike(client, self.address)
            yield client

    def check_workers(self, client: Client, needs: WorkerNeeds, notify: Notify) -> None:
        if needs.infers:
            self.require_device(client, notify)
        require_paths(client, written=needs.written, read=needs.read)

    def require_device(self, client: Client, notify: Notify) -> None:
        """Wait for a worker that can infer on the device, and check that each has a GPU of its own.

        Raises
        ------
        ClusterError
            No such worker connects within ``[cluster] wait_s``, torch finds no GPU on one, or two share a GPU.
        """
        self._wait_for(client, self.device, n_workers=1, notify=notify)
        if self.device == "cuda":
            require_distinct_gpus(client)

    def refused_workers(self, client: Client) -> dict[str, str]:
        return refused_workers(client)

    def patience_s(self, n_workers: int) -> float:
        # Suitable workers may join at any time, also while unsuitable ones are connected.
        return self.config.wait_s

    def how_to_start(self, device: Device) -> str:
        return HOW_TO_START[device].format(address=self.address)

    def missing_workers_hint(self, client: Client, device: Device) -> str:
        """Return what to do when fewer workers than asked for have come."""
        return f"start them with {self.how_to_start(device)}"

    def _wait_for(self, client: Client, device: Device, *, n_workers: int, notify: Notify) -> None:
        """Wait until `n_workers` workers that can compute on `device` are connected; raise ClusterError after wait_s."""
        wait_s = self.config.wait_s
        started, notified = time.monotonic(), False
        while len((pool := Pool.of(client)).able(device)) < n_workers:
            found = f"{self.address}: {pool.described(device)}"
            if time.monotonic() - started >= wait_s:
                raise ClusterError(
                    f"{found}, {n_workers} asked for, after {wait_s:g} s ([cluster] wait_s); "
                    f"{self.missing_workers_hint(client, device)}, or ask for fewer with [cluster] workers"
                )
            if not notified:
                notify(f"{found}; waiting up to {wait_s:g} s for {n_workers}")
                notified = True
            time.sleep(POLL_S)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    with warnings.catch_warnings():
        # Dask compares more packages than matter here; `differences` finds those that do.
        warnings.simplefilter("ignore", VersionMismatchWarning)
        try:
            client = Client(address, timeout=CONNECT_S)
        except (OSError, ValueError, TypeError, AssertionError) as error:
            # Without certificates Dask raises TypeError; AssertionError where a scheduler with TLS was joined without.
            raise ClusterError(
                f"{address}: no Dask scheduler answers there ({error or 'it closed the connection'}); give its address as it prints "
                f"it when it starts, such as tcp://10.0.0.1:8786; {TLS_HINT}"
            ) from None
        with client:
            yield client


@dataclass(frozen=True)
class Difference:
    """A package whose version on a worker or on the scheduler differs from that in this process.

    Attributes
    ----------
    package : name
    here, there : the versions, as far as they are compared; "missing" if it is not installed
    where : address of the worker, or "scheduler"
    """

    package: str
    here: str
    there: str
    where: str


SCHEDULER = "scheduler"


def differences(client: Client) -> list[Difference]:
    """Return the packages whose versions on the scheduler or on a worker differ from those in this process."""
    # Dask reports its own dependencies without being asked, so only two names are added.
    found = client.get_versions(packages=["galbatch", "torch"])
    here = _compared(found["client"])
    there = {SCHEDULER: found["scheduler"], **found["workers"]}
    return [
        Difference(package, here[package], version, where)
        for where, versions in there.items()
        for package, version in _compared(versions).items()
        if version != here[package] and not (where == SCHEDULER and package in NOT_OF_SCHEDULER)
    ]


def _compared(versions: Mapping[str, Any]) -> dict[str, str]:
    packages = versions["packages"]
    # Builds of one version, such as torch 2.5.1+cpu and 2.5.1+cu124, count as the same.
    return {
        name: ".".join(str(packages[name]).split("+")[0].split(".")[:parts])
        if packages.get(name)
        else "missing"
        for name, parts in COMPARED.items()
    }


def refused_workers(client: Client) -> dict[str, str]:
    """Return the reason for each worker whose packages differ from those of this process, by its address."""
    reasons: dict[str, str] = {}
    for one in differences(client):
        if one.where != SCHEDULER:
            reason = f"{one.package} {one.there} there, {one.here} here"
            reasons[one.where] = f"{reasons[one.where]}, {reason}" if one.where in reasons else reason
    return reasons


def require_alike(client: Client, address: str) -> None:
    """Raise an error if packages of the scheduler or of a worker differ from those of this process.

    Raises
    ------
    ClusterError
        The message is a table of the packages.
    """
    found = differences(client)
    if not found:
        return
    # The message is a table: one row for each difference, with at most three of the places that have it.
    rows = [("package", "here", "there", "on")]
    for package, here, there in dict.fromkeys((one.package, one.here, one.there) for one in found):
        places = [one.where for one in found if (one.package, one.there) == (package, there)]
        rows.append((package, here, there, ", ".join(places[:3]) + (" and more" if len(places) > 3 else "")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
    raise ClusterError(
        "\n".join(
            [f"{address}: not all is like here: install the same on the scheduler and its workers", *lines]
        )
    )
