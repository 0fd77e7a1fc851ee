"""A Dask scheduler and a worker started as the reference says, which a run joins."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest
from distributed import Client
from typer.testing import CliRunner

from galbatch import catalog, cluster, config, execution
from galbatch.cli import app as cli
from galbatch.cluster.kinds import scheduler as joined
from galbatch.errors import ClusterError, SchedulerLost


def dask(*arguments, **options):
    command = [sys.executable, "-m", "dask", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)


def end(process):
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def scheduler_running(folder):
    """A scheduler on the loopback; its process and its address."""
    path = folder / "scheduler.json"
    process = dask(
        "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file", str(path)
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with Client(scheduler_file=str(path), timeout=60) as client:
            address = client.scheduler.address
        yield process, address
    finally:
        end(process)


@contextmanager
def worker_of(address, folder, *options):
    process = dask(
        "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder),
        *options, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        end(process)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The address of a scheduler with one worker."""
    folder = tmp_path_factory.mktemp("dask")
    with scheduler_running(folder) as (_, address), worker_of(address, folder):
        yield address


@pytest.fixture(scope="module")
def listed(survey, tmp_path_factory):
    path = tmp_path_factory.mktemp("listed") / "objects.parquet"
    pq.write_table(pq.read_table(survey / "objects.parquet").slice(0, 30), path)
    return path


def frame_of(run_toml):
    found = catalog.read_catalog(config.read_config(run_toml).catalog.path)
    return found.to_pandas().sort_values("object_id").reset_index(drop=True)


def test_a_run_joins_and_its_catalog_is_that_of_a_local_run(running, write_run, listed, client, tmp_path):
    here, there = (write_run(tmp_path / name, max_objects=10, passes=4, objects=listed) for name in "ab")
    parsed = config.read_config(here)
    assert execution.execute(parsed, execution.prepare(parsed), client).complete
    result = CliRunner().invoke(cli.app, ["run", str(there), "--scheduler", running, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "30 of 30 objects in the catalog" in result.output
    assert frame_of(there).equals(frame_of(here))


def test_workers_without_a_gpu_are_refused_before_anything_is_cut(running, write_run, listed, tmp_path):
    run_toml = write_run(tmp_path, max_objects=10, passes=4, objects=listed)
    text = run_toml.read_text().replace(
        "[cluster]\n", '[cluster]\nkind = "scheduler"\ndevice = "cuda"\nwait_s = 0.5\n'
    )
    run_toml.write_text(text.replace("workers = 2", f'scheduler = "{running}"'))
    result = CliRunner().invoke(cli.app, ["run", str(run_toml)])
    assert isinstance(result.exception, ClusterError)  # exit code 2
    assert f"{running}: 1 worker is there, none with the resource GPU" in str(result.exception)
    assert not list(tmp_path.rglob("Npix=*"))


def test_a_scheduler_that_ends_during_the_run_is_told_and_the_rest_is_done_elsewhere(
    write_run, listed, client, tmp_path, monkeypatch
):
    monkeypatch.setattr(joined, "CONNECT_S", 2)
    run_toml = write_run(tmp_path / "run", max_objects=10, passes=4, objects=listed)
    with scheduler_running(tmp_path) as (process, address), worker_of(address, tmp_path):
        parsed = config.read_config(run_toml).with_cluster(scheduler=address, workers=1)
        plan = execution.prepare(parsed)

        class EndsScheduler:
            """A sink that ends the scheduler with the first partition that is cut."""

            def start(self, stage, total, done):
                pass

            def advance(self, stage, n):
                process.kill()

            def note(self, line):
                pass

            def record(self, event):
                pass

        with cluster.connect(parsed.cluster) as joined_client:
            joined_client._timeout = 2  # so long it tries to connect again
            with pytest.raises(SchedulerLost, match=f"{address}: the scheduler is gone; what is done stays"):
                execution.execute(parsed, plan, joined_client, sink=EndsScheduler())
    state = execution.read_progress(parsed, plan)
    assert 1 <= len(state.ingested) < len(plan.partitions)
    assert not state.inferred
    local = config.read_config(run_toml)
    again = execution.execute(local, execution.prepare(local), client)
    assert again.complete
    assert again.n_inferred == 30
