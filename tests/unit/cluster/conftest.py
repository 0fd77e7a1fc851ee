"""A machine with two GPUs that are made up, and a clock that the test moves."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from distributed import LocalCluster

from galbatch import models

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
        self.has(2)
        self.module("dask_cuda").LocalCUDACluster = self.start
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

    def identity(self):
        found = self.identities.pop()
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the monitor reads, moved by the test."""
    now = [1000.0]
    monkeypatch.setattr("galbatch.cluster.monitor.time.monotonic", lambda: now[0])
    return now
