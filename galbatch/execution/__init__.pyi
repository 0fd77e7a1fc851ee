from .damage import Damaged
from .executing import RunResult, execute
from .leaf import footer_fingerprint
from .outputs import Stage, check_outputs, clean, lock_of
from .preparing import prepare
from .progress import Progress, read_progress
from .rates import Rates, measure_memory, measure_rates
from .tasks import infer_partition, infer_task, ingest_partition, ingest_task
from .verifying import verify_against, verify_outputs

__all__ = [
    "Damaged",
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
    "lock_of",
    "measure_memory",
    "measure_rates",
    "prepare",
    "read_progress",
    "verify_against",
    "verify_outputs",
]
