"""The GPU that torch computes on. Nothing here is for a client: it would make a CUDA context there."""

from __future__ import annotations

import os
import re

import torch

from galbatch.errors import BundleError

__all__ = ["gpu_identity", "gpu_shortage", "torch_cuda"]

GIB = 2**30
MIB = 2**20
_UNITS = {"GiB": GIB, "MiB": MIB, "KiB": 2**10, "bytes": 1}


def torch_cuda() -> str | None:
    """Return the CUDA release that torch was built for; None for a build without. The only one that makes no CUDA context."""
    return torch.version.cuda


def gpu_identity() -> str:
    """Return the UUID of the GPU that this process computes on, or of its part, as CUDA_VISIBLE_DEVICES names it.

    Raises
    ------
    BundleError
        Torch has no GPU here.
    """
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise BundleError(f"torch {torch.__version__}, {built}, finds no GPU")
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
    # The parts of a GPU that is divided (MIG) share its UUID.
    return first if first.startswith("MIG-") else str(torch.cuda.get_device_properties(0).uuid)


def gpu_shortage(error: BaseException, batch: int) -> str:
    """Return the message for an OutOfMemoryError of torch with `batch` rows: the memory needed at least, and available.

    Needed is what was held at most and what was asked for beyond it.
    """
    if not torch.cuda.is_available():
        return f"not enough memory (batch {batch}): {error}"
    free, _ = torch.cuda.mem_get_info()
    there = free + torch.cuda.memory_reserved()
    needed = torch.cuda.max_memory_allocated() + asked_bytes(str(error))
    return f"{needed / GIB:.1f} GiB needed on the GPU (batch {batch} x {needed / batch / MIB:.0f} MiB), {there / GIB:.1f} GiB there"


def asked_bytes(message: str) -> int:
    """Return the bytes that torch says it tried to get: ``Tried to allocate 20.00 MiB``; 0 if it does not say."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (GiB|MiB|KiB|bytes)", message)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0
