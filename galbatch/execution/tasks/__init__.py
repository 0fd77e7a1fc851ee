"""The work on one partition, in plain Python without Dask: cut its objects, measure them, or run the networks and write its leaf.

Tasks are idempotent: each writes only the groups and the leaf of its own partition, and the last step commits the whole.
Running a task twice, or on another worker after the first one died, gives the same output.
"""

from galbatch.execution.networks import auxiliary_of, execution_of, load_network, require_engine
from galbatch.execution.tasks.base import (
    GridTask,
    InferTask,
    IngestTask,
    ModelTask,
    PhotometryTask,
    TaskResult,
    infer_task,
    ingest_task,
    photometry_task,
)
from galbatch.execution.tasks.cutting import cut_rows, ingest_partition
from galbatch.execution.tasks.inferring import infer_partition
from galbatch.execution.tasks.photometry import photometry_partition

__all__ = [
    "GridTask",
    "InferTask",
    "IngestTask",
    "ModelTask",
    "PhotometryTask",
    "TaskResult",
    "auxiliary_of",
    "cut_rows",
    "execution_of",
    "infer_partition",
    "infer_task",
    "ingest_partition",
    "ingest_task",
    "load_network",
    "photometry_partition",
    "photometry_task",
    "require_engine",
]
