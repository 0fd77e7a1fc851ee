"""Worker processes on this machine's cores."""

import asyncio
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import psutil
import pytest
from distributed import Status, WorkerPlugin

from galbatch import cluster
from galbatch.cluster.kinds.local import started
from galbatch.config import ClusterConfig
from galbatch.errors import ClusterError
from tests.unit.cluster.contract import Contract, listening


class TestLocal(Contract):
    @pytest.fixture(scope="class")
    @classmethod
    def connected(cls, client):
        return ClusterConfig(workers=2), client

    def test_functions_run_in_other_processes_with_one_thread_each(self, connected):
        client = connected[1]
        assert os.getpid() not in client.run(os.getpid).values()
        assert set(cluster.Pool.of(client).threads.values()) == {1}
        environments = client.run(lambda: dict(os.environ)).values()
        assert {e["OMP_NUM_THREADS"] for e in environments} == {"1"}
        assert {e["MALLOC_TRIM_THRESHOLD_"] for e in environments} == {str(2**28)}

    def test_scheduler_dashboard_workers_and_nannies_listen_on_the_loopback_alone(self, connected):
        assert len(connected[1].run(os.getpid)) == 2
        assert listening() == {"127.0.0.1"}


def nanny(status):
    return SimpleNamespace(status=status)


def test_workers_whose_nannies_have_ended_are_started_again():
    scaled = []
    made_up = SimpleNamespace(
        workers={0: nanny(Status.closed), 1: nanny(Status.running), 2: nanny(Status.failed)},
        worker_spec=dict.fromkeys(range(4)),
        scale=scaled.append,
    )
    made_up.sync = lambda function: asyncio.run(function())
    assert cluster.kind_of(ClusterConfig()).replace_workers(SimpleNamespace(cluster=made_up)) == 3
    assert list(made_up.workers) == [1]
    # The number that there was: Dask then starts what is missing.
    assert scaled == [4]


def test_nothing_is_started_while_nannies_are_at_it():
    made_up = SimpleNamespace(workers={0: nanny(Status.running)}, worker_spec={0: None}, scale=None)
    made_up.sync = lambda function: asyncio.run(function())
    assert cluster.kind_of(ClusterConfig()).replace_workers(SimpleNamespace(cluster=made_up)) == 0


def test_a_cluster_whose_worker_ends_while_it_starts_is_made_again():
    tried, notes, closed = [], [], []

    def make(*, n_workers):
        tried.append(n_workers)
        if len(tried) < 3:
            raise RuntimeError("Nanny failed to start.")
        return SimpleNamespace(close=closed.append, workers={})

    def closed_within(*, timeout):
        closed.append(timeout)

    with started(make, notes.append, n_workers=2) as workers:
        workers.close = closed_within
        assert closed == []
    assert 10 <= closed[0] <= 120  # seconds, as Dask would wait for ever
    assert tried == [2, 2, 2]
    assert notes == 2 * ["a worker ended while it started (Nanny failed to start.): starting all again"]
    with pytest.raises(ClusterError, match="3 times in a row"), started(never, notes.append):
        pass


def never():
    raise RuntimeError("Nanny failed to start.")


def ignore_signals():
    """As workers of a run do: they leave signals to the process that started them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def test_processes_that_do_not_end_when_asked_are_killed():
    """Python would wait for them at its own end: a run that was done stayed so for ever after 24 kills of its workers."""
    children = []

    def make():
        children.append(multiprocessing.get_context("spawn").Process(target=ignore_signals, daemon=True))
        children[0].start()

        def close(timeout):
            raise TimeoutError("a nanny hangs")

        return SimpleNamespace(close=close, workers={})

    with pytest.raises(TimeoutError, match="a nanny hangs"), started(make, print):
        assert children[0].is_alive()
    children[0].join(30)
    assert children[0].exitcode == -signal.SIGKILL


class Computes(WorkerPlugin):
    """A worker that does not see that it is asked to end, as one whose loop is busy."""

    name = "computes"

    def teardown(self, worker):
        time.sleep(600)


def test_workers_that_do_not_end_when_asked_are_killed_and_nothing_is_printed(capfd):
    """Dask gives a killed worker one second to be gone, and fails on a busy machine."""
    notes = []
    with cluster.connect(
        ClusterConfig(workers=1, dashboard_address="127.0.0.1:0"), notify=notes.append
    ) as own:
        own.register_plugin(Computes())
        pids = list(own.run(os.getpid).values())
    assert notes == []
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_is_killed_while_its_nanny_starts_it_again_holds_nothing_up(capfd):
    notes, others = [], set(multiprocessing.active_children())
    with cluster.connect(
        ClusterConfig(workers=2, dashboard_address="127.0.0.1:0"), notify=notes.append
    ) as own:
        before = set(own.run(os.getpid).values())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        # The nannies start others, which are far from ready when the context ends.
        deadline = time.monotonic() + 250
        while {child.pid for child in set(multiprocessing.active_children()) - others} <= before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert notes == []
    assert set(multiprocessing.active_children()) <= others
    assert "Traceback" not in capfd.readouterr().err
