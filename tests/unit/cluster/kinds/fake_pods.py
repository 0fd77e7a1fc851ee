"""Pods of the made-up Kubernetes as processes of this machine: the commands and environments that their containers ask for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

STARTS_WITHIN_S = 600
"""A ceiling for slow machines."""


class Pods:
    """The scheduler and the workers of one DaskCluster; what they print is in files of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._containers: dict[str, dict] = {}
        self.scheduler: subprocess.Popen[bytes] | None = None

    def start_scheduler(self, spec: dict) -> None:
        """Start the scheduler at ports of its own, as all pods share this machine's address."""
        (container,) = spec["containers"]
        told = self.folder / "scheduler.json"
        options = ["--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(told)]
        self.scheduler = self._start("scheduler", container, [*container["args"], *options])
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not (told.exists() and told.read_text().endswith("}")):
            assert self.scheduler.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        self.facts = json.loads(told.read_text())

    @property
    def ports(self) -> dict[str, int]:
        """The port of each of the service's ports."""
        return {
            "tcp-comm": int(self.facts["address"].rpartition(":")[2]),
            "http-dashboard": self.facts["services"]["dashboard"],
        }

    def start_workers(self, worker: dict, group: str) -> None:
        (container,) = worker["spec"]["containers"]
        for number in range(worker["replicas"]):
            self._containers[f"{group}-{number}"] = container
            self.start_worker(f"{group}-{number}")

    def start_worker(self, name: str) -> None:
        """Start a worker, as the operator does: its name and the scheduler's address are in its environment."""
        container = self._containers[name]
        args = [name if one == "$(DASK_WORKER_NAME)" else one for one in container["args"]]
        # Each pod has this port for itself.
        args[args.index("8788")] = "127.0.0.1:0"
        address = f"tcp://127.0.0.1:{self.ports['tcp-comm']}"
        self.workers[name] = self._start(name, container, args, DASK_SCHEDULER_ADDRESS=address)

    def lose(self, name: str) -> None:
        """Lose a worker with its pod, and start it again, as the operator does."""
        self.workers[name].kill()
        self.workers[name].wait()
        self.start_worker(name)

    def _start(self, name: str, container: dict, args: list[str], **more: str) -> subprocess.Popen[bytes]:
        assert args[0] == "dask"
        environment = {one["name"]: one["value"] for one in container["env"]}
        with open(self.folder / f"{name}.txt", "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *args],
                env=os.environ | environment | more,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.txt")))

    def stop(self) -> None:
        """End all pods, as Kubernetes does with those of a DaskCluster that is deleted."""
        processes = [*self.workers.values(), *([self.scheduler] if self.scheduler else [])]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.workers.clear()
        self.scheduler = None
