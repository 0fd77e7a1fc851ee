"""A machine with two GPUs that are made up, and a clock that the test moves."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from distributed import LocalCluster, Worker

from galbatch import models
from galbatch.cluster.kinds import local_cuda
from tests.clocks import replace_clock

TWO_GPUS = ("GPU-aaaa", "GPU-bbbb")


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs and dask-cuda, both made up; returns a function that takes things away."""
    return FakeMachine(monkeypatch)


class FakeMachine:
    """Fakes of pynvml, dask_cuda and what torch says; LocalCUDACluster is a LocalCluster in this process."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.started = []
        self.nvml = self.module("pynvml")
        self.nvml.NVMLError = type("NVMLError", (Exception,), {})
        self.nvml.nvmlInit = lambda: None
        self.nvml.nvmlDeviceGetHandleByIndex = lambda number: number
        self.nvml.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}" if isinstance(handle, int) else handle
        self.nvml.nvmlDeviceGetName = lambda handle: "NVIDIA H200"
        self.nvml.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(total=140 * 2**30)
        self.nvml.nvmlDeviceGetComputeMode = lambda handle: 0
        self.nvml.nvmlDeviceGetComputeRunningProcesses = lambda handle: []
        self.nvml.nvmlDeviceGetMigMode = lambda handle: (0, 0)
        self.has(2)
        self.module("dask_cuda").LocalCUDACluster = self.start
        # Two processes that cut, one for each GPU: threads here.
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        monkeypatch.setattr(local_cuda, "Nanny", self.start_cutting)
        self.cutting = []
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(models, "torch_cuda", lambda: "13.0", raising=False)
        monkeypatch.setattr(models, "gpu_identity", self.identity, raising=False)
        self.identities = list(TWO_GPUS)

    def module(self, name):
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        self.monkeypatch.setitem(sys.modules, name, made)
        return made

    def has(self, n_gpus):
        self.nvml.nvmlDeviceGetCount = lambda: n_gpus

    def lacks(self, name):
        self.monkeypatch.setitem(sys.modules, name, None)

    def start(self, *, CUDA_VISIBLE_DEVICES, n_workers, **options):
        self.started.append((CUDA_VISIBLE_DEVICES, n_workers, options))
        return LocalCluster(n_workers=n_workers, processes=False, protocol="tcp", **options)

    def start_cutting(self, scheduler, *, env, **options):
        self.cutting.append((env, options))
        return Worker(scheduler, **options)

    def divide(self, number, *names):
        """Divide a GPU into MIG instances of these names; one place between them is empty."""

        def instance(handle, place):
            if place == 1 or place > len(names):
                raise self.nvml.NVMLError("Not Found")
            return names[max(0, place - 1)]

        self.nvml.nvmlDeviceGetMigMode = lambda handle: (int(handle == number), 0)
        self.nvml.nvmlDeviceGetMaxMigDeviceCount = lambda handle: 7
        self.nvml.nvmlDeviceGetMigDeviceHandleByIndex = instance

    def identity(self):
        found = self.identities.pop()
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the monitor reads, moved by the test."""
    now = [1000.0]
    replace_clock(monkeypatch, "galbatch.cluster.monitor", monotonic=lambda: now[0])
    return now
