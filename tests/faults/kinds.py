"""The kinds of faults: a row each, with the place that it strikes, what happens, and how the run comes through.

A fault strikes a run while it works, at a random step, or its finished outputs. Whatever it was, in the end every object is in
the catalog once, with the values of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults import toy
from tests.faults.commands import LIMIT_S, Started
from tests.faults.disks import Disk
from tests.faults.joined import JoinedCluster
from tests.faults.outputs import Outputs, shorten_locks
from tests.faults.proxy import Fault, Proxy, Trouble
from tests.processes import workers_below

Where = Literal["disk", "S3", "small disk", "scheduler", "cut scheduler"]


class Expected(Enum):
    """How the run comes through."""

    HEALS = "in the same run"
    NEXT = "in the next run"
    REFUSED = "refused (exit 2) until the input is back"


@dataclass
class Case:
    """One fault: what it can strike, and the random numbers that give moment and place."""

    rng: np.random.Generator
    folder: Path
    outputs: Outputs
    env: Mapping[str, str]
    run_toml: Path
    n_steps: int
    options: list[str] = field(default_factory=list)
    disk: Disk | None = None
    proxy: Proxy | None = None
    cluster: JoinedCluster | None = None
    started: list[Started] = field(default_factory=list)
    # Whether the fault met a run that was at work; one that came too late counts as not played.
    has_struck: bool = True
    # Whether another run than the one that was struck did the work.
    is_done_by_another: bool = False
    # Called before the next run: it puts back what the fault took away.
    put_back: Callable[[], None] = lambda: None

    def start(self) -> Started:
        self.started.append(Started("run", self.run_toml, *self.options, env=self.env))
        return self.started[-1]

    @property
    def run(self) -> Started:
        return self.started[-1]

    def wait_for_a_step(self, most: float = 0.7) -> None:
        """Wait for a random step of the run among the first `most` of all; note whether there is work left then."""
        self.run.wait_steps(int(self.rng.integers(0, max(1, int(most * self.n_steps)))))
        self.has_struck = self.run.process.poll() is None and self.run.n_steps() < self.n_steps

    def workers(self) -> list[psutil.Process]:
        return self.cluster.processes() if self.cluster else workers_below(self.run.process.pid)

    def one_of(self, names: list[str]) -> str:
        return str(names[int(self.rng.integers(len(names)))])

    def tiles(self) -> list[Path]:
        """The tiles of the one band that the run takes: others are none of its business."""
        return sorted((self.folder / "survey").rglob("calexp-HSC-G-*.fits"))


# --- processes -------------------------------------------------------------------------------------------------


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def kill_worker(case: Case) -> None:
    case.wait_for_a_step()
    workers = case.workers()
    if workers:
        kill(workers[int(case.rng.integers(len(workers)))])
    case.has_struck &= bool(workers)


def kill_all_workers(case: Case) -> None:
    case.wait_for_a_step()
    workers = case.workers()
    for worker in workers:
        kill(worker)
    case.has_struck &= bool(workers)


def kill_starting_worker(case: Case) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not (workers := case.workers()) and time.monotonic() < deadline and case.run.process.poll() is None:
        time.sleep(0.01)
    time.sleep(float(case.rng.uniform(0, 1.5)))
    for worker in workers[:1]:
        kill(worker)
    case.has_struck = bool(workers)


def kill_workers_again_and_again(case: Case) -> None:
    n_struck = 0
    for _ in range(3):
        kill_worker(case)
        n_struck += case.has_struck
        time.sleep(float(case.rng.uniform(0, 3)))
    case.has_struck = n_struck > 0


def kill_nanny(case: Case) -> None:
    case.wait_for_a_step()
    assert case.cluster is not None
    kill(psutil.Process(case.cluster.workers[int(case.rng.integers(2))].pid))


def signal_group(case: Case, number: int) -> None:
    """Send a signal to all processes of the run, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(case.run.process.pid, number)


def kill_run(case: Case) -> None:
    case.wait_for_a_step()
    signal_group(case, signal.SIGKILL)


def kill_client_alone(case: Case) -> None:
    case.wait_for_a_step()
    case.run.process.kill()


def terminate(case: Case) -> None:
    case.wait_for_a_step()
    case.run.process.send_signal(signal.SIGTERM)


def interrupt_group(case: Case) -> None:
    case.wait_for_a_step()
    signal_group(case, signal.SIGINT)


def stop_worker_for_a_while(case: Case) -> None:
    case.wait_for_a_step()
    workers = case.workers()
    if workers:
        stopped = workers[int(case.rng.integers(len(workers)))]
        # The run may end in between, and its workers with it.
        with contextlib.suppress(psutil.NoSuchProcess):
            stopped.suspend()
            time.sleep(float(case.rng.uniform(2, 12)))
            stopped.resume()
    case.has_struck &= bool(workers)


