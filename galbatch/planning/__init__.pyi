from .base import Base
from .division import MAX_HEALPIX_ORDER, divide
from .inference_memory import WEIGHT_COPIES, InferenceMemory, project_inference
from .plan import PROCESS_BYTES, GridPlan, ModelPlan, PartitionPlan, Plan
from .planner import ENGINE_OF, FLAG_THRESHOLDS, GRIDS, make_plan, with_engines
from .projection import grid_text

__all__ = [
    "ENGINE_OF",
    "FLAG_THRESHOLDS",
    "GRIDS",
    "MAX_HEALPIX_ORDER",
    "PROCESS_BYTES",
    "WEIGHT_COPIES",
    "Base",
    "GridPlan",
    "InferenceMemory",
    "ModelPlan",
    "PartitionPlan",
    "Plan",
    "divide",
    "grid_text",
    "make_plan",
    "project_inference",
    "with_engines",
]
