"""Workers that fail what others can do: started again once, then refused, and readmitted when others fail as well."""

import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig
from galbatch.errors import ResourceError
from galbatch.execution.submission import FaultyWorkers, fault_of
from tests.unit.cluster.scripted import Scripted, worker

FULL = fault_of(ResourceError("/tmp: no space left", problem="No space left on device"))


@pytest.fixture
def lines():
    return []


def faulty(lines, **workers):
    client = Scripted(**workers)
    monitor = cluster.WorkerMonitor(client, ClusterConfig(), lines.append)
    return client, monitor, FaultyWorkers(monitor, lines.append)


def test_it_is_started_again_and_then_refused_under_its_new_address(lines):
    client, monitor, blamed = faulty(lines, a=worker(nanny="n"), b=worker(nanny="m"))
    blamed.end("a", FULL)
    assert client.restarted == ["a"]
    assert monitor.able("cpu") == ["a", "b"]
    # The nanny starts it again with another port.
    client.workers["c"] = client.workers.pop("a")
    monitor.look()
    blamed.end("c", FULL)
    assert client.restarted == ["a"]
    assert monitor.able("cpu") == ["b"]
    assert lines[0] == "worker a fails what others can do: No space left on device: /tmp: no space left"
    assert lines[-1] == "worker c gets no work: it alone fails: No space left on device"
    blamed.readmit()
    assert monitor.able("cpu") == ["b", "c"]


def test_one_without_a_nanny_is_refused_at_once(lines):
    client, monitor, blamed = faulty(lines, a=worker(nanny=None), b=worker())
    blamed.end("a", FULL)
    assert client.restarted == []
    assert monitor.able("cpu") == ["b"]
