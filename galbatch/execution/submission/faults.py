"""The kinds of errors. This module alone decides what an error of a task means for the run."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import Enum

from distributed import KilledWorker
from distributed.scheduler import NoValidWorkerError

from galbatch.errors import (
    DamagedError,
    GalbatchError,
    GpuBroken,
    MissingBundleError,
    ResourceError,
    ShortOfMemory,
    TaskOverdue,
    UsageError,
    WorkerLost,
    WorkerRefused,
)

__all__ = ["Fault", "FaultKind", "fault_of", "is_out_of_memory", "reason_of"]

# Of these numbers it is not one file that is at fault: a disk, a quota, a server or the network is.
OF_A_RESOURCE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EBUSY,
    errno.ECONNREFUSED,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
}

# These come from a disk, a mount or a server, or from one file alone: a bad block, an object that cannot be read.
OF_A_RESOURCE_OR_A_FILE = {
    errno.EACCES,
    errno.EIO,
    errno.ENODEV,
    errno.ENOTCONN,
    errno.ENXIO,
    errno.EPERM,
    errno.EREMOTEIO,
    errno.ESTALE,
}


class FaultKind(Enum):
    """The action of the run after an error."""

    WORKER = "the worker gets no more work, and another one takes the task"
    MEMORY = "the task is tried again with half the batch"
    GPU = "the worker is started again, or refused when that was done before, and another one takes the task"
    DAMAGE = "the cutouts are made again"
    RESOURCE = "the task is tried again, and many alike pause the run"
    PASSING = "the task is tried again"
    PARTITION = "the partition is recorded as failed, as another attempt would fail likewise"


@dataclass(frozen=True)
class Fault:
    """The meaning of a task's error for the run.

    Attributes
    ----------
    reason : the message, as it is recorded
    problem : of a resource: what is wrong with it, such as "No space left on device"; alike faults have the same
    is_shared : of a resource: whether all partitions use it. Else one file may be at fault
    file : the file that may be at fault; "" if the error does not say
    worker : address of the worker on which the task failed; None if it is not known
    """

    kind: FaultKind
    reason: str
    problem: str = ""
    is_shared: bool = False
    file: str = ""
    worker: str | None = None


def fault_of(error: BaseException) -> Fault:
    """Return what an error of a task means for the run."""
    reason = reason_of(error)
    if isinstance(error, ResourceError):
        return Fault(FaultKind.RESOURCE, reason, error.problem, is_shared=True)
    if isinstance(error, MissingBundleError):
        return Fault(FaultKind.RESOURCE, reason, "A bundle is not there", is_shared=True)
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number in OF_A_RESOURCE | OF_A_RESOURCE_OR_A_FILE:
        assert isinstance(error, OSError)
        file = str(error.filename or "")
        return Fault(
            FaultKind.RESOURCE, reason, os.strerror(number), is_shared=number in OF_A_RESOURCE, file=file
        )
    return Fault(_kind_of(error), reason)


def _kind_of(error: BaseException) -> FaultKind:
    """Return the kind of an error that no resource causes."""
    if isinstance(error, WorkerRefused):
        return FaultKind.WORKER
    if isinstance(error, ShortOfMemory):
        return FaultKind.MEMORY
    if isinstance(error, GpuBroken):
        return FaultKind.GPU
    if isinstance(error, DamagedError):
        return FaultKind.DAMAGE
    # A wrong input stays wrong, however often it is read.
    if isinstance(error, UsageError):
        return FaultKind.PARTITION
    passing = OSError | TaskOverdue | WorkerLost | KilledWorker | NoValidWorkerError
    if isinstance(error, passing) or is_out_of_memory(error):
        return FaultKind.PASSING
    return FaultKind.PARTITION


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a process found too little memory, of the machine or of a GPU."""
    # torch.OutOfMemoryError is recognized by its name: the process that submits the tasks does not import torch.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def reason_of(error: BaseException) -> str:
    """Return the message of an error; errors of other packages come with their type, as KeyError: 'x' is no sentence."""
    return str(error) if isinstance(error, GalbatchError) else f"{type(error).__name__}: {error}"
