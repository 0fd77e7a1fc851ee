"""The kind of each error, and whose fault it is."""

import errno
import pickle
from types import SimpleNamespace

import pytest
from distributed import KilledWorker

from galbatch.errors import (
    DamagedError,
    GpuBroken,
    MissingBundleError,
    OutputError,
    ResourceError,
    ShortOfMemory,
    TileError,
    WorkerLost,
    WorkerRefused,
)
from galbatch.execution.submission import FaultKind, fault_of
from galbatch.storage.base import output_errors


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WorkerRefused("no engine", worker="tcp://a:1"), FaultKind.WORKER),
        (ShortOfMemory("batch 1"), FaultKind.MEMORY),
        (GpuBroken("CUDA error: misaligned address"), FaultKind.GPU),
        (DamagedError("a/b", "is empty"), FaultKind.DAMAGE),
        (OSError("connection reset"), FaultKind.PASSING),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.fits"), FaultKind.PASSING),
        (WorkerLost("its worker was lost"), FaultKind.PASSING),
        (KilledWorker("task", SimpleNamespace(address="tcp://a:1"), 3), FaultKind.PASSING),
        (MemoryError(), FaultKind.PASSING),
        (TileError("tile 9813/4,4: no WCS"), FaultKind.PARTITION),
        (OutputError("a file is in the way"), FaultKind.PARTITION),
        (ZeroDivisionError(), FaultKind.PARTITION),
    ],
)
def test_errors_that_no_resource_causes(error, kind):
    fault = fault_of(error)
    assert (fault.kind, fault.problem) == (kind, "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_an_output_that_cannot_be_written_is_a_resource_of_all(number):
    with pytest.raises(ResourceError) as raised, output_errors("cutouts/zarr.json"):
        raise OSError(number, "as the kernel says")
    fault = fault_of(pickle.loads(pickle.dumps(raised.value)))  # as it comes from a worker
    assert (fault.kind, fault.is_shared) == (FaultKind.RESOURCE, True)
    assert (
        fault.problem
        == {
            errno.ENOSPC: "No space left on device",
            errno.EDQUOT: "Disk quota exceeded",
            errno.EROFS: "Read-only file system",
            errno.EACCES: "Permission denied",
        }[number]
    )


def test_a_file_that_is_too_large_is_no_fault_of_the_disk():
    with pytest.raises(OutputError, match="larger than its file system") as raised, output_errors("x"):
        raise OSError(errno.EFBIG, "File too large")
    assert fault_of(raised.value).kind is FaultKind.PARTITION


def test_a_server_is_shared_and_a_disk_error_may_be_of_one_file():
    refused = fault_of(OSError(errno.ECONNREFUSED, "s3://b/k: Could not connect"))
    assert (refused.kind, refused.problem, refused.is_shared) == (
        FaultKind.RESOURCE,
        "Connection refused",
        True,
    )
    bad_block = fault_of(pickle.loads(pickle.dumps(OSError(errno.EIO, "Input/output error", "tile.fits"))))
    assert (bad_block.kind, bad_block.is_shared, bad_block.file) == (FaultKind.RESOURCE, False, "tile.fits")


def test_a_bundle_that_is_gone_is_a_resource():
    fault = fault_of(MissingBundleError("net.pt: there is no such bundle"))
    assert (fault.kind, fault.is_shared) == (FaultKind.RESOURCE, True)
