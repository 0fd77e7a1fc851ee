from .base import (
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
from .cutting import cut_rows, ingest_partition
from .inferring import infer_partition, missing_engine
from .photometry import photometry_partition

__all__ = [
    "GridTask",
    "InferTask",
    "IngestTask",
    "ModelTask",
    "PhotometryTask",
    "TaskResult",
    "cut_rows",
    "infer_partition",
    "infer_task",
    "ingest_partition",
    "ingest_task",
    "missing_engine",
    "photometry_partition",
    "photometry_task",
]
