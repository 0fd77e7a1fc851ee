"""Local workers are forked from a process that has imported their code."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver

import distributed.utils
import psutil

from galbatch import cluster
from galbatch.config import ClusterConfig
from tests.processes import workers_below

# A module of the standard library that takes nothing, and that neither Dask nor galbatch imports.
RARE = "this"

WITHIN_S = 600

RUN = f"""
import os, sys
from galbatch import cluster
from galbatch.config import ClusterConfig

def seen():
    variables = open("/proc/self/environ").read().split(chr(0))
    return os.getpid(), os.getppid(), {RARE!r} in sys.modules, [one for one in variables if one.startswith(("MALLOC_T", "OMP_N"))]

if __name__ == "__main__":
    config = ClusterConfig(workers=2, dashboard_address="127.0.0.1:0")
    with cluster.on_demand(config, imports={RARE!r}) as workers:
        own = os.environ.get("MALLOC_TRIM_THRESHOLD_"), {RARE!r} in sys.modules
        found = list(workers.client.run(seen).values())
    (a, parent, *told), (b, other, *_) = found
    assert a != b and parent == other != os.getpid(), found
    print("pandas" in sys.modules, *own, *sorted(told[1]), told[0])
"""


def test_workers_have_the_module_and_the_variables_and_this_process_is_as_before(tmp_path):
    (script := tmp_path / "script.py").write_text(RUN)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "OMP"))
    }
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    # `this` prints a poem where it is imported: in the process that workers are forked from, once.
    assert done.stdout.splitlines()[-1] == (
        "False None False MALLOC_TRIM_THRESHOLD_=268435456 OMP_NUM_THREADS=1 True"
    )
    assert done.stdout.count("Beautiful is better than ugly.") == 1


def test_the_switch_of_dask_that_keeps_its_own_imports_out_is_there():
    assert isinstance(distributed.utils._forkserver_preload_set, bool)


def test_variables_that_are_set_later_reach_workers_all_the_same(monkeypatch):
    for value in ("first", "second"):
        monkeypatch.setenv("GALBATCH_TEST_OF_FORKING", value)
        with cluster.connect(ClusterConfig(workers=1, dashboard_address="127.0.0.1:0")) as client:
            assert set(client.run(os.getenv, "GALBATCH_TEST_OF_FORKING").values()) == {value}


def test_terminations_leave_workers_alone_and_a_killed_origin_comes_back():
    config = ClusterConfig(workers=1, dashboard_address="127.0.0.1:0")
    with cluster.on_demand(config, imports="galbatch.errors") as workers:
        client = workers.client
        before = set(cluster.Pool.of(client).threads)
        [worker] = workers_below(os.getpid())
        origin = worker.parent()
        origin.send_signal(signal.SIGTERM)
        os.kill(worker.pid, signal.SIGKILL)
        deadline = time.monotonic() + WITHIN_S
        while not set(cluster.Pool.of(client).threads) - before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert origin.is_running()
        assert [one.parent() for one in workers_below(os.getpid())] == [origin]
    origin.kill()
    # Left as it is for multiprocessing, which asks after its child and starts another one.
    while origin.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with cluster.connect(config) as client:
        assert len(client.run(os.getpid)) == 1
    forkserver.ensure_running()
