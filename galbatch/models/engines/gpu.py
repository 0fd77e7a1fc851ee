"""Facts about the GPU that torch computes on.

Only workers should ask for them: a client would create a CUDA context of its own.
"""

from __future__ import annotations

import os
import re

import torch

from galbatch.errors import BundleError

__all__ = ["gpu_identity", "gpu_shortage", "torch_cuda"]

GIB = 2**30
MIB = 2**20
# The units in which torch's allocator writes sizes.
_UNITS = {"GiB": GIB, "MiB": MIB, "KiB": 2**10, "bytes": 1}


def torch_cuda() -> str | None:
    """Return the CUDA version that torch was built for; None for a build without CUDA. It creates no CUDA context."""
    return torch.version.cuda


def gpu_identity() -> str:
    """Return the UUID of the GPU that this process computes on, or of its MIG instance, as in CUDA_VISIBLE_DEVICES.

    Raises
    ------
    BundleError
        Torch finds no GPU in this process.
    """
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise BundleError(f"torch {torch.__version__}, {built}, finds no GPU")
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    # All MIG instances of a GPU report the UUID of the whole GPU, so the instance's own name is taken where there is one.
    return first if first.startswith("MIG-") else str(torch.cuda.get_device_properties(0).uuid)


def gpu_shortage(error: BaseException, batch: int) -> str:
    """Return the message for an OutOfMemoryError of torch with `batch` rows: the memory needed at least, and that available.

    The memory needed is the largest amount that was held, plus the allocation that failed.
    """
    if not torch.cuda.is_available():
        return f"not enough memory (batch {batch}): {error}"
    free, _ = torch.cuda.mem_get_info()
    # Memory that torch has reserved counts as available: it would be used before more is taken from the GPU.
    there = free + torch.cuda.memory_reserved()
    needed = torch.cuda.max_memory_allocated() + asked_bytes(str(error))
    return f"{needed / GIB:.1f} GiB needed on the GPU (batch {batch} x {needed / batch / MIB:.0f} MiB), {there / GIB:.1f} GiB there"


def asked_bytes(message: str) -> int:
    """Return the size in bytes in torch's message ``Tried to allocate 20.00 MiB``; 0 if there is none."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (GiB|MiB|KiB|bytes)", message)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0
