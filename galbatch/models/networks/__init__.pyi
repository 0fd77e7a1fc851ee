from .auxiliary import (
    AUXILIARY_MODULES,
    AuxiliaryInputs,
    NoAuxiliaryInputs,
    current_weight_name,
    prefix_arguments,
)
from .dropout import MaskPlan, Masks, keyed_dropout, zero_
from .encoders import Encoded, timm_encoder
from .gampen import POOLED_PX, SMALLEST_PX, VGG16_BLOCKS, Gampen, HalvingPool, localized_px
from .intensity_stretch import LAYERS, Arsinh, AsTheyAre, ViewerRgb, stretch_named
from .keys import draw_keys, is_audited, member_keys, normal_draws, uniform_draws
from .mlp import Mlp
from .sfnet import Sfnet

__all__ = [
    "AUXILIARY_MODULES",
    "LAYERS",
    "POOLED_PX",
    "SMALLEST_PX",
    "VGG16_BLOCKS",
    "Arsinh",
    "AsTheyAre",
    "AuxiliaryInputs",
    "Encoded",
    "Gampen",
    "HalvingPool",
    "MaskPlan",
    "Masks",
    "Mlp",
    "NoAuxiliaryInputs",
    "Sfnet",
    "ViewerRgb",
    "current_weight_name",
    "draw_keys",
    "is_audited",
    "keyed_dropout",
    "localized_px",
    "member_keys",
    "normal_draws",
    "prefix_arguments",
    "stretch_named",
    "timm_encoder",
    "uniform_draws",
    "zero_",
]