def stop_client_until_another_run_has_taken_over(case: Case) -> None:
    case.wait_for_a_step(most=0.5)
    first = case.run
    first.process.send_signal(signal.SIGSTOP)
    shorten_locks(case.outputs)
    second = case.start().end()
    assert second.code == 0, second
    case.is_done_by_another = True
    first.process.send_signal(signal.SIGCONT)


def kill_scheduler(case: Case) -> None:
    case.wait_for_a_step()
    assert case.cluster is not None
    cluster = case.cluster
    cluster.scheduler.kill()

    def start_again() -> None:
        cluster.close()
        cluster.start()
        case.options[:] = ["--scheduler", cluster.address]

    case.put_back = start_again


def cut_worker_off(case: Case) -> None:
    case.wait_for_a_step(most=0.5)
    assert case.cluster is not None
    assert case.cluster.link is not None
    case.cluster.link.cut()


# --- disks and object stores -----------------------------------------------------------------------------------


def fill_disk(case: Case) -> None:
    case.wait_for_a_step()
    assert case.disk is not None
    case.disk.fill()
    case.has_struck = case.run.wait_note("waiting", timeout_s=60)
    time.sleep(float(case.rng.uniform(0, 4)))
    case.disk.repair()


def make_read_only(case: Case) -> None:
    case.wait_for_a_step()
    assert case.disk is not None
    case.disk.make_read_only()
    case.has_struck = case.run.wait_note("waiting", timeout_s=60)
    time.sleep(float(case.rng.uniform(0, 4)))
    case.disk.repair()


def object_store(
    trouble: Trouble, *, share: float = 1.0, seconds: tuple[float, float]
) -> Callable[[Case], None]:
    """Return what makes a share of all requests meet trouble for a random time."""

    def strike(case: Case) -> None:
        case.wait_for_a_step()
        assert case.proxy is not None
        rng = np.random.default_rng(int(case.rng.integers(2**32)))
        case.proxy.fault = Fault(
            trouble, hits=lambda method, path: bool(rng.random() < share), delay_s=float(rng.uniform(0.2, 2))
        )
        time.sleep(float(case.rng.uniform(*seconds)))
        case.proxy.fault = None
        case.has_struck = case.proxy.n_hit > 0

    return strike


# --- inputs ----------------------------------------------------------------------------------------------------


def replace_file(case: Case, path: Path, data: bytes) -> None:
    """Replace a file as others do, by a rename; `put_back` brings the old one with its time."""
    old = path.with_name(f"{path.name}.old")
    path.rename(old)
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(data)
    new.rename(path)
    case.put_back = lambda: old.replace(path) and None


def replace_tile(case: Case) -> None:
    path = case.tiles()[int(case.rng.integers(len(case.tiles())))]
    data = bytearray(path.read_bytes())
    data[-20_000:-10_000] = bytes(10_000)
    replace_file(case, path, bytes(data))


def replace_tile_in_a_run(case: Case) -> None:
    case.wait_for_a_step(most=0.3)
    replace_tile(case)


def replace_bundle(case: Case) -> None:
    other = case.folder / "other.pt"
    toy.write_bundle(other, shift=0.5)
    replace_file(case, case.folder / "toy.pt", other.read_bytes())


def replace_bundle_in_a_run(case: Case) -> None:
    case.wait_for_a_step(most=0.3)
    replace_bundle(case)


def take_bundle_away(case: Case) -> None:
    case.run.wait_steps(0)
    path, away = case.folder / "toy.pt", case.folder / "away.pt"
    path.rename(away)
    case.has_struck = case.run.wait_note("waiting", timeout_s=60)
    away.rename(path)


def move_an_object(case: Case) -> None:
    path = case.folder / "objects.parquet"
    table = pq.read_table(path)
    dec_deg = table["dec_deg"].to_numpy().copy()
    dec_deg[int(case.rng.integers(len(dec_deg)))] += 1e-4
    changed = table.set_column(table.column_names.index("dec_deg"), "dec_deg", pa.array(dec_deg))
    other = case.folder / "moved.parquet"
    pq.write_table(changed, other)
    replace_file(case, path, other.read_bytes())


# --- outputs ---------------------------------------------------------------------------------------------------

CUTOUTS, PASSES = "cutouts.zarr/", "catalog_pass_outputs.zarr/"

