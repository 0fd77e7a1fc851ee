"""What a task gives back: its result, or the error that it expects to meet."""

import errno

import pytest

from galbatch.errors import LockLost, TileError
from galbatch.execution.submission.boundary import run_task


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
