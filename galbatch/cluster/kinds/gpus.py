"""The GPUs of this machine, asked of NVML, the driver's library of management, which makes no CUDA context.

A context in this process would put all workers on its GPU (dask-cuda#719), and keep them off a GPU that admits one process only.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from galbatch.core.process import how_to_install
from galbatch.errors import ClusterError

__all__ = ["Gpu", "gpus_of_machine", "require_admission", "visible_gpus"]

WHERE = "[cluster] kind = 'local-cuda'"

COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
"""The compute modes by the numbers of nvmlComputeMode_t: how many processes a GPU admits."""

MIG = "MIG-"


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine, or a MIG instance: a part of a GPU that computes by itself.

    Attributes
    ----------
    name : as in CUDA_VISIBLE_DEVICES: the GPU's number, or the UUID of the MIG instance
    number : of the whole GPU
    uuid : of the GPU or the instance
    model : such as NVIDIA H200
    memory_bytes : memory in all
    mode : the GPU's compute mode, such as exclusive process
    processes : the processes that compute on the GPU now
    """

    name: str
    number: int
    uuid: str
    model: str
    memory_bytes: int
    mode: str
    processes: tuple[int, ...]


def gpus_of_machine() -> list[Gpu]:
    """Return the GPUs of this machine; for a GPU that is divided by MIG, its instances.

    Raises
    ------
    ClusterError
        NVML is missing, or finds no driver.
    """
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise ClusterError(
            f"{WHERE}: dask-cuda is not installed here: {how_to_install('dask_cuda')}"
        ) from None
    try:
        nvml.nvmlInit()
        return [gpu for number in range(nvml.nvmlDeviceGetCount()) for gpu in _parts(nvml, number)]
    except nvml.NVMLError as error:
        raise ClusterError(
            f"{WHERE}: no GPU is found here ({error}); it needs an NVIDIA GPU and its driver; kind = 'local' runs on the cpu"
        ) from None


def _parts(nvml: Any, number: int) -> Iterator[Gpu]:
    """Yield the GPU of this number, or its MIG instances."""
    whole = nvml.nvmlDeviceGetHandleByIndex(number)
    mode = COMPUTE_MODES.get(nvml.nvmlDeviceGetComputeMode(whole), "unknown")
    instances = list(_instances(nvml, whole))
    for handle in instances or [whole]:
        uuid = nvml.nvmlDeviceGetUUID(handle)
        yield Gpu(
            name=uuid if instances else str(number),
            number=number,
            uuid=uuid,
            model=nvml.nvmlDeviceGetName(handle),
            memory_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
            mode=mode,
            processes=tuple(one.pid for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        )


def _instances(nvml: Any, whole: Any) -> Iterator[Any]:
    """Yield the handles of a GPU's MIG instances; none where MIG is off or unknown to the GPU."""
    try:
        if not nvml.nvmlDeviceGetMigMode(whole)[0]:
            return
        n_places = nvml.nvmlDeviceGetMaxMigDeviceCount(whole)
    except nvml.NVMLError:
        return
    for place in range(n_places):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, place)
        except nvml.NVMLError:
            # No instance has this place.
            continue


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine that CUDA_VISIBLE_DEVICES allows, by their numbers or UUIDs as in that variable.

    Raises
    ------
    ClusterError
        GPUs cannot be counted: dask-cuda or the driver is missing. Or a GPU is listed by its number that is divided by MIG.
    """
    gpus = gpus_of_machine()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [gpu.name for gpu in gpus]
    numbers = {gpu.number for gpu in gpus}

    def is_there(name: str) -> bool:
        return name.startswith(("GPU-", MIG)) or (name.isdigit() and int(name) in numbers)

    # CUDA reads the list up to the first entry that is no GPU, and ignores the rest.
    names = list(dict.fromkeys(takewhile(is_there, (name.strip() for name in listed.split(",")))))
    for name in names:
        instances = [gpu.name for gpu in gpus if name == str(gpu.number) and gpu.name.startswith(MIG)]
        if instances:
            raise ClusterError(
                f"{WHERE}: CUDA_VISIBLE_DEVICES={listed!r}: GPU {name} is divided by MIG, and CUDA would take its first instance alone; "
                f"list instances by their names: {','.join(instances)}"
            )
    return names


def require_admission(names: list[str]) -> None:
    """Raise an error if one of these GPUs admits no process, or one only, and has it.

    Raises
    ------
    ClusterError
        The message names the GPU, its compute mode and the process.
    """
    for gpu in gpus_of_machine():
        if not {gpu.name, gpu.uuid} & set(names):
            continue
        if gpu.mode == "prohibited":
            raise ClusterError(
                f"{WHERE}: GPU {gpu.name} is in the compute mode prohibited: nothing may compute on it; leave it out with "
                "CUDA_VISIBLE_DEVICES, or have the mode changed (nvidia-smi -c 0)"
            )
        if gpu.mode.startswith("exclusive") and gpu.processes:
            raise ClusterError(
                f"{WHERE}: GPU {gpu.name} is in the compute mode {gpu.mode}, in which it admits one process, and process "
                f"{gpu.processes[0]} has it; wait for that one, or leave the GPU out with CUDA_VISIBLE_DEVICES"
            )
