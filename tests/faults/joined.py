"""A scheduler with two workers that a run joins: processes started as the reference says, one of them behind a link that can be cut."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Protocol

import psutil

from tests.faults.commands import LIMIT_S
from tests.processes import workers_below

# A worker that is cut off is missed after this time; Dask's own defaults are 30 s and 5 minutes.
SHORT_TIMEOUTS = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s",
}


class Link(Protocol):
    """The way between the scheduler and one worker."""

    name: str
    host: str

    def prefix(self) -> list[str]:
        """Return the words before the command of the worker behind the link."""

    def address(self, scheduler: str) -> str:
        """Return the scheduler's address as seen from behind the link."""

    def cut(self) -> None: ...

    def close(self) -> None: ...


class Namespace:
    """A network namespace of its own for the worker, and a pair of interfaces, of which one is taken down."""

    name = "network namespace"

    def __init__(self) -> None:
        number = os.getpid() % 200
        self.host, self.inside = f"10.213.{number}.1", f"10.213.{number}.2"
        self.space, self.near, self.far = f"gbf{number}", f"gbfa{number}", f"gbfb{number}"
        ip("netns", "add", self.space)
        ip("link", "add", self.near, "type", "veth", "peer", "name", self.far)
        ip("link", "set", self.far, "netns", self.space)
        ip("addr", "add", f"{self.host}/24", "dev", self.near)
        ip("link", "set", self.near, "up")
        for words in (
            ["addr", "add", f"{self.inside}/24", "dev", self.far],
            ["link", "set", self.far, "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", self.space, *words)

    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.space]

    def worker_host(self) -> str:
        return self.inside

    def address(self, scheduler: str) -> str:
        return scheduler

    def cut(self) -> None:
        ip("link", "set", self.near, "down")

    def close(self) -> None:
        subprocess.run(["ip", "link", "del", self.near], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", self.space], check=False, stderr=subprocess.DEVNULL)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Relay:
    """A relay of TCP between worker and scheduler that drops what comes, where namespaces are not allowed."""

    name = "relay that drops"
    host = "127.0.0.1"

    def __init__(self) -> None:
        self._is_cut = threading.Event()
        self._server: ThreadingTCPServer | None = None

    def prefix(self) -> list[str]:
        return []

    def worker_host(self) -> str:
        return self.host

    def address(self, scheduler: str) -> str:
        host, _, port = scheduler.removeprefix("tcp://").rpartition(":")
        is_cut = self._is_cut

        class Relaying(BaseRequestHandler):
            def handle(self) -> None:
                import socket

                with socket.create_connection((host, int(port))) as there:
                    ways = [(self.request, there), (there, self.request)]
                    threads = [
                        threading.Thread(target=pump, args=(*way, is_cut), daemon=True) for way in ways
                    ]
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()

        ThreadingTCPServer.daemon_threads = True
        self._server = ThreadingTCPServer(("127.0.0.1", 0), Relaying)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"tcp://127.0.0.1:{self._server.server_address[1]}"

    def cut(self) -> None:
        self._is_cut.set()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def pump(source: object, target: object, is_cut: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):  # type: ignore[attr-defined]
            if not is_cut.is_set():
                target.sendall(data)  # type: ignore[attr-defined]


def new_link() -> Namespace | Relay:
    try:
        return Namespace()
    except (OSError, subprocess.CalledProcessError):
        return Relay()


class JoinedCluster:
    """A scheduler and two workers with nannies.

    Attributes
    ----------
    address : of the scheduler
    link : between scheduler and second worker; None without a link that can be cut
    """

    def __init__(self, folder: Path, *, with_link: bool = False) -> None:
        self.link = new_link() if with_link else None
        self._folder = folder
        self._host = self.link.host if self.link else "127.0.0.1"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        """Start the scheduler and its workers."""
        file = self._folder / "scheduler.json"
        file.unlink(missing_ok=True)
        self.scheduler = dask(
            "scheduler", "--host", self._host, "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file", str(file),
        )  # fmt: skip
        deadline = time.monotonic() + LIMIT_S
        while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        import json

        self.address = json.loads(file.read_text())["address"]
        behind = self.link.address(self.address) if self.link else self.address
        self.workers = [
            self._worker(self.address, self._host),
            self._worker(
                behind,
                self.link.worker_host() if self.link else self._host,
                self.link.prefix() if self.link else (),
            ),
        ]

    def _worker(self, address: str, host: str, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        return dask(
            "worker", address, "--host", host, "--nthreads", "1", "--no-dashboard", "--local-directory", str(self._folder),
            prefix=prefix,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """The worker processes, without their nannies."""
        return [child for nanny in self.workers for child in workers_below(nanny.pid)]

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            # A group of its own each: no process that a killed nanny left behind stays.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.workers = []

    def end(self) -> None:
        self.close()
        if self.link is not None:
            self.link.close()


def dask(*arguments: str, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **SHORT_TIMEOUTS, "OMP_NUM_THREADS": "1"},
    )


@contextlib.contextmanager
def joined_cluster(folder: Path, *, with_link: bool = False) -> Iterator[JoinedCluster]:
    cluster = JoinedCluster(folder, with_link=with_link)
    try:
        yield cluster
    finally:
        cluster.end()
