"""Workers that fail what others can do, by their disk or GPU: started again once, then refused, and readmitted when others fail as well."""

import pytest

from galbatch import cluster
from galbatch.config import ClusterConfig
from galbatch.errors import GpuBroken, ResourceError
from galbatch.execution.submission import FaultyGpus, FaultyWorkers, fault_of
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


class TestFaultyGpus:
    """Two or three workers on GPUs of their own; `fail` and `worked` are what the queue tells of them."""

    @pytest.fixture
    def scripted(self):
        return Scripted(
            a=worker(gpu=True, nanny="n"), b=worker(gpu=True, nanny="m"), c=worker(gpu=True, nanny="o")
        )

    @pytest.fixture
    def monitor(self, scripted, lines):
        return cluster.WorkerMonitor(scripted, ClusterConfig(), lines.append)

    @pytest.fixture
    def gpus(self, monitor, lines):
        return FaultyGpus(monitor, lines.append)

    def test_a_gpu_that_fails_two_partitions_is_refused_and_the_worker_was_started_again_before(
        self, gpus, scripted, monitor, lines
    ):
        assert gpus.failed("p1", broken("a")) is False
        assert scripted.restarted == ["a"]
        assert gpus.others("a") == {"b", "c"}
        assert gpus.failed("p2", broken("a")) is False
        assert scripted.restarted == ["a"]
        assert monitor.able("cuda") == ["b", "c"]
        assert lines == [
            "partition p1: worker a: GPU host GPU-a fails: CUDA error: misaligned address",
            "worker a was started again: OK",
            "worker a gets no work: its GPU fails again: GPU host GPU-a fails: CUDA error: misaligned address",
        ]

    def test_a_partition_that_fails_on_two_gpus_is_at_fault_and_they_are_not(self, gpus, monitor):
        for number in range(4):
            name = f"p{number}"
            assert gpus.failed(name, broken("a")) is False
            assert gpus.failed(name, broken("b")) is True
            for one in ("a", "b"):
                gpus.worked(one)
        assert monitor.able("cuda") == ["a", "b", "c"]

    def test_a_gpu_is_readmitted_when_a_partition_proves_to_be_at_fault(self, gpus, monitor):
        gpus.failed("p1", broken("a"))
        gpus.failed("p2", broken("a"))
        assert monitor.able("cuda") == ["b", "c"]
        assert gpus.failed("p2", broken("b")) is True
        assert monitor.able("cuda") == ["a", "b", "c"]

    def test_the_only_gpu_does_not_burn_the_list(self, gpus, monitor):
        """Its first partition fails twice there and counts as failed; the second is left."""
        assert gpus.failed("p1", broken("a")) is False
        assert gpus.failed("p1", broken("a")) is True
        assert gpus.failed("p2", broken("a")) is False
        assert monitor.able("cuda") == ["b", "c"]

    def test_a_gpu_is_known_again_under_another_nanny(self, gpus, scripted, monitor):
        """A job that was replaced may get the same GPU."""
        gpus.failed("p1", broken("a"))
        scripted.workers["d"] = worker(gpu=True, nanny="q")
        monitor._looked_s = 0.0
        monitor.look()
        gpus.failed("p2", broken("d", gpu="host GPU-a"))
        assert "d" in monitor.refused

    def test_workers_whose_gpus_failed_get_a_partition_only_where_there_are_no_others(self, gpus):
        gpus.failed("p1", broken("b"))
        assert gpus.others("a") == {"c"}
        gpus.failed("p2", broken("c"))
        assert gpus.others("a") == {"b", "c"}

    def test_one_without_a_nanny_is_refused_at_once(self, gpus, scripted, monitor):
        scripted.workers["a"] = worker(gpu=True, nanny=None)
        monitor._looked_s = 0.0
        monitor.look()
        gpus.failed("p1", broken("a"))
        assert scripted.restarted == []
        assert monitor.able("cuda") == ["b", "c"]


def broken(address, *, gpu=""):
    gpu = gpu or f"host GPU-{address}"
    return GpuBroken(f"GPU {gpu} fails: CUDA error: misaligned address", worker=address, gpu=gpu)
