"""The errors that galbatch raises on purpose.

::

    GalbatchError
    ├── SchedulerLost             the scheduler ended during the run: what is done stays
    ├── ShortOfMemory             a task needs more memory than its worker has: tried again with half the batch
    ├── WorkerRefused             a worker cannot do what the run asks for: tried on others
    └── UsageError                exit code 2: nothing was started
        ├── ClusterError          workers cannot be started or joined as asked for
        ├── ConfigError           run.toml or a bundle's metadata is wrong
        ├── ObjectListError       the object list has no such column, bad ids, no positions
        ├── TileError             a tile cannot be read, or is not what its header says
        ├── BundleError           a bundle is foreign, corrupt, or behaves unlike its metadata
        ├── OutputError           an output cannot be written where it is asked for
        ├── FingerprintError      an output was written with other settings or inputs
        ├── LockedError           another run holds the output
        ├── CatalogError          a folder is no catalog, or not as galbatch writes it
        └── NotInThisVersion      documented in the design, not built yet

Raised within a task, the same classes fail that partition only: the run continues with the rest (exit code 1).

Every message says where, what was found, what was expected and what to do. All of them pickle, because they cross from
workers to the client.
"""

__all__ = [
    "BundleError",
    "CatalogError",
    "ClusterError",
    "ConfigError",
    "FingerprintError",
    "GalbatchError",
    "LockedError",
    "NotInThisVersion",
    "ObjectListError",
    "OutputError",
    "SchedulerLost",
    "ShortOfMemory",
    "TileError",
    "UsageError",
    "WorkerRefused",
]


class GalbatchError(Exception):
    """Base class of all errors that galbatch raises on purpose."""


class SchedulerLost(GalbatchError):  # noqa: N818  (reads as the message does)
    """The scheduler ended during the run."""


class ShortOfMemory(GalbatchError):  # noqa: N818
    """A task needs more memory than its worker has.

    Attributes
    ----------
    worker : address of the worker if it must be started again, as after a lack of GPU memory; else empty
    """

    def __init__(self, message: str, *, worker: str = "") -> None:
        super().__init__(message)
        self.worker = worker


class WorkerRefused(GalbatchError):  # noqa: N818
    """A worker cannot do what the run asks for; others may.

    Attributes
    ----------
    worker : its address
    """

    def __init__(self, message: str, *, worker: str = "") -> None:
        super().__init__(message)
        self.worker = worker


class UsageError(GalbatchError):
    """Bad usage, config or input: exit code 2, nothing was started."""


class ClusterError(UsageError):
    """Workers cannot be started or joined as asked for."""


class ConfigError(UsageError):
    """run.toml or a bundle's metadata is wrong."""


class ObjectListError(UsageError):
    """The object list is wrong."""


class TileError(UsageError):
    """A tile cannot be read, or is not what its header says."""


class BundleError(UsageError):
    """A bundle is foreign, corrupt, or behaves unlike its metadata."""


class OutputError(UsageError):
    """An output cannot be written where it is asked for."""


class FingerprintError(UsageError):
    """An output was written with other settings or inputs than this run's."""


class LockedError(UsageError):
    """Another run holds the output."""


class NotInThisVersion(UsageError):  # noqa: N818  (reads as the message does)
    """Documented in the design, not built yet."""


class CatalogError(UsageError):
    """A folder is no catalog, or not as galbatch writes it."""
