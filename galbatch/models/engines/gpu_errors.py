"""The errors of CUDA and its libraries, told apart: a GPU that has too little memory, and one that cannot compute any more.

Torch raises most of them as RuntimeError, some as AcceleratorError or OutOfMemoryError; TorchScript passes all of them on as
RuntimeError, with the first message at the end of its own. So they are recognized by their texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["GPU_MESSAGES", "GpuMessage", "GpuTrouble", "gpu_trouble"]

Kind = Literal["memory", "broken"]
"""memory: a smaller batch may fit. broken: the process, or its GPU, computes no more."""


@dataclass(frozen=True)
class GpuMessage:
    """A text by which an error of a GPU is recognized.

    Attributes
    ----------
    pattern : regular expression, searched for in the message without regard to case
    kind : what it means
    source : where the text is made
    """

    pattern: str
    kind: Kind
    source: str


GPU_MESSAGES = (
    GpuMessage("CUDA out of memory", "memory", "torch, c10/cuda/CUDACachingAllocator.cpp: OutOfMemoryError"),
    GpuMessage(
        "CUDA (driver )?error: out of memory",
        "memory",
        "CUDA runtime and driver: texts of cudaErrorMemoryAllocation and CUDA_ERROR_OUT_OF_MEMORY, in torch's "
        "c10/cuda/CUDAException.cpp and c10/cuda/CUDACachingAllocator.cpp",
    ),
    GpuMessage(
        "(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_ALLOC_FAILED",
        "memory",
        "names of the status codes of cuBLAS and cuSOLVER, which aten/src/ATen/cuda/Exceptions.cpp of torch spells out, and of cuDNN 8 "
        "(cudnnGetErrorString, in Exceptions.h); cuSPARSE's, which torch takes from cusparseGetErrorString, were not seen in a thread",
    ),
    GpuMessage(
        "CUDNN_STATUS_INTERNAL_ERROR_(HOST|DEVICE)_ALLOCATION_FAILED",
        "memory",
        "cudnnGetErrorString of cuDNN 9; seen in public logs of GPUs, and of hosts, that were short of memory",
    ),
    # The allocator asks NVML who holds the memory that it lacks, which a MIG instance may not (pytorch#112377, #197312), nor a
    # GPU without NVML (pytorch#185240).
    GpuMessage(
        r"NVML_SUCCESS == r.* INTERNAL ASSERT FAILED at .*CUDACachingAllocator",
        "memory",
        "torch, c10/cuda/CUDACachingAllocator.cpp, after an allocation failed",
    ),
    GpuMessage(
        "CUDA (driver |NVRTC )?error: ",
        "broken",
        "torch, c10/cuda/CUDAException.cpp and aten/src/ATen/cuda/Exceptions.h, before the texts of all other errors of CUDA "
        "(illegal memory access, device-side assert, unspecified launch failure, uncorrectable ECC error, ..), cuBLAS and cuSPARSE",
    ),
    GpuMessage(
        "(cuDNN|cuDNN Frontend|cusolver|cudss) error: ", "broken", "torch, aten/src/ATen/cuda/Exceptions.h"
    ),
    GpuMessage(
        "(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_(?!SUCCESS)[A-Z]",
        "broken",
        "status codes of these libraries",
    ),
    # A GPU for which cuDNN has no kernel of the type says so, and one without room for any (torch tries others first).
    GpuMessage(
        "unable to find an engine to execute this computation",
        "broken",
        "torch, aten/src/ATen/native/cudnn/Conv_v8.cpp",
    ),
    GpuMessage(
        "NVML_ERROR_GPU_IS_LOST|GPU is lost|NVML_ERROR_|can't initialize NVML",
        "broken",
        "nvmlErrorString of NVML, and torch/cuda/__init__.py",
    ),
    GpuMessage(r"Triton Error \[CUDA\]", "broken", "Triton's driver, below compiled engines"),
    GpuMessage(
        "No CUDA GPUs are available|Found no NVIDIA driver|CUDA unknown error|CUDA driver initialization failed|"
        r"Unexpected error from cudaGetDeviceCount\(\)",
        "broken",
        "torch, torch/cuda/__init__.py and c10/cuda/CUDAFunctions.cpp: the GPU was there when the run began",
    ),
)
"""The texts, the first that is found decides: those of memory first, as the others' patterns match some of them, too."""


@dataclass(frozen=True)
class GpuTrouble:
    """The trouble that an error reports of a GPU: its kind, and the line of the message that names it."""

    kind: Kind
    text: str


def gpu_trouble(error: BaseException) -> GpuTrouble | None:
    """Return what an error says of the GPU; None if it says nothing.

    Parameters
    ----------
    error : exception
        As a computation raised it.
    """
    name = type(error).__name__
    if not isinstance(error, RuntimeError):
        return None
    for message in GPU_MESSAGES:
        # TorchScript's messages are a traceback, with the error itself in the last line.
        if found := re.search(f".*({message.pattern}).*", str(error), re.IGNORECASE):
            return GpuTrouble(message.kind, found[0].strip())
    # These two classes are raised for nothing else. A later torch may word their messages differently.
    kinds: dict[str, Kind] = {"OutOfMemoryError": "memory", "AcceleratorError": "broken"}
    return GpuTrouble(kinds[name], f"{name}: {error}") if name in kinds else None
