"""The errors of CUDA and its libraries, as torch words them, and what each means."""

import pytest
import torch

from galbatch import models

HINT = "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\n"


def in_torchscript(text):
    return (
        "The following operation failed in the TorchScript interpreter.\nTraceback of TorchScript (most recent call last):\n"
        f'  File "code/__torch__/gampen.py", line 12, in sample\n    x = torch.conv2d(x, w)\n        ~~~~~ <--- HERE\nRuntimeError: {text}\n'
    )


MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB",
    "CUDA error: out of memory" + HINT,
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`.",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1154, please report a bug to PyTorch.',
]
BROKEN = [
    "CUDA error: an illegal memory access was encountered" + HINT,
    "CUDA error: device-side assert triggered" + HINT,
    "CUDA error: unspecified launch failure" + HINT,
    "CUDA error: uncorrectable ECC error encountered" + HINT,
    "CUDA error: misaligned address" + HINT,
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable" + HINT,
    "CUDA error: no kernel image is available for execution on the device" + HINT,
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
    "cuDNN Frontend error: [cudnn_frontend] Error: No valid execution plans built.",
    "GET was unable to find an engine to execute this computation",
    "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
    "cudss error: , when calling `cudssExecute(handle)`.",
    "CUDA driver initialization failed, you might not have a CUDA gpu.",
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices()",
    "NVML_ERROR_GPU_IS_LOST",
    "GPU is lost",
    "Triton Error [CUDA]: an illegal memory access was encountered",
]


@pytest.mark.parametrize(
    ("kind", "text"), [*(("memory", one) for one in MEMORY), *(("broken", one) for one in BROKEN)]
)
def test_each_text_means_the_same_from_a_script_and_from_python(kind, text):
    first = text.partition("\n")[0]
    plain, scripted = (
        models.gpu_trouble(RuntimeError(text)),
        models.gpu_trouble(RuntimeError(in_torchscript(text))),
    )
    assert plain == models.GpuTrouble(kind, first)
    assert scripted == models.GpuTrouble(kind, f"RuntimeError: {first}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("as a later torch words it"), "memory"),
        (torch.AcceleratorError("as a later torch words it"), "broken"),
    ],
)
def test_two_classes_are_of_a_gpu_whatever_they_say(error, kind):
    assert models.gpu_trouble(error).kind == kind


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        ),
        ValueError("CUDA error: of another kind"),
        OSError("CUDA error: is the name of a file"),
    ],
)
def test_errors_of_the_program_are_no_trouble_of_a_gpu(error):
    assert models.gpu_trouble(error) is None


def test_every_row_says_where_its_text_is_made():
    assert all(message.source for message in models.GPU_MESSAGES)
    kinds = [message.kind for message in models.GPU_MESSAGES]
    # The patterns of the others match some messages of memory, too.
    assert kinds == sorted(kinds, reverse=True)
