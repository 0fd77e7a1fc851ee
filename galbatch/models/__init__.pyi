from galbatch.models.bundle import Bundle, bundle_path, demo_bundles, load_bundle, save_bundle
from galbatch.models.evaluation import evaluate
from galbatch.models.infer import infer_block
from galbatch.models.metadata import (
    BundleMetadata,
    DomainInfo,
    HeadInfo,
    InputInfo,
    LabelInfo,
    ParameterInfo,
)
from galbatch.models.recipes import RECIPES, Recipe
from galbatch.models.results import INFER_VERSION, quantile_suffix, result_columns
from galbatch.models.training import Epoch, Trained, TrainingSettings, script_of, train

__all__ = [
    "INFER_VERSION",
    "RECIPES",
    "Bundle",
    "BundleMetadata",
    "DomainInfo",
    "Epoch",
    "HeadInfo",
    "InputInfo",
    "LabelInfo",
    "ParameterInfo",
    "Recipe",
    "Trained",
    "TrainingSettings",
    "bundle_path",
    "demo_bundles",
    "evaluate",
    "infer_block",
    "load_bundle",
    "quantile_suffix",
    "result_columns",
    "save_bundle",
    "script_of",
    "train",
]
