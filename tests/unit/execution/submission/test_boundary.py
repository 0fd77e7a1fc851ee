"""What a task gives back: its result, or the error that it expects to meet."""

import dataclasses
import errno
import re
from contextlib import nullcontext

import numpy as np
import pytest
from distributed.protocol import serialize

from galbatch.config import PosteriorConfig
from galbatch.errors import GpuBroken, LockLost, ShortOfMemory, TileError
from galbatch.execution.submission import boundary
from galbatch.execution.submission.boundary import packed, run_packed, run_task
from galbatch.execution.tasks import InferTask, TaskResult


@pytest.mark.parametrize(
    "error",
    [TileError("tile 9813/4,4: no WCS"), OSError(errno.ENOSPC, "No space left on device"), LockLost("gone")],
)
def test_expected_errors_are_returned_as_dask_writes_a_page_for_each_that_is_raised(error):
    def fail(task):
        raise error

    assert run_task(fail, None) is error


def test_a_fault_of_the_program_is_raised_with_its_traceback():
    def divide(task):
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        run_task(divide, None)


def test_a_task_is_sent_as_one_piece_whatever_arrays_it_has():
    """Dask would send each array as a message frame of its own, first to the scheduler, then to the worker."""
    data = packed(np.sum, [np.arange(5), np.arange(7)])
    frames = serialize(data)[1]
    assert len(frames) == 1


def test_a_packed_task_is_run_with_its_locks(monkeypatch):
    held = []
    monkeypatch.setattr(boundary.storage, "guarded", lambda locks: held.append(locks) or nullcontext())
    result = run_packed(packed(result_of, "a task", ("lock",)))
    assert result.partition == "a task"
    assert held == [("lock",)]


def result_of(task):
    return TaskResult(task, 1, 2, 0, 0.5)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            ShortOfMemory,
            "not enough memory .batch 512.: cuDNN error",
        ),
        (
            "CUDA error: device-side assert triggered\nCompile with",
            GpuBroken,
            "^GPU .* GPU-aaaa fails: CUDA error: device-side assert triggered$",
        ),
    ],
)
def test_errors_of_a_gpu_are_told_apart_and_name_it(on_gpu, text, kind, message):
    def fail(task):
        raise RuntimeError(text)

    found = run_task(fail, on_gpu)
    assert type(found) is kind
    assert found.worker == "tcp://a:1"
    assert re.search(message, str(found))


def test_a_gpu_that_does_not_tell_its_uuid_is_named_as_in_cuda_visible_devices(on_gpu, monkeypatch):
    def lost():
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(boundary.models, "gpu_identity", lost)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert run_task(lambda task: lost(), on_gpu).gpu.endswith(" 3")


def test_the_same_text_on_a_cpu_is_a_fault_of_the_program(on_gpu):
    def fail(task):
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side"):
        run_task(fail, dataclasses.replace(on_gpu, device="cpu"))


@pytest.fixture
def on_gpu(monkeypatch):
    """A task that infers on a made-up GPU of the worker tcp://a:1, and has no networks."""
    monkeypatch.setattr(boundary.models, "gpu_identity", lambda: "GPU-aaaa", raising=False)
    monkeypatch.setattr(boundary, "_address", lambda: "tcp://a:1")
    names = [field.name for field in dataclasses.fields(InferTask)]
    given = {"models": (), "posterior": PosteriorConfig(batch=512), "device": "cuda"}
    return InferTask(**(dict.fromkeys(names) | given))
