"""One worker for each GPU of this machine, on machines that are made up."""

import os
import sys
import threading
from types import SimpleNamespace

import pytest
from distributed import Client, LocalCluster

from galbatch import cluster, models
from galbatch.cluster.kinds import local_cuda
from galbatch.config import ClusterConfig
from galbatch.errors import BundleError, ClusterError
from tests.unit.cluster.contract import Contract, listening

CUDA = ClusterConfig(kind="local-cuda", dashboard_address="127.0.0.1:0", wait_s=5)


class TestLocalCuda(Contract):
    device, n_workers = "cuda", 4  # two with a GPU, two that cut

    @pytest.fixture
    def connected(self, gpus):
        with cluster.connect(CUDA) as client:
            yield CUDA, client

    def test_each_worker_has_one_gpu_and_threads_to_feed_it(self, connected, gpus):
        (visible, n_workers, options) = gpus.started[0]
        assert (visible, n_workers) == (["0", "1"], 2)
        assert options["resources"] == {"GPU": 1}
        assert options["threads_per_worker"] == 2
        assert options["memory_limit"] == 0
        # Limits of GPU memory, and RMM, are left to dask-cuda: torch uses neither.
        assert not [name for name in options if name.startswith(("rmm", "device_memory"))]

    def test_processes_that_cut_are_kept_off_the_gpus(self, connected, gpus):
        assert [env for env, _ in gpus.cutting] == [{"CUDA_VISIBLE_DEVICES": ""}] * 2
        for _, options in gpus.cutting:
            assert (options["nthreads"], options["memory_limit"]) == (1, 0)
            assert options["host"] == "127.0.0.1"
            assert not {"resources", "preload", "data"} & set(options)

    def test_cutting_is_for_the_processes_without_a_gpu_as_long_as_there_are_some(self, connected):
        parsed, client = connected
        pool, monitor = cluster.Pool.of(client), cluster.WorkerMonitor(client, parsed, print)
        cutting = sorted(set(pool.threads) - pool.gpus)
        assert (monitor.able("cpu"), monitor.able("cuda")) == (cutting, sorted(pool.gpus))
        assert [monitor.is_divided(device) for device in ("cpu", "cuda")] == [True, False]
        for one in cutting:
            monitor.refuse(one, "its disk is full")
        assert monitor.able("cpu") == sorted(pool.gpus)

    def test_one_task_at_a_time_on_a_gpu_and_others_beside_it(self, connected):
        client = connected[1]
        address = cluster.Pool.of(client).able("cuda")[0]
        running, most, lock = [0], [0], threading.Lock()
        cut, release = threading.Event(), threading.Event()

        def infer(_):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            release.wait(20)
            with lock:
                running[0] -= 1

        Held.functions = (infer, cut.set)
        on_gpu = [
            client.submit(Held(0), i, pure=False, workers=[address], resources={"GPU": 1}) for i in range(4)
        ]
        beside = client.submit(Held(1), pure=False, workers=[address])
        assert cut.wait(20)  # the cutting is done while an inference holds the GPU
        release.set()
        client.gather([*on_gpu, beside])
        assert most[0] == 1

    def test_what_dask_cuda_is_asked_for_listens_on_the_loopback_alone(self, connected, gpus):
        """With the same options, but for those of dask-cuda, Dask starts scheduler, dashboard, nanny and worker."""
        options = gpus.started[0][2]
        with LocalCluster(n_workers=1, processes=True, **options) as there, Client(there) as client:
            assert os.getpid() not in client.run(os.getpid).values()
            assert there.scheduler.http_server is not None
            assert listening() == {"127.0.0.1"}


class Held:
    """A function of the test by reference: Dask pickles even within one process, and locks do not travel."""

    functions = ()

    def __init__(self, number):
        self.number = number

    def __call__(self, *arguments):
        Held.functions[self.number](*arguments)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m.lacks("pynvml"), r'dask-cuda is not installed here: pip install "galbatch\[cuda\]"'),
        (lambda m: m.lacks("dask_cuda"), "dask-cuda is not installed here"),
        (lambda m: m.has(0), "there is no GPU; kind = 'local' runs on the cpu"),
        (
            lambda m: setattr(m.nvml, "nvmlInit", no_driver(m)),
            "no GPU is found here .NVML Shared Library Not",
        ),
        (
            lambda m: m.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ""),
            "no GPU that CUDA_VISIBLE_DEVICES='' lea",
        ),
        (lambda m: m.monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1,0"), "no GPU that CUDA_VISIBLE_DEVICES"),
        (
            lambda m: m.monkeypatch.setattr(models, "torch_cuda", lambda: None),
            "torch is a build without CUDA",
        ),
    ],
)
def test_what_is_missing_for_gpus_is_told_before_anything_starts(gpus, spoil, message):
    spoil(gpus)
    for ask in (cluster.require, lambda c: cluster.connect(c).__enter__()):
        with pytest.raises(ClusterError, match=message):
            ask(CUDA)
    assert not gpus.started


