"""The workers of a scheduler that runs already."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client
from distributed.versions import VersionMismatchWarning

from galbatch.cluster.checks import Tell, wait_for
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError

__all__ = ["Difference", "differences", "joined", "refused_workers"]

CONNECT_S = 15
"""So long a scheduler may take to answer, and to come back when the connection is lost."""

COMPARED = {"python": 2, "galbatch": 9, "dask": 9, "distributed": 9, "torch": 2, "numpy": 1}
"""Packages that must agree, and in how many parts of their version.

Tasks travel as pickles of galbatch's own classes and numpy's arrays, Dask's protocol differs between releases, and torch
reads the bundles."""

NOT_OF_SCHEDULER = ("torch", "numpy")
"""What a scheduler does without: it passes tasks on without opening them."""


@contextmanager
def joined(cluster: ClusterConfig, tell: Tell) -> Iterator[Client]:
    """Connect to the scheduler, and wait for as many workers as are asked for.

    Raises
    ------
    ClusterError
        Nothing answers there, workers do not come, or they are not like this process.
    """
    with _connected(str(cluster.scheduler)) as client:
        wait_for(client, cluster, "cpu", n_workers=cluster.workers or 1, tell=tell)
        _require_alike(client, str(cluster.scheduler))
        yield client


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # `differences` tells which of them matter
        try:
            client = Client(address, timeout=CONNECT_S)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"{address}: no Dask scheduler answers there ({error}); give its address as it prints it when it starts, such "
                "as tcp://10.0.0.1:8786"
            ) from None
        with client:
            yield client


@dataclass(frozen=True)
class Difference:
    """A package that is not the same on a worker, or on the scheduler, as here."""

    package: str
    here: str
    there: str
    where: str


SCHEDULER = "scheduler"


def differences(client: Client) -> list[Difference]:
    """What differs between this process, the scheduler and the workers that are there."""
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
    return {
        name: ".".join(str(packages[name]).split("+")[0].split(".")[:parts])
        if packages.get(name)
        else "missing"
        for name, parts in COMPARED.items()
    }


def refused_workers(client: Client) -> dict[str, str]:
    """The workers that are not like this process, and why."""
    reasons: dict[str, str] = {}
    for one in differences(client):
        if one.where != SCHEDULER:
            reason = f"{one.package} {one.there} there, {one.here} here"
            reasons[one.where] = f"{reasons[one.where]}, {reason}" if one.where in reasons else reason
    return reasons


def _require_alike(client: Client, address: str) -> None:
    found = differences(client)
    if not found:
        return
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
