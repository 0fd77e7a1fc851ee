"""A run that is asked to stop, loses its lock, or meets another run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster
from typer.testing import CliRunner

from galbatch import cluster, config, errors, execution, storage
from galbatch.cli import app as cli
from galbatch.core.process import deferred_signals

# Each test starts several commands, whose imports alone take half a minute of a busy machine.


def start(run_toml, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "galbatch", "run", str(run_toml), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def leaves_of(folder):
    return sorted(folder.glob("catalog/dataset/**/Npix=*.parquet"))


def catalog_of(folder):
    """Every leaf as the text of its values, in which NaN equals NaN, by its path."""
    return {
        str(leaf.relative_to(folder)): str(pq.read_table(leaf, partitioning=None).to_pydict())
        for leaf in leaves_of(folder)
    }


def wait_until(condition, process=None, limit_s=200):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def listed(survey, tmp_path_factory):
    path = tmp_path_factory.mktemp("listed") / "objects.parquet"
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, 24), path)
    return path


@pytest.fixture(scope="module")
def whole(write_run, listed, client, tmp_path_factory):
    """The catalog of a run that nothing disturbed."""
    run_toml = write_run(tmp_path_factory.mktemp("whole"), max_objects=3, passes=4, objects=listed)
    parsed = config.read_config(run_toml)
    assert execution.execute(parsed, execution.prepare(parsed), client).complete
    return catalog_of(run_toml.parent)


@pytest.mark.parametrize(
    ("number", "to_group"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.slow),  # Ctrl-C in a terminal
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),  # a job that is canceled
    ],
)
def test_a_signal_stops_a_run_and_the_same_command_continues(
    write_run, listed, whole, tmp_path, number, to_group
):
    run_toml = write_run(tmp_path, max_objects=3, passes=4, objects=listed)
    first = start(run_toml)
    wait_until(lambda: len(leaves_of(tmp_path)) >= 2, first)
    assert (tmp_path / "catalog_lock.json").exists()
    (os.killpg if to_group else os.kill)(first.pid, number)
    _, told = first.communicate(timeout=600)
    assert first.returncode == 75, told
    assert f"galbatch: stopped by {number.name}, " in told
    assert "the same command continues from there" in told
    assert "Traceback" not in told
    before = {path: path.stat().st_mtime_ns for path in leaves_of(tmp_path)}
    assert 2 <= len(before) < len(whole)
    assert not list(tmp_path.glob("*_lock.json"))
    assert not list(tmp_path.glob("catalog/.staging/*"))
    time.sleep(1)
    assert leaves_of(tmp_path) == list(before)  # no worker goes on
    second = start(run_toml)
    _, told = second.communicate(timeout=250)
    assert second.returncode == 0, told
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert catalog_of(tmp_path) == whole


def test_a_signal_before_the_work_stops_as_well(write_run, listed, tmp_path):
    run_toml = write_run(tmp_path, max_objects=3, passes=4, objects=listed)
    process = start(run_toml)
    wait_until((tmp_path / "catalog_lock.json").exists, process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 75, told
    assert told.endswith("galbatch: stopped; what is done stays, the same command continues from there\n")
    assert not list(tmp_path.glob("*_lock.json"))
    assert not (tmp_path / "catalog").exists()


class TakesTheLock:
    """A sink that gives the catalog's lock to another run when the first results are there."""

    def __init__(self, path):
        self.path = path
        self.taken = 0

    def start(self, stage, total, done):
        pass

    def advance(self, stage, n):
        if stage == "infer" and not self.taken:
            other = json.loads(Path(self.path).read_text()) | {"owner": "other", "host": "elsewhere"}
            storage.publish(self.path, json.dumps(other).encode())
            self.taken = time.time_ns()

    def note(self, line):
        pass

    def record(self, event):
        pass


def test_a_run_that_lost_its_lock_stops_and_writes_no_leaf_after(write_run, listed, client, tmp_path):
    parsed = config.read_config(write_run(tmp_path, max_objects=3, passes=4, objects=listed))
    plan, lock = execution.prepare(parsed), execution.lock_of(parsed.catalog.path)
    sink = TakesTheLock(lock)
    with pytest.raises(
        errors.LockLost, match=r"catalog: this run does not hold its lock any more: .* on elsewhere took it"
    ):
        execution.execute(parsed, plan, client, sink=sink)
    written = [path.stat().st_mtime_ns for path in leaves_of(tmp_path)]
    assert 1 <= len(written) < len(plan.partitions)
    # Those that had their lock checked before it was lost may be written until a moment after.
    assert max(written) - sink.taken < 0.5e9
    time.sleep(1)
    assert len(leaves_of(tmp_path)) == len(written)
    assert json.loads(Path(lock).read_text())["owner"] == "other"


@pytest.mark.slow
def test_a_second_run_is_refused_and_with_wait_lock_waits(write_run, listed, tmp_path):
    run_toml = write_run(tmp_path, max_objects=30, passes=4, objects=listed)
    store, catalog = (str(tmp_path / name) for name in ("cutouts.zarr", "catalog"))
    with storage.Lock(execution.lock_of(store), beat_s=0.1):
        refused = CliRunner().invoke(cli.app, ["run", str(run_toml)])
        assert isinstance(refused.exception, errors.LockedError)  # exit code 2
        assert f"{store}: held by the run of process {os.getpid()}" in str(refused.exception)
        waiting = start(run_toml, "--wait-lock")
        heard = ""
        while "waiting" not in heard:  # before it, that the lock is watched, if it did not beat at once
            heard = waiting.stdout.readline()
            assert f"{store}: the run of process {os.getpid()}" in heard
        assert not Path(catalog).exists() or not os.listdir(catalog)
    _, told = waiting.communicate(timeout=600)
    assert waiting.returncode == 0, told
    assert len(leaves_of(tmp_path)) >= 1


def close_late(self, timeout=None, close=LocalCluster.close):
    """Close a cluster, and raise as Dask does if a worker is busy."""
    if self.status.name != "closed":
        close(self, timeout)
        raise TimeoutError("a worker was busy")


def test_a_cluster_that_ends_badly_fails_no_run(write_run, listed, tmp_path, monkeypatch):
    run_toml = write_run(tmp_path, max_objects=30, passes=4, objects=listed)
    monkeypatch.setattr(LocalCluster, "close", close_late)
    result = CliRunner().invoke(cli.app, ["run", str(run_toml)])
    assert result.exit_code == 0, result.output
    assert (
        "the workers did not end as they were asked (TimeoutError: a worker was busy); what is done stays"
        in result.output
    )
    assert "24 of 24 objects in the catalog" in result.output


def test_an_error_of_a_run_is_not_hidden_by_how_the_cluster_ends(monkeypatch):
    monkeypatch.setattr(LocalCluster, "close", close_late)
    parsed = config.ClusterConfig(workers=1, dashboard_address="127.0.0.1:0")
    with pytest.raises(ZeroDivisionError), cluster.connect(parsed):
        _ = 1 / 0


def test_a_second_signal_acts_at_once():
    # A shell that starts the tests in the background has them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with deferred_signals() as came:
        assert came() == ""
        signal.raise_signal(signal.SIGINT)
        assert came() == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_other_threads_leave_signals_alone():
    found = []

    def look():
        with deferred_signals() as came:
            found.append((came(), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [("", before)]