def no_driver(machine):
    def init():
        raise machine.nvml.NVMLError("NVML Shared Library Not Found")

    return init


def test_mig_instances_are_workers_by_their_names(gpus, monkeypatch):
    gpus.divide(1, "MIG-aaaa", "MIG-bbbb")
    assert local_cuda.visible_gpus() == ["0", "MIG-aaaa", "MIG-bbbb"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-bbbb,0")
    assert local_cuda.require_gpus(None) == ["MIG-bbbb", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(
        ClusterError, match=r"'0,1': GPU 1 is divided by MIG, .*by their names: MIG-aaaa,MIG-bbbb$"
    ):
        cluster.require(CUDA)


def test_a_gpu_that_admits_one_process_is_refused_while_it_has_one(gpus, monkeypatch):
    gpus.nvml.nvmlDeviceGetComputeMode = lambda handle: 3
    cluster.require(CUDA)
    gpus.nvml.nvmlDeviceGetComputeRunningProcesses = lambda handle: [SimpleNamespace(pid=77)] * handle
    with pytest.raises(
        ClusterError, match=r"GPU 1 is in the compute mode exclusive process, .*process 77 has it"
    ):
        cluster.require(CUDA)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    cluster.require(CUDA)
    gpus.nvml.nvmlDeviceGetComputeMode = lambda handle: 2
    with pytest.raises(ClusterError, match="GPU 0 is in the compute mode prohibited"):
        cluster.require(CUDA)


@pytest.mark.parametrize(
    ("n_gpus", "n_threads", "n_cutting"),
    [(1, 2, 1), (1, 16, 4), (4, 16, 4), (4, 64, 16), (8, 192, 32), (8, 48, 16)],
)
def test_processes_that_cut_follow_from_cores_and_gpus(monkeypatch, n_gpus, n_threads, n_cutting):
    monkeypatch.setattr("os.cpu_count", lambda: n_threads)
    assert local_cuda.cutting_workers(n_gpus) == n_cutting


def test_bindings_that_are_missing_come_with_the_extra_of_torchs_release(gpus, monkeypatch):
    def load(name):
        if name == "dask_cuda":
            raise ImportError("cannot import name 'bindings' from 'cuda'", name="cuda")
        return sys.modules[name]

    monkeypatch.setattr(local_cuda.importlib, "import_module", load)
    with pytest.raises(ClusterError, match=r"cannot import name 'bindings'.*dask-cuda\[cu13\]"):
        cluster.require(CUDA)


def test_more_workers_than_gpus_are_refused_and_fewer_take_the_first(gpus, monkeypatch):
    with pytest.raises(
        ClusterError, match=r"3 workers are asked for and there are 2 GPUs; .*ask for 2 at most"
    ):
        cluster.require(CUDA.model_copy(update={"workers": 3}))
    assert local_cuda.require_gpus(1) == ["0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(
        ClusterError, match="2 workers are asked for and there is 1 GPU that CUDA_VISIBLE_DEVICES='1'"
    ):
        cluster.require(CUDA.model_copy(update={"workers": 2}))


@pytest.mark.parametrize(
    ("listed", "seen"),
    [
        ("1", ["1"]),
        ("1, 0", ["1", "0"]),
        ("0,0", ["0"]),
        ("0,5,1", ["0"]),  # as CUDA has it: what follows a number that is none is not seen
        ("GPU-aaaa,MIG-bbbb", ["GPU-aaaa", "MIG-bbbb"]),
        ("", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(gpus, monkeypatch, listed, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert local_cuda.visible_gpus() == seen


@pytest.mark.parametrize(
    ("identities", "message"),
    [
        (["GPU-aaaa", "GPU-aaaa"], "compute on the same GPU, GPU-aaaa: each worker needs one of its own"),
        (["GPU-aaaa", BundleError("torch 2.13, built without CUDA, finds no GPU")], "1 worker with the resource GPU"),
    ],
)  # fmt: skip
def test_workers_that_share_a_gpu_or_have_none_are_refused(gpus, identities, message):
    gpus.identities = identities
    with pytest.raises(ClusterError, match=message), cluster.connect(CUDA):
        pass


def test_a_plan_for_gpus_is_made_where_there_are_none(gpus):
    gpus.lacks("pynvml")
    assert cluster.kind_of(CUDA).workers_planned() == (1, "1 GPU worker")