PARTS: dict[str, Callable[[str], bool]] = {
    "cutouts": lambda name: name.startswith(CUTOUTS) and "/c/" in name,
    "kept pass outputs": lambda name: name.startswith(PASSES) and "/c/" in name,
    "_done.json": lambda name: name.endswith("_done.json"),
    "zarr.json": lambda name: name.endswith("zarr.json"),
    "leaf": lambda name: name.startswith("catalog/dataset/Norder") and name.endswith(".parquet"),
    "checksum of a leaf": lambda name: name.startswith("catalog/_checksums/"),
}


def flip(part: str) -> Callable[[Case], str]:
    """Return what changes a random byte of a random file of this part, and returns the file's name."""

    def strike(case: Case) -> str:
        name = case.one_of([name for name in case.outputs.names() if PARTS[part](name)])
        data = bytearray(case.outputs.read(name))
        data[int(case.rng.integers(len(data)))] ^= int(case.rng.integers(1, 256))
        case.outputs.write(name, bytes(data))
        return name

    return strike


def change_part(change: Callable[[Case, bytes], bytes], parts: tuple[str, ...]) -> Callable[[Case], str]:
    """Return what changes a random file of one of these parts, and returns the file's name."""

    def strike(case: Case) -> str:
        part = case.one_of(list(parts))
        name = case.one_of([name for name in case.outputs.names() if PARTS[part](name)])
        case.outputs.write(name, change(case, case.outputs.read(name)))
        return name

    return strike


def cut_short(case: Case, data: bytes) -> bytes:
    return data[: int(case.rng.integers(len(data)))]


def zero(case: Case, data: bytes) -> bytes:
    start = int(case.rng.integers(max(1, len(data) - 16384)))
    # Noise is nowhere zero for long, so that the bytes change.
    return data[:start] + bytes(len(data[start : start + 16384])) + data[start + 16384 :]


def lose_group(root: str) -> Callable[[Case], str]:
    """Return what removes all files of a random group below `root`, and returns the group's name."""

    def strike(case: Case) -> str:
        marks = [n for n in case.outputs.names() if n.startswith(root) and n.endswith("_done.json")]
        group = case.one_of(marks).rsplit("/", 2)[0]
        for name in case.outputs.names():
            if name.startswith(f"{group}/"):
                case.outputs.remove(name)
        folder = getattr(case.outputs, "folder", None)
        if folder is not None:
            shutil.rmtree(folder / group)
        return group

    return strike


def lose_leaf(case: Case) -> str:
    name = case.one_of([name for name in case.outputs.names() if PARTS["leaf"](name)])
    case.outputs.remove(name)
    return ""


def damage_in_a_run(part: str) -> Callable[[Case], None]:
    """Return what flips a byte of a file of this part as soon as there is one, at a random step."""

    def strike(case: Case) -> None:
        case.run.wait_steps(3)
        case.wait_for_a_step()
        there = [name for name in case.outputs.names() if PARTS[part](name) and not name.endswith(".tmp")]
        if there:
            name = case.one_of(there)
            data = bytearray(case.outputs.read(name))
            data[int(case.rng.integers(len(data)))] ^= int(case.rng.integers(1, 256))
            # In place, as a disk does it.
            case.outputs.write(name, bytes(data))
        case.has_struck &= bool(there)

    return strike


