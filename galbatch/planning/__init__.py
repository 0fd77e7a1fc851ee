"""Planning of a run: the sky is divided into partitions, whose bytes, requests and memory are projected."""

from galbatch.planning.base import Base
from galbatch.planning.division import MAX_HEALPIX_ORDER, divide
from galbatch.planning.inference_memory import WEIGHT_COPIES, InferenceMemory, project_inference
from galbatch.planning.plan import PROCESS_BYTES, GridPlan, ModelPlan, PartitionPlan, Plan
from galbatch.planning.planner import ENGINE_OF, FLAG_THRESHOLDS, GRIDS, make_plan, with_engines
from galbatch.planning.projection import grid_text

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
