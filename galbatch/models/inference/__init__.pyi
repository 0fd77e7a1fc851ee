from .adaptive import AdaptiveSampling, ObjectGroup, PassSource, StoppedObjects, StoppingRule
from .audit import Audit
from .block import BlockInputs, BlockReceivers, infer_block, no_pixels, nonfinite_images
from .domain import (
    FeatureDistance,
    ObjectNumbers,
    describe_domain,
    feature_distance,
    is_out_of_domain,
    sky_scatter,
)
from .learned import LearnedErrors, VarianceTable, stopping_digests
from .memory import GpuMemory, NetworkMemory, fitting_batch, gpu_memory, measure_memory
from .sampling import GROUP_OBJECTS, RawPasses, Sampler, run_passes
from .stopping import QuantileEstimate, estimate_quantiles, schedule

__all__ = [
    "GROUP_OBJECTS",
    "AdaptiveSampling",
    "Audit",
    "BlockInputs",
    "BlockReceivers",
    "FeatureDistance",
    "GpuMemory",
    "LearnedErrors",
    "NetworkMemory",
    "ObjectGroup",
    "ObjectNumbers",
    "PassSource",
    "QuantileEstimate",
    "RawPasses",
    "Sampler",
    "StoppedObjects",
    "StoppingRule",
    "VarianceTable",
    "describe_domain",
    "estimate_quantiles",
    "feature_distance",
    "fitting_batch",
    "gpu_memory",
    "infer_block",
    "is_out_of_domain",
    "measure_memory",
    "no_pixels",
    "nonfinite_images",
    "run_passes",
    "schedule",
    "sky_scatter",
    "stopping_digests",
]
