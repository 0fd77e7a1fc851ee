"""What a task gives back: its result, or the error that it expects to meet."""

import errno
from contextlib import nullcontext

import numpy as np
import pytest
from distributed.protocol import serialize

from galbatch.errors import LockLost, TileError
from galbatch.execution.submission import boundary
from galbatch.execution.submission.boundary import packed, run_packed, run_task
from galbatch.execution.tasks import TaskResult


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
