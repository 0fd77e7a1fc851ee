from .bundle import Bundle, bundle_path, demo_bundles, load_bundle, rewrite_bundle, save_bundle
from .card import card_text
from .evaluation import evaluate
from .infer import infer_block
from .metadata import (
    BundleMetadata,
    CalibrationInfo,
    ColumnInfo,
    DomainInfo,
    HeadInfo,
    InputInfo,
    LabelInfo,
    ParameterInfo,
    ResultTable,
)
from .recipes import RECIPES, Recipe
from .results import INFER_VERSION, quantile_suffix, result_columns
from .training import Epoch, Trained, TrainingSettings, script_of, train

__all__ = [
    "INFER_VERSION",
    "RECIPES",
    "Bundle",
    "BundleMetadata",
    "CalibrationInfo",
    "ColumnInfo",
    "DomainInfo",
    "Epoch",
    "HeadInfo",
    "InputInfo",
    "LabelInfo",
    "ParameterInfo",
    "Recipe",
    "ResultTable",
    "Trained",
    "TrainingSettings",
    "bundle_path",
    "card_text",
    "demo_bundles",
    "evaluate",
    "infer_block",
    "load_bundle",
    "quantile_suffix",
    "result_columns",
    "rewrite_bundle",
    "save_bundle",
    "script_of",
    "train",
]
