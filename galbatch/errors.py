"""The exceptions that galbatch raises.

::

    GalbatchError
    ├── LockLost                  another run took over the lock of an output; nothing more is written
    ├── SchedulerLost             the scheduler ended during the run; finished partitions are kept
    ├── PausesSpent               a disk, a server or a file still fails after all pauses of the run; finished partitions are kept
    ├── Stopped                   the run was asked to stop: exit code 75, the same command continues
    ├── ShortOfMemory             a task needs more memory than its worker has; it is retried with half the batch size
    ├── GpuBroken                 a GPU fails a task otherwise than by lack of memory; another one takes the task
    ├── TaskOverdue               a task takes far longer than others of the run; its worker is started again
    ├── WorkerLost                the worker of a task left before the task ended; the task is retried
    ├── WorkerRefused             a worker cannot do what the run requires; the task is retried on other workers
    └── UsageError                wrong usage, settings or input: exit code 2, nothing was started
        ├── ClusterError          workers cannot be started, or a cluster cannot be joined
        ├── ConfigError           run.toml or a bundle's metadata is wrong
        ├── ObjectListError       the object list lacks a column, or has invalid ids or positions
        ├── TileError             a tile cannot be read, or is not what its header says
        ├── BundleError           a bundle is not galbatch's, is damaged, or contradicts its metadata
        │   └── MissingBundleError  the file of a bundle does not exist
        ├── OutputError           an output cannot be written to its path
        │   └── ResourceError     the disk is full or read-only, or a permission is gone; a run pauses until it works again
        ├── FingerprintError      an output was written with other settings or inputs
        ├── DamagedError          a file of an output is not as it was written; it counts as not done
        ├── LockedError           another run is writing the output
        ├── CatalogError          a folder is not a catalog, or not as galbatch writes it
        ├── MissingPackage        a package of an extra is not installed; the message says which extra
        └── NotInThisVersion      a documented feature that is not available yet

Within a task these exceptions fail only the task's partition, and the run continues with the others (exit code 1).

Each message says where the error is, what was found, what was expected and what to do. All exceptions can be pickled,
because workers send them to the client.
"""

__all__ = [
    "BundleError",
    "CatalogError",
    "ClusterError",
    "ConfigError",
    "DamagedError",
    "FingerprintError",
    "GalbatchError",
    "GpuBroken",
    "LockLost",
    "LockedError",
    "MissingBundleError",
    "MissingPackage",
    "NotInThisVersion",
    "ObjectListError",
    "OutputError",
    "PausesSpent",
    "ResourceError",
    "SchedulerLost",
    "ShortOfMemory",
    "Stopped",
    "TaskOverdue",
    "TileError",
    "UsageError",
    "WorkerLost",
    "WorkerRefused",
]


class GalbatchError(Exception):
    """Base class of all exceptions that galbatch raises."""


class LockLost(GalbatchError):  # noqa: N818  (reads as the message does)
    """Another run took over the lock of an output, or the run was stopped: nothing may be written any more."""


class Stopped(GalbatchError):  # noqa: N818
    """The run was asked to stop, by SIGTERM or SIGINT, and did; what is done stays."""


class SchedulerLost(GalbatchError):  # noqa: N818  (reads as the message does)
    """The scheduler ended during the run."""


class PausesSpent(GalbatchError):  # noqa: N818
    """A disk, a server or a file that a whole run needs still fails after as long as it may wait; what is done stays."""


class ShortOfMemory(GalbatchError):  # noqa: N818
    """A task needs more memory than its worker has.

    Attributes
    ----------
    worker : str
        Address of the worker if it must be restarted, as after a lack of GPU memory; otherwise "".
    """

    # Exceptions are pickled as their arguments and their attributes: `worker` survives because it is an attribute.

    def __init__(self, message: str, *, worker: str = "") -> None:
        super().__init__(message)
        self.worker = worker


class GpuBroken(GalbatchError):  # noqa: N818
    """A GPU, or its driver, fails a task otherwise than by lack of memory; the process can use the GPU no more.

    Attributes
    ----------
    worker : str
        Address of the worker.
    gpu : str
        Its host and the UUID of its GPU, or the GPU's number in CUDA_VISIBLE_DEVICES; "" if neither is known.
    """

    def __init__(self, message: str, *, worker: str = "", gpu: str = "") -> None:
        super().__init__(message)
        self.worker = worker
        self.gpu = gpu


class TaskOverdue(GalbatchError):  # noqa: N818
    """A task takes far longer than the finished tasks of its run took for as many objects.

    Attributes
    ----------
    worker : str
        Address of the worker on which it runs.
    """

    def __init__(self, message: str, *, worker: str = "") -> None:
        super().__init__(message)
        self.worker = worker


class WorkerLost(GalbatchError):  # noqa: N818
    """The worker of a task left before the task ended."""


class WorkerRefused(GalbatchError):  # noqa: N818
    """A worker cannot do what the run requires, but others may.

    Attributes
    ----------
    worker : str
        Address of the worker, "" if unknown.
    """

    def __init__(self, message: str, *, worker: str = "") -> None:
        super().__init__(message)
        self.worker = worker


class UsageError(GalbatchError):
    """Wrong usage, settings or input. The command ends with exit code 2 before any work is started."""


class ClusterError(UsageError):
    """Workers cannot be started, or a cluster cannot be joined."""


class ConfigError(UsageError):
    """run.toml or a bundle's metadata is wrong."""


class ObjectListError(UsageError):
    """The object list lacks a column, or has invalid ids or positions."""


class TileError(UsageError):
    """A tile cannot be read, or is not what its header says."""


class BundleError(UsageError):
    """A bundle is not galbatch's, is damaged, or contradicts its metadata."""


class MissingBundleError(BundleError):
    """The file of a bundle does not exist, or not any more."""


class OutputError(UsageError):
    """An output cannot be written to its path."""


class ResourceError(OutputError):
    """Somebody must free space, give a permission or mount a disk before anything can be written there.

    Attributes
    ----------
    problem : str
        What is wrong, in the words of the operating system, such as "No space left on device".
    """

    def __init__(self, message: str, *, problem: str = "") -> None:
        super().__init__(message)
        self.problem = problem


class FingerprintError(UsageError):
    """An output was written with other settings or inputs than this run's."""


class DamagedError(UsageError):
    """A file of an output is not as it was written; what it belongs to counts as not done, and the next run makes it again.

    Attributes
    ----------
    path : of the file
    problem : what is wrong with it, such as ``is empty``
    """

    def __init__(self, path: str, problem: str = "") -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; galbatch run makes it again" if self.problem else self.path


class LockedError(UsageError):
    """Another run is writing the output."""


class MissingPackage(UsageError):  # noqa: N818  (reads as the message does)
    """A package that only some uses need is not installed, or cannot be loaded."""


class NotInThisVersion(UsageError):  # noqa: N818  (reads as the message does)
    """A documented feature that is not available yet."""


class CatalogError(UsageError):
    """A folder is not a catalog, or not as galbatch writes it."""
