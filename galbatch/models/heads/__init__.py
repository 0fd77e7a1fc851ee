"""The heads of networks, by which outputs are read as distributions.

One file is one kind of head; none of them imports torch when it is loaded.
"""

from galbatch.models.heads.base import LIKELIHOOD, Head
from galbatch.models.heads.binned import BinnedMarginal, BinnedPasses
from galbatch.models.heads.gaussian import GaussianPasses, read_gaussian
from galbatch.models.heads.joint import OutputInfo, has_posterior, joint_draws, pooled_passes
from galbatch.models.heads.mixture import MixturePasses
from galbatch.models.heads.registry import (
    HEADS,
    head_of,
    head_problems,
    loss_of,
    losses_of,
    outputs_per_pass,
    read_metadata,
    read_passes,
)
from galbatch.models.heads.widths import std_of

__all__ = [
    "HEADS",
    "LIKELIHOOD",
    "BinnedMarginal",
    "BinnedPasses",
    "GaussianPasses",
    "Head",
    "MixturePasses",
    "OutputInfo",
    "has_posterior",
    "head_of",
    "head_problems",
    "joint_draws",
    "loss_of",
    "losses_of",
    "outputs_per_pass",
    "pooled_passes",
    "read_gaussian",
    "read_metadata",
    "read_passes",
    "std_of",
]
