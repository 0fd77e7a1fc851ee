from .damage import Damaged
from .executing import RunResult, execute, execute_held
from .leaf import AuditSum, footer_fingerprint
from .networks import load_network
from .outputs import HeldOutputs, check_outputs, clean, lock_of, locked, require_stage
from .preparing import feeding_of_run, prepare, region_of_run, tiles_of_run
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
)
from .verifying import verify_against, verify_outputs, verify_store

CODE_OF_TASKS: str

__all__ = [
    "CODE_OF_TASKS",
    "AuditSum",
    "Damaged",
    "GridTask",
    "HeldOutputs",
    "InferTask",
    "IngestTask",
    "ModelTask",
    "NetworkRate",
    "Progress",
    "Rates",
    "RunResult",
    "check_outputs",
    "clean",
    "execute",
    "execute_held",
    "feeding_of_run",
    "footer_fingerprint",
    "infer_partition",
    "infer_task",
    "ingest_partition",
    "ingest_task",
    "load_network",
    "lock_of",
    "locked",
    "measure_memory",
    "measure_rates",
    "prepare",
    "read_progress",
    "region_of_run",
    "require_stage",
    "tiles_of_run",
    "verify_against",
    "verify_outputs",
    "verify_store",
]