# --- the registry ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    name : what happens
    where : the places that it strikes, of which the seed chooses
    expected : how the run comes through
    strike : does it; that of finished outputs returns what `galbatch verify` must name, "" where verify does not read what changed
    codes : the exit codes that the run may end with that was struck, or the first one after finished outputs were struck
    of_finished : whether it strikes the outputs of a finished run
    """

    name: str
    where: tuple[Where, ...]
    expected: Expected
    strike: Callable[[Case], object]
    codes: tuple[int, ...] = (0,)
    of_finished: bool = False


HEALS, NEXT, REFUSED = Expected

# A signal or a failure may come after the last task: then the run ends well.
KINDS = (
    Kind("worker killed", ("disk", "S3", "scheduler"), HEALS, kill_worker),
    Kind("byte flipped in cutouts", ("disk", "S3"), HEALS, flip("cutouts"), of_finished=True),
    Kind("run killed with its workers", ("disk", "S3"), NEXT, kill_run, (-9, 0)),
    Kind("SIGTERM", ("disk", "S3", "scheduler"), NEXT, terminate, (75, 0)),
    Kind("disk full", ("small disk",), HEALS, fill_disk),
    Kind("object store answers 503", ("S3",), HEALS, object_store("slow down", seconds=(1, 20))),
    Kind("tile replaced in a run, then put back", ("disk",), NEXT, replace_tile_in_a_run, (0, 1)),
    Kind("scheduler killed", ("scheduler",), NEXT, kill_scheduler, (0, 1)),
    Kind(
        "file cut short",
        ("disk", "S3"),
        HEALS,
        change_part(cut_short, ("cutouts", "kept pass outputs", "_done.json", "leaf", "zarr.json")),
        of_finished=True,
    ),
    Kind("worker cut off from the network", ("cut scheduler",), HEALS, cut_worker_off),
    Kind("all workers killed", ("disk", "scheduler"), HEALS, kill_all_workers),
    Kind("worker killed while it starts", ("disk",), HEALS, kill_starting_worker),
    Kind("workers killed three times", ("disk", "scheduler"), NEXT, kill_workers_again_and_again, (0, 1)),
    Kind("nanny killed", ("scheduler",), HEALS, kill_nanny),
    Kind("run killed, its workers not", ("disk", "S3", "scheduler"), NEXT, kill_client_alone, (-9, 0)),
    Kind("SIGINT to all its processes", ("disk", "S3"), NEXT, interrupt_group, (75, 0)),
    Kind("worker stopped for 2 to 12 s", ("disk", "scheduler"), HEALS, stop_worker_for_a_while),
    Kind(
        "run stopped until another has taken over",
        ("disk", "S3"),
        HEALS,
        stop_client_until_another_run_has_taken_over,
        (1, 0),
    ),
    Kind("outputs read-only", ("small disk",), HEALS, make_read_only),
    Kind("object store resets connections", ("S3",), HEALS, object_store("reset", seconds=(1, 15))),
    Kind("object store answers after 0.2 to 2 s", ("S3",), HEALS, object_store("slow", seconds=(5, 15))),
    Kind(
        "object store answers 500 to a third",
        ("S3",),
        HEALS,
        object_store("internal error", share=1 / 3, seconds=(5, 15)),
    ),
    Kind(
        "object store cuts a tenth short", ("S3",), HEALS, object_store("cut off", share=0.1, seconds=(5, 15))
    ),
    Kind("bundle gone for a while", ("disk",), HEALS, take_bundle_away),
    # Replaced before the run has loaded it, it is a wrong input, as before the run: exit 2. Later its partitions fail.
    Kind("bundle replaced in a run, then put back", ("disk",), NEXT, replace_bundle_in_a_run, (0, 1, 2)),
    Kind("byte of cutouts flipped in a run", ("disk", "S3"), NEXT, damage_in_a_run("cutouts"), (0, 1)),
    Kind("byte of a leaf flipped in a run", ("disk", "S3"), NEXT, damage_in_a_run("leaf"), (0, 1)),
    Kind("byte flipped in a leaf", ("disk", "S3"), HEALS, flip("leaf"), of_finished=True),
    Kind(
        "byte flipped in kept pass outputs",
        ("disk", "S3"),
        HEALS,
        flip("kept pass outputs"),
        of_finished=True,
    ),
    Kind("byte flipped in a _done.json", ("disk", "S3"), HEALS, flip("_done.json"), of_finished=True),
    Kind("byte flipped in a zarr.json", ("disk", "S3"), HEALS, flip("zarr.json"), of_finished=True),
    Kind(
        "byte flipped in a leaf's checksum",
        ("disk", "S3"),
        HEALS,
        flip("checksum of a leaf"),
        of_finished=True,
    ),
    Kind(
        "16 KiB zeroed",
        ("disk", "S3"),
        HEALS,
        change_part(zero, ("cutouts", "leaf", "kept pass outputs")),
        of_finished=True,
    ),
    Kind("group of cutouts lost", ("disk", "S3"), HEALS, lose_group(CUTOUTS), of_finished=True),
    Kind("group of pass outputs lost", ("disk", "S3"), HEALS, lose_group(PASSES), of_finished=True),
    Kind("leaf lost", ("disk", "S3"), HEALS, lose_leaf, of_finished=True),
    Kind("tile replaced after the run", ("disk",), REFUSED, replace_tile, (2,), of_finished=True),
    Kind("bundle replaced after the run", ("disk",), REFUSED, replace_bundle, (2,), of_finished=True),
    Kind(
        "object moved in the list after the run", ("disk",), REFUSED, move_an_object, (2,), of_finished=True
    ),
)


def of_seed(seed: int) -> tuple[Kind, np.random.Generator]:
    """Return the kind of a fault and the random numbers of its moment and place; as many seeds as kinds have all of them."""
    block, position = divmod(seed, len(KINDS))
    order = np.random.default_rng(block).permutation(len(KINDS)) if block else np.arange(len(KINDS))
    return KINDS[order[position]], np.random.default_rng((2026, seed))
