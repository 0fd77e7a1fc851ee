from .damage import Damaged
from .executing import RunResult, execute
from .leaf import footer_fingerprint
from .outputs import Stage, check_outputs, clean, lock_of
from .preparing import prepare, region_of_run
from .progress import Progress, read_progress
from .rates import NetworkRate, Rates, measure_memory, measure_rates
from .tasks import (
    GridTask,
    InferTask,
    IngestTask,
    ModelTask,
    infer_partition,
    infer_task,
    ingest_partition,
    ingest_task,
    load_network,
)
from .verifying import verify_against, verify_outputs

__all__ = [
    "Damaged",
    "GridTask",
    "InferTask",
    "IngestTask",
    "ModelTask",
    "NetworkRate",
    "Progress",
    "Rates",
    "RunResult",
    "Stage",
    "check_outputs",
    "clean",
    "execute",
    "footer_fingerprint",
    "infer_partition",
    "infer_task",
    "ingest_partition",
    "ingest_task",
    "load_network",
    "lock_of",
    "measure_memory",
    "measure_rates",
    "prepare",
    "read_progress",
    "region_of_run",
    "verify_against",
    "verify_outputs",
]
